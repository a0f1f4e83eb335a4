"""One display for a whole search: scikit-learn's fits, and our steps inside them.

joblib runs the fits of every search and cross-validation of scikit-learn, and calls
`Parallel.print_progress` in the main process when one is done, whatever the backend. Worker
processes write the steps that they are at into files, in a folder that the main process made.
"""

import itertools
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
from sklearn.utils.parallel import Parallel

from . import _display
from ._display import SparseLines, spelled, spelled_left, write_line
from ._worker_steps import Steps, made_folder, read_steps, tell_parent

_BETWEEN_LOOKS = 0.5  # s
_FRESH = 10.0  # s; a note that is older is of a run that has ended
_FEW_FITS = 4  # up to this number, all fits are the estimate's; later the last half of them


class SearchProgress:
    """The fits of the searches in a ``with`` block of `search_progress`.

    Attributes
    ----------
    n_fits : int
        Fits that scikit-learn's searches have announced so far. A halving search announces
        those of each iteration; the refit on all images is in none.
    n_done : int
        Fits that are done.
    """

    def __init__(self) -> None:
        self.n_fits = 0
        self.n_done = 0
        self._n_at_once = 1
        self._start: float | None = None
        self._ends: list[float] = []
        self._first_steps: float | None = None
        self._parallel: Any = None  # the outermost that runs now
        self._n_done_before = 0

    @property
    def seconds(self) -> float:
        """Seconds since the first search began."""
        return 0.0 if self._start is None else time.monotonic() - self._start

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds until the last fit is done; None before the first one.

        The first fits compute rows that later ones read from the store, so that the last
        half of the fits tells more than all of them.
        """
        ends = list(self._ends)  # threads of joblib add to it meanwhile
        if not ends:
            return None
        n_done = len(ends)
        n_left = self.n_fits - n_done
        if n_done <= _FEW_FITS:
            under_way = min(self._n_at_once - 1, n_left)  # half done, on average
            each = (ends[-1] - (self._first_steps or 0)) / (n_done + under_way / 2)
        else:
            middle = n_done // 2
            each = (ends[-1] - ends[middle]) / (n_done - 1 - middle)
        return max(0.0, each * n_left - (self.seconds - ends[-1]))

    def begin(self, parallel: Parallel, n_fits: int) -> None:
        """Note that a search runs `n_fits` fits with `parallel`."""
        if self._start is None:
            self._start = time.monotonic()
        self._parallel, self._n_done_before = parallel, self.n_done
        self._n_at_once = joblib.effective_n_jobs(parallel.n_jobs)
        self.n_fits += n_fits

    def take_done(self, parallel: Parallel) -> None:
        """Note how many fits of `parallel` are done."""
        if parallel is self._parallel:
            self.n_done = self._n_done_before + parallel.n_completed_tasks
            now = self.seconds
            self._ends += [now] * (self.n_done - len(self._ends))

    def note_first_steps(self) -> None:
        """Note that an estimator works: workers have started, and a network is loaded."""
        if self._first_steps is None and self._start is not None and not self._ends:
            self._first_steps = self.seconds

    def end(self) -> None:
        """Note that the search's fits are done, or failed."""
        self._parallel = None

    def is_free(self) -> bool:
        """Return whether no search runs, so that the next one is not inside another's fit."""
        return self._parallel is None

    def __str__(self) -> str:
        text = f"{self.n_done} of {self.n_fits} fits, {spelled(self.seconds)} so far"
        if self.n_done and self.n_done == self.n_fits:
            return text
        left = self.seconds_left
        return text if left is None else f"{text}, {spelled_left(left)}"


@contextmanager
def search_progress() -> Iterator[SearchProgress]:
    """Show one display for all searches and cross-validations in a ``with`` block.

    It counts the fits of scikit-learn's searches, `cross_validate`, `cross_val_score`,
    `learning_curve` and `validation_curve`, of any estimator, with any `n_jobs` and joblib
    backend. After the first fit it tells how long the whole may take. Beside it stands what
    the estimators of this package are doing: images that pass a backbone, steps of training,
    also those of worker processes on this machine. Their own bars are not drawn.

    In a terminal it is one bar. In a log file it is a line after the first fit, and further
    lines at intervals that double. ``SKTRANSFER_PROGRESS=0`` shows nothing.

    Yields
    ------
    progress : SearchProgress
        Its attributes `n_fits`, `n_done`, `seconds` and `seconds_left` tell the same.

    Notes
    -----
    The refit of a search follows its fits, and is not in their number. A halving search
    announces the fits of one iteration at a time. While the block runs,
    ``joblib.Parallel`` tells this display of its tasks, whichever thread calls it. One search is
    counted at a time: one that begins while another runs, in its fits or in another thread, is
    not. A second ``with`` block at the same time is refused.

    See Also
    --------
    count_forward_passes : The number of images that passed a backbone.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktransfer import search_progress
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=3)
    >>> with search_progress() as progress:
    ...     search = search.fit(X, y)
    >>> progress.n_done, progress.n_fits
    (6, 6)
    """
    progress = SearchProgress()
    shown = _Shown(progress)
    with _told_by_joblib(progress, shown.fit_ended), shown:
        yield progress


_patching = threading.Lock()


