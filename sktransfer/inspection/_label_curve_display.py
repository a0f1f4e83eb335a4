"""How the score depends on the number of labels, and what more of them may bring."""

import numbers
from collections.abc import Mapping

import numpy as np
from scipy.stats import t
from sklearn.base import is_classifier
from sklearn.utils import indexable
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.multiclass import type_of_target

from ._label_scores import default_sizes, draws, scores_by_size
from ._matplotlib import axes_or_new, imported_pyplot, style
from ._power_law import LEVELS, continuation

# Shares of the remaining error that twice the labels remove: less is little, more is much
_LITTLE, _MUCH = 0.05, 0.1
_FEWEST_SIZES, _FEWEST_REPEATS = 3, 2


class LabelCurveDisplay:
    """Score over the number of labels, continued as a power law.

    Is it worth labelling more images? Use :meth:`from_estimator` or :meth:`from_estimators`.
    All parameters are stored as attributes.

    Parameters
    ----------
    train_sizes : ndarray of shape (n_sizes,)
        Numbers of labels, at least three.
    test_scores : dict of str to ndarray of shape (n_sizes, n_repeats)
        Scores of each strategy, by its name, at least two repeats.
    test_share : float, default=0.25
        Share of the images that the scores of a repeat are from. Repeats that share images
        vary less than independent ones, and intervals are wider by what follows from it.
    max_score : float, default=1.0
        The best possible score, which no power law exceeds.
    score_name : str, default="Score"
        What the score is, for the axis.

    Attributes
    ----------
    laws_ : dict of str to PowerLaw
        The fitted ``a - b * n ** -c`` of each strategy, with attributes ``a``, ``b`` and
        ``c``; a function of the number of labels.
    answers_ : dict of str to str
        What twice the labels bring, in words, or that it can't be told.
    ax_ : matplotlib Axes
        Where the curves are.
    figure_ : matplotlib Figure
        The figure that holds them.
    lines_ : list of matplotlib Line2D
        The curves of the power laws, one a strategy.
    errorbars_ : list of matplotlib ErrorbarContainer
        The measured mean scores, and their intervals.
    bands_ : list of matplotlib PolyCollection
        The bands of the power laws.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores of training and test, as measured.

    Notes
    -----
    Intervals and bands are of nine tenths. An interval is that of a mean whose repeats share
    images: its variance is ``1 / n_repeats + test_share / (1 - test_share)`` times that of a
    score. A band is a bootstrap over the repeats, with deviations from the mean that are
    larger by the same factor: each draw is fitted by a power law. In simulations
    (``benchmarks/bench_label_curve.py``) bands held the true score in about nine of ten
    cases. That the scores follow a power law at all is assumed, so the
    further away, the less a band is worth.

    The exponent is chosen from 0.1 to 2, `b` is at least 0, `a` at most `max_score`.

    References
    ----------
    C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52,
    2003: the variance of repeats that share images.

    T. Viering, M. Loog, "The shape of learning curves: a review", TPAMI 2022, arXiv
    2103.10948: when they are power laws, and when not.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.inspection import LabelCurveDisplay
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> rows = PretrainedFeatureTransformer("mini", image_shape=(8, 8), pixel_range=(0, 16))
    >>> model = make_pipeline(rows, LogisticRegression(C=0.01, max_iter=1000))
    >>> display = LabelCurveDisplay.from_estimator(
    ...     model, X[:100], y[:100], n_repeats=3, random_state=0
    ... )
    >>> display.train_sizes
    array([ 9, 15, 26, 44, 75])
    >>> len(display.answers_)
    1
    """

    def __init__(
        self, train_sizes, test_scores, *, test_share=0.25, max_score=1.0, score_name="Score"
    ):
        self.train_sizes = train_sizes
        self.test_scores = test_scores
        self.test_share = test_share
        self.max_score = max_score
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, X, y, *, name=None, **parameters):
        """Fit one strategy with more and more labels, and draw its scores.

        Parameters
        ----------
        estimator : estimator
            Any of scikit-learn's form. It is cloned.
        X : sequence of images
            What the estimator takes.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Labels or numbers.
        name : str, default=None
            Its name in the legend. None is that of the last step's class.
        **parameters : dict
            Further ones of :meth:`from_estimators`.

        Returns
        -------
        display : LabelCurveDisplay
        """
        if name is None:
            last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
            name = type(last).__name__
        return cls.from_estimators({name: estimator}, X, y, **parameters)

    @classmethod
    @validate_params(
        {
            "estimators": [Mapping],
            "y": ["array-like"],
            "groups": ["array-like", None],
            "train_sizes": ["array-like", None],
            "n_repeats": [Interval(numbers.Integral, _FEWEST_REPEATS, None, closed="left")],
            "test_size": [Interval(numbers.Real, 0, 1, closed="neither")],
            "max_score": [numbers.Real, None],
            "score_name": [str, None],
            "n_jobs": [numbers.Integral, None],
            "random_state": ["random_state"],
        },
        prefer_skip_nested_validation=True,
    )
    def from_estimators(
        cls,
        estimators,
        X,
        y,
        *,
        groups=None,
        train_sizes=None,
        n_repeats=8,
        test_size=0.25,
        scoring=None,
        max_score=None,
        score_name=None,
        extend=4.0,
        n_jobs=None,
        random_state=None,
        ax=None,
        line_kw=None,
    ):
        """Fit several strategies with more and more labels, and draw their scores.

        In each repeat, images to test on are drawn anew. All strategies are fitted to the
        same images, in the proportions of the classes, and fewer labels are a part of more.

        Parameters
        ----------
        estimators : dict of str to estimator
            By name. They are cloned.
        X : sequence of images
            What the estimators take.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Labels or numbers.
        groups : array-like of shape (n_images,), default=None
            Images of one group are not both fitted and tested on.
        train_sizes : array-like of int, default=None
            Numbers of labels, at least three. None is five from an eighth to all of the
            images that are not tested on.
        n_repeats : int, default=8
            Number of draws, at least two.
        test_size : float, default=0.25
            Share of the images to test on.
        scoring : str or callable, default=None
            As in :func:`~sklearn.model_selection.cross_val_score`.
        max_score : float, default=None
            The best possible score. None is 0 where `scoring` is the name of a loss
            (``"neg_log_loss"``), and 1 elsewhere.
        score_name : str, default=None
            What the score is, for the axis. None takes `scoring`.
        extend : float, default=4.0
            The curve is drawn to this many times the labels.
        n_jobs : int, default=None
            Fits at the same time.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the curves.

        Returns
        -------
        display : LabelCurveDisplay

        Raises
        ------
        TypeError, ValueError
            When a parameter is not allowed, there are fewer than three sizes or no
            estimators, or a score is above `max_score`.
        ImportError
            When matplotlib is not installed.
        """
        imported_pyplot("LabelCurveDisplay")  # before anything is fitted
        if not estimators:
            raise ValueError("estimators must not be empty; give a dict of name and estimator")
        X, y, groups = indexable(X, y, groups)
        y = np.asarray(y)
        first = next(iter(estimators.values()))
        pairs = draws(first, X, y, groups, n_repeats, test_size, random_state)
        n_train = len(pairs[0][0])
        if train_sizes is None:
            of_classes = is_classifier(first) and type_of_target(y) in ("binary", "multiclass")
            sizes = default_sizes(n_train, 2 * len(np.unique(y)) if of_classes else 2)
        else:
            sizes = np.unique(np.asarray(train_sizes, dtype=int))
            if sizes[0] < 1 or sizes[-1] > n_train:
                raise ValueError(
                    f"train_sizes must be from 1 to {n_train}, the images that are not tested "
                    f"on, got {sizes[0]} to {sizes[-1]}"
                )
        if max_score is None:
            max_score = 0.0 if isinstance(scoring, str) and scoring.startswith("neg_") else 1.0
        if score_name is None:
            score_name = scoring if isinstance(scoring, str) else "score"
            score_name = score_name.replace("neg_", "negative ").replace("_", " ").capitalize()
        scores = {
            name: scores_by_size(estimator, X, y, pairs, sizes, scoring, n_jobs)
            for name, estimator in estimators.items()
        }
        test_share = len(pairs[0][1]) / (len(pairs[0][1]) + n_train)
        display = cls(
            sizes, scores, test_share=test_share, max_score=max_score, score_name=score_name
        )
        return display.plot(ax, extend=extend, line_kw=line_kw)

    def plot(self, ax=None, *, extend=4.0, line_kw=None):
        """Draw the scores, their power laws and what follows.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        extend : float, default=4.0
            The curve is drawn to this many times the labels; 1 does not continue it.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the curves.

        Returns
        -------
        display : LabelCurveDisplay
            This one.

        Raises
        ------
        ValueError
            When there are fewer than three sizes or two repeats, a score is above
            `max_score`, or `extend` is less than 1.
        ImportError
            When matplotlib is not installed.
        """
        fitted = self._fitted()
        if not isinstance(extend, (int, float)) or extend < 1:
            raise ValueError(f"extend must be a number of at least 1, got {extend!r}")
        ax = axes_or_new(ax, "LabelCurveDisplay")
        sizes = np.asarray(self.train_sizes)
        n_most = sizes[-1]
        grid = np.geomspace(sizes[0], n_most * extend, 100)
        self.lines_, self.errorbars_, self.bands_ = [], [], []
        for name, found in fitted.items():
            scores = np.asarray(self.test_scores[name])
            (line,) = ax.plot(grid, found.law(grid), **style(line_kw, label=name, zorder=3))
            colour = line.get_color()
            mean, half = scores.mean(axis=1), self._half_interval(scores)
            bars = ax.errorbar(sizes, mean, half, fmt="o", color=colour, capsize=3, ms=4)
            band = ax.fill_between(grid, *found.band(grid), color=colour, alpha=0.2, linewidth=0)
            self.lines_.append(line)
            self.errorbars_.append(bars)
            self.bands_.append(band)
        if extend > 1:
            ax.axvline(
                n_most, color="0.4", linestyle=":", zorder=1, label="most labels that were fitted"
            )
        ax.set_xscale("log")
        ticks = [*sizes.tolist(), *([round(n_most * extend)] if extend > 1 else [])]
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        ax.set_xticks([], minor=True)
        n_repeats = scores.shape[1]
        ax.set(
            xlabel="Number of labels",
            ylabel=f"{self.score_name}\nmean of {n_repeats} draws, 90 % interval",
        )
        ax.grid(axis="y", alpha=0.3)
        ax.legend(loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _fitted(self):
        """Fit the power laws, and say what they say; return them with their bands."""
        sizes = np.asarray(self.train_sizes)
        if len(sizes) < _FEWEST_SIZES:
            raise ValueError(
                f"a power law needs scores with at least {_FEWEST_SIZES} numbers of labels, got "
                f"{sizes.tolist()}; label more images, or give more train_sizes"
            )
        fitted = {}
        self.laws_, self.answers_ = {}, {}
        for name, scores in self.test_scores.items():
            scores = np.asarray(scores)
            if scores.ndim != 2 or scores.shape[1] < _FEWEST_REPEATS:
                raise ValueError(
                    f"test_scores of {name!r} must be (n_sizes, n_repeats) with at least "
                    f"{_FEWEST_REPEATS} repeats, got the shape {scores.shape}"
                )
            if scores.max() > self.max_score:
                raise ValueError(
                    f"the score {scores.max():.4g} of {name!r} is above max_score="
                    f"{self.max_score:g}; give the best possible score as max_score"
                )
            found = continuation(sizes, scores, self.max_score, self._inflation(scores))
            fitted[name], self.laws_[name] = found, found.law
            self.answers_[name] = self._answer(name, found)
        return fitted

    def _inflation(self, scores):
        """Return by what factor the error of a mean is larger than with independent repeats."""
        return np.sqrt(1 + scores.shape[1] * self.test_share / (1 - self.test_share))

    def _half_interval(self, scores):
        n_repeats = scores.shape[1]
        errors = scores.std(axis=1, ddof=1) / np.sqrt(n_repeats) * self._inflation(scores)
        return errors * t.ppf(LEVELS[1], n_repeats - 1)

    def _answer(self, name, found):
        n = int(self.train_sizes[-1])
        now, then = (float(found.law(count)) for count in (n, 2 * n))
        low, high = found.gain(n, 2 * n)
        said = (
            f"{name}: {now:.3f} with {n:,} labels; {2 * n:,} would bring {then - now:+.3f} "
            f"({low:+.3f} to {high:+.3f})"
        )
        error = self.max_score - now
        if error <= 0 or high <= _LITTLE * error:
            return f"{said}: more labels bring little"
        if low < _LITTLE * error and high > _MUCH * error:
            return f"{said}: the scores can't tell whether more labels are worth it"
        return said
