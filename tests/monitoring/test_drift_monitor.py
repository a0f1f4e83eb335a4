import pickle

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.exceptions import UnreadableImageWarning
from sktransfer.monitoring import DriftMonitor
from sktransfer.monitoring._two_sample import corrected, distribution_difference, n_permutations


def families(report):
    return {test.family for test in report if test.is_drift}


def changed(X, change):
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in X])


def test_images_of_the_same_kind_are_no_drift(monitor, draw):
    report = monitor.compare(draw(100, 2)[0])
    assert not report.is_drift
    assert report.verdict.startswith("No drift: none of ")
    assert report.auc_interval[0] < 0.5 < report.auc_interval[1]
    assert report.novelty_rate < 0.15
    assert (report.n_reference, report.n_new, report.n_unreadable) == (120, 100, 0)


def test_blurred_and_dark_images_are_drift_in_what_has_changed(monitor, draw):
    X, _ = draw(60, 3)
    blurred = monitor.compare(changed(X, lambda i: i.filter(ImageFilter.GaussianBlur(1))))
    assert blurred.verdict.startswith("Drift: ")
    assert {"rows", "quality"} <= families(blurred)
    found = {test.what: test for test in blurred}
    assert found["sharpness"].is_drift
    assert found["sharpness"].new < found["sharpness"].reference
    assert found["size"].effect == 0
    assert blurred.auc > 0.95
    dark = monitor.compare(changed(X, lambda i: i.point(lambda value: value // 2)))
    assert {test.what for test in dark if test.is_drift} >= {"rows", "brightness", "contrast"}


def test_another_mix_of_classes_is_found_and_its_shares_are_corrected(monitor, draw):
    X, y = draw(150, 4, [0.1, 0.1, 0.8])
    report = monitor.compare(X)
    assert "classes" in families(report)
    assert not families(report) & {"novelty", "quality"}
    for share in report.class_shares:
        assert share.corrected == pytest.approx(np.mean(y == share.label), abs=0.06)
        assert share.low <= share.corrected <= share.high
    assert sum(share.corrected for share in report.class_shares) == pytest.approx(1)


def test_drift_needs_a_difference_as_large_as_the_user_asked(monitor, draw):
    X, _ = draw(150, 4, [0.1, 0.1, 0.8])
    patient = clone(monitor).set_params(min_difference=0.9)
    patient.fit(draw(120, 1)[0], estimator=monitor.estimator_)
    report = patient.compare(X)
    assert not report.is_drift
    assert min(test.p_value for test in report) < 0.05
    assert "with a smaller one" in report.verdict


def test_the_most_novel_images_are_named_and_shown(monitor, draw):
    X, _ = draw(30, 5)
    X[[4, 17]] = 255 - X[[4, 17]] // 3
    report = monitor.compare(X)
    first = report.most_novel[:2]
    assert sorted(image.position for image in first) == [4, 17]
    assert all(image.is_novel for image in first)
    assert all(image.picture.uri.startswith("data:image/") for image in first)
    assert first[0].score <= first[1].score
    assert len(report.most_novel) == monitor.n_shown


def test_equal_images_give_equal_reports_and_a_pickle_gives_the_same(monitor, draw):
    X, _ = draw(40, 6)
    report, again = monitor.compare(X), pickle.loads(pickle.dumps(monitor)).compare(X)
    assert list(report) == list(again)
    assert report.class_shares == again.class_shares


def test_a_pickle_holds_no_pixels(draw):
    small, large = (draw(10, 23)[0].repeat(factor, axis=1) for factor in (1, 8))
    sizes = [len(pickle.dumps(DriftMonitor().fit(X))) for X in (small, large)]
    assert sizes[1] < sizes[0] + 1000


def test_an_image_passes_the_network_once_for_rows_and_predictions(monitor, draw):
    X, _ = draw(25, 7)
    with count_forward_passes() as counter:
        monitor.compare(X)
        monitor.compare(X)
    assert counter.computed == len(X)


def test_files_that_can_not_be_read_are_counted(monitor, draw):
    X = [Image.fromarray(image) for image in draw(30, 8)[0]]
    X[:9] = [b"no image"] * 9
    with pytest.warns(UnreadableImageWarning, match="9 of 30"):
        report = monitor.compare(X)
    assert report.n_unreadable == 9
    (unreadable,) = (test for test in report if test.what == "unreadable")
    assert unreadable.is_drift
    assert unreadable.new == pytest.approx(0.3)
    # positions are those of X
    assert min(image.position for image in report.most_novel) >= 9


def test_windows_are_kept_with_their_names(monitor, draw):
    monitor = pickle.loads(pickle.dumps(monitor))
    monitor.update(draw(40, 22)[0], "Monday")
    report = monitor.update(draw(40, 10, [0.0, 0.05, 0.95])[0])
    assert [record["window"] for record in monitor.history_] == ["Monday", 2]
    assert [record["is_drift"] for record in monitor.history_] == [False, True]
    assert monitor.history_[1]["verdict"] == report.verdict
    assert monitor.history_[1]["auc"] == report.auc
    with pytest.raises(ValueError, match="X has 2 images"):
        monitor.update(draw(2, 11)[0])
    assert len(monitor.history_) == 2
    monitor.fit(draw(20, 1)[0])
    assert monitor.history_ == []


def test_the_rows_are_those_of_the_estimator(model, draw):
    X, y = draw(24, 12)
    of_pipeline = DriftMonitor().fit(X, estimator=model).transformer_
    assert of_pipeline.get_params() == {
        **model[0].get_params(),
        "on_error": "nan",
    }
    tuned = FineTunedClassifier("mini", freeze_depth=None, image_size=48, max_epochs=1)
    of_tuned = DriftMonitor().fit(X, estimator=tuned.fit(*draw(20, 13))).transformer_
    assert (of_tuned.backbone, of_tuned.image_size) == ("mini", 48)
    assert DriftMonitor().fit(X).transformer_.backbone == "mini"
    own = PretrainedFeatureTransformer("mini", depth=-1, image_size=32)
    assert DriftMonitor(own).fit(X, y, estimator=model).transformer_.depth == -1


def test_images_that_the_estimator_was_trained_on_are_noticed(draw, tmp_path):
    X, y = draw(20, 14)
    paths = []
    for i, image in enumerate(X):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    tuned = FineTunedClassifier("mini", freeze_depth=None, image_size=32, max_epochs=1)
    tuned.partial_fit(paths[:6], y[:6], classes=["blue", "green", "red"])
    tuned.partial_fit(paths[6:10], y[6:10])
    held_out = DriftMonitor().fit(paths[10:], estimator=tuned)
    assert held_out.n_trained_on_ == 0
    with pytest.warns(UserWarning, match="3 images of the reference are among those"):
        monitor = DriftMonitor().fit(paths[4:5] + paths[8:], estimator=pickle_of(tuned))
    assert monitor.n_trained_on_ == 3
    assert "3 images of the reference were trained on" in repr(monitor.compare(paths[10:]))
    assert "were trained on" not in repr(held_out.compare(paths[10:]))


def pickle_of(estimator):
    return pickle.loads(pickle.dumps(estimator))


def test_an_estimator_that_does_not_say_what_it_was_fitted_on_is_not_accused(monitor):
    assert monitor.n_trained_on_ is None


def test_rows_are_compared_as_they_are_with_passthrough():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 6)), rng.integers(0, 2, 80)
    X[:, 0] += 3 * y
    model = LogisticRegression().fit(X[:40], y[:40])
    monitor = DriftMonitor("passthrough").fit(X[40:], y[40:], estimator=model)
    report = monitor.compare(X[:40] + [0, 5, 0, 0, 0, 0])
    assert {test.family for test in report} == {"rows", "novelty", "predictions", "classes"}
    # of two classes, the probability of one says all
    assert [test.what for test in report if test.family == "predictions"] == ["1"]
    assert "rows" in families(report)
    assert report.most_novel[0].source == f"row {report.most_novel[0].position}"
    assert report.most_novel[0].picture is None


def test_p_values_are_corrected_for_the_number_of_families_and_of_tests():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(90, 4)), np.arange(90) % 3
    model = LogisticRegression().fit(X[:30], y[:30])
    for estimator, n_families in ((None, 2), (model, 4)):
        monitor = DriftMonitor("passthrough").fit(X[:60], estimator=estimator)
        found = {test.family: test for test in monitor.compare(X[60:] + 9)}
        # the least that so many permutations can give, for each family
        least = 1 / (1 + n_permutations(0.05 / n_families))
        assert found["rows"].p_value == pytest.approx(n_families * least)
        assert found["rows"].is_drift
    before, now = (model.predict_proba(rows) for rows in (X[:60], X[60:]))
    raw = [distribution_difference(before[:, k], now[:, k])[1] for k in range(3)]
    of_predictions = [test for test in monitor.compare(X[60:]) if test.family == "predictions"]
    expected = [min(1.0, 4 * p_value) for p_value in corrected(raw)]
    assert [test.p_value for test in of_predictions] == pytest.approx(expected)


