"""What a fit that continues another one learns, and what it keeps."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sktransfer import FineTunedClassifier, FineTunedRegressor

FAST = {
    "backbone": "mini",
    "image_size": 32,
    "augment": None,
    "augment_views": None,
    "dropout": 0.0,
    "random_state": 0,
}
HEAD_ALONE = {**FAST, "freeze_depth": None}
LAST_STAGE = {**FAST, "freeze_depth": -1, "max_epochs": 3}
COLOURS = [(220, 60, 60), (60, 200, 60), (70, 70, 230)]


def draw_kind(kind, rng):
    """Return an array with a disc or a square in one of three colours: six kinds."""
    image = Image.fromarray(rng.integers(0, 120, size=(32, 32, 3), dtype=np.uint8))
    left, top = (int(value) for value in rng.integers(2, 12, size=2))
    pen = ImageDraw.Draw(image)
    draw = pen.ellipse if kind % 2 else pen.rectangle
    draw([left, top, left + 17, top + 17], fill=COLOURS[kind // 2])
    return np.asarray(image)


@pytest.fixture(scope="module")
def kinds():
    """Return 600 drawn images of six kinds, and their kinds."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(600) % 6)
    return np.stack([draw_kind(kind, rng) for kind in y]), y


@pytest.fixture(scope="module")
def brightness(kinds):
    """Return the images, and a number for each that can be learned in part."""
    X, y = kinds
    return X, y // 2 * 5.0 + X.mean(axis=(1, 2, 3)) / 10


# a linear head alone


@pytest.mark.parametrize(("replay", "shift"), [(0, 3.0), (200, 1.5)])
def test_a_linear_head_learns_that_the_targets_have_shifted(brightness, replay, shift):
    X, y = brightness
    regressor = FineTunedRegressor(**HEAD_ALONE, replay=replay).partial_fit(X[:200], y[:200])
    before = regressor.predict(X[400:])
    assert regressor.score(X[400:], y[400:]) > 0.8
    after = regressor.partial_fit(X[200:400], y[200:400] + 3).predict(X[400:])
    # with the old images, half of all say the one and half the other
    assert np.mean(after - before) == pytest.approx(shift, rel=0.1)
    assert regressor.score(X[400:], y[400:] + shift) > 0.8


def test_targets_far_outside_of_the_unit_of_the_first_call_are_learned_in_their_own(brightness):
    X, y = brightness
    regressor = FineTunedRegressor(**HEAD_ALONE).partial_fit(X[:200], y[:200])
    regressor.partial_fit(X[200:400], 1e5 - 1000 * y[200:400])
    assert regressor.score(X[400:], 1e5 - 1000 * y[400:]) > 0.8


def test_a_linear_head_learns_classes_that_come_with_a_later_call(kinds):
    X, y = kinds
    train, test = np.arange(400), np.arange(400, 600)
    first, second = (train[(y[train] < 3) == is_first] for is_first in (True, False))
    assert len(first) == pytest.approx(200, abs=20)
    classifier = FineTunedClassifier(**HEAD_ALONE, replay=200)
    classifier.partial_fit(X[first], y[first], classes=range(6))
    assert set(classifier.predict(X[second])) <= {0, 1, 2}
    classifier.partial_fit(X[second], y[second])
    predicted = classifier.predict(X[test])
    everything = FineTunedClassifier(**HEAD_ALONE).fit(X[train], y[train]).score(X[test], y[test])
    for classes in ((0, 1, 2), (3, 4, 5)):
        chosen = np.isin(y[test], classes)
        assert np.mean(predicted[chosen] == y[test][chosen]) > everything - 0.1


def test_with_all_old_images_partial_fit_gives_what_fit_gives(kinds):
    X, y = kinds
    everything = FineTunedClassifier(**HEAD_ALONE).fit(X[:120], y[:120])
    in_parts = FineTunedClassifier(**HEAD_ALONE, replay=120)
    for start in range(0, 120, 40):
        part = slice(start, start + 40)
        in_parts.partial_fit(X[part], y[part], classes=range(6))
    np.testing.assert_allclose(
        in_parts.predict_proba(X[120:]), everything.predict_proba(X[120:]), atol=1e-4
    )


