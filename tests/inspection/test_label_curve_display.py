import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.inspection import LabelCurveDisplay
from sktransfer.inspection._power_law import PowerLaw

pytest.importorskip("matplotlib").use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

SIZES = np.array([25, 50, 100, 200, 400])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def drawn(law, noise=0.004, seed=0):
    rng = np.random.default_rng(seed)
    return law(SIZES)[:, None] + noise * rng.normal(size=(len(SIZES), 8))


def blobs(n=120, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, 5)) + 1.2 * np.eye(n_classes, 5)[y], y


class Recorder(ClassifierMixin, BaseEstimator):
    """Keep what it is fitted to and scored on."""

    fitted, scored = [], []

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.fitted.append((X[:, 0], y))
        return self

    def score(self, X, y):
        self.scored.append((X[:, 0], y))
        return 0.5

    def predict(self, X):
        return np.zeros(len(X))


@pytest.fixture
def recorder():
    Recorder.fitted, Recorder.scored = [], []
    return Recorder()


def test_scores_have_a_row_for_each_size_and_a_column_for_each_repeat():
    models = {"weak": LogisticRegression(C=1e-3), "strong": LogisticRegression()}
    display = LabelCurveDisplay.from_estimators(models, *blobs(), n_repeats=3, random_state=0)
    assert list(display.test_scores) == ["weak", "strong"]
    for scores in display.test_scores.values():
        assert scores.shape == (len(display.train_sizes), 3)
    assert display.train_sizes[-1] == 90
    assert display.train_sizes[0] == 11
    assert display.test_share == 0.25


def test_fewer_labels_are_a_part_of_more_in_the_shares_of_the_classes(recorder):
    n = 120
    y = np.repeat([0, 0, 1, 2], n // 4)
    X = np.arange(n, dtype=float)[:, None]
    LabelCurveDisplay.from_estimator(
        recorder, X, y, train_sizes=[8, 20, 90], n_repeats=2, random_state=0
    )
    for repeat in range(2):
        fits = Recorder.fitted[repeat::2]
        assert [len(labels) for _, labels in fits] == [8, 20, 90]
        assert set(fits[0][0]) < set(fits[1][0]) < set(fits[2][0])
        assert not set(fits[2][0]) & set(Recorder.scored[repeat][0])
        for _, labels in fits:
            shares = np.bincount(labels, minlength=3) / len(labels)
            np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.13)
            assert shares.min() > 0


def test_strategies_are_fitted_to_the_same_images(recorder):
    X, y = np.arange(60.0)[:, None], np.arange(60) % 2
    models = {"one": recorder, "two": Recorder()}
    LabelCurveDisplay.from_estimators(models, X, y, n_repeats=2, random_state=0)
    half = len(Recorder.fitted) // 2
    for (first, _), (second, _) in zip(Recorder.fitted[:half], Recorder.fitted[half:], strict=True):
        np.testing.assert_array_equal(first, second)


def test_no_group_is_both_fitted_and_tested_on(recorder):
    X, y = np.arange(60.0)[:, None], np.arange(60) % 2
    groups = np.arange(60) // 6
    LabelCurveDisplay.from_estimator(
        recorder, X, y, groups=groups, train_sizes=[10, 20, 30], n_repeats=3, random_state=0
    )
    for (fitted, _), (scored, _) in zip(Recorder.fitted, Recorder.scored, strict=True):
        assert not {groups[int(i)] for i in fitted} & {groups[int(i)] for i in scored}


def test_the_same_seed_gives_the_same_scores():
    first, second = (
        LabelCurveDisplay.from_estimator(
            LogisticRegression(), *blobs(60), n_repeats=2, random_state=3
        ).test_scores["LogisticRegression"]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_each_image_passes_the_network_once(shapes, cache):
    X, y = shapes
    rows = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=str(cache))
    model = make_pipeline(rows, LogisticRegression(max_iter=500))
    with count_forward_passes() as counter:
        display = LabelCurveDisplay.from_estimator(
            model, X, y, train_sizes=[4, 8, 18], n_repeats=2, random_state=0
        )
    assert counter.computed == len(X)
    assert list(display.answers_) == ["LogisticRegression"]


