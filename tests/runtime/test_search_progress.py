import multiprocessing
import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score

from sktransfer import FineTunedClassifier, search_progress
from sktransfer.runtime import _display, _search_progress, _worker_steps
from sktransfer.runtime._display import Display
from sktransfer.runtime._search_progress import SearchProgress
from sktransfer.runtime._worker_steps import Steps, made_folder, read_steps, tell_parent

X = np.arange(40.0).reshape(20, 2)
y = np.arange(20) % 2


class Majority(ClassifierMixin, BaseEstimator):
    """Predicts the first class; tells of 8 steps, of which 3 are done, from its process."""

    def __init__(self, c=1):
        self.c = c

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        Display("backbone", 8, "images").update(3)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("SKTRANSFER_PROGRESS", raising=False)


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_fits_of_searches_and_validations_are_counted(n_jobs, backend, capsys):
    with joblib.parallel_config(backend), search_progress() as progress:
        GridSearchCV(Majority(), {"c": [1, 2, 3]}, cv=2, n_jobs=n_jobs).fit(X, y)
        assert (progress.n_done, progress.n_fits) == (6, 6)
        cross_val_score(Majority(), X, y, cv=4, n_jobs=n_jobs)
    assert (progress.n_done, progress.n_fits) == (10, 10)
    lines = capsys.readouterr().err.splitlines()
    assert re.match(r"sktransfer: search: 1 of 6 fits, .* so far, .* left", lines[0])
    assert re.match(r"sktransfer: search: 10 of 10 fits in", lines[-1])
    assert not any(line.startswith("sktransfer: backbone") for line in lines)


def test_what_fits_do_in_parallel_is_not_counted():
    with search_progress() as progress:
        cross_val_score(RandomForestClassifier(n_estimators=3), X, y, cv=2)
    assert (progress.n_done, progress.n_fits) == (2, 2)


def test_the_trees_of_a_refit_are_not_counted():
    with search_progress() as progress:
        forest = RandomForestClassifier(n_estimators=3)
        GridSearchCV(forest, {"max_depth": [1, 2]}, cv=2).fit(X, y).predict(X)
        assert (progress.n_done, progress.n_fits) == (4, 4)
        forest.fit(X, y)
    assert (progress.n_done, progress.n_fits) == (4, 4)


class ByForest:
    """Two folds, of the halves that a forest predicts: the splitter runs joblib itself."""

    def get_n_splits(self, X=None, y=None, groups=None):
        return 2

    def split(self, X, y=None, groups=None):
        order = np.argsort(RandomForestClassifier(n_estimators=3).fit(X, y).predict(X))
        yield order[:10], order[10:]
        yield order[10:], order[:10]


def test_a_splitter_may_fit_itself():
    with search_progress() as progress:
        cross_val_score(DummyClassifier(), X, y, cv=ByForest())
    assert (progress.n_done, progress.n_fits) == (2, 2)


def test_a_search_that_fails_is_followed_by_others():
    with search_progress() as progress:
        with pytest.raises(ValueError, match="fits failed"):
            cross_val_score(RandomForestClassifier(max_depth="deep"), X, y, cv=2)
        cross_val_score(DummyClassifier(), X, y, cv=3)
        assert progress.is_free()
    assert progress.n_done == 5


def test_of_searches_in_threads_one_is_counted_at_a_time():
    outer_runs, inner_is_done = threading.Event(), threading.Event()

    def scored(estimator, X, y):
        outer_runs.set()
        assert inner_is_done.wait(60)
        return 1.0

    with search_progress() as progress, ThreadPoolExecutor(1) as pool:
        outer = pool.submit(cross_val_score, DummyClassifier(), X, y, cv=2, scoring=scored)
        assert outer_runs.wait(60)
        cross_val_score(DummyClassifier(), X, y, cv=3)
        inner_is_done.set()
        outer.result()
    assert (progress.n_done, progress.n_fits) == (2, 2)


def test_joblib_is_left_as_it_was_also_after_an_error():
    before = joblib.Parallel.__call__, joblib.Parallel.print_progress
    with pytest.raises(ZeroDivisionError), search_progress():
        _ = 1 / 0
    assert (joblib.Parallel.__call__, joblib.Parallel.print_progress) == before


def test_a_second_display_inside_is_refused():
    with search_progress(), pytest.raises(RuntimeError, match="open already"), search_progress():
        pass


