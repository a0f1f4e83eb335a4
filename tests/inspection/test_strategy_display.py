import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from sktransfer import FineTunedClassifier
from sktransfer.inspection import StrategyDisplay
from sktransfer.model_selection import StrategyResult, TransferSearchCV

pytest.importorskip("matplotlib").use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")
Text = pytest.importorskip("matplotlib.text").Text


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def result(name, score, seconds, kind="rows", status="within noise"):
    return StrategyResult(name, score, 0.0, 0.02, seconds, None, status, "", kind)


TRIED = [
    result("fine-tuned, deep", 0.9, 20.0, "fine-tuning", "best"),
    result("rows, slow", 0.85, 3.0),
    result("rows, quick", 0.85, 1.0),
    result("rows, poor", 0.6, 2.0, status="worse"),
    result("pixels", 0.4, 0.2, "pixels", "worse"),
    result("rows, failed", float("nan"), 1.0, status="failed"),
    result("rows, not tried", None, None, status="not tried"),
]


def test_the_frontier_holds_what_no_other_beats_in_score_and_time():
    display = StrategyDisplay(TRIED).plot()
    names = [strategy.strategy for strategy in display.frontier_]
    assert names == ["pixels", "rows, quick", "fine-tuned, deep"]
    assert display.line_.get_xdata().tolist() == [0.2, 1.0, 20.0]


def test_each_strategy_with_a_score_is_a_point_of_its_kind():
    display = StrategyDisplay(TRIED, score_name="Accuracy").plot()
    counts = {kind: len(points.get_xdata()) for kind, points in display.points_.items()}
    assert counts == {"pixels": 1, "rows": 3, "fine-tuning": 1}
    assert display.ax_.get_ylabel() == "Accuracy, mean of the folds"


def test_the_best_and_the_quickest_within_noise_are_named():
    display = StrategyDisplay(TRIED).plot()
    texts = [text.get_text() for text in display.ax_.texts]
    assert texts == ["quickest within noise:\nrows, quick", "best:\nfine-tuned, deep"]


@pytest.mark.parametrize("seconds", [0.03, 1.0, 50.0])
def test_names_are_inside_of_the_axes_and_apart_wherever_their_points_are(seconds):
    tried = [
        result("rows of mini, depth -1, LDA", 0.93, seconds, status="best"),
        result("rows of mini, depth -1, logistic", 0.92, seconds * 0.8),
        result("rows, quick", 0.5, 0.01, status="worse"),
        result("fine-tuned", 0.6, 100.0, "fine-tuning", "worse"),
    ]
    figure, ax = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    StrategyDisplay(tried).plot(ax)
    figure.canvas.draw()
    inside = ax.get_window_extent()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without their lines
    for box in boxes:
        assert inside.x0 < box.x0 < box.x1 < inside.x1
        assert inside.y0 < box.y0
    assert not boxes[0].overlaps(boxes[1])


def test_a_search_is_drawn_with_the_name_of_its_scoring():
    search = TransferSearchCV(FineTunedClassifier("mini"), scoring="balanced_accuracy")
    search.strategies_ = type("Table", (list,), {"metric": "score"})(TRIED)
    ax = pyplot.subplots()[1]
    display = StrategyDisplay.from_search(search, ax=ax, line_kw={"lw": 3})
    assert display.ax_ is ax
    assert display.score_name == "Balanced accuracy"
    assert display.line_.get_linewidth() == 3


def test_what_is_no_fitted_search_is_refused():
    with pytest.raises(NotFittedError):
        StrategyDisplay.from_search(TransferSearchCV(FineTunedClassifier("mini")))
    with pytest.raises(TypeError, match="got LogisticRegression"):
        StrategyDisplay.from_search(LogisticRegression())
    with pytest.raises(ValueError, match="no strategy has a score"):
        StrategyDisplay(TRIED[-2:]).plot()