def test_numbers_are_scored_with_losses_whose_best_is_zero():
    X, y = blobs()
    display = LabelCurveDisplay.from_estimator(
        Ridge(), X, X @ np.arange(5.0) + 0.1 * y, scoring="neg_mean_absolute_error", n_repeats=2
    )
    assert display.max_score == 0
    assert display.laws_["Ridge"].a <= 0
    assert display.score_name == "Negative mean absolute error"


def test_the_curve_is_drawn_with_its_band_to_four_times_the_labels():
    law = PowerLaw(0.9, 1.5, 0.5)
    display = LabelCurveDisplay(SIZES, {"rows": drawn(law)}, score_name="Accuracy").plot()
    (line,) = display.lines_
    x, y = line.get_data()
    assert (x[0], x[-1]) == (25, pytest.approx(1600))
    np.testing.assert_allclose(y, law(x), atol=0.01)
    band = display.bands_[0].get_paths()[0].get_extents()
    assert band.x1 == pytest.approx(1600)
    assert display.ax_.get_ylabel() == "Accuracy\nmean of 8 draws, 90 % interval"
    assert display.ax_.get_xscale() == "log"
    again = display.plot(pyplot.subplots()[1], extend=1, line_kw={"lw": 3})
    assert again.lines_[0].get_data()[0][-1] == pytest.approx(400)
    assert again.lines_[0].get_linewidth() == 3


def test_it_says_what_twice_the_labels_bring():
    law = PowerLaw(0.95, 2.0, 0.5)
    display = LabelCurveDisplay(SIZES, {"rows": drawn(law, 0.001)}).plot()
    gain = law(800) - law(400)
    said = display.answers_["rows"]
    assert said.startswith("rows: 0.850 with 400 labels; 800 would bring +0.0")
    low, high = (float(word) for word in said.split("(")[1].rstrip(")").split(" to "))
    assert low <= gain <= high


def test_it_says_when_more_labels_bring_little():
    display = LabelCurveDisplay(SIZES, {"rows": drawn(PowerLaw(0.8, 3.0, 2.0), 0.001)}).plot()
    assert display.answers_["rows"].endswith(": more labels bring little")


def test_it_says_when_it_can_not_tell():
    noisy = drawn(PowerLaw(0.8, 0.5, 0.3), 0.15)
    display = LabelCurveDisplay(SIZES, {"rows": noisy}).plot()
    assert display.answers_["rows"].endswith("can't tell whether more labels are worth it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_sizes": SIZES[:2], "scores": np.zeros((2, 4))}, "at least 3 numbers of labels"),
        ({"scores": np.zeros((5, 1))}, "at least 2 repeats"),
        ({"scores": np.full((5, 3), 1.5)}, "above max_score=1"),
    ],
)
def test_scores_that_tell_nothing_are_refused(changes, message):
    sizes = changes.get("train_sizes", SIZES)
    with pytest.raises(ValueError, match=message):
        LabelCurveDisplay(sizes, {"rows": changes["scores"]}).plot()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"train_sizes": [10, 50, 200]}, "from 1 to 90"),
        ({"n_repeats": 1}, "n_repeats"),
        ({"estimators": {}}, "estimators must not be empty"),
    ],
)
def test_parameters_that_can_not_be_used_are_refused(parameters, message):
    X, y = blobs()
    parameters = {"estimators": {"linear": LogisticRegression()}, **parameters}
    with pytest.raises(ValueError, match=message):
        LabelCurveDisplay.from_estimators(X=X, y=y, **parameters)


def test_without_matplotlib_nothing_is_fitted_and_the_extra_is_named(monkeypatch, recorder):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"sktransfer\[plot\]"):
        LabelCurveDisplay.from_estimator(recorder, *blobs())
    assert not Recorder.fitted
