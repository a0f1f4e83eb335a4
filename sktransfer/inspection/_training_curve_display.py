"""Loss, score and learning rate over the epochs of a training."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._fine_tuning import FineTunedEstimator
from ._matplotlib import axes_or_new, style

_CURVES = ("loss", "score", "lr")
# The same in every plot; dashes tell them apart where colours don't
_LOOKS = {
    "training": {"color": "C0", "linestyle": "-"},
    "validation": {"color": "C1", "linestyle": "--"},
}
_WITH_MARKERS = 30  # more epochs than that, and markers run into each other


class TrainingCurveDisplay:
    """Loss, score or learning rate over the epochs of a training.

    Use :meth:`from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    epochs : array-like of shape (n_epochs,)
        Numbers of the epochs, from 1.
    train_loss : array-like of shape (n_epochs,)
        Mean loss on the training images, measured while the weights change.
    valid_loss : array-like of shape (n_epochs,), default=None
        Loss on the held-out images, after each epoch.
    valid_score : array-like of shape (n_epochs,), default=None
        Score on the held-out images, after each epoch.
    lr : array-like of shape (n_epochs,), default=None
        Learning rate of the head.
    best_epoch : int, default=None
        The epoch whose weights are used, where early stopping chose one.
    score_name : str, default="Score"
        What `valid_score` is, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the curves are.
    figure_ : matplotlib Figure
        The figure that holds them.
    lines_ : list of matplotlib Line2D
        The curves: training first, then validation.
    best_line_ : matplotlib Line2D or None
        The mark of the best epoch.

    See Also
    --------
    DepthCurveDisplay : How the score depends on the number of frozen stages.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.inspection import TrainingCurveDisplay
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> classifier = FineTunedClassifier("mini", recipe="fast", max_epochs=5, **digits)
    >>> display = TrainingCurveDisplay.from_estimator(classifier.fit(X[:100], y[:100]))
    >>> display.epochs
    array([1, 2, 3, 4, 5])
    >>> display.figure_.savefig("training.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        epochs,
        train_loss,
        *,
        valid_loss=None,
        valid_score=None,
        lr=None,
        best_epoch=None,
        score_name="Score",
    ):
        self.epochs = epochs
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.valid_score = valid_score
        self.lr = lr
        self.best_epoch = best_epoch
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, *, curve="loss", score_name="Score", ax=None, line_kw=None):
        """Draw the training of a fitted estimator.

        Parameters
        ----------
        estimator : FineTunedClassifier, FineTunedRegressor, Pipeline or search
            Fitted. Of a pipeline the last step is drawn; of a search such as
            GridSearchCV the refitted ``best_estimator_``.
        curve : {"loss", "score", "lr"}, default="loss"
            What is drawn. ``"score"`` needs images that were held out.
        score_name : str, default="Score"
            What the score is, for the axis.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the curves.

        Returns
        -------
        display : TrainingCurveDisplay

        Raises
        ------
        NotFittedError
            When the estimator is not fitted.
        TypeError
            When the estimator is not one that is trained over epochs.
        ValueError
            When `curve` is unknown, or was not recorded.
        ImportError
            When matplotlib is not installed.
        """
        trained = _trained_part(estimator)
        records = list(trained.history_)
        display = cls(
            np.array([record["epoch"] for record in records]),
            _column(records, "train_loss"),
            valid_loss=_column(records, "valid_loss"),
            valid_score=_column(records, "valid_score"),
            lr=_column(records, "lr"),
            best_epoch=getattr(trained, "best_epoch_", None),
            score_name=score_name,
        )
        return display.plot(ax, curve=curve, line_kw=line_kw)

    def plot(self, ax=None, *, curve="loss", line_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        curve : {"loss", "score", "lr"}, default="loss"
            What is drawn. ``"score"`` needs images that were held out.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the curves.

        Returns
        -------
        display : TrainingCurveDisplay
            This one.

        Raises
        ------
        ValueError
            When `curve` is unknown, or was not recorded.
        ImportError
            When matplotlib is not installed.
        """
        chosen = self._chosen(curve)
        ax = axes_or_new(ax, "TrainingCurveDisplay")
        from matplotlib.ticker import MaxNLocator

        marker = "o" if len(self.epochs) <= _WITH_MARKERS else ""
        self.lines_ = []
        for label, values in chosen.items():
            look = style(line_kw, label=label, marker=marker, markersize=4, **_LOOKS[label])
            self.lines_ += ax.plot(self.epochs, values, **look)
        self.best_line_ = None
        if self.best_epoch is not None:
            self.best_line_ = ax.axvline(
                self.best_epoch,
                color="0.4",
                linestyle=":",
                zorder=1,
                label=f"best epoch: {self.best_epoch}",
            )
        label = {"loss": "Loss", "score": self.score_name, "lr": "Learning rate of the head"}
        ax.set(xlabel="Epoch", ylabel=label[curve])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _chosen(self, curve):
        """Return the curves to draw, by their label."""
        if curve not in _CURVES:
            raise ValueError(f"curve must be one of {', '.join(map(repr, _CURVES))}, got {curve!r}")
        curves = {
            "loss": {"training": self.train_loss, "validation": self.valid_loss},
            "score": {"validation": self.valid_score},
            "lr": {"training": self.lr},
        }[curve]
        recorded = {label: values for label, values in curves.items() if values is not None}
        if not recorded:
            advice = (
                "nothing was held out; fit with early_stopping=True"
                if curve == "score"
                else "the history has no such column"
            )
            raise ValueError(f"curve={curve!r} was not recorded: {advice}")
        return recorded


def _trained_part(estimator):
    part = estimator
    if hasattr(part, "refit"):  # a search
        check_is_fitted(
            part,
            "best_estimator_",
            msg="This %(name)s holds no fitted estimator; call fit, with refit=True",
        )
        part = part.best_estimator_
    while isinstance(part, Pipeline):
        part = part.steps[-1][1]
    if not isinstance(part, FineTunedEstimator):
        inside = "" if part is estimator else f", whose last step is {_name(part)}"
        raise TypeError(
            "TrainingCurveDisplay.from_estimator takes a FineTunedClassifier, a "
            "FineTunedRegressor, a Pipeline that ends in one, or a search over them; got "
            f"{_name(estimator)}{inside}"
        )
    check_is_fitted(part)
    return part


def _name(value):
    return value.__name__ if isinstance(value, type) else type(value).__name__


def _column(records, key):
    """Return one value an epoch, NaN where it is missing, or None where there is none at all."""
    if not any(key in record for record in records):
        return None
    return np.array([record.get(key, np.nan) for record in records], dtype=float)