def test_a_few_old_images_do_not_stand_for_all_of_them(brightness):
    X, y = brightness
    regressor = FineTunedRegressor(**HEAD_ALONE, replay=20).partial_fit(X[:300], y[:300])
    before = regressor.score(X[400:], y[400:])
    few = FineTunedRegressor(**HEAD_ALONE).fit(X[280:320], y[280:320]).score(X[400:], y[400:])
    after = regressor.partial_fit(X[300:320], y[300:320]).score(X[400:], y[400:])
    assert before - 0.05 < after
    assert few < after


def test_images_of_calls_without_replay_are_not_held_and_not_forgotten_either(kinds):
    X, y = kinds
    parts = [np.flatnonzero(np.isin(y, classes))[:60] for classes in ((0, 1), (2, 3), (4, 5))]
    classifier = FineTunedClassifier(**HEAD_ALONE)
    classifier.partial_fit(X[parts[0]], y[parts[0]], classes=range(6))
    classifier.set_params(replay=1000)
    for part in parts[1:]:
        classifier.partial_fit(X[part], y[part])
    assert all(classifier.score(X[part], y[part]) > 0.5 for part in parts)


def test_warm_start_learns_that_the_targets_have_shifted(brightness):
    X, y = brightness
    regressor = FineTunedRegressor(**HEAD_ALONE, warm_start=True).fit(X[:100], y[:100])
    regressor.fit(X[100:200], y[100:200] + 3)
    assert regressor.score(X[400:], y[400:] + 3) > 0.8


def test_one_new_image_is_enough_for_a_call(brightness):
    X, y = brightness
    regressor = FineTunedRegressor(**HEAD_ALONE).partial_fit(X[:1], y[:1])
    np.testing.assert_allclose(regressor.predict(X[1:5]), y[0], rtol=0.1)
    regressor.partial_fit(X[:1], y[:1] + 10)
    np.testing.assert_allclose(regressor.predict(X[:1]), y[:1] + 10, rtol=0.1)


def test_labels_that_come_with_a_later_call_are_learned(kinds):
    X, y = kinds
    labels = np.stack([y % 2, y // 2 == 0, y // 2 == 1, y // 2 == 2], axis=1).astype(int)
    first, second = np.flatnonzero(y < 2)[:60], np.flatnonzero(y >= 2)[:120]
    classifier = FineTunedClassifier(**HEAD_ALONE, replay=60)
    classifier.partial_fit(X[first], labels[first]).partial_fit(X[second], labels[second])
    predicted = classifier.predict(X[400:])
    assert np.all(np.mean(predicted[:, 1:] == labels[400:, 1:], axis=0) > 0.9)


# stages that train, and other heads


def test_targets_far_outside_of_the_first_unit_are_learned_where_stages_train(brightness):
    X, y = brightness
    regressor = FineTunedRegressor(**LAST_STAGE).partial_fit(X[:60], y[:60])
    regressor.partial_fit(X[60:160], 100 * y[60:160] + 1e4)
    assert regressor.score(X[400:], 100 * y[400:] + 1e4) > 0.7


def test_classes_that_come_later_are_learned_where_stages_train(kinds):
    X, y = kinds
    first, second = np.flatnonzero(y < 3)[:60], np.flatnonzero(y >= 3)[:60]
    classifier = FineTunedClassifier(**LAST_STAGE, replay=60)
    classifier.partial_fit(X[first], y[first], classes=range(6)).partial_fit(X[second], y[second])
    assert classifier.score(X[400:], y[400:]) > 0.8


@pytest.mark.parametrize("freeze_depth", [None, -1])
def test_a_head_with_a_hidden_layer_is_trained_further_as_it_is(kinds, freeze_depth):
    X, y = kinds
    options = {**FAST, "freeze_depth": freeze_depth, "head": (8,), "max_epochs": 1, "lr": 1e-12}
    classifier = FineTunedClassifier(**options, replay=40).partial_fit(X[:40], y[:40])
    before = classifier.predict_proba(X[40:60])
    after = classifier.partial_fit(X[40:80], y[40:80]).predict_proba(X[40:60])
    np.testing.assert_allclose(after, before, atol=1e-4)
