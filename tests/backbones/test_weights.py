"""Every way that weights can be wrong has a message that says what to do next."""

import os
import pickle
import urllib.error

import pytest
import torch
from safetensors.torch import save_file

from sktransfer.backbones import _registry
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._weights import write_backbone_file
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

NAME, PARAMS = "mobilenet_v2", {"width_mult": 0.1}  # 0.3 million parameters
METADATA = {
    "architecture": NAME,
    "params": PARAMS,
    "input": {
        "size": 64,
        "resize": 73,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.2],
        "interpolation": "bilinear",
    },
    "head": False,
    "source": "made by a test",
    "licence": "CC0-1.0",
}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Every test reads its files."""
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())


@pytest.fixture(scope="module")
def state():
    loaded = load_backbone(NAME, PARAMS, None).model.state_dict()
    # in the order of memory that a file has
    return {name: value.contiguous() for name, value in loaded.items()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of downloads, and no network."""

    def no_network(url, *args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "hub" / "checkpoints"


def assert_same_weights(backbone, state):
    for name, value in backbone.model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_state_dict_is_loaded_from_its_file(ending, state, tmp_path):
    path = str(tmp_path / f"weights{ending}")
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    backbone = load_backbone(NAME, PARAMS, path)
    assert_same_weights(backbone, state)
    assert backbone.spec.source == path


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_state_dict_inside_a_training_checkpoint_is_found(wrapper, state, tmp_path):
    path = str(tmp_path / "checkpoint.pth")
    torch.save({wrapper: state, "epoch": 3}, path)
    assert_same_weights(load_backbone(NAME, PARAMS, path), state)


def test_a_head_in_the_file_is_left_out(state, tmp_path):
    path = str(tmp_path / "weights.safetensors")
    save_file({**state, "classifier.1.weight": torch.zeros(7, 5)}, path)
    assert_same_weights(load_backbone(NAME, PARAMS, path), state)


def test_half_precision_is_loaded_as_single(state, tmp_path):
    path = str(tmp_path / "half.safetensors")
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, path)
    loaded = load_backbone(NAME, PARAMS, path).model.state_dict()
    for name, value in loaded.items():
        assert value.dtype == state[name].dtype
        torch.testing.assert_close(value, half[name].to(value.dtype), rtol=0, atol=0)


def test_files_without_the_counters_of_batch_norm_are_loaded(state, tmp_path):
    path = str(tmp_path / "old.safetensors")
    save_file({k: v for k, v in state.items() if "num_batches_tracked" not in k}, path)
    assert_same_weights(load_backbone(NAME, PARAMS, path), state)


def test_the_same_weights_have_the_same_digest_in_any_file(state, tmp_path):
    one, two = str(tmp_path / "one.safetensors"), str(tmp_path / "two.pth")
    save_file(state, one)
    torch.save(state, two)
    digest = load_backbone(NAME, PARAMS, one).spec.digest
    assert load_backbone(NAME, PARAMS, two).spec.digest == digest


def test_one_changed_value_changes_the_digest(state, tmp_path):
    one, two = str(tmp_path / "one.safetensors"), str(tmp_path / "two.safetensors")
    save_file(state, one)
    name = "features.0.0.weight"
    changed = state[name].clone()
    changed[0, 0, 0, 0] += 1e-6
    save_file({**state, name: changed}, two)
    digests = {load_backbone(NAME, PARAMS, path).spec.digest for path in (one, two)}
    assert len(digests) == 2


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_missing_file_is_named(ending, tmp_path):
    path = str(tmp_path / f"nowhere{ending}")
    with pytest.raises(WeightsNotFoundError, match="no such file of weights") as caught:
        load_backbone(NAME, PARAMS, path)
    assert path in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named_as_such(ending, kept, state, tmp_path):
    path = str(tmp_path / f"broken{ending}")
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    os.truncate(path, int(os.path.getsize(path) * kept))
    with pytest.raises(WeightsError, match="truncated") as caught:
        load_backbone(NAME, PARAMS, path)
    assert path in str(caught.value)


