import pickle

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer
from sktransfer.monitoring import NoveltyDetector

METHODS = ["knn", "mahalanobis", "relative_mahalanobis"]


def drawn(rng, n, n_features=20):
    """Return rows about three means, and the number of each one's mean."""
    means = np.random.default_rng(5).normal(3, 1, (3, n_features))
    y = rng.integers(0, 3, n)
    return means[y] + rng.normal(0, 0.5, (n, n_features)), y


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_another_kind_have_lower_scores(method):
    rng = np.random.default_rng(0)
    X, y = drawn(rng, 120)
    others = np.random.default_rng(9).normal(3, 1, (60, 20))
    detector = NoveltyDetector(method).fit(X, y)
    scores = detector.score_samples(np.concatenate([drawn(rng, 60)[0], others]))
    assert roc_auc_score(np.repeat([1, 0], 60), scores) > 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("contamination", [0.05, 0.2])
def test_new_rows_of_the_same_kind_are_novel_at_the_rate_that_was_set(method, contamination):
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(60):
        detector = NoveltyDetector(method, contamination=contamination).fit(*drawn(rng, 100))
        rates.append(np.mean(detector.predict(drawn(rng, 200)[0]) == -1))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) < contamination + 3 * error
    assert np.mean(rates) > contamination - 0.2 * contamination - 3 * error


def test_scores_of_the_fitted_rows_without_leaving_them_out_would_give_more_false_alarms():
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(30):
        X, y = drawn(rng, 100)
        detector = NoveltyDetector("mahalanobis").fit(X, y)
        threshold = np.percentile(detector._scores.score(X), 5)
        rates.append(np.mean(detector.score_samples(drawn(rng, 200)[0]) < threshold))
    assert np.mean(rates) > 0.07


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_row_has_the_score_that_it_has_when_it_is_left_out(method):
    X, y = drawn(np.random.default_rng(2), 40)
    detector = NoveltyDetector(method).fit(X.astype(np.float32), y)
    np.testing.assert_array_equal(detector.score_samples(X.astype(np.float32)), detector.scores_)
    # the same numbers in float64
    same = X.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(detector.score_samples(same[::-1]), detector.scores_[::-1])
    assert np.sum(detector.predict(same) == -1) == 2  # 0.05 * 41
    if method != "relative_mahalanobis":  # that is a difference, which can go either way
        assert (detector._scores.score(same) > detector.scores_).mean() > 0.9


def test_auto_uses_labels_where_there_are_some():
    X, y = drawn(np.random.default_rng(3), 30)
    detector = NoveltyDetector()
    assert detector.fit(X).method_ == "knn"
    assert not hasattr(detector, "classes_")
    assert detector.fit(X, y.astype(str)).method_ == "mahalanobis"
    assert detector.classes_.tolist() == ["0", "1", "2"]
    assert not hasattr(detector.fit(X), "classes_")


def test_equal_scores_are_not_novel():
    X = np.repeat(np.eye(3), 20, axis=0)
    detector = NoveltyDetector(contamination=0.3).fit(X)
    assert (detector.predict(X) == 1).all()
    assert (detector.predict(-np.eye(3)) == -1).all()


def test_fewer_rows_than_the_rate_needs_call_novel_what_is_beyond_all_of_them():
    X, _ = drawn(np.random.default_rng(4), 8)
    detector = NoveltyDetector(contamination=0.01).fit(X)
    assert detector.offset_ == detector.scores_.min()
    assert (detector.predict(X) == 1).all()


def test_a_class_of_one_row_does_not_make_its_row_normal():
    X, y = drawn(np.random.default_rng(6), 60)
    X[7], y = -X[7], y.astype(str).astype(object)
    y[7] = "alone"
    detector = NoveltyDetector("mahalanobis").fit(X, y)
    assert np.isfinite(detector.scores_).all()
    assert detector.scores_.argmin() == 7


def test_it_is_a_step_after_a_transformer_and_takes_images(shapes, cache):
    paths, _ = shapes
    transformer = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=cache)
    detector = make_pipeline(transformer, NoveltyDetector()).fit(paths[:20])
    noise = list(np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8))
    assert detector.score_samples(noise).max() < detector.score_samples(paths[20:]).min()
    assert detector.predict(noise).tolist() == [-1] * 4
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.decision_function(noise), detector.decision_function(noise))


@pytest.mark.parametrize(
    ("detector", "y", "message"),
    [
        (NoveltyDetector("mahalanobis"), None, "requires y to be passed"),
        (NoveltyDetector(), np.zeros(30), "y has one class, 0.0"),
        (NoveltyDetector(), np.zeros(29), "X has 30 rows and y has 29 labels"),
        (NoveltyDetector(), np.linspace(0, 1, 30), "Unknown label type: continuous"),
        (NoveltyDetector("energy"), None, "'method' parameter"),
        (NoveltyDetector(contamination=0.0), None, "'contamination' parameter"),
        (NoveltyDetector(n_neighbors=0), None, "'n_neighbors' parameter"),
    ],
)
def test_what_can_not_be_fitted_is_refused(detector, y, message):
    X, _ = drawn(np.random.default_rng(7), 30)
    with pytest.raises(ValueError, match=message):
        detector.fit(X, y)
