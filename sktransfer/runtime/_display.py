"""Show what is under way: a bar in a terminal, a few lines in a log, nothing where asked."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ._worker_steps import Steps, is_worker, tell_parent

_VARIABLE = "SKTRANSFER_PROGRESS"
_SECONDS_BEFORE_PROGRESS = 10.0
_BETWEEN_TOLD = 0.5  # s, between two notes to a search

# Takes the steps of all displays, and returns whether a search shows them in place of these.
_take_steps: Callable[[Steps], bool] = tell_parent


def set_taker(take: Callable[[Steps], bool] = tell_parent) -> None:
    """Set the function that takes the steps of all displays; without one, that of workers."""
    global _take_steps
    _take_steps = take


class Display:
    """Shows the steps of a run, as `verbose` and the environment say.

    In a terminal or notebook it is a bar. Elsewhere, in a log file or a pipe, it is a line
    when there is an estimate, and further ones at intervals that double: a run of a day has
    fifteen of them.

    Parameters
    ----------
    what : str
        What is under way.
    total : int
    unit : str
        The plural of what is counted.
    initial : int, default=0
        Steps that were done before.
    note : str, default=""
        What stands after the numbers.
    verbose : int, default=0
        1 shows at once, 0 after ten seconds, -1 never.
    is_part : bool, default=False
        Whether it is a part of something that is shown after it, and is not shown at once.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        *,
        initial: int = 0,
        note: str = "",
        verbose: int = 0,
        is_part: bool = False,
    ):
        self._steps = Steps(what, unit, total, initial, initial, 0.0, note)
        self._start = time.monotonic()
        self._told = -_BETWEEN_TOLD
        self._bar: Any = None
        self._lines: SparseLines | None = None
        style = None if _take_steps(self._steps) else style_of(verbose)
        self._is_asked = is_asked = is_shown_at_once(verbose) and not is_part
        if style == "bar":
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=what,
                unit=f" {unit}",
                postfix=note,
                delay=0 if is_asked else _SECONDS_BEFORE_PROGRESS,
                leave=is_asked,
            )
        elif style == "lines":
            self._lines = SparseLines(0 if is_asked else _SECONDS_BEFORE_PROGRESS)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(is_done=exception[0] is None)

    def update(self, n: int = 1) -> None:
        """Add steps that were done."""
        self._steps = self._steps._replace(
            done=self._steps.done + n, seconds=time.monotonic() - self._start
        )
        if self._bar is not None:
            self._bar.update(n)
        elif self._lines is not None and self._steps.done < self._steps.total:
            self._lines.show(self._steps.seconds, self._text)
        if self._steps.seconds - self._told >= _BETWEEN_TOLD:
            self._told = self._steps.seconds
            _take_steps(self._steps)

    def set_note(self, note: str) -> None:
        """Set what stands after the numbers at the next update."""
        self._steps = self._steps._replace(note=note)
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)

    def close(self, is_done: bool = True) -> None:
        """End the display."""
        _take_steps(self._steps._replace(total=self._steps.done))  # nothing is left
        if self._bar is not None:
            self._bar.close()
        elif self._lines is not None and is_done and (self._lines.n_shown or self._is_asked):
            steps = self._steps
            write_line(
                f"{steps.what}: {steps.done} {steps.unit} in {spelled(steps.seconds)}"
                f"{_after_comma(steps.note)}"
            )
            self._lines = None

    def _text(self) -> str:
        steps = self._steps
        left = steps.seconds_left
        return (
            f"{steps.what}: {steps.done} of {steps.total} {steps.unit}{_after_comma(steps.note)}, "
            f"{spelled(steps.seconds)} so far" + ("" if left is None else f", {spelled_left(left)}")
        )


class SparseLines:
    """Writes a line when there is time for one: intervals double.

    Parameters
    ----------
    first_at : float
        Seconds after which the first line may be written.
    """

    def __init__(self, first_at: float):
        self.next_at = first_at
        self.n_shown = 0

    def show(self, seconds: float, text: Callable[[], str]) -> None:
        """Write a line, if `seconds` after the start it is time."""
        if seconds < self.next_at:
            return
        self.next_at = max(_SECONDS_BEFORE_PROGRESS, 2 * seconds)
        self.n_shown += 1
        write_line(text())


def style_of(verbose: int) -> str | None:
    """Return "bar", "lines", or None where nothing is to be shown."""
    choice = _choice()
    if choice == "0" or verbose < 0:
        return None
    if is_worker():
        # bars of several workers would write over each other
        return "lines" if is_shown_at_once(verbose) else None
    return "bar" if _can_draw() else "lines"


def is_shown_at_once(verbose: int) -> bool:
    """Return whether progress was asked for, and need not wait until a run takes long."""
    return verbose > 0 or _choice() == "1"


def _choice() -> str:
    choice = os.environ.get(_VARIABLE, "").strip().lower() or "auto"
    if choice not in ("0", "1", "auto"):
        raise ValueError(
            f"the environment variable {_VARIABLE} must be 0 (show nothing), 1 (show progress at "
            f"once) or auto (show it where a run takes long), got {choice!r}"
        )
    return choice


def _can_draw() -> bool:
    """Return whether a bar can be drawn: in a terminal, and in a notebook that has widgets."""
    stream = sys.stderr
    if stream is None or getattr(stream, "closed", False):
        return False
    if hasattr(stream, "isatty") and stream.isatty():  # what a program puts there may have none
        return True
    if "ipykernel" not in sys.modules:
        return False
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    return issubclass(tqdm, tqdm_notebook)


def write_line(text: str) -> None:
    """Write a line to the standard error stream, where there is one that is open."""
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return
    # a full disk, or a pipe that nobody reads: a fit of hours must not fail because of that
    with suppress(OSError):
        print(f"sktransfer: {text}", file=sys.stderr)
        if hasattr(sys.stderr, "flush"):
            sys.stderr.flush()


def spelled(seconds: float) -> str:
    """Return a duration as a reader says it."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 100:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def spelled_left(seconds: float) -> str:
    """Return an estimate of the time that is left, in words."""
    return f"{'' if seconds < 1 else 'about '}{spelled(seconds)} left"


def _after_comma(note: str) -> str:
    return f", {note}" if note else ""


def forward_pass_display(n_images: int, n_cache_hits: int, verbose: int) -> Display:
    """Return a display of images, which starts with the cache hits."""
    return Display(
        "backbone",
        n_images,
        "images",
        initial=n_cache_hits,
        note=f"{n_cache_hits} cache hits",
        verbose=verbose,
    )


def fingerprint_display(n_images: int, verbose: int) -> Display:
    """Return a display of images whose ids are found, shown if that takes long."""
    return Display("fingerprints", n_images, "images", verbose=verbose, is_part=True)