def test_predicted_numbers_are_compared_too():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 3))
    model = LinearRegression().fit(X, X[:, 0])
    monitor = DriftMonitor("passthrough").fit(X[:100], estimator=model)
    report = monitor.compare(X[100:] + [2, 0, 0])
    (number,) = (test for test in report if test.family == "predictions")
    assert number.what == "number 0"
    assert number.is_drift
    assert report.class_shares == ()


def test_reference_labels_that_the_estimator_does_not_have_are_refused(model, draw):
    X, y = draw(20, 15)
    y = y.astype(object)
    y[3] = "white"
    with pytest.raises(ValueError, match=r"labels \['white'\], and the estimator only has"):
        DriftMonitor().fit(X, y, estimator=model)


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (LogisticRegression(), NotFittedError, "not fitted yet"),
        (LinearSVC(), TypeError, "LinearSVC without predict_proba"),
        (PretrainedFeatureTransformer("mini"), TypeError, "must be a fitted classifier"),
    ],
)
def test_an_estimator_that_can_not_be_monitored_is_refused(estimator, error, message, draw):
    X, y = draw(20, 16)
    if error is TypeError:
        rows = X if isinstance(estimator, PretrainedFeatureTransformer) else X.reshape(20, -1)
        estimator.fit(rows, y)
    with pytest.raises(error, match=message):
        DriftMonitor().fit(X, estimator=estimator)


