import pytest
import torch

from sktransfer.runtime._device import resolve_device, resolve_precision


def test_auto_is_a_device_that_is_there():
    device = resolve_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_an_error_that_names_it(device):
    with pytest.raises(ValueError, match=f"device.*{device!r}"):
        resolve_device(device)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(precision):
    assert resolve_precision(precision, torch.device("cpu")) == precision


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_follows_the_hardware(monkeypatch, has_it, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it, raising=False)
    assert resolve_precision("auto", torch.device("cpu")) == expected
