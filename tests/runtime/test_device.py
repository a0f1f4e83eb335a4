import pytest
import torch

from sktransfer.runtime._device import resolve_device


def test_auto_is_a_device_that_is_there():
    device = resolve_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_an_error_that_names_it(device):
    with pytest.raises(ValueError, match=f"device.*{device!r}"):
        resolve_device(device)


def test_a_fork_of_a_process_on_a_gpu_has_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert resolve_device("auto").type != "cuda"
    with pytest.raises(ValueError, match=r"device='cuda'.*forked.*'loky'"):
        resolve_device("cuda")
