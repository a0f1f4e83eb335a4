"""How the score depends on the depth of the cut, read from a search."""

import numpy as np

from ._depth_scores import cheaper_within_noise, depth_scores
from ._matplotlib import axes_or_new, style

# What happens to stages towards the right end of the axis
_FEWER = {"freeze_depth": "fewer stages frozen", "depth": "fewer stages used"}
_STYLES = ("errorbar", "fill_between", None)


class DepthCurveDisplay:
    """Score over the depth at which a backbone is cut, with its spread over folds.

    Use :meth:`from_grid`. All parameters are stored as attributes.

    Parameters
    ----------
    depths : list of int or None
        From most stages to least, as they stood in the grid.
    test_scores : ndarray of shape (n_depths, n_folds)
        Score of each depth in each fold.
    best_index : int, default=None
        Position of the depth to mark as the best.
    param_name : str, default="freeze_depth"
        Name of the parameter in the grid.
    score_name : str, default="Score"
        What the score is, for the axis.
    chosen_over : str, default=None
        What the scores of a depth were chosen from, for the legend.
    stages : list of str, default=None
        Names of the last stages before the cuts, for the axis.
    fit_times : ndarray of shape (n_depths,), default=None
        Mean seconds of a fit, for a second axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the curve is.
    figure_ : matplotlib Figure
        The figure that holds it.
    lines_ : list of matplotlib Line2D
        The line of the means.
    errorbar_ : matplotlib ErrorbarContainer or None
        The spread, with ``std_display_style="errorbar"``.
    fill_between_ : matplotlib PolyCollection or None
        The spread, with ``std_display_style="fill_between"``.
    best_ : matplotlib Line2D or None
        The mark of the best depth, or of a cheaper one that is as good within noise.
    times_ : matplotlib Line2D or None
        The line of the seconds of a fit.

    See Also
    --------
    TrainingCurveDisplay : Loss, score and learning rate of one training.
    sklearn.model_selection.ValidationCurveDisplay : The same for numbers on a scale.

    Notes
    -----
    A depth is as good as the best within noise where its mean difference to it over the
    folds is at most one standard error of these differences. Then the cheapest such depth
    is marked: of `freeze_depth` the one that trains least, of `depth` the one that uses the
    fewest stages.

    The spread is the standard deviation over the folds. Folds share most of their
    training images, so it is no confidence interval, and the best of many
    candidates looks better than it is: score it on images that the search has not
    seen.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.inspection import DepthCurveDisplay
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> classifier = FineTunedClassifier("mini", recipe="fast", max_epochs=2, **digits)
    >>> search = GridSearchCV(classifier, {"freeze_depth": [-2, -1, None]}, cv=2)
    >>> display = DepthCurveDisplay.from_grid(search.fit(X[:60], y[:60]))
    >>> display.depths
    [None, -1, -2]
    >>> display.test_scores.shape
    (3, 2)
    """

    def __init__(
        self,
        depths,
        test_scores,
        *,
        best_index=None,
        param_name="freeze_depth",
        score_name="Score",
        chosen_over=None,
        stages=None,
        fit_times=None,
    ):
        self.depths = depths
        self.test_scores = test_scores
        self.best_index = best_index
        self.param_name = param_name
        self.score_name = score_name
        self.chosen_over = chosen_over
        self.stages = stages
        self.fit_times = fit_times

    @classmethod
    def from_grid(
        cls,
        search,
        *,
        param=None,
        metric=None,
        score_name=None,
        std_display_style="errorbar",
        ax=None,
        line_kw=None,
        errorbar_kw=None,
        fill_between_kw=None,
    ):
        """Draw the scores of a fitted search.

        Where other parameters were searched as well, a depth is shown with the
        candidate that has the best mean score at that depth; the legend says so. Of
        successive halving, the last round with every depth is shown, because scores
        after training on more and on fewer images can't be compared.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or one of their halving variants
            Fitted. Its grid has a ``freeze_depth``, or the ``depth`` of a
            PretrainedFeatureTransformer.
        param : str, default=None
            Name of the depth, where the grid has several; for example
            ``"pretrainedfeaturetransformer__depth"``.
        metric : str, default=None
            Name of the metric, where there are several. None is that of ``refit=``.
        score_name : str, default=None
            What the score is, for the axis. None takes the name of the scoring.
        std_display_style : {"errorbar", "fill_between"} or None, default="errorbar"
            How the standard deviation over the folds is drawn.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the line.
        errorbar_kw : dict, default=None
            Arguments of matplotlib's ``errorbar``.
        fill_between_kw : dict, default=None
            Arguments of matplotlib's ``fill_between``.

        Returns
        -------
        display : DepthCurveDisplay

        Raises
        ------
        NotFittedError
            When the search is not fitted.
        TypeError
            When `search` is not a search.
        ValueError
            When the grid has no depth, a depth of one value, or several depths and `param`
            names none; when every fit failed; when `metric` is unknown.
        ImportError
            When matplotlib is not installed.
        """
        found = vars(depth_scores(search, param, metric))
        if score_name is not None:
            found = {**found, "score_name": score_name}
        return cls(**found).plot(
            ax,
            std_display_style=std_display_style,
            line_kw=line_kw,
            errorbar_kw=errorbar_kw,
            fill_between_kw=fill_between_kw,
        )

    def plot(
        self,
        ax=None,
        *,
        std_display_style="errorbar",
        line_kw=None,
        errorbar_kw=None,
        fill_between_kw=None,
    ):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        std_display_style : {"errorbar", "fill_between"} or None, default="errorbar"
            How the standard deviation over the folds is drawn.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the line.
        errorbar_kw : dict, default=None
            Arguments of matplotlib's ``errorbar``.
        fill_between_kw : dict, default=None
            Arguments of matplotlib's ``fill_between``.

        Returns
        -------
        display : DepthCurveDisplay
            This one.

        Raises
        ------
        ValueError
            When `std_display_style` is unknown.
        ImportError
            When matplotlib is not installed.
        """
        if std_display_style not in _STYLES:
            raise ValueError(
                "std_display_style must be 'errorbar', 'fill_between' or None, got "
                f"{std_display_style!r}"
            )
        ax = axes_or_new(ax, "DepthCurveDisplay")
        scores = np.asarray(self.test_scores)
        x, mean, std = np.arange(len(scores)), scores.mean(axis=1), scores.std(axis=1)
        label = self.chosen_over or "_mean"  # with an underscore it is not in the legend
        self.lines_ = ax.plot(x, mean, **style(line_kw, marker="o", label=label))
        colour = self.lines_[0].get_color()
        self.errorbar_ = self.fill_between_ = self.best_ = None
        if std_display_style == "errorbar":
            self.errorbar_ = ax.errorbar(
                x, mean, std, **style(errorbar_kw, fmt="none", color=colour, capsize=4)
            )
        elif std_display_style == "fill_between":
            self.fill_between_ = ax.fill_between(
                x,
                mean - std,
                mean + std,
                **style(fill_between_kw, color=colour, alpha=0.25, linewidth=0),
            )
        if self.best_index is not None:
            marked = cheaper_within_noise(scores, self.best_index, self.param_name)
            # hollow and around the point, so that it is recognised without colour
            (self.best_,) = ax.plot(
                x[marked],
                mean[marked],
                linestyle="none",
                marker="o",
                markersize=14,
                markerfacecolor="none",
                markeredgecolor="black",
                label=self._label_of(marked),
            )
        self._plot_times(ax, x)
        name = self.param_name.rpartition("__")[2]
        fewer = f"  ({_FEWER[name]} →)" if name in _FEWER else ""
        spread = f"mean ± std of {scores.shape[1]} folds" if std_display_style else "mean of folds"
        names = [str(depth) for depth in self.depths]
        if self.stages is not None:
            names = [f"{depth}\n{stage}" for depth, stage in zip(names, self.stages, strict=True)]
        ax.set_xticks(x, names)
        ax.set(xlabel=f"{name}{fewer}", ylabel=f"{self.score_name}\n{spread}")
        ax.margins(x=0.1)
        ax.grid(axis="y", alpha=0.3)
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label_of(self, marked):
        """Return what the legend says of the marked depth."""
        best = self.depths[self.best_index]
        if marked == self.best_index:
            return f"best: {best}"
        return f"{self.depths[marked]}: cheaper, and as good\nas {best} within noise"

    def _plot_times(self, ax, x):
        """Draw the seconds of a fit on an axis of their own, behind the scores."""
        self.times_ = None
        if self.fit_times is None:
            return
        beside = ax.twinx()
        (self.times_,) = beside.plot(
            x, self.fit_times, color="0.6", linestyle=":", marker="s", ms=4
        )
        beside.set_ylabel("seconds a fit (dotted)", color="0.4")
        beside.tick_params(axis="y", colors="0.4")
        beside.set_ylim(bottom=0)
        ax.set_zorder(beside.get_zorder() + 1)
        ax.patch.set_visible(False)
