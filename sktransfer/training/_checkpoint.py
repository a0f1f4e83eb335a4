"""The state of a fit on disk, so that what was interrupted goes on where it was.

One file a fit, named by everything that the fit depends on: another recipe, other images
or other labels never continue it. Written to a temporary file and renamed, so that a
kill leaves the epoch before. Read with ``weights_only=True``: no code in it runs.
"""

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def name_of(value: Any) -> str:
    """Return what names a choice in any process; the repr of a function holds an address."""
    if isinstance(value, functools.partial):
        return f"partial of {name_of(value.func)} {value.args} {value.keywords}"
    if not callable(value):
        return repr(value)
    code = getattr(value, "__code__", None)  # tells lambdas of one place from each other
    inside = () if code is None else (code.co_code.hex(), code.co_names, _plain(code.co_consts))
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', '')}.{name} {inside}"


def _plain(constants: tuple) -> list:
    """Return the constants of a function whose repr is the same in any process."""
    return [value for value in constants if isinstance(value, (int, float, str, type(None)))]


class Checkpoint:
    """Where one fit keeps its state after every epoch."""

    def __init__(self, folder: str | os.PathLike, what: str, arrays: Iterable[np.ndarray]):
        digest = hashlib.blake2b(what.encode(), digest_size=16)
        for array in arrays:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        self.path = Path(folder) / f"{digest.hexdigest()}.sktransfer-checkpoint"

    def load(self) -> dict[str, Any] | None:
        """Return the state that was kept; None where there is none."""
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            # torch's own message advises to read it with code and all
            raise ValueError(
                f"the checkpoint {self.path} is damaged, or not one of sktransfer's "
                f"({type(error).__name__}); delete it to train from the start"
            ) from None

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state of a finished epoch in place of the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            torch.save(state, unfinished)
            os.replace(unfinished, self.path)
        finally:
            unfinished.unlink(missing_ok=True)

    def delete(self) -> None:
        """Forget a fit that is finished."""
        self.path.unlink(missing_ok=True)