@contextmanager
def _told_by_joblib(progress: SearchProgress, fit_ended: Callable[[], None]) -> Iterator[None]:
    """Let `joblib.Parallel` tell of its tasks, of scikit-learn's use of it only."""
    if not _patching.acquire(blocking=False):
        raise RuntimeError(
            "search_progress is open already; one display shows all searches, so leave out the "
            "inner one"
        )
    call, print_progress = joblib.Parallel.__call__, joblib.Parallel.print_progress
    changing = threading.Lock()
    pid = os.getpid()

    def told_call(self: Any, iterable: Iterable[Any]) -> Any:
        # in a forked worker another thread of the parent may hold the lock for ever
        if not isinstance(self, Parallel) or os.getpid() != pid or not progress.is_free():
            return call(self, iterable)
        tasks = iter(iterable)
        first = list(itertools.islice(tasks, 1))
        if not first or not _is_of_a_search(first[0]):
            return call(self, itertools.chain(first, tasks))
        # a generator, whose length nobody knows; it may run a splitter, which may fit itself
        queue = deque(itertools.chain(first, tasks))
        first.clear()
        with changing:
            if is_counted := progress.is_free():
                progress.begin(self, len(queue))
        try:
            # taken one by one: a fitted estimator must not stay in memory
            return call(self, (queue.popleft() for _ in range(len(queue))))
        finally:
            if is_counted:
                progress.end()

    def told_print_progress(self: Any) -> None:
        print_progress(self)
        if os.getpid() != pid:
            return
        n_before = progress.n_done
        with changing:
            progress.take_done(self)
        if progress.n_done > n_before:
            fit_ended()

    joblib.Parallel.__call__ = told_call
    joblib.Parallel.print_progress = told_print_progress
    try:
        yield
    finally:
        joblib.Parallel.__call__, joblib.Parallel.print_progress = call, print_progress
        _patching.release()


def _is_of_a_search(task: tuple[Any, ...]) -> bool:
    """Return whether a task is of `sklearn.model_selection`, and not of a forest or a pipeline."""
    # scikit-learn's wrapper of the function has the attributes of the function
    return str(getattr(task[0], "__module__", "")).startswith("sklearn.model_selection")


class _Shown:
    """Draws a `SearchProgress` with what is under way inside; a thread keeps it up to date."""

    def __init__(self, progress: SearchProgress):
        self._progress = progress
        self._style = _display.style_of(1)
        self._steps: tuple[float, Steps] | None = None  # of this process
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._bar: Any = None
        self._pid = os.getpid()

    def __enter__(self) -> None:
        if self._style is None:
            return
        self._folder = made_folder()
        if self._style == "bar":
            from tqdm.auto import tqdm

            self._bar = tqdm(total=0, bar_format="search |{bar:20}| {postfix[0]}", postfix=[""])
        self._lines = SparseLines(_display._SECONDS_BEFORE_PROGRESS)
        self._thread = threading.Thread(target=self._keep_up_to_date, daemon=True)
        _display.set_taker(self._take)
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        if self._style is None:
            return
        self._is_over.set()
        _display.set_taker()
        self._thread.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._draw()
        if self._bar is not None:
            self._bar.close()
        elif exception[0] is None and self._progress.n_fits:
            p = self._progress
            write_line(f"search: {p.n_done} of {p.n_fits} fits in {spelled(p.seconds)}")

    def fit_ended(self) -> None:
        """Draw; in a log write the estimate after the first fit."""
        if self._style is None:
            return
        if self._style == "lines" and self._progress.n_done == 1:
            with self._lock:
                self._lines.show(max(self._progress.seconds, self._lines.next_at), self._text)
        self._draw()

    def _take(self, steps: Steps) -> bool:
        if os.getpid() != self._pid:  # a forked worker
            return tell_parent(steps)
        self._steps = time.time(), steps
        self._progress.note_first_steps()
        return True

    def _keep_up_to_date(self) -> None:
        while not self._is_over.wait(_BETWEEN_LOOKS):
            if not self._progress.n_done and self._folder and read_steps(self._folder):
                self._progress.note_first_steps()
            self._draw()

    def _draw(self) -> None:
        progress = self._progress
        with self._lock:
            if self._bar is not None:
                if self._bar.total != progress.n_fits:
                    self._bar.reset(progress.n_fits)  # a notebook's does not see `total` change
                self._bar.n = progress.n_done
                self._bar.postfix[0] = self._text(with_name=False)
                self._bar.refresh()
            elif not self._is_over.is_set() and progress.n_fits:
                self._lines.show(progress.seconds, self._text)

    def _text(self, with_name: bool = True) -> str:
        under_way = self._under_way()
        after = f"; {under_way}" if under_way else ""
        return f"{'search: ' * with_name}{self._progress}{after}"

    def _under_way(self) -> str:
        """Return what this process or a worker is at; of several, the one that began last."""
        notes = [] if self._steps is None else [self._steps]
        if self._folder is not None:
            notes += read_steps(self._folder)
        under_way = [
            note
            for note in notes
            if time.time() - note[0] < _FRESH and note[1].done < note[1].total
        ]
        return str(max(under_way, key=lambda note: note[0])[1]) if under_way else ""
