import threading

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._spec import BackboneSpec, InputSpec
from sktransfer.images._collection import as_images
from sktransfer.runtime import _extract
from sktransfer.runtime._extract import FrozenPart, extract
from sktransfer.runtime._passes import count_passes
from sktransfer.runtime._store import open_store

INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))


class Mean(nn.Module):
    """A "network": the mean of each channel. Remembers the sizes of its batches."""

    def __init__(self, largest=None):
        super().__init__()
        self.batches = []
        self.largest = largest

    def forward(self, images):
        if self.largest is not None and len(images) > self.largest:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(len(images))
        return images.float().mean((2, 3))


def frozen_part(module=None, **changes):
    spec = BackboneSpec("name", "mean", (), None, "digest", INPUT, ("one",), "", "")
    fields = {
        "module": module or Mean(),
        "spec": spec,
        "input": INPUT,
        "n_stages": 1,
        "pooling": "avg",
        "precision": "float32",
        "device": torch.device("cpu"),
    }
    return FrozenPart(**{**fields, **changes})


def greys(*values):
    return as_images([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def test_rows_come_in_the_order_of_the_images_and_equal_images_pass_once():
    values = [5, 3, 5, 9, 3, 3]
    with count_passes() as counter:
        extraction = extract(greys(*values), frozen_part(), None, batch_size=2)
    np.testing.assert_array_equal(extraction.values[:, 0], values)
    assert counter.passed == 3


def test_only_what_the_store_lacks_passes(cache):
    store = open_store(cache)
    extract(greys(1, 2, 3), frozen_part(), store)
    with count_passes() as counter:
        extraction = extract(greys(3, 4, 2), frozen_part(), store)
    np.testing.assert_array_equal(extraction.values[:, 0], [3, 4, 2])
    assert (counter.passed, counter.kept) == (1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_stages": 2},
        {"pooling": "max"},
        {"precision": "bfloat16"},
        {"input": INPUT.at(16)},
        {"spec": BackboneSpec("name", "mean", (), None, "other", INPUT, ("one",), "", "")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_everything_that_changes_a_row_changes_its_key(changes):
    assert frozen_part(**changes).key_of_all() != frozen_part().key_of_all()


def test_a_name_and_a_device_change_no_key():
    renamed = BackboneSpec("other", "mean", (), "x", "digest", INPUT, ("one",), "there", "")
    same = frozen_part(spec=renamed, device=torch.device("meta"))
    assert same.key_of_all() == frozen_part().key_of_all()


def test_a_batch_is_halved_while_memory_runs_out():
    module = Mean(largest=3)
    extraction = extract(greys(*range(10)), frozen_part(module), None, batch_size=8)
    np.testing.assert_array_equal(extraction.values[:, 0], range(10))
    assert max(module.batches) <= 3


def test_one_image_too_large_for_memory_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        extract(greys(1, 2), frozen_part(Mean(largest=0)), None)


def test_failures_are_listed_with_their_copies_and_the_rest_is_right():
    good = np.full((8, 8, 3), 7, dtype=np.uint8)
    images = as_images([b"broken", good, b"broken", None])
    extraction = extract(images, frozen_part(), None)
    assert [failure.position for failure in extraction.failures] == [0, 2, 3]
    np.testing.assert_array_equal(extraction.values[1], 7)


def test_what_was_finished_before_an_interrupt_is_kept(cache, monkeypatch):
    # Ctrl-C reaches the main thread, here while it writes down the third batch
    store, n_put = open_store(cache), []
    put_many = store.put_many

    def interrupted(rows):
        if len(n_put) == 2:
            raise KeyboardInterrupt
        n_put.append(len(rows))
        put_many(rows)

    monkeypatch.setattr(store, "put_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(greys(*range(20)), frozen_part(), store, batch_size=4)
    monkeypatch.undo()
    with count_passes() as counter:
        extraction = extract(greys(*range(20)), frozen_part(), store, batch_size=4)
    assert counter.passed == 20 - 2 * 4
    np.testing.assert_array_equal(extraction.values[:, 0], range(20))


def test_what_another_process_put_meanwhile_is_not_computed_again(cache, monkeypatch):
    store = open_store(cache)
    # this "process" looks before the other has put anything
    look_up, calls = _extract._look_up, []

    def late(store, keys):
        calls.append(keys)
        return {} if len(calls) == 1 else look_up(store, keys)

    extract(greys(1, 2, 3, 4), frozen_part(), store)
    monkeypatch.setattr(_extract, "_look_up", late)
    with count_passes() as counter:
        extraction = extract(greys(1, 2, 3, 4), frozen_part(), store, batch_size=2)
    assert counter.passed == 0
    np.testing.assert_array_equal(extraction.values[:, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("batch_size", [1, 4, 64])  # a batch a core, or all cores on one
def test_the_number_of_torch_s_threads_is_left_as_it_was(batch_size):
    before = torch.get_num_threads()
    extract(greys(*range(9)), frozen_part(), None, batch_size=batch_size)
    assert torch.get_num_threads() == before


def test_workers_are_cores_and_use_one_thread_each():
    seen = []

    class Asking(Mean):
        def forward(self, images):
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            return super().forward(images)

    extract(greys(*range(40)), frozen_part(Asking()), None, batch_size=4, n_jobs=3)
    assert len({name for name, _ in seen}) <= 3
    assert {count for _, count in seen} == {1}


def test_batches_are_the_same_whichever_comes_first(cache):
    store = open_store(cache)
    seen = [_extract._batches(list(range(50)), 8, store) for _ in range(20)]
    assert len({str(batches) for batches in seen}) > 1
    assert len({str(sorted(batches)) for batches in seen}) == 1
