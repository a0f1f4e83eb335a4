from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sktransfer.extraction import _batches
from sktransfer.extraction._batches import read_batch, read_batches, run_batches
from sktransfer.images._collection import as_images


def reading(*cells):
    """Return what reads the images that were passed."""
    images = as_images(list(cells))
    return lambda position: torch.from_numpy(images[position].read()).permute(2, 0, 1)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def grey(value):
    return np.full((8, 8, 3), value, dtype=np.uint8)


def test_batches_come_in_order_with_their_images(pool):
    read = reading(*(grey(value) for value in range(7)))
    batches = list(read_batches(read, [[4, 5], [0, 1], [6]], pool))
    assert [batch.positions for batch in batches] == [[4, 5], [0, 1], [6]]
    values = [int(pixels[0, 0, 0]) for batch in batches for pixels in batch.pixels]
    assert values == [4, 5, 0, 1, 6]


def test_an_image_that_cannot_be_read_is_reported_and_the_others_are_there(pool):
    (batch,) = read_batches(reading(grey(1), b"no image", grey(3)), [[0, 1, 2]], pool)
    assert batch.positions == [0, 2]
    assert list(batch.failures) == [1]
    assert len(batch.pixels) == 2


def test_images_are_read_in_a_bounded_window(pool):
    started, begun, read = [], [], reading(grey(0))

    def counted(position):
        started.append(position)
        return read(0)

    def batches():
        for i in range(0, 100, 10):
            begun.append(i)
            yield range(i, i + 10)

    results = read_batches(counted, batches(), pool)
    next(results)
    assert len(started) <= 10 * (1 + _batches._BATCHES_AHEAD)
    assert len(begun) == 1 + _batches._BATCHES_AHEAD  # nor is more of the plan looked at
    results.close()


def test_one_batch_is_read_like_many(pool):
    read = reading(grey(1), b"no image", grey(3))
    (expected,) = read_batches(read, [[2, 0, 1]], pool)
    batch = read_batch(read, [2, 0, 1])
    assert batch.positions == expected.positions == [2, 0]
    assert batch.failures == expected.failures
    assert batch.pixels.equal(expected.pixels)


def test_work_on_batches_comes_in_order_and_a_few_are_under_way(pool):
    started = []

    def work(positions):
        started.append(positions)
        return sum(positions)

    results = run_batches([[i] for i in range(50)], work, pool, n_workers=2)
    assert next(results) == 0
    assert len(started) <= 1 + 2 * 2
    assert list(results) == list(range(1, 50))
