import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, TrainingCurveDisplay

FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "max_epochs": 3,
    "freeze_depth": None,
}
HISTORY = [
    {"epoch": 1, "train_loss": 0.9, "lr": 1e-3, "valid_loss": 1.0, "valid_score": 0.5, "dur": 1.0},
    {"epoch": 2, "train_loss": 0.5, "lr": 5e-4, "valid_loss": 0.6, "valid_score": 0.8, "dur": 1.0},
    {"epoch": 3, "train_loss": 0.3, "lr": 1e-4, "valid_loss": 0.7, "valid_score": 0.7, "dur": 1.0},
]


@pytest.fixture(autouse=True)
def _no_figure_stays_open(monkeypatch):
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def fitted(shapes):
    return FineTunedClassifier(**FAST).fit(*shapes)


@pytest.fixture
def held_out(fitted, monkeypatch):
    """Return an estimator with the record of a training that early stopping ended."""
    monkeypatch.setattr(fitted, "history_", HISTORY)
    monkeypatch.setattr(fitted, "best_epoch_", 2, raising=False)
    return fitted


def drawn(display):
    return {line.get_label(): line.get_ydata().tolist() for line in display.lines_}


def test_the_losses_of_each_epoch_are_drawn(held_out):
    display = TrainingCurveDisplay.from_estimator(held_out)
    assert drawn(display) == {"training": [0.9, 0.5, 0.3], "validation": [1.0, 0.6, 0.7]}
    assert display.lines_[0].get_xdata().tolist() == [1, 2, 3]
    assert display.lines_[0].get_linestyle() != display.lines_[1].get_linestyle()
    assert display.ax_.get_xlabel() == "Epoch"
    assert display.ax_.get_ylabel() == "Loss"
    assert display.ax_.figure is display.figure_


def test_the_record_of_a_real_training_is_drawn(fitted):
    display = TrainingCurveDisplay.from_estimator(fitted)
    assert display.epochs.tolist() == list(range(1, fitted.n_iter_ + 1))
    recorded = [epoch["train_loss"] for epoch in fitted.history_]
    assert drawn(display)["training"] == recorded
    assert display.valid_loss is None
    assert display.best_line_ is None


def test_early_stopping_fills_every_curve(shapes):
    params = {**FAST, "early_stopping": True, "validation_fraction": 0.25, "random_state": 0}
    stopped = FineTunedClassifier(**params).fit(*shapes)
    display = TrainingCurveDisplay.from_estimator(stopped)
    assert display.best_epoch == stopped.best_epoch_
    for values in (display.valid_loss, display.valid_score, display.lr):
        assert np.isfinite(values).all()
        assert len(values) == stopped.n_iter_


def test_the_best_epoch_is_marked(held_out):
    display = TrainingCurveDisplay.from_estimator(held_out)
    assert set(display.best_line_.get_xdata()) == {2}
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["training", "validation", "best epoch: 2"]


def test_score_and_learning_rate_are_curves_of_their_own(held_out):
    score = TrainingCurveDisplay.from_estimator(held_out, curve="score", score_name="Accuracy")
    assert drawn(score) == {"validation": [0.5, 0.8, 0.7]}
    assert score.ax_.get_ylabel() == "Accuracy"
    rate = score.plot(curve="lr")
    assert rate is score
    assert drawn(rate) == {"training": [1e-3, 5e-4, 1e-4]}


def test_it_draws_into_given_axes(held_out):
    figure, ax = pyplot.subplots()
    display = TrainingCurveDisplay.from_estimator(held_out, ax=ax, line_kw={"lw": 7, "c": "red"})
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert [line.get_linewidth() for line in display.lines_] == [7, 7]
    assert len(pyplot.get_fignums()) == 1


def test_epochs_are_counted_in_whole_numbers(held_out):
    display = TrainingCurveDisplay.from_estimator(held_out)
    display.figure_.canvas.draw()
    ticks = display.ax_.get_xticks()
    assert np.array_equal(ticks, ticks.astype(int))


def test_an_epoch_without_validation_is_a_gap(held_out, monkeypatch):
    monkeypatch.setattr(held_out, "history_", [*HISTORY, {"epoch": 4, "train_loss": 0.2}])
    display = TrainingCurveDisplay.from_estimator(held_out)
    np.testing.assert_array_equal(display.valid_loss, [1.0, 0.6, 0.7, np.nan])


def test_the_last_step_of_a_pipeline_and_the_best_of_a_search_are_drawn(shapes):
    pipeline = make_pipeline("passthrough", FineTunedClassifier(**FAST)).fit(*shapes)
    assert len(TrainingCurveDisplay.from_estimator(pipeline).epochs) == 3
    search = GridSearchCV(pipeline, {"finetunedclassifier__max_epochs": [2]}, cv=2).fit(*shapes)
    assert len(TrainingCurveDisplay.from_estimator(search).epochs) == 2


@pytest.mark.parametrize(
    "estimator",
    [
        FineTunedClassifier("mini", recipe="fast"),
        make_pipeline(FineTunedClassifier("mini", recipe="fast")),
        GridSearchCV(FineTunedClassifier("mini", recipe="fast"), {}),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_not_fitted_is_scikit_learns_error(estimator):
    with pytest.raises(NotFittedError, match="fit"):
        TrainingCurveDisplay.from_estimator(estimator)


@pytest.mark.parametrize(
    ("estimator", "named"),
    [
        (LogisticRegression(), "got LogisticRegression$"),
        (FineTunedClassifier, "got FineTunedClassifier$"),
        (PretrainedFeatureTransformer("mini"), "got PretrainedFeatureTransformer$"),
        (make_pipeline(LogisticRegression()), "Pipeline, whose last step is LogisticRegression$"),
    ],
    ids=["sklearn", "class", "transformer", "pipeline"],
)
def test_another_estimator_is_told_what_is_allowed(estimator, named):
    with pytest.raises(TypeError, match=f"takes a FineTunedClassifier.*{named}"):
        TrainingCurveDisplay.from_estimator(estimator)


def test_an_unknown_curve_lists_those_that_are(fitted):
    with pytest.raises(ValueError, match="one of 'loss', 'score', 'lr', got 'accuracy'"):
        TrainingCurveDisplay.from_estimator(fitted, curve="accuracy")


def test_a_score_that_was_not_recorded_says_how_to_have_it(fitted):
    with pytest.raises(ValueError, match="nothing was held out; fit with early_stopping=True"):
        TrainingCurveDisplay.from_estimator(fitted, curve="score")


def test_without_matplotlib_the_error_names_the_extra(fitted, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'sktransfer\[plot\]'"):
        TrainingCurveDisplay.from_estimator(fitted)
