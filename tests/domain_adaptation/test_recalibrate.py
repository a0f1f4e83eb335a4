"""Batch norms with the statistics of a set of images, against loops in plain torch."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sktransfer import PretrainedFeatureTransformer, count_forward_passes, register_backbone
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._weights import read_metadata
from sktransfer.backbones.sources import _registered
from sktransfer.domain_adaptation import _norm_statistics, _recalibrate, recalibrate_backbone
from sktransfer.exceptions import ImageReadError
from sktransfer.images._preprocess import preprocess

SIZE = 32


def squares(backbone, images):
    """Return what the first stage takes."""
    spec = backbone.spec.input.at(SIZE)
    return backbone.normalise()(torch.stack([preprocess(image, spec) for image in images]))


def by_hand(backbone, images, weight):
    """Return the state after one batch of all images, norm after norm, in plain torch."""
    copied = copy.deepcopy(backbone)
    norms = [m for m in copied.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def mix(norm, arguments):
        (x,) = arguments
        axes = [axis for axis in range(x.ndim) if axis != 1]
        norm.running_mean = (1 - weight) * norm.running_mean + weight * x.mean(axes)
        norm.running_var = (1 - weight) * norm.running_var + weight * x.var(axes)

    for norm in norms:
        norm.register_forward_pre_hook(mix)
    with torch.no_grad():
        x = squares(copied, images)
        for stage in copied.stages.values():
            x = stage(x)
        if copied.pre_logits is not None:
            copied.pre_logits(x)
    return copied.model.state_dict()


NETWORKS = {
    "mini": {"backbone": "mini"},
    "torchvision": {
        "backbone": "mobilenet_v2",
        "backbone_params": {"width_mult": 0.1},
        "weights": None,
    },
    "timm": {"backbone": "timm:test_efficientnet", "weights": None},
}


@pytest.fixture
def registered(monkeypatch):
    """Register a network with a frozen batch norm, as torchvision has them."""
    monkeypatch.setattr(_registered, "registered", dict(_registered.registered))
    from torchvision.ops import FrozenBatchNorm2d

    def build():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 6, 3), FrozenBatchNorm2d(6), nn.ReLU()),
        )

    numbers = {"size": SIZE, "resize": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    register_backbone(
        "with_frozen_norm",
        build,
        {"first": ["0"], "second": ["1"]},
        {**numbers, "interpolation": "bilinear"},
    )
    return "with_frozen_norm"


@pytest.mark.parametrize(
    ("network", "n_source"), [("mini", 0), ("mini", 8), ("torchvision", 8), ("timm", 0)]
)
def test_statistics_are_those_of_plain_torch(network, n_source, dark_blobs, tmp_path):
    params = NETWORKS[network]
    if network == "timm":
        pytest.importorskip("timm")
    path = tmp_path / "dark.safetensors"
    recalibrate_backbone(
        **params, X_target=dark_blobs, path=path, n_source=n_source, image_size=SIZE
    )
    backbone = load_backbone(
        params["backbone"], params.get("backbone_params"), params.get("weights", "default")
    )
    expected = by_hand(backbone, dark_blobs, len(dark_blobs) / (n_source + len(dark_blobs)))
    found = load_file(path)
    statistics = [name for name in expected if "running_" in name]
    assert statistics
    for name in found:
        if name.endswith("num_batches_tracked"):
            continue
        is_statistic = name in statistics
        # means that are 0 to rounding
        scale = float(expected[name].abs().max()) if expected[name].numel() else 1.0
        tolerance = 2e-4 * scale + 1e-5 if is_statistic else 0
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance)


def test_statistics_are_about_those_of_training_mode(dark_blobs, tmp_path):
    path = tmp_path / "dark.safetensors"
    recalibrate_backbone("mini", dark_blobs, path, n_source=0, image_size=SIZE)
    backbone = load_backbone("mini").fresh()
    for module in backbone.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = 1.0
    with torch.no_grad():
        x = squares(backbone, dark_blobs)
        for stage in backbone.stages.values():
            x = stage(x)
    found = load_file(path)
    for name, value in backbone.model.state_dict().items():
        if "running_var" in name:
            np.testing.assert_allclose(found[name], value, rtol=0.05)


def test_any_batch_size_gives_the_same(blobs, tmp_path, monkeypatch):
    states = []
    for n_pixels in (2**21, 7 * SIZE**2, SIZE**2):
        monkeypatch.setattr(_norm_statistics, "_PIXELS_AT_ONCE", n_pixels)
        path = tmp_path / f"{n_pixels}.safetensors"
        recalibrate_backbone("mini", blobs, path, image_size=SIZE)
        states.append(load_file(path))
    for other in states[1:]:
        for name, value in states[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5)


class NormOfPatches(nn.Module):
    """A batch norm that is given one row for each patch, as LeViT's are."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        rows = x.permute(0, 2, 3, 1)
        return self.norm(rows.reshape(-1, 4)).reshape(rows.shape).permute(0, 3, 1, 2)


