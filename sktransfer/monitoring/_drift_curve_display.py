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
    ax_ : matplotlib Axes
        Where the AUC is drawn.
    rate_ax_ : matplotlib Axes
        Where the share of novel images is drawn, at the right.
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

    def plot(self, ax=None):
        """Draw the AUC with its interval, the share of novel images, and where drift was found.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.

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
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained", figsize=(7.2, 4.2))
        at = np.arange(len(self.history))
        auc, low, high = (self._column(name) for name in ("auc", "auc_low", "auc_high"))
        is_drift = self._column("is_drift").astype(bool)

        rate_ax = ax.twinx()
        rate_ax.plot(
            at, self._column("novelty_rate"), "s--", color="C2", markersize=4, label="novel"
        )
        rate_ax.axhline(self.contamination, color="C2", linestyle=":", linewidth=1)
        rate_ax.set(ylabel="Share of novel images (dotted: expected)", ylim=(0, 1))
        rate_ax.yaxis.label.set_color("C2")

        ax.fill_between(at, low, high, color="C0", alpha=0.15, linewidth=0)
        ax.plot(at, auc, "-", color="C0", label="AUC, with its interval")
        ax.plot(at[~is_drift], auc[~is_drift], "o", color="C0", markersize=5)
        ax.plot(at[is_drift], auc[is_drift], "D", color="C3", markersize=7, label="drift")
        ax.axhline(
            0.5 + self.min_difference / 2,
            color="0.4",
            linestyle=":",
            linewidth=1,
            label=f"least difference, {self.min_difference:g}",
        )
        ax.set(xlabel="Window", ylabel="AUC of new against reference", ylim=(0.4, 1.02))
        ax.yaxis.label.set_color("C0")
        step = -(-len(at) // _MOST_LABELS)
        names = [str(record["window"]) for record in self.history][::step]
        tilted = max(map(len, names)) > 4
        ax.set_xticks(
            at[::step], names, rotation=45 if tilted else 0, ha="right" if tilted else "center"
        )
        # above the lines of both axes
        ax.set_zorder(rate_ax.get_zorder() + 1)
        ax.patch.set_visible(False)
        handles = [*ax.get_legend_handles_labels()[0], *rate_ax.get_legend_handles_labels()[0]]
        ax.legend(handles=handles, loc="upper left")
        self.ax_, self.rate_ax_, self.figure_ = ax, rate_ax, ax.figure
        return self

    def _column(self, name):
        return np.array([record[name] for record in self.history], dtype=float)
