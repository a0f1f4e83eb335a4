"""The order of what happens on GPUs that are not there."""

import queue
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._spec import BackboneSpec, FittedPlan, InputSpec
from sktransfer.backbones._architecture import NetworkStructure
from sktransfer.backbones._backbone import Backbone
from sktransfer.extraction import _device_loop, _feature_extractor
from sktransfer.extraction._compute import MissingRows
from sktransfer.extraction._device_loop import run_on_devices
from sktransfer.extraction._extract import extract
from sktransfer.extraction._feature_extractor import ExtractionPlan
from sktransfer.images._collection import as_images
from sktransfer.runtime import _gpu_lock
from sktransfer.runtime._gpu_lock import GpuTurn
from sktransfer.store._store import open_store

# so that the values of images reach the first stage as they are
INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1 / 255,) * 3)
HUNG = 60  # s; what works takes a thousandth of it
NO_ROWS = SimpleNamespace(computed_depths=(1,))


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(_feature_extractor, "_limits", {})


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.float().mean((2, 3)) * self.one


def plan_of(module=None, device="cuda", view=None):
    structure = NetworkStructure(stages={"one": ("0",)}, head=())
    spec = BackboneSpec("name", "mean", (), None, "digest", INPUT, ("one",), "", "")
    backbone = Backbone(spec, nn.Sequential(module or Mean()), structure)
    fitted = FittedPlan(spec, INPUT, (1,), "flatten", "float32")
    return ExtractionPlan(backbone, fitted, torch.device(device), view)


def greys(n):
    return as_images([np.full((8, 8, 3), value, dtype=np.uint8) for value in range(n)])


@pytest.mark.parametrize("n_devices", [1, 3])
def test_rows_are_those_of_the_cpu_whichever_device_computes_them(fake_cuda, n_devices, cache):
    expected = extract(greys(50), plan_of(device="cpu"), None, batch_size=4).values
    fake_cuda(n_devices)
    for store in (None, open_store(cache), open_store(cache)):  # the last finds all
        values = extract(greys(50), plan_of(), store, batch_size=4, n_jobs=2).values
        np.testing.assert_array_equal(values, expected)


def test_each_device_gets_one_copy_of_the_network_and_all_are_used(fake_cuda, monkeypatch):
    cuda, both = fake_cuda(2), threading.Barrier(2)
    start = _device_loop._Server._start

    def started(self, batch):
        start(self, batch)
        both.wait(HUNG)  # neither could take all batches

    monkeypatch.setattr(_device_loop._Server, "_start", started)
    extract(greys(16), plan_of(), None, batch_size=4, n_jobs=2)
    uploads = cuda.noted("upload")
    n_parameters = 1 + 2  # the stage, and the numbers of the normalisation
    assert sorted(uploads) == ["cuda:0"] * n_parameters + ["cuda:1"] * n_parameters
    assert {str(device) for device in cuda.noted("record")} == {"cuda:0", "cuda:1"}
    # the memory of both is given back, once, in the end
    assert [what for what, _ in cuda.notes].index("empty cache") == len(cuda.notes) - 1


def test_a_gpu_with_a_number_is_the_only_one(fake_cuda):
    cuda = fake_cuda(3)
    extract(greys(16), plan_of(device="cuda:1"), None, batch_size=4)
    assert {str(device) for device in cuda.noted("record")} == {"cuda:1"}


def test_what_is_extracted_while_a_gpu_trains_waits_for_no_other_gpu(fake_cuda):
    cuda = fake_cuda(3)
    with _gpu_lock.gpu_lock(torch.device("cuda", 1)):
        extract(greys(16), plan_of(), None, batch_size=4)
        assert {str(device) for device in cuda.noted("record")} == {"cuda:1"}
    assert len(MissingRows(greys(1), None, plan_of(), NO_ROWS, None, 4)._extractors) == 3


def test_few_batches_go_to_as_many_devices(fake_cuda):
    cuda = fake_cuda(3)
    extract(greys(4), plan_of(), None, batch_size=4)
    assert len(cuda.noted("record")) == 1
    assert set(cuda.noted("upload")) == {str(cuda.noted("record")[0])}


