"""Where scikit-learn has no callbacks, or an estimator has none, fits are as they were."""

import importlib.util
import sys

from sklearn.base import BaseEstimator

import sktransfer._callbacks
from sktransfer._callbacks import FitTasks, StepTasks


def test_an_older_scikit_learn_has_no_callbacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = importlib.util.spec_from_file_location("older", sktransfer._callbacks.__file__)
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    assert not hasattr(older.CallbackSupportMixin, "set_callbacks")


def test_without_callbacks_nothing_is_told():
    tasks = FitTasks(BaseEstimator(), 2, None, None)
    with tasks.images(3) as update, tasks.sub_estimator("fit", BaseEstimator()):
        update(1)
    steps = StepTasks(tasks, "training", 1)
    steps.begin()
    assert not steps.end()
    steps.close()
    tasks.end()
