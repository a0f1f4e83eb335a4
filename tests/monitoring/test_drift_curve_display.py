import sys

import matplotlib
import numpy as np
import pytest

from sktransfer.monitoring import DriftCurveDisplay, DriftMonitor

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def monitor():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor("passthrough", level=0.01).fit(rng.normal(size=(80, 4)))
    for i in range(4):
        monitor.update(rng.normal(1.5 * (i == 2), 1, (40, 4)), f"2026-0{i + 1}")
    return monitor


def test_drift_is_marked_and_windows_are_named(monitor):
    display = monitor.plot()
    assert [record["is_drift"] for record in monitor.history_] == [False, False, True, False]
    top, bottom = display.axes_
    for ax in display.axes_:
        (band,) = ax.patches
        assert (band.get_x(), band.get_width()) == (1.5, 1.0)
        assert [text.get_text() for text in ax.get_legend().get_texts()].count("drift") == 1
    curves = {line.get_label(): line for line in top.get_lines()}
    expected = [record["auc"] for record in monitor.history_]
    assert curves["AUC"].get_ydata().tolist() == expected
    assert curves["least difference, 0.1"].get_ydata()[0] == pytest.approx(0.55)
    names = [text.get_text() for text in bottom.get_xticklabels()]
    assert names == ["2026-01", "2026-02", "2026-03", "2026-04"]
    rates = [record["novelty_rate"] for record in monitor.history_]
    assert bottom.get_lines()[0].get_ydata().tolist() == rates
    matplotlib.pyplot.close(display.figure_)


def test_axes_of_the_user_are_drawn_on(monitor):
    figure, axes = matplotlib.pyplot.subplots(2)
    assert monitor.plot(axes).axes_ == tuple(axes)
    matplotlib.pyplot.close(figure)


def test_many_windows_are_not_all_named(monitor):
    history = [{**monitor.history_[0], "window": i} for i in range(100)]
    display = DriftCurveDisplay(history, min_difference=0.1, contamination=0.05).plot()
    assert len(display.axes_[1].get_xticks()) <= 24
    matplotlib.pyplot.close(display.figure_)


def test_there_must_be_a_window():
    monitor = DriftMonitor("passthrough").fit(np.eye(5))
    with pytest.raises(ValueError, match="call update"):
        monitor.plot()


def test_without_matplotlib_the_extra_is_named(monitor, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"sktransfer\[plot\]"):
        monitor.plot()