def test_another_architecture_lists_missing_and_unexpected_keys(tmp_path):
    path = str(tmp_path / "other.safetensors")
    save_file({"conv1.weight": torch.zeros(3), "layer1.0.bias": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="does not fit MobileNetV2") as caught:
        load_backbone(NAME, PARAMS, path)
    message = str(caught.value)
    for part in ("missing", "features.0.0.weight", "unexpected 2 keys", "conv1.weight", path):
        assert part in message


def test_one_missing_key_is_enough(state, tmp_path):
    path = str(tmp_path / "weights.safetensors")
    save_file({k: v for k, v in state.items() if k != "features.0.1.running_mean"}, path)
    with pytest.raises(WeightsError, match=r"missing 1 keys \(features.0.1.running_mean\)"):
        load_backbone(NAME, PARAMS, path)


def test_another_width_names_the_layer_and_both_shapes(state, tmp_path):
    path = str(tmp_path / "weights.safetensors")
    save_file(state, path)
    with pytest.raises(WeightsError, match="backbone_params") as caught:
        load_backbone(NAME, {"width_mult": 0.5}, path)
    message = str(caught.value)
    assert "features.0.0.weight has shape (8, 3, 3, 3), expected (16, 3, 3, 3)" in message


class _Code:
    def __reduce__(self):
        return os.mkdir, (self.path,)

    def __init__(self, path):
        self.path = path


def test_a_file_that_holds_code_is_refused_unrun_with_the_safe_way(tmp_path):
    path, proof = str(tmp_path / "evil.pth"), str(tmp_path / "code-ran")
    torch.save({"weight": _Code(proof)}, path)
    with pytest.raises(WeightsError, match="refused") as caught:
        load_backbone(NAME, PARAMS, path)
    message = str(caught.value)
    for part in (path, "run code", "safetensors.torch.save_file", "trust"):
        assert part in message
    assert not os.path.exists(proof)


def test_a_plain_pickle_is_refused_unrun(tmp_path):
    path, proof = str(tmp_path / "evil.pth"), str(tmp_path / "code-ran")
    with open(path, "wb") as file:
        pickle.dump(_Code(proof), file, protocol=2)
    with pytest.raises(WeightsError, match="refused"):
        load_backbone(NAME, PARAMS, path)
    assert not os.path.exists(proof)


@pytest.mark.parametrize("content", [[1, 2, 3], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save(content, path)
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_backbone(NAME, PARAMS, path)


def test_without_network_the_error_says_what_where_and_what_works_offline(hub):
    with pytest.raises(WeightsNotFoundError) as caught:
        load_backbone("resnet18")
    message = str(caught.value)
    wanted = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    for part in ("resnet18", "IMAGENET1K_V1", wanted, str(hub), "mini", "no route to host"):
        assert part in message


def test_a_damaged_download_is_refused_and_not_kept(hub, monkeypatch):
    def damaged(url, path, hash_prefix, progress):
        assert hash_prefix == "f37072fd"
        raise RuntimeError('invalid hash value (expected "f37072fd", got "00")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", damaged)
    with pytest.raises(WeightsError, match="damaged: invalid hash value"):
        load_backbone("resnet18")


def test_a_file_put_there_by_hand_is_verified(hub):
    hub.mkdir(parents=True)
    path = hub / "resnet18-f37072fd.pth"
    path.write_bytes(b"half a download")
    with pytest.raises(WeightsError, match="SHA-256 does not start with f37072fd") as caught:
        load_backbone("resnet18")
    assert str(path) in str(caught.value)
    assert path.exists()  # the user's file is not ours to delete


def test_an_unknown_weights_name_lists_those_on_offer():
    with pytest.raises(ValueError, match="weights='IMAGENET' is unknown") as caught:
        load_backbone("resnet50", None, "IMAGENET")
    for part in ("'default'", "'IMAGENET1K_V1'", "'IMAGENET1K_V2'", "None", ".safetensors"):
        assert part in str(caught.value)


def test_a_backbone_file_brings_architecture_params_and_input(state, tmp_path):
    path = str(tmp_path / "mine.safetensors")
    write_backbone_file(path, state, METADATA)
    backbone = load_backbone(path)
    assert_same_weights(backbone, state)
    assert backbone.spec.architecture == NAME
    assert dict(backbone.spec.params) == PARAMS
    assert (backbone.spec.input.size, backbone.spec.input.resize) == (64, 73)
    assert backbone.spec.licence == "CC0-1.0"


def test_a_backbone_file_may_be_a_path_object(state, tmp_path):
    path = tmp_path / "mine.safetensors"
    write_backbone_file(path, state, METADATA)
    assert load_backbone(path).spec.name == str(path)


def test_a_backbone_file_also_serves_as_weights(state, tmp_path):
    path = str(tmp_path / "mine.safetensors")
    write_backbone_file(path, state, METADATA)
    backbone = load_backbone(NAME, PARAMS, path)
    assert_same_weights(backbone, state)
    assert backbone.spec.input.size == 64


def test_a_backbone_file_may_be_used_with_random_weights(state, tmp_path):
    path = str(tmp_path / "mine.safetensors")
    write_backbone_file(path, {k: v + 1 for k, v in state.items()}, METADATA)
    assert_same_weights(load_backbone(path, None, None), state)


def test_weights_of_another_architecture_are_refused_by_their_metadata(state, tmp_path):
    path = str(tmp_path / "mine.safetensors")
    write_backbone_file(path, state, METADATA)
    with pytest.raises(WeightsError, match="architecture 'mobilenet_v2', and") as caught:
        load_backbone("resnet18", None, path)
    assert "'resnet18'" in str(caught.value)


def test_safetensors_without_metadata_is_no_backbone(state, tmp_path):
    path = str(tmp_path / "plain.safetensors")
    save_file(state, path)
    with pytest.raises(WeightsError, match="has no metadata") as caught:
        load_backbone(path)
    assert "name the architecture as backbone, the file as weights" in str(caught.value)


def test_a_backbone_file_takes_no_weights_name(state, tmp_path):
    path = str(tmp_path / "mine.safetensors")
    write_backbone_file(path, state, METADATA)
    with pytest.raises(ValueError, match="weights='IMAGENET1K_V1' is unknown for backbone="):
        load_backbone(path, None, "IMAGENET1K_V1")


def test_a_metadata_of_an_unknown_architecture_says_so(state, tmp_path):
    path = str(tmp_path / "mine.safetensors")
    write_backbone_file(path, state, {**METADATA, "architecture": "resnet19"})
    with pytest.raises(WeightsError, match="architecture 'resnet19', which this version"):
        load_backbone(path)
