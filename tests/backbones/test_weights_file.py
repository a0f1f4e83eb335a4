"""The self-describing backbone file."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from sktransfer.backbones._weights import (
    METADATA_KEY,
    read_metadata,
    read_tensors,
    write_backbone_file,
)
from sktransfer.exceptions import WeightsError

METADATA = {
    "architecture": "mini",
    "params": {},
    "input": {},
    "head": False,
    "source": "a test",
    "licence": "CC0-1.0",
}
STATE = {"weight": torch.arange(6.0).view(2, 3).T, "half": torch.ones(2, dtype=torch.float16)}


def test_weights_and_metadata_come_back_as_they_were(tmp_path):
    path = str(tmp_path / "b.safetensors")
    write_backbone_file(path, STATE, METADATA)
    assert read_metadata(path) == {"format": 1, **METADATA}
    tensors = read_tensors(path)
    assert tensors.keys() == STATE.keys()
    for name, value in STATE.items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=0)


def test_tensors_that_share_memory_are_written(tmp_path):
    path = str(tmp_path / "b.safetensors")
    shared = torch.arange(4.0)
    write_backbone_file(path, {"a": shared, "b": shared}, METADATA)
    torch.testing.assert_close(read_tensors(path)["b"], shared)


def test_nothing_but_the_file_is_left_behind(tmp_path):
    write_backbone_file(tmp_path / "b.safetensors", STATE, METADATA)
    assert os.listdir(tmp_path) == ["b.safetensors"]


def test_others_may_read_it_as_far_as_the_umask_lets_them(tmp_path):
    write_backbone_file(tmp_path / "b.safetensors", STATE, METADATA)
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "b.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "b.safetensors")
    write_backbone_file(path, STATE, METADATA)
    with pytest.raises(TypeError):
        write_backbone_file(path, STATE, {**METADATA, "params": {"f": print}})
    assert read_metadata(path) == {"format": 1, **METADATA}
    assert os.listdir(tmp_path) == ["b.safetensors"]


def test_an_incomplete_metadata_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="lacks licence"):
        write_backbone_file(
            tmp_path / "b.safetensors", STATE, {k: METADATA[k] for k in METADATA if k != "licence"}
        )
    assert os.listdir(tmp_path) == []


def test_a_file_without_metadata_has_none(tmp_path):
    path = str(tmp_path / "b.safetensors")
    save_file({"a": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert read_metadata(path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
        ("{}", "lacks format, architecture"),
        (json.dumps({"format": 2, **METADATA}), "has format 2, and this version"),
    ],
)
def test_a_metadata_that_cannot_be_read_says_why(text, message, tmp_path):
    path = str(tmp_path / "b.safetensors")
    save_file({"a": torch.zeros(1)}, path, metadata={METADATA_KEY: text})
    with pytest.raises(WeightsError, match=message) as caught:
        read_metadata(path)
    assert path in str(caught.value)