def test_a_norm_of_patches_sees_those_of_all_batches(monkeypatch, blobs, tmp_path):
    monkeypatch.setattr(_registered, "registered", dict(_registered.registered))

    def build():
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), NormOfPatches(), nn.ReLU())
        return nn.Sequential(first, nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)))

    numbers = {"size": SIZE, "resize": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    numbers["interpolation"] = "bilinear"
    register_backbone("patches", build, {"first": ["0"], "second": ["1"]}, numbers)
    states = []
    for n_pixels in (2**21, 7 * SIZE**2):
        monkeypatch.setattr(_norm_statistics, "_PIXELS_AT_ONCE", n_pixels)
        path = tmp_path / f"{n_pixels}.safetensors"
        assert len(recalibrate_backbone("patches", blobs, path, n_source=0)) == 2
        states.append(load_file(path))
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-4, atol=1e-5)


def test_the_network_computes_while_the_device_is_locked(blobs, tmp_path, monkeypatch):
    held = []

    @contextmanager
    def lock(device):
        held.append(device)
        yield
        held.remove(device)

    def recalibrate(backbone, squares, n_source, device):
        assert held == [device]
        return _norm_statistics.recalibrate(backbone, squares, n_source, device)

    monkeypatch.setattr(_recalibrate, "gpu_lock", lock)
    monkeypatch.setattr(_recalibrate, "recalibrate", recalibrate)
    assert len(recalibrate_backbone("mini", blobs, tmp_path / "m.safetensors", image_size=SIZE))
    assert not held


def test_frozen_norms_of_registered_networks_are_recalibrated(registered, blobs, tmp_path):
    path = tmp_path / "own.safetensors"
    recalibration = recalibrate_backbone(registered, blobs, path, n_source=0)
    assert [record.n_channels for record in recalibration] == [4, 6]
    rows = PretrainedFeatureTransformer(path, feature_cache=None).fit_transform(blobs)
    assert rows.shape == (24, 6)


def test_the_file_is_a_backbone_with_a_digest_and_rows_of_its_own(dark_blobs, tmp_path):
    path = tmp_path / "dark.safetensors"
    before = load_backbone("mini")
    old = {name: value.clone() for name, value in before.model.state_dict().items()}
    store = tmp_path / "store"

    def rows(backbone):
        transformer = PretrainedFeatureTransformer(backbone, image_size=SIZE, feature_cache=store)
        return transformer.fit_transform(dark_blobs)

    first = rows("mini")
    recalibration = recalibrate_backbone("mini", dark_blobs, path, image_size=SIZE)
    with count_forward_passes() as counter:
        changed = rows(path)
        again = rows("mini")
    assert counter.computed == len(dark_blobs)
    np.testing.assert_array_equal(again, first)
    assert np.abs(changed - first).max() > 1e-3
    assert recalibration.path == str(path)
    assert recalibration.digest == load_backbone(path).spec.digest != before.spec.digest
    # the shared network has not changed
    for name, value in before.model.state_dict().items():
        assert torch.equal(value, old[name])


