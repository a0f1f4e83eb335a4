"""Difference from the reference, and novelty, over windows of time."""

import numpy as np

_MOST_LABELS = 24  # windows that are named on the axis; of more, every second or third


class DriftCurveDisplay:
    """How far windows of time were from the reference, and which were called drift.

    Made by :meth:`DriftMonitor.plot`. All parameters are stored as attributes.

    Parameters
    ----------
    history : list of dict
        ``history_`` of a :class:`DriftMonitor`.
    min_difference : float
        The least effect of drift. As an AUC it is ``0.5 + min_difference / 2``.
    contamination : float
        Share of novel images that is expected without drift.

    Attributes
    ----------
    axes_ : tuple of two matplotlib Axes
        Where the AUC and the share of novel images are drawn.
    figure_ : matplotlib Figure
        The figure that holds both.

    See Also
    --------
    DriftMonitor.update : Adds a window.
    """

    def __init__(self, history, *, min_difference, contamination):
        self.history = history
        self.min_difference = min_difference
        self.contamination = contamination

    def plot(self, axes=None):
        """Draw the AUC with its interval, the share of novel images, and where drift was found.

        Parameters
        ----------
        axes : pair of matplotlib Axes, default=None
            Where to draw, the second below the first. None is a new figure.

        Returns
        -------
        display : DriftCurveDisplay
            This one.

        Raises
        ------
        ValueError
            When the history is empty.
        ImportError
            When matplotlib is not installed.
        """
        if not self.history:
            raise ValueError("there is nothing to draw: call update with the images of a window")
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(
                "DriftMonitor.plot needs matplotlib: pip install 'sktransfer[plot]'"
            ) from error
        if axes is None:
            _, axes = pyplot.subplots(2, 1, sharex=True, layout="constrained", figsize=(7.2, 5))
        top, bottom = axes
        at = np.arange(len(self.history))
        auc, low, high = (self._column(name) for name in ("auc", "auc_low", "auc_high"))
        for ax in axes:
            self._mark_drift(ax)
        top.fill_between(
            at, low, high, color="C0", alpha=0.2, linewidth=0, label="interval of 95 %"
        )
        top.plot(at, auc, "o-", color="C0", markersize=4, label="AUC")
        top.axhline(
            0.5 + self.min_difference / 2,
            color="0.4",
            linestyle=":",
            label=f"least difference, {self.min_difference:g}",
        )
        top.set(ylabel="AUC of new\nagainst reference", ylim=(min(0.45, low.min() - 0.02), 1.02))
        bottom.plot(at, self._column("novelty_rate"), "s-", color="C2", markersize=4, label="novel")
        bottom.axhline(self.contamination, color="0.4", linestyle=":", label="expected")
        bottom.set(xlabel="Window", ylabel="Share of\nnovel images")
        bottom.set_ylim(bottom=0)
        self._name_windows(bottom)
        for ax in axes:
            ax.legend(loc="best", fontsize="small")
        self.axes_, self.figure_ = (top, bottom), top.figure
        return self

    def _mark_drift(self, ax):
        """Shade the windows in which drift was found."""
        where = [i for i, record in enumerate(self.history) if record["is_drift"]]
        for i in where:
            band = ax.axvspan(i - 0.5, i + 0.5, color="C3", alpha=0.15, linewidth=0)
            if i == where[0]:  # once in the legend
                band.set_label("drift")

    def _name_windows(self, ax):
        step = -(-len(self.history) // _MOST_LABELS)
        names = [str(record["window"]) for record in self.history][::step]
        tilt = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 4 else {}
        ax.set_xticks(range(0, len(self.history), step), names, **tilt)

    def _column(self, name):
        return np.array([record[name] for record in self.history], dtype=float)