# The lock.


class NotedTurn(GpuTurn):
    """A turn that tells when it ends, and whether it is held."""

    held = False
    n_turns = 0
    released = threading.Event()

    def begin(self, stop=None):
        super().begin(stop)
        NotedTurn.n_turns += not NotedTurn.held
        NotedTurn.held = True

    def end(self):
        super().end()
        if NotedTurn.held:
            NotedTurn.held = False
            NotedTurn.released.set()


@pytest.fixture
def noted_turns(monkeypatch):
    monkeypatch.setattr(NotedTurn, "held", False)
    monkeypatch.setattr(NotedTurn, "n_turns", 0)
    monkeypatch.setattr(NotedTurn, "released", threading.Event())
    monkeypatch.setattr(_device_loop, "GpuTurn", NotedTurn)


class SlowView:
    """Images from number 4 on can't be decoded while the lock of the GPU is held for others."""

    def key(self):
        return None

    def pixels(self, pixels, spec, digest):
        if pixels[0, 0, 0] >= 4:
            assert NotedTurn.released.wait(HUNG), "the lock is held while images are decoded"
        return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.usefixtures("noted_turns")
def test_the_lock_is_released_while_images_are_decoded(fake_cuda):
    fake_cuda()
    values = extract(greys(8), plan_of(view=SlowView()), None, batch_size=4, n_jobs=2).values
    np.testing.assert_array_equal(values[:, 0], range(8))
    assert not NotedTurn.held
    assert NotedTurn.n_turns == 2


@pytest.mark.usefixtures("noted_turns")
def test_a_device_is_held_only_where_images_pass(fake_cuda, cache):
    fake_cuda()
    extract(greys(8), plan_of(), open_store(cache))
    assert NotedTurn.n_turns >= 1
    before = NotedTurn.n_turns
    extract(greys(8), plan_of(), open_store(cache))
    assert NotedTurn.n_turns == before


@dataclass
class Ready:
    """A batch with its number."""

    number: int
    pixels: list = field(default_factory=lambda: [torch.zeros(3, 8, 8, dtype=torch.uint8)])


class Extractor:
    """Notes what happens to batches."""

    device = torch.device("cpu")  # which has no lock

    def __init__(self, fails_at=None):
        self.done, self.fails_at, self.n_launched = [], fails_at, 0

    def current(self):
        return threading.Lock()

    def launch(self, images):
        number, self.n_launched = self.n_launched, self.n_launched + 1
        if number == self.fails_at:
            raise ZeroDivisionError("a network that fails")
        self.done.append(f"launch {number}")
        return lambda: self.done.append(f"wait {number}") or [np.array([number])]


@pytest.fixture
def always_ready(monkeypatch):
    """Let a device find the next batch ready, as where reading is the faster."""
    get, get_nowait = queue.Queue.get, queue.Queue.get_nowait

    def get_ready(self):
        is_device = threading.current_thread().name.startswith("sktransfer-")
        return get(self) if is_device else get_nowait(self)

    monkeypatch.setattr(queue.Queue, "get_nowait", get_ready)


@pytest.mark.usefixtures("always_ready")
def test_a_batch_is_launched_before_the_one_before_is_waited_for():
    extractor = Extractor()
    passed = list(run_on_devices(map(Ready, range(4)), [extractor]))
    assert [(batch.number, int(a[0])) for batch, (a,) in passed] == [(i, i) for i in range(4)]
    assert extractor.done == [
        "launch 0", "launch 1", "wait 0", "launch 2", "wait 1", "launch 3", "wait 2", "wait 3",
    ]  # fmt: skip


@pytest.mark.usefixtures("always_ready")
def test_a_turn_that_is_over_ends_when_its_batches_have(monkeypatch):
    extractor, ends = Extractor(), []
    monkeypatch.setattr(GpuTurn, "is_over", lambda turn: True)
    end = GpuTurn.end
    monkeypatch.setattr(GpuTurn, "end", lambda turn: ends.append(len(extractor.done)) or end(turn))
    list(run_on_devices(map(Ready, range(2)), [extractor]))
    assert extractor.done == ["launch 0", "wait 0", "launch 1", "wait 1"]
    assert {2, 4} <= set(ends)


