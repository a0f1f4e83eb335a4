from itertools import pairwise

import pytest
import torch

from sktransfer.runtime import _memory
from sktransfer.runtime._memory import BatchLimit, in_fitting_parts, says_out_of_memory

CPU = torch.device("cpu")

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: ..."),
]


class Memory:
    """Has room for `largest` numbers at once; notes how many were tried."""

    def __init__(self, largest, error=OUT_OF_MEMORY[0]):
        self.largest, self.error, self.tried = largest, error, []

    def compute(self, part):
        numbers = range(part.start, part.stop)
        self.tried.append(len(numbers))
        if len(numbers) > self.largest:
            raise self.error
        return numbers


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_batch_is_halved_while_memory_runs_out(error):
    memory = Memory(3, error)
    parts = in_fitting_parts(10, memory.compute, BatchLimit(), CPU)
    assert [number for part in parts for number in part] == list(range(10))
    assert memory.tried == [10, 5, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory")]
)
def test_another_error_is_raised_at_once(error):
    memory = Memory(0, error)
    assert not says_out_of_memory(error)
    with pytest.raises(type(error), match=str(error)):
        in_fitting_parts(4, memory.compute, BatchLimit(), CPU)
    assert memory.tried == [4]


def test_one_image_alone_is_an_error_that_says_where_and_what_to_do():
    with pytest.raises(
        torch.OutOfMemoryError, match=r"'cpu' ran out on one image alone.*Tried to allocate"
    ):
        in_fitting_parts(2, Memory(0).compute, BatchLimit(), CPU)


def test_batches_grow_again_when_memory_is_free_again():
    memory, limit = Memory(2), BatchLimit()
    in_fitting_parts(8, memory.compute, limit, CPU)
    assert memory.tried[-1] == 2
    memory.largest = 8
    for _ in range(20):
        in_fitting_parts(8, memory.compute, limit, CPU)
    assert memory.tried[-1] == 8
    assert limit.at_most(100) == 100  # as if nothing had been


def test_larger_batches_are_tried_ever_more_rarely_while_memory_is_full():
    memory, limit = Memory(2), BatchLimit()
    in_fitting_parts(4096, memory.compute, limit, CPU)
    failures = [i for i, n in enumerate(memory.tried) if n > 2]
    in_the_beginning = [4096 // 2**k for k in range(10)]
    assert [memory.tried[i] for i in failures[:10]] == in_the_beginning
    later = failures[10:]
    assert {memory.tried[i] for i in later} == {4}
    gaps = [b - a for a, b in pairwise(later)]
    assert len(later) <= 8
    assert gaps == sorted(gaps)


def test_memory_is_given_back_before_a_smaller_batch_is_tried(monkeypatch):
    done, memory = [], Memory(2)
    monkeypatch.setattr(_memory, "release_cached", lambda device: done.append(len(memory.tried)))
    in_fitting_parts(4, memory.compute, BatchLimit(), torch.device("cuda:1"))
    assert done == [1]
    assert memory.tried == [4, 2, 2]
