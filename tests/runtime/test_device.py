import multiprocessing
import threading

import pytest
import torch

from sktransfer.runtime import _gpu_lock, _gpu_seats
from sktransfer.runtime._device import extraction_devices, one_device, resolve_device


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


def test_cuda_without_a_number_divides_images_among_all_gpus_of_the_current_ones_model(
    fake_cuda, monkeypatch
):
    fake_cuda(4)
    models = ["a GPU", "an older GPU", "a GPU", "a GPU"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: models[device])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    for device in ("cuda", "auto"):
        resolved = resolve_device(device)
        assert list(map(str, extraction_devices(resolved))) == ["cuda:2", "cuda:0", "cuda:3"]
        assert str(one_device(resolved)) == "cuda:2"


def test_a_gpu_with_a_number_is_one(fake_cuda):
    fake_cuda(2)
    device = resolve_device("cuda:1")
    assert extraction_devices(device) == [device]
    assert one_device(device) == device


def test_other_devices_are_one():
    cpu = torch.device("cpu")
    assert extraction_devices(cpu) == [cpu]
    assert one_device(cpu) == cpu


@pytest.fixture
def in_a_worker(monkeypatch):
    """Pretend that this is a worker, and end it after the test: it has no seat any more."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the main process")
    before = set(_gpu_lock._open_files)
    _gpu_seats._chosen.cache_clear()
    yield
    _gpu_seats._chosen.cache_clear()
    for file in set(_gpu_lock._open_files) - before:
        _gpu_lock.close_lock_file(file)


@pytest.mark.usefixtures("in_a_worker")
def test_workers_divide_the_gpus_and_a_number_is_obeyed_in_each(fake_cuda):
    fake_cuda(2)
    chosen = []
    for _ in range(5):
        _gpu_seats._chosen.cache_clear()  # as in another process: its seats are its own
        chosen += [str(resolve_device("cuda")), str(resolve_device("auto"))]
        assert str(resolve_device("cuda:1")) == "cuda:1"
        assert extraction_devices(resolve_device("cuda")) == [torch.device(chosen[-1])]
    assert chosen == [
        name for name in ("cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0") for _ in range(2)
    ]


@pytest.mark.usefixtures("in_a_worker")
def test_the_seat_of_a_worker_that_ended_is_free(fake_cuda):
    fake_cuda(2)
    before = set(_gpu_lock._open_files)
    assert str(resolve_device("cuda")) == "cuda:0"
    (seat,) = set(_gpu_lock._open_files) - before
    _gpu_lock.close_lock_file(seat)  # as the system does
    _gpu_seats._chosen.cache_clear()
    assert str(resolve_device("cuda")) == "cuda:0"


@pytest.mark.usefixtures("in_a_worker")
def test_threads_of_a_worker_that_ask_at_the_same_time_have_one_gpu(fake_cuda, monkeypatch):
    fake_cuda(2)
    chosen, others = [], []

    def folder_while_another_thread_asks():
        if not others:
            others.append(threading.Thread(target=choose))
            others[0].start()
            others[0].join(0.2)  # s; it can't end before this one has chosen
        return _gpu_lock.own_folder()

    def choose():
        chosen.append(str(resolve_device("cuda")))

    monkeypatch.setattr(_gpu_seats, "own_folder", folder_while_another_thread_asks)
    choose()
    others[0].join()
    assert chosen == ["cuda:0", "cuda:0"]


@pytest.mark.usefixtures("in_a_worker")
def test_the_only_gpu_is_for_all_workers(fake_cuda):
    fake_cuda(1)
    assert str(resolve_device("cuda")) == "cuda"