def test_batches_without_images_touch_no_device():
    extractor = Extractor()
    passed = list(run_on_devices([Ready(0, []), Ready(1), Ready(2, [])], [extractor]))
    assert sorted(batch.number for batch, _ in passed) == [0, 1, 2]
    assert extractor.n_launched == 1


@pytest.mark.parametrize("fails_at", [0, 3])
def test_an_error_on_a_device_ends_all_threads(fails_at):
    extractors = [Extractor(fails_at), Extractor(fails_at)]
    with pytest.raises(ZeroDivisionError, match="a network that fails"):
        list(run_on_devices(map(Ready, range(100)), extractors))
    assert not [t for t in threading.enumerate() if t.name == "sktransfer-cpu"]


def test_an_error_of_reading_ends_all_threads():
    def batches():
        yield Ready(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run_on_devices(batches(), [Extractor(), Extractor()]))
    assert not [t for t in threading.enumerate() if t.name == "sktransfer-cpu"]


def test_what_is_closed_early_ends_all_threads_and_starts_nothing_more():
    extractor = Extractor()
    passing = run_on_devices(map(Ready, range(100)), [extractor])
    next(passing)
    passing.close()
    assert extractor.n_launched < 10
    assert not [t for t in threading.enumerate() if t.name == "sktransfer-cpu"]


@pytest.mark.usefixtures("noted_turns")
def test_after_an_error_no_lock_is_held(fake_cuda, cache):
    class Broken(Mean):
        def forward(self, images):
            raise RuntimeError("broken")

    fake_cuda()
    store = open_store(cache)
    with pytest.raises(RuntimeError, match="broken"):
        extract(greys(40), plan_of(Broken()), store, batch_size=4)
    assert not NotedTurn.held
    assert not store.key_locks._held


def test_threads_of_one_process_share_a_device_and_its_network(fake_cuda):
    cuda, results = fake_cuda(), []
    plan, start = plan_of(), threading.Barrier(3)

    def work():
        start.wait(HUNG)
        results.append(extract(greys(24), plan, None, batch_size=4, n_jobs=2).values[:, 0])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for values in results:
        np.testing.assert_array_equal(values, range(24))
    assert cuda.noted("empty cache")


def test_another_process_gets_its_turn(fake_cuda, monkeypatch):
    """While another process waits, a long extraction releases the device after its turn."""
    fake_cuda()
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    asked = []
    monkeypatch.setattr(_gpu_lock.GpuLock, "is_wanted", lambda lock: asked.append(1) or True)
    begun = []
    begin = GpuTurn.begin
    monkeypatch.setattr(
        GpuTurn, "begin", lambda turn, stop: begun.append(turn._since) or begin(turn)
    )
    extract(greys(40), plan_of(), None, batch_size=4)
    assert asked
    assert begun == [None] * 10  # every batch had a turn of its own


def test_who_is_interrupted_while_another_process_has_the_gpu_waits_no_longer(
    fake_cuda, monkeypatch
):
    """As by Ctrl-C, in the main thread, while the device's thread waits for the lock."""
    fake_cuda()
    waits, before = threading.Event(), set(_gpu_lock._open_files)
    monkeypatch.setattr(_gpu_lock, "is_locked_now", lambda file: waits.set())  # never free

    def batches():
        yield Ready(0)
        assert waits.wait(HUNG)
        raise KeyboardInterrupt

    extractor = Extractor()
    extractor.device = torch.device("cuda:0")
    with pytest.raises(KeyboardInterrupt):
        list(run_on_devices(batches(), [extractor]))
    assert extractor.n_launched == 0
    assert not [t for t in threading.enumerate() if t.name == "sktransfer-cuda:0"]
    assert _gpu_lock._open_files == before