def test_the_file_says_where_it_comes_from(dark_blobs, tmp_path):
    path = tmp_path / "dark.safetensors"
    recalibrate_backbone("mini", dark_blobs, path, n_source=4, image_size=SIZE)
    metadata = read_metadata(str(path))
    assert metadata["input"]["size"] == SIZE
    assert metadata["source"].startswith("batch norms recalibrated with sktransfer from mini: ")
    assert metadata["recalibrated"] == {
        "from": load_backbone("mini").spec.digest,
        "n_images": 24,
        "n_source": 4.0,
    }
    # and is a backbone to recalibrate
    again = recalibrate_backbone(path, dark_blobs, tmp_path / "again.safetensors")
    assert again.weight == pytest.approx(24 / (128 + 24))


def test_recalibration_undoes_a_change_of_contrast(blobs, dark_blobs, tmp_path):
    paths = [tmp_path / "light.safetensors", tmp_path / "dark.safetensors"]
    for path, images in zip(paths, (blobs, dark_blobs), strict=True):
        recalibrate_backbone("mini", images, path, n_source=0, image_size=SIZE)

    def rows(backbone, images):
        return PretrainedFeatureTransformer(
            backbone, image_size=SIZE, feature_cache=None
        ).fit_transform(images)

    def difference(one, other):
        return np.linalg.norm(one - other) / np.linalg.norm(one - one.mean(axis=0))

    frozen = difference(rows("mini", blobs), rows("mini", dark_blobs))
    recalibrated = difference(rows(paths[0], blobs), rows(paths[1], dark_blobs))
    assert recalibrated < 0.5 * frozen


def test_the_table_says_which_layers_changed_and_by_how_much(blobs, tmp_path):
    path = tmp_path / "same.safetensors"
    once = recalibrate_backbone("mini", blobs, path, n_source=0, image_size=SIZE)
    again = recalibrate_backbone(path, blobs, tmp_path / "again.safetensors", n_source=0)
    modules = load_backbone("mini").model.named_modules()
    names = [name for name, module in modules if isinstance(module, nn.BatchNorm2d)]
    assert sorted(record.name for record in once) == sorted(names)
    assert max(record.mean_shift for record in once) > 0.1
    for record in again:  # of the same images nothing is left to change
        assert record.mean_shift == pytest.approx(0, abs=1e-3)
        assert record.deviation_ratio == pytest.approx(1, abs=1e-3)
    assert f"{len(names)} batch norms, 1.00 of the statistics of 24 images: {path}" in repr(once)
    assert list(once.to_frame().columns) == ["name", "n_channels", "mean_shift", "deviation_ratio"]


def test_images_that_cannot_be_read_are_named_and_no_file_is_written(shapes, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    path = tmp_path / "dark.safetensors"
    with pytest.raises(ImageReadError, match=r"X\[2\] .*broken\.png"):
        recalibrate_backbone("mini", [*shapes[0][:2], str(broken)], path, image_size=SIZE)
    assert not path.exists()


def test_networks_without_batch_norms_are_refused_with_advice(blobs, tmp_path):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"no batch norm with statistics.*PseudoLabelClassifier"):
        recalibrate_backbone("timm:test_vit", blobs, tmp_path / "vit.safetensors", weights=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "dark.pt"}, "must end in '.safetensors'"),
        ({"n": 1}, "holds one image"),
        ({"n_source": -1}, "'n_source' parameter"),
        ({"image_size": 2.5}, "'image_size' parameter"),
    ],
)
def test_what_is_not_allowed_is_named(arguments, message, blobs, tmp_path):
    arguments = {"path": "dark.safetensors", "n": 24, **arguments}
    path, n = tmp_path / arguments.pop("path"), arguments.pop("n")
    with pytest.raises(ValueError, match=message):
        recalibrate_backbone("mini", blobs[:n], path, **arguments)


def test_a_folder_that_is_not_there_is_named(blobs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        recalibrate_backbone("mini", blobs, tmp_path / "none" / "dark.safetensors")
