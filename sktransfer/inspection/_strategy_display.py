"""Score against time of the strategies that a search has tried."""

from sklearn.exceptions import NotFittedError

from ..model_selection import TransferSearchCV
from ._matplotlib import axes_or_new, style

# By shape and by colour
_LOOKS = {
    "pixels": {"marker": "s", "color": "C2"},
    "rows": {"marker": "o", "color": "C0"},
    "fine-tuning": {"marker": "^", "color": "C1"},
}


class StrategyDisplay:
    """Score against seconds of a fit, one point a strategy, with the frontier.

    A strategy is on the frontier where no other one is at least as good in less time. Use
    :meth:`from_search`. All parameters are stored as attributes.

    Parameters
    ----------
    strategies : sequence of StrategyResult
        Those without a score are left out.
    score_name : str, default="Score"
        What the score is, for the axis.

    Attributes
    ----------
    frontier_ : list of StrategyResult
        The strategies on the frontier, the quickest first.
    ax_ : matplotlib Axes
        Where the points are.
    figure_ : matplotlib Figure
        The figure that holds them.
    points_ : dict of str to matplotlib Line2D
        The points of each kind: "pixels", "rows" and "fine-tuning".
    line_ : matplotlib Line2D
        The frontier.
    best_ : matplotlib ErrorbarContainer
        The best strategy, with the standard error of its score.

    See Also
    --------
    LabelCurveDisplay : Score over the number of labels.

    Notes
    -----
    The seconds are those of one fit as the search measured them, with the forward pass of
    all images where rows are used: short where the rows had been stored before.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.inspection import StrategyDisplay
    >>> from sktransfer.model_selection import TransferSearchCV
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> classifier = FineTunedClassifier("mini", image_shape=(8, 8), pixel_range=(0, 16))
    >>> search = TransferSearchCV(classifier, depths=(None,), recipes=(), cv=3, random_state=0)
    >>> display = StrategyDisplay.from_search(search.fit(X[:60], y[:60]))
    >>> display.frontier_[-1].score == search.strategies_[0].score
    True
    """

    def __init__(self, strategies, *, score_name="Score"):
        self.strategies = strategies
        self.score_name = score_name

    @classmethod
    def from_search(cls, search, *, score_name=None, ax=None, line_kw=None):
        """Draw the strategies of a fitted search.

        Parameters
        ----------
        search : TransferSearchCV
            Fitted.
        score_name : str, default=None
            What the score is, for the axis. None takes the name of the metric.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the frontier.

        Returns
        -------
        display : StrategyDisplay

        Raises
        ------
        TypeError
            When `search` is no TransferSearchCV.
        NotFittedError
            When it is not fitted.
        ImportError
            When matplotlib is not installed.
        """
        if not isinstance(search, TransferSearchCV):
            raise TypeError(
                "StrategyDisplay.from_search takes a fitted TransferSearchCV, got "
                f"{type(search).__name__}"
            )
        if not hasattr(search, "strategies_"):
            raise NotFittedError("This TransferSearchCV is not fitted yet; call fit first")
        if score_name is None:
            metric = search.strategies_.metric
            name = (
                search.scoring if metric == "score" and isinstance(search.scoring, str) else metric
            )
            score_name = name.replace("neg_", "negative ").replace("_", " ").capitalize()
        return cls(search.strategies_, score_name=score_name).plot(ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the points and the frontier.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's ``plot`` for the frontier.

        Returns
        -------
        display : StrategyDisplay
            This one.

        Raises
        ------
        ValueError
            When no strategy has a score.
        ImportError
            When matplotlib is not installed.
        """
        tried = [s for s in self.strategies if s.score is not None and s.status != "failed"]
        if not tried:
            raise ValueError("no strategy has a score")
        ax = axes_or_new(ax, "StrategyDisplay")
        self.frontier_ = _frontier(tried)
        self.points_ = {}
        for kind, look in _LOOKS.items():
            of_kind = [s for s in tried if s.kind == kind]
            if of_kind:
                (self.points_[kind],) = ax.plot(
                    [s.seconds for s in of_kind],
                    [s.score for s in of_kind],
                    linestyle="none",
                    label=kind,
                    alpha=0.8,
                    **look,
                )
        (self.line_,) = ax.plot(
            [s.seconds for s in self.frontier_],
            [s.score for s in self.frontier_],
            **style(line_kw, color="0.4", drawstyle="steps-post", zorder=1, label="frontier"),
        )
        best = max(tried, key=lambda s: s.score)
        self.best_ = ax.errorbar(
            best.seconds, best.score, best.error, fmt="none", color="black", capsize=4
        )
        ax.set_xscale("log")
        ax.set(xlabel="Seconds of a fit", ylabel=f"{self.score_name}, mean of the folds")
        ax.margins(x=0.1, y=0.2)
        quick = next(s for s in self.frontier_ if s.status in ("best", "within noise"))
        if quick is not self.frontier_[-1]:
            _name(ax, quick, "quickest within noise", 60)
        _name(ax, self.frontier_[-1], "best", 95)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _name(ax, strategy, title, below):
    """Write the name of a strategy below its point, with a line to it, on the side with room."""
    point = (strategy.seconds, strategy.score)
    ax.autoscale_view()
    is_left = ax.transAxes.inverted().transform(ax.transData.transform(point))[0] < 0.5
    ax.annotate(
        f"{title}:\n{strategy.strategy}",
        point,
        xytext=(12 if is_left else -12, -below),
        textcoords="offset points",
        ha="left" if is_left else "right",
        fontsize="small",
        # the line ends at the corner that is next to the point, and crosses no name
        arrowprops={"arrowstyle": "-", "color": "0.4", "relpos": (0 if is_left else 1, 1)},
    )


def _frontier(tried):
    """Return the strategies that no other one beats in both, the quickest first."""
    frontier: list = []
    for strategy in sorted(tried, key=lambda s: (s.seconds, -s.score)):
        if not frontier or strategy.score > frontier[-1].score:
            frontier.append(strategy)
    return frontier