def test_quiet_is_quiet(capsys, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_PROGRESS", "0")
    with search_progress() as progress:
        cross_val_score(Majority(), X, y, cv=2)
    assert progress.n_done == 2
    assert capsys.readouterr().err == ""


def test_steps_of_a_fit_are_shown_until_they_are_done():
    shown = _search_progress._Shown(SearchProgress())
    assert shown._take(Steps("training", "steps", 8, 3, 0, 1.0))
    assert shown._text() == "search: 0 of 0 fits, less than 1 s so far; training, 3 of 8 steps"
    shown._take(Steps("training", "steps", 8, 8, 0, 1.0))
    assert "training" not in shown._text()


def test_a_fit_tells_its_steps(shapes, monkeypatch):
    told = []
    monkeypatch.setattr(_display, "_take_steps", lambda steps: told.append(steps) or True)
    FineTunedClassifier("mini", recipe="fast", max_epochs=3, feature_cache=None).fit(*shapes)
    whats = [steps.what for steps in told if steps.done == 0]
    assert whats == ["fingerprints", "backbone", "training"]
    assert told[-1].done == told[-1].total > 0


def test_a_bar_is_drawn_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(_search_progress._display, "_can_draw", lambda: True)
    with search_progress():
        cross_val_score(Majority(), X, y, cv=3)
    drawn = capsys.readouterr().err
    assert "search |" in drawn
    assert "3 of 3 fits" in drawn


class _NotebookBar:
    """As tqdm's bar of a notebook, which learns its total by `reset` alone."""

    def __init__(self, **options):
        self.shown_total, self.total, self.n = options["total"], options["total"], 0
        self.postfix = options["postfix"]

    def reset(self, total):
        self.shown_total, self.total, self.n = total, total, 0

    def refresh(self):
        pass

    def close(self):
        self.is_closed = True


def test_a_bar_of_a_notebook_learns_how_many_fits_there_are(monkeypatch):
    bars = []
    monkeypatch.setattr(_search_progress._display, "_can_draw", lambda: True)
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **o: bars.append(_NotebookBar(**o)) or bars[0])
    with search_progress():
        cross_val_score(Majority(), X, y, cv=3)
        cross_val_score(Majority(), X, y, cv=2)
    assert (bars[0].shown_total, bars[0].n) == (5, 5)
    assert bars[0].is_closed


class _Parallel:
    def __init__(self, n_jobs):
        self.n_jobs = n_jobs
        self.n_completed_tasks = 0


def _after(monkeypatch, ends, n_fits, n_jobs=1):
    """Return the progress of a search whose fits ended at some seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress, parallel = SearchProgress(), _Parallel(n_jobs)
    progress.begin(parallel, n_fits)
    assert progress.seconds_left is None
    for end in ends:
        now[0] = 100.0 + end
        parallel.n_completed_tasks += 1
        progress.take_done(parallel)
    return progress


def test_the_whole_is_estimated_after_the_first_fit(monkeypatch):
    assert _after(monkeypatch, [3], 5).seconds_left == 12


def test_fits_that_run_beside_the_first_count_half(monkeypatch):
    assert _after(monkeypatch, [3], 5, n_jobs=2).seconds_left == 8


def test_what_comes_before_the_first_steps_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress, parallel = SearchProgress(), _Parallel(1)
    progress.note_first_steps()  # of a fit before the search
    progress.begin(parallel, 5)
    for second in (20.0, 21.0):  # workers have started
        now[0] = second
        progress.note_first_steps()
    now[0] = 23.0
    parallel.n_completed_tasks = 1
    progress.take_done(parallel)
    progress.note_first_steps()
    assert progress.seconds_left == 3 * 4


def test_after_some_fits_the_first_ones_do_not_count(monkeypatch):
    # the first one computed all rows
    assert _after(monkeypatch, [100, 101, 102, 103, 104, 105], 10).seconds_left == 4


def test_an_estimate_is_there_while_a_batch_of_fits_is_counted(monkeypatch):
    progress = _after(monkeypatch, [3], 9)
    progress.n_done = 5  # another thread adds when they ended, a moment later
    assert progress.seconds_left == 24


def test_notes_of_a_process_that_was_killed_are_removed():
    folder = made_folder()
    (folder / "1.json").write_text("[0.0]")
    try:
        assert read_steps(made_folder()) == []
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
def test_a_worker_of_a_fork_server_finds_the_process_that_asked_for_it():
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(_worker_steps._parent) == os.getpid()


def test_steps_go_from_a_worker_to_the_process_that_started_it():
    # workers of another test may have another folder for temporary files
    get_reusable_executor().shutdown()
    folder = made_folder()
    try:
        steps = Steps("backbone", "images", 8, 3, 0, 1.5, "0 cache hits")
        assert not tell_parent(steps)  # this process is no worker
        with joblib.parallel_config("loky"):
            told = joblib.Parallel(n_jobs=2)(joblib.delayed(tell_parent)(steps) for _ in range(2))
        assert told == [True, True]
        assert {found for _, found in read_steps(folder)} == {steps}
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    with joblib.parallel_config("loky"):
        assert joblib.Parallel(n_jobs=2)([joblib.delayed(tell_parent)(steps)] * 2) == [False] * 2
