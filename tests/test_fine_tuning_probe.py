"""The share of the linear probe in predictions, and predictions of mirror images."""

import pickle

import numpy as np
import pytest

from sktransfer import FineTunedClassifier, FineTunedRegressor
from sktransfer.images import _image_ref

FAST = {
    "backbone": "mini",
    "image_size": 32,
    "freeze_depth": -1,
    "max_epochs": 4,
    "augment": None,
    "dropout": 0.0,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def squares():
    """Return arrays of a bright square on one side of a dark image, and the side."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 80, (24, 32, 32, 3), dtype=np.uint8)
    for i in range(24):
        X[i, 8:24, 2:14] += 150
        if i % 2:
            X[i] = X[i, :, ::-1]
    return X, np.where(np.arange(24) % 2, "right", "left")


def logits_of(fitted, X):
    """Return the difference of the logits of two classes."""
    negative, positive = np.log(fitted.predict_proba(X)).T
    return positive - negative


def test_the_probe_is_the_network_that_training_started_from(squares):
    X, y = squares
    shares = {
        weight: logits_of(FineTunedClassifier(**FAST, probe_weight=weight).fit(X, y), X)
        for weight in (0.0, 0.5)
    }
    start = FineTunedClassifier(**{**FAST, "lr": 1e-12}, probe_weight=0.0).fit(X, y)
    expected = (shares[0.0] + logits_of(start, X)) / 2
    np.testing.assert_allclose(shares[0.5], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(shares[0.5] - shares[0.0]).max() > 0.01  # or the share would not show


def test_the_probe_has_a_share_in_predicted_numbers(squares):
    X, y = squares
    numbers = np.where(y == "left", 10.0, 20.0) + X.mean((1, 2, 3))
    of = {
        weight: FineTunedRegressor(**FAST, probe_weight=weight).fit(X, numbers).predict(X)
        for weight in (0.0, 0.5)
    }
    start = FineTunedRegressor(**{**FAST, "lr": 1e-12}).fit(X, numbers).predict(X)
    np.testing.assert_allclose(of[0.5], (of[0.0] + start) / 2, rtol=1e-4)


def test_the_probe_does_not_train(squares):
    X, y = squares
    fitted = FineTunedClassifier(**FAST, probe_weight=0.5).fit(X, y)
    start = FineTunedClassifier(**{**FAST, "lr": 1e-12}, probe_weight=0.5).fit(X, y)
    of_fitted, of_start = (network.net_.module_.probe.state_dict() for network in (fitted, start))
    assert of_fitted.keys() == of_start.keys()
    assert all(of_fitted[name].equal(of_start[name]) for name in of_fitted)


def test_a_saved_classifier_keeps_its_probe(squares):
    X, y = squares
    fitted = FineTunedClassifier(**FAST, probe_weight=0.5).fit(X, y)
    restored = pickle.loads(pickle.dumps(fitted))
    assert restored.net_.module_.probe_weight == 0.5
    np.testing.assert_array_equal(restored.predict_proba(X), fitted.predict_proba(X))


def test_the_probe_learns_new_classes_in_a_continued_fit(squares):
    X, y = squares
    blank = np.full((12, 32, 32, 3), 40, dtype=np.uint8)
    blank[:, ::4] = 90
    classifier = FineTunedClassifier(**FAST, probe_weight=0.9, replay=24)
    classifier.partial_fit(X, y, classes=["blank", "left", "right"])
    assert not (classifier.predict(blank) == "blank").any()
    classifier.partial_fit(blank, ["blank"] * 12)
    assert (classifier.predict(blank) == "blank").all()
    assert (classifier.predict(X) == y).all()


def test_a_continued_fit_keeps_the_probe_of_the_first(squares):
    X, y = squares
    classifier = FineTunedClassifier(**FAST, recipe="fast", warm_start=True).fit(X, y)
    assert classifier.set_params(recipe="default").fit(X, y).recipe_["probe_weight"] == 0
    with pytest.raises(ValueError, match=r"probe_weight=0\.5 was 'auto' when training began"):
        classifier.set_params(probe_weight=0.5).fit(X, y)


def test_a_head_without_a_linear_start_has_no_probe(squares):
    X, y = squares
    hidden = FineTunedClassifier(**FAST, head=(8,)).fit(X, y)
    assert hidden.recipe_["probe_weight"] == 0
    with pytest.raises(ValueError, match=r"probe_weight=0\.5 needs head='linear'.*\(8,\)"):
        hidden.set_params(probe_weight=0.5).fit(X, y)


def test_a_mirror_image_is_predicted_as_the_image_itself(squares):
    X, y = squares
    X = X.copy()
    X[:, 20:28, 20:28, 0] = 255  # so that no image is its own mirror image
    fitted = FineTunedClassifier(**FAST, tta="mirror").fit(X, y)
    mirrored = np.ascontiguousarray(X[:, :, ::-1])
    np.testing.assert_allclose(fitted.predict_proba(mirrored), fitted.predict_proba(X), rtol=1e-4)
    alone = fitted.set_params(tta=1)
    assert np.abs(alone.predict_proba(mirrored) - alone.predict_proba(X)).max() > 0.01


@pytest.mark.parametrize(
    ("augment", "tta"), [(None, 1), ("crop", 1), ("light", "mirror"), ("medium", "mirror")]
)
def test_mirror_images_are_predicted_where_training_images_are_mirrored(squares, augment, tta):
    X, y = squares
    given = {**FAST, "augment": augment, "max_epochs": 1}
    assert FineTunedClassifier(**given).fit(X, y).recipe_["tta"] == tta


def test_a_file_is_decoded_once_for_both_of_its_predictions(shapes, monkeypatch):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, tta="mirror", feature_cache=None).fit(X, y)
    n_decoded = []
    decode = _image_ref.decode_bytes
    monkeypatch.setattr(
        _image_ref, "decode_bytes", lambda *given: n_decoded.append(1) or decode(*given)
    )
    fitted.predict(X)
    assert len(n_decoded) == len(X)


def test_mirror_images_and_the_probe_are_part_of_an_onnx_file(squares, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    X, y = squares
    fitted = FineTunedClassifier(**FAST, tta="mirror", probe_weight=0.5, precision="float32").fit(
        X, y
    )
    fitted.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (probabilities,) = session.run(None, {"images": X})
    np.testing.assert_allclose(probabilities, fitted.predict_proba(X), atol=1e-4)
    with_probe = fitted.predict_proba(X)
    assert np.abs(fitted.set_params(tta=1).predict_proba(X) - with_probe).max() > 1e-3
