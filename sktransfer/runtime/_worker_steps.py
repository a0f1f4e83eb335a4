"""What a run is at, and the way of that from a worker process to the one that started it.

The main process makes a folder while it shows a search. Workers find it by the id of the
process that started them, and each writes its steps into one file there.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from ._gpu_lock import own_folder


class Steps(NamedTuple):
    """What is under way: ``done`` of ``total``, after ``seconds`` for ``done - initial``."""

    what: str
    unit: str
    total: int
    done: int
    initial: int
    seconds: float
    note: str = ""

    @property
    def seconds_left(self) -> float | None:
        """Return an estimate of the time to the last step; None before the first one."""
        here = self.done - self.initial
        return None if here <= 0 else self.seconds / here * (self.total - self.done)

    def __str__(self) -> str:
        return f"{self.what}, {self.done} of {self.total} {self.unit}"


def is_worker() -> bool:
    """Return whether another Python process started this one to work for it."""
    return multiprocessing.current_process().name != "MainProcess"


def made_folder() -> Path | None:
    """Return the folder into which workers of this process write; None where there is none."""
    try:
        folder = _folder_of(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)  # of a process of that id that was killed
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:  # a full or read-only disk: the steps of workers are not shown
        return None
    return folder


def tell_parent(steps: Steps) -> bool:
    """Write the steps of a worker; return whether the process that started it shows them."""
    if not is_worker():
        return False
    try:
        folder = _folder_of(_parent())
        if not folder.is_dir():
            return False
        new = folder / f"{os.getpid()}.{next(_numbers)}.new"
        new.write_text(json.dumps([time.time(), *steps]))
        new.replace(folder / f"{os.getpid()}.json")
    except OSError:  # the search has ended meanwhile, or the disk is full
        return False
    return True


def read_steps(folder: Path) -> list[tuple[float, Steps]]:
    """Return the last steps of each worker, and when they were written (s since 1970)."""
    found = []
    for path in folder.glob("*.json"):
        try:
            when, *values = json.loads(path.read_text())
        except OSError:  # Windows: the worker replaces it now
            continue
        found.append((when, Steps(*values)))
    return found


_numbers = itertools.count()  # threads of a worker write files of their own


def _parent() -> int:
    """Return the id of the process that asked for this one."""
    parent = multiprocessing.parent_process()  # not a fork server, whose child this one may be
    return os.getppid() if parent is None or parent.pid is None else parent.pid


def _folder_of(pid: int) -> Path:
    return own_folder() / f"progress-{pid}"
