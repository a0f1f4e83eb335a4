"""A stored row equals what the installed code computes now: over processes and changes of code."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.backbones._weights import read_metadata, read_tensors, write_backbone_file
from sktransfer.exceptions import WeightsError
from sktransfer.extraction import _feature_extractor, _precision

# A module of the user's, of which versions differ in code that no weight shows.
NETWORK = """
from torch import nn
from sktransfer import register_backbone

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2)
        self.act = {act}
        self.b = nn.Conv2d(8, 16, 3, stride=2)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        return self.fc(self.b(self.act(self.a(x))).mean((2, 3)))

register_backbone(
    "tiny-of-a-user", Tiny, {stages},
    input={{"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}})
"""

TRANSFORM = """
import json, sys
import numpy as np
import network
from sktransfer import PretrainedFeatureTransformer, count_forward_passes
X = np.load(sys.argv[1])
with count_forward_passes() as counter:
    stored, alone = (
        PretrainedFeatureTransformer(
            "tiny-of-a-user", depth=int(sys.argv[3]), precision="float32", feature_cache=cache
        ).fit_transform(X)
        for cache in (sys.argv[2], None))
print(json.dumps([counter.computed, float(np.abs(stored - alone).max()), float(stored.sum())]))
"""

RELU_FIRST = '{"one": ("a", "act"), "two": ("b",)}'
RELU_SECOND = '{"one": ("a",), "two": ("act", "b")}'


@pytest.fixture
def transform(tmp_path, cache):
    """Return a function that transforms with a version of the network, in a new process."""
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))

    def run(act, stages, depth):
        (tmp_path / "network.py").write_text(NETWORK.format(act=act, stages=stages))
        process = subprocess.run(
            [sys.executable, "-B", "-c", TRANSFORM, str(images), str(cache), str(depth)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return run


def test_rows_follow_the_code_of_a_registered_network(transform):
    first = transform("nn.ReLU()", RELU_FIRST, 1)
    again = transform("nn.ReLU()", RELU_FIRST, 1)
    moved = transform("nn.ReLU()", RELU_SECOND, 1)
    other = transform("nn.Tanh()", RELU_FIRST, 1)
    # each process computes the six images once without a store; a change computes them again
    assert [run[0] for run in (first, again, moved, other)] == [12, 6, 12, 12]
    assert [run[1] <= 1e-6 for run in (first, again, moved, other)] == [True] * 4
    assert len({run[2] for run in (first, moved, other)}) == 3


def test_how_float32_is_multiplied_is_in_the_key(shapes, cache):
    X, _ = shapes
    options = {"image_size": 32, "precision": "float32", "feature_cache": cache}
    transformer = PretrainedFeatureTransformer("mini", **options).fit(X)
    transformer.transform(X)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with count_forward_passes() as counter:
            transformer.transform(X)
    finally:
        torch.set_float32_matmul_precision(before)
    assert counter.computed == len(X)


def test_the_decoder_s_version_is_in_the_key(shapes, cache, monkeypatch):
    X, _ = shapes
    options = {"image_size": 32, "precision": "float32", "feature_cache": cache}
    transformer = PretrainedFeatureTransformer("mini", **options).fit(X)
    transformer.transform(X)
    versions = _feature_extractor.decoder_versions()
    monkeypatch.setattr(
        _feature_extractor, "decoder_versions", lambda: {**versions, "libjpeg_turbo": "1.0"}
    )
    with count_forward_passes() as counter:
        transformer.transform(X)
    assert counter.computed == len(X)


@pytest.mark.parametrize("estimator", ["transformer", "classifier"])
def test_precision_is_decided_at_fit_and_read_on_other_hardware(shapes, estimator, monkeypatch):
    X, y = shapes
    monkeypatch.setattr(_precision, "_has_bfloat16", lambda device: True)
    monkeypatch.setattr(_precision, "_tried", {})
    options = {"image_size": 32, "precision": "auto", "feature_cache": None}
    if estimator == "transformer":
        fitted = PretrainedFeatureTransformer("mini", **options).fit(X, y)
        outputs = fitted.transform
    else:
        fitted = FineTunedClassifier(
            "mini", recipe="fast", freeze_depth=-1, max_epochs=1, random_state=0, **options
        ).fit(X, y)
        outputs = fitted.decision_function
    assert fitted.precision_ == "bfloat16"
    expected = outputs(X)
    # served where the hardware has no bfloat16
    monkeypatch.setattr(_precision, "_has_bfloat16", lambda device: False)
    monkeypatch.setattr(_precision, "_tried", {})
    loaded = pickle.loads(pickle.dumps(fitted))
    assert loaded.precision_ == "bfloat16"
    served = loaded.transform(X) if estimator == "transformer" else loaded.decision_function(X)
    np.testing.assert_array_equal(served, expected)


def test_rows_in_bfloat16_are_the_same_from_the_store_and_take_two_bytes(shapes, cache):
    X, _ = shapes
    options = {"image_size": 32, "precision": "bfloat16"}
    stored = PretrainedFeatureTransformer("mini", feature_cache=cache, **options).fit(X)
    first = stored.transform(X)
    with count_forward_passes() as counter:
        second = stored.transform(X)
    assert counter.computed == 0
    np.testing.assert_array_equal(first, second)
    alone = PretrainedFeatureTransformer("mini", feature_cache=None, **options).fit_transform(X)
    np.testing.assert_array_equal(alone, first)
    assert first.dtype == np.float32
    assert not (first.view(np.uint32) & 0xFFFF).any()


def test_two_backbones_and_two_depths_have_keys_and_locks_of_their_own(shapes, cache):
    X, _ = shapes
    options = {"image_size": 64, "precision": "float32", "feature_cache": cache}
    with count_forward_passes() as counter:
        for params in ({}, {"pooling": "max"}, {"image_size": 96}):
            PretrainedFeatureTransformer("mini", **{**options, **params}).fit_transform(X)
    assert counter.computed == 3 * len(X)


def test_a_backbone_file_with_other_input_numbers_is_refused_by_what_was_fitted_before(
    shapes, cache, mini_file, tmp_path
):
    X, _ = shapes
    path = str(tmp_path / "net.safetensors")
    state, metadata = read_tensors(mini_file), read_metadata(mini_file)
    write_backbone_file(path, state, metadata)
    options = {"image_size": 32, "precision": "float32", "feature_cache": cache}
    fitted = PretrainedFeatureTransformer(path, **options).fit(X)
    other = {**metadata, "input": {**metadata["input"], "mean": [0.1, 0.2, 0.3]}}
    write_backbone_file(path, state, other)
    with pytest.raises(WeightsError, match=r"mean=\(0\.1, 0\.2, 0\.3\).*was fitted with mean="):
        fitted.transform(X)
    again = PretrainedFeatureTransformer(path, **options).fit(X)
    alone = PretrainedFeatureTransformer(path, **{**options, "feature_cache": None}).fit(X)
    np.testing.assert_allclose(again.transform(X), alone.transform(X), rtol=1e-5, atol=1e-6)


def test_rows_in_bfloat16_are_the_same_whether_pooled_from_stored_activations_or_not(
    shapes, cache, tmp_path
):
    X, y = shapes
    options = {"image_size": 32, "precision": "bfloat16"}
    FineTunedClassifier(
        "mini",
        recipe="fast",
        freeze_depth=-2,
        max_epochs=1,
        random_state=0,
        feature_cache=cache,
        **options,
    ).fit(X, y)
    with count_forward_passes() as counter:
        pooled = PretrainedFeatureTransformer(
            "mini", depth=-2, feature_cache=cache, **options
        ).fit_transform(X)
    assert counter.computed == 0
    direct = PretrainedFeatureTransformer(
        "mini", depth=-2, feature_cache=tmp_path / "other", **options
    ).fit_transform(X)
    np.testing.assert_allclose(pooled, direct, rtol=2**-8)
    assert (pooled == direct).mean() > 0.98


def test_pixels_of_two_networks_with_other_poolings_have_keys_of_their_own(shapes, cache):
    pytest.importorskip("timm")
    X, _ = shapes
    rows = [
        PretrainedFeatureTransformer(
            "timm:test_vit",
            weights=None,
            backbone_params={"global_pool": pool},
            depth=0,
            precision="float32",
            feature_cache=folder,
        ).fit_transform(X[:4])
        for pool in ("avg", "max")
        for folder in (cache, None)
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows[2], rows[3], rtol=1e-5, atol=1e-6)
