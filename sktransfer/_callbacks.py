"""The callbacks of scikit-learn 1.9, which are experimental: a task for each step of a fit.

scikit-learn's `_fit_context` ends the callbacks with the fit. Here is what an estimator adds:
its tasks. With an older scikit-learn nothing is told, and `set_callbacks` does not exist.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn 1.6 to 1.8

    class CallbackSupportMixin:  # type: ignore[no-redef]  # its stand-in
        """Stands in for scikit-learn's mixin, and has no `set_callbacks`."""


# Steps of an extraction that are told: each may be a message from a worker process.
_MOST_STEPS = 100
_OF_A_FIT = ("_callback_fit_ctx", "_parent_callback_ctx", "_skl_callbacks_to_teardown")


def without_callbacks(state: Mapping[str, Any], *, is_fitted: bool) -> dict[str, Any]:
    """Return the state of an estimator without contexts and, once it is fitted, callbacks.

    An unfitted estimator keeps its callbacks: so it goes to the worker that fits it.
    """
    dropped = (*_OF_A_FIT, "_skl_callbacks") if is_fitted else _OF_A_FIT
    return {name: value for name, value in state.items() if name not in dropped}


class FitTasks:
    """The tasks of one fit, told to the callbacks of the estimator that is fitted.

    Parameters
    ----------
    estimator : estimator
        It has `set_callbacks` where scikit-learn has callbacks.
    n_tasks : int
        Tasks that will begin: extractions, trainings, fits of sub-estimators.
    X, y, sample_weight : what the fit was given
    """

    def __init__(self, estimator: Any, n_tasks: int, X: Any, y: Any, sample_weight: Any = None):
        self._estimator = estimator
        self._given = {
            "X": X,
            "y": y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        self._root: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=n_tasks)
            self._begin(self._root)

    def end(self) -> None:
        """End the fit."""
        if self._root is not None:
            self._end(self._root, dict)  # a copy of the estimator, as it is

    @contextmanager
    def images(self, n_images: int) -> Iterator[Callable[[int], None]]:
        """Begin and end an extraction; the function takes numbers of images that are done."""
        n_steps = min(n_images, _MOST_STEPS)
        steps = StepTasks(self, "extraction", n_steps)
        n_done = n_told = 0

        def update(n: int) -> None:
            nonlocal n_done, n_told
            n_done += n
            while n_told < n_done * n_steps // n_images:
                n_told += 1
                steps.begin()
                steps.end()  # rows are needed: a request to stop has no effect here

        yield update
        update(n_images - n_done)  # copies of other images
        steps.close()

    @contextmanager
    def sub_estimator(self, name: str, estimator: Any) -> Iterator[None]:
        """Begin and end the fit of an estimator that this fit is made of."""
        context = None
        propagated: AbstractContextManager = nullcontext()
        if self._root is not None:
            context = self._root.subcontext(task_name=name)
            propagated = context.propagate_callback_context(estimator)
        with propagated:
            if context is not None:
                self._begin(context)
            yield
        if context is not None:
            self._end(context)

    def _begin(self, context: Any) -> None:
        context.call_on_fit_task_begin(estimator=self._estimator, **self._given)

    def _end(self, context: Any, fitted: Callable[[], dict] | None = None) -> bool:
        return context.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=fitted, **self._given
        )


class StepTasks:
    """A task of a fit with its steps, one after the other."""

    def __init__(self, tasks: FitTasks, name: str, n_steps: int):
        self._tasks = tasks
        self._context = self._step = None
        if tasks._root is not None:
            self._context = tasks._root.subcontext(task_name=name, max_subtasks=n_steps)
            tasks._begin(self._context)

    def begin(self) -> None:
        """Begin a step."""
        if self._context is not None:
            self._step = self._context.subcontext(task_name="step")
            self._tasks._begin(self._step)

    def end(self, fitted: Callable[[], dict] | None = None) -> bool:
        """End a step; return whether a callback asks to stop.

        `fitted` returns the attributes that make the estimator a fitted one, as if the fit
        had ended with this step.
        """
        return self._step is not None and self._tasks._end(self._step, fitted)

    def close(self) -> None:
        """End the task."""
        if self._context is not None:
            self._tasks._end(self._context)


class EpochTasks:
    """The epochs of a training as steps; `training._net` calls it.

    Parameters
    ----------
    tasks : FitTasks
    fitted : callable
        Takes a module in training and the number of its epochs, and returns the attributes
        that make the estimator a fitted one with a copy of it.
    """

    def __init__(self, tasks: FitTasks, fitted: Callable[[Any, int], dict]):
        self._tasks = tasks
        self._fitted = fitted

    def begin_training(self, n_epochs: int) -> None:
        """Begin the training."""
        self._steps = StepTasks(self._tasks, "training", n_epochs)

    def begin_epoch(self) -> None:
        """Begin an epoch."""
        self._steps.begin()

    def end_epoch(self, module: Any, epoch: int) -> bool:
        """End an epoch, numbered from 1; return whether a callback asks to stop."""
        return self._steps.end(lambda: self._fitted(module, epoch))

    def end_training(self) -> None:
        """End the training."""
        self._steps.close()
