"""Matplotlib, where it is installed."""


def axes_or_new(ax, caller):
    """Return `ax`, or the axes of a new figure; `caller` is named where there is no matplotlib."""
    pyplot = imported_pyplot(caller)
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def imported_pyplot(caller):
    """Return ``matplotlib.pyplot``; `caller` is named where there is none."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f"{caller} needs matplotlib: pip install 'sktransfer[plot]'") from error
    return pyplot


def style(given, **defaults):
    """Return the user's line or area properties over ours; ``lw`` is ``linewidth``."""
    from matplotlib import cbook
    from matplotlib.lines import Line2D

    return {**defaults, **cbook.normalize_kwargs(given or {}, Line2D)}