def test_a_multilabel_classifier_is_refused(draw):
    X, y = draw(20, 17)
    labels = np.stack([y == "red", y != "green"], axis=1).astype(int)
    tuned = FineTunedClassifier("mini", freeze_depth=None, image_size=32, max_epochs=1)
    with pytest.raises(ValueError, match="several labels for an image"):
        DriftMonitor().fit(draw(20, 21)[0], estimator=tuned.fit(X, labels))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("level", 0.0),
        ("min_difference", 1.5),
        ("transformer", "mini"),
        ("n_shown", -1),
        ("contamination", 0.9),
    ],
)
def test_a_wrong_parameter_is_named(parameter, value, draw):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter"):
        DriftMonitor(**{parameter: value}).fit(draw(10, 0)[0])


def test_labels_of_another_length_are_refused(draw):
    X, y = draw(10, 18)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DriftMonitor().fit(X, y[:9])


def test_a_fit_that_fails_leaves_the_monitor_not_fitted(draw):
    X, y = draw(12, 19)
    monitor = DriftMonitor().fit(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        monitor.fit(X, y[:3])
    with pytest.raises(NotFittedError):
        monitor.compare(X)


def test_a_pipeline_of_one_step_is_looked_into(draw):
    X, y = draw(16, 20)
    tuned = FineTunedClassifier("mini", freeze_depth=None, image_size=32, max_epochs=1)
    with pytest.warns(UserWarning, match="16 images"):
        monitor = DriftMonitor().fit(X, estimator=make_pipeline(tuned).fit(X, y))
    assert monitor.transformer_.image_size == 32
