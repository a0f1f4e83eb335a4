"""Files of ONNX: they give what the estimator gives, for images of any size."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureTransformer,
    _onnx_export,
)
from sktransfer.backbones._registry import load_backbone

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

EXACT = {"precision": "float32", "feature_cache": None}
SIZES = [(64, 64), (48, 80), (121, 37), (20, 200), (7, 5)]


def draw(n, height, width, seed=0):
    """Return pictures (n, height, width, 3) with something to see in them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    resized = [Image.fromarray(image).resize((width, height)) for image in coarse]
    return np.stack([np.asarray(image) for image in resized])


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (rows,) = session.run(None, {"images": images})
    return rows


def metadata_of(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize("depth", [None, 0])
def test_features_equal_those_of_transform_for_images_of_any_size(depth, tmp_path):
    path = tmp_path / "features.onnx"
    fitted = PretrainedFeatureTransformer("mini", depth=depth, **EXACT).fit(draw(1, 64, 64))
    fitted.to_onnx(path)
    for n, (height, width) in enumerate(SIZES, start=1):
        images = draw(n, height, width)
        expected = fitted.transform(images)
        rows = run(path, images)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_pooling_with_powers_is_exported(tmp_path):
    path = tmp_path / "features.onnx"
    fitted = PretrainedFeatureTransformer("mini", depth=1, pooling="gem", image_size=32, **EXACT)
    images = draw(2, 40, 50)
    expected = fitted.fit_transform(images)
    fitted.to_onnx(path)
    np.testing.assert_allclose(
        run(path, images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_layers_between_pooling_and_last_linear_layer_are_exported(tmp_path):
    path = tmp_path / "features.onnx"
    fitted = PretrainedFeatureTransformer(
        "mobilenet_v3_small", weights=None, image_size=32, **EXACT
    )
    images = draw(2, 40, 50)
    expected = fitted.fit_transform(images)
    assert fitted.pooling_ == "head"
    fitted.to_onnx(path)
    np.testing.assert_allclose(
        run(path, images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_tokens_are_exported_for_any_number_of_images(tmp_path):
    pytest.importorskip("timm")
    path = tmp_path / "features.onnx"
    fitted = PretrainedFeatureTransformer("timm:test_vit", weights=None, **EXACT)
    fitted.fit(draw(1, 64, 64)).to_onnx(path)
    for n in (1, 3):
        images = draw(n, 50, 90)
        expected = fitted.transform(images)
        np.testing.assert_allclose(run(path, images), expected, rtol=1e-4, atol=1e-4)


def test_real_weights_give_the_same_features(imagenet_weights, tmp_path):
    path = tmp_path / "features.onnx"
    fitted = PretrainedFeatureTransformer(imagenet_weights, **EXACT).fit(draw(1, 64, 64))
    fitted.to_onnx(path)
    for size in ((300, 200), (225, 400)):
        images = draw(2, *size)
        expected = fitted.transform(images)
        np.testing.assert_allclose(
            run(path, images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )


@pytest.mark.parametrize("way", [{"freeze_depth": None}, {"freeze_depth": 0, "head": (8,)}])
def test_probabilities_equal_those_of_predict_proba_for_images_of_any_size(way, shapes, tmp_path):
    X, y = shapes
    path = tmp_path / "probabilities.onnx"
    fitted = FineTunedClassifier(
        "mini", recipe="fast", **EXACT, max_epochs=1, image_size=32, **way
    ).fit(X, y)
    fitted.to_onnx(path)
    for n, (height, width) in enumerate(SIZES, start=1):
        images = draw(n, height, width)
        np.testing.assert_allclose(run(path, images), fitted.predict_proba(images), atol=1e-4)
    told = metadata_of(path)
    assert json.loads(told["classes"]) == fitted.classes_.tolist() == ["disc", "square"]


def test_labels_and_numbers_are_exported_too(shapes, tmp_path):
    X, y = shapes
    path, images = tmp_path / "rows.onnx", draw(2, 40, 70)
    fast = {**EXACT, "max_epochs": 1, "image_size": 32, "freeze_depth": None}
    labels = np.stack([y == "disc", y != "disc"], axis=1).astype(int)
    classifier = FineTunedClassifier("mini", recipe="fast", **fast).fit(X, labels)
    classifier.to_onnx(path)
    np.testing.assert_allclose(run(path, images), classifier.predict_proba(images), atol=1e-4)
    assert "target_names" not in metadata_of(path)
    length = pd.DataFrame({"length": np.arange(len(X)) * 100.0})
    regressor = FineTunedRegressor("mini", recipe="fast", **fast).fit(X, length)
    regressor.to_onnx(path)
    assert onnx.load(path).graph.output[0].name == "numbers"
    assert json.loads(metadata_of(path)["target_names"]) == ["length"]
    np.testing.assert_allclose(run(path, images), regressor.predict(images), rtol=1e-4)


def test_the_file_tells_where_it_comes_from_and_exporting_has_no_other_effect(tmp_path, capfd):
    path = tmp_path / "features.onnx"
    fitted = PretrainedFeatureTransformer("mini", depth=1, **EXACT).fit(draw(1, 64, 64))
    network = load_backbone("mini").model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fitted.to_onnx(path)
    assert capfd.readouterr() == ("", "")
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    model = onnx.load(path)
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["backbone"] == "mini"
    assert told["licence"] == fitted.backbone_spec_.licence
    assert told["digest"] == fitted.backbone_spec_.digest
    assert told["sktransfer"]
    (images,), (features,) = model.graph.input, model.graph.output
    axes = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, axes) == ("images", ["n", "height", "width", 3])
    axes = [dim.dim_param or dim.dim_value for dim in features.type.tensor_type.shape.dim]
    assert (features.name, axes) == ("features", ["n", 32])
    assert b".py" not in path.read_bytes()  # no paths of the computer that wrote it


def test_a_transformer_that_is_not_fitted_is_scikit_learns_error(tmp_path):
    with pytest.raises(NotFittedError):
        PretrainedFeatureTransformer("mini").to_onnx(tmp_path / "features.onnx")


@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_the_error_names_it(module, tmp_path, monkeypatch):
    fitted = PretrainedFeatureTransformer("mini").fit(draw(1, 64, 64))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install sktransfer\[onnx\]"):
        fitted.to_onnx(tmp_path / "features.onnx")


def test_a_path_of_another_ending_or_in_no_folder_is_refused(tmp_path):
    fitted = PretrainedFeatureTransformer("mini").fit(draw(1, 64, 64))
    with pytest.raises(ValueError, match=r"path must end in '.onnx', got '.*features.pb'"):
        fitted.to_onnx(tmp_path / "features.pb")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fitted.to_onnx(tmp_path / "missing" / "features.onnx")


class OfThisCall(nn.Module):
    """Computes with what torch's exporters take for a constant."""

    def forward(self, images):
        return images.float().mean((2, 3)) + float(len(images))


def test_a_file_that_would_be_wrong_is_not_written(tmp_path):
    path, spec = tmp_path / "wrong.onnx", load_backbone("mini").spec
    with pytest.raises(RuntimeError, match=r"backbone='mini' with torch .* is exported wrongly"):
        _onnx_export.write_onnx(path, [OfThisCall()], "features", spec, 64)
    assert not path.exists()


class NotToBeTraced(nn.Module):
    def forward(self, images):
        return torch.linalg.eig(images.float().mean(1))[0].real


def test_a_network_that_onnx_has_no_words_for_is_an_error_that_names_it(tmp_path):
    path, spec = tmp_path / "none.onnx", load_backbone("mini").spec
    with pytest.raises(RuntimeError, match=r"backbone='mini' with torch .* can't be expressed"):
        _onnx_export.write_onnx(path, [NotToBeTraced()], "features", spec, 64)
    assert not path.exists()


def test_a_network_too_large_for_the_format_is_refused_before_it_is_translated(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_onnx_export, "_MOST_BYTES", 1000)
    spec = replace(load_backbone("mini").spec, name="giant")
    with pytest.raises(ValueError, match=r"backbone='giant' has .* GiB of weights"):
        _onnx_export.write_onnx(
            tmp_path / "large.onnx", [load_backbone("mini").model], "features", spec, 64
        )
