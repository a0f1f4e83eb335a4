import numpy as np

from sktransfer.training._data import Replay


def images_of(labels):
    labels = np.asarray(labels)
    return Replay(labels[:, None] * 1.0, np.eye(5)[labels], *np.ones((2, len(labels))))


def test_a_sample_holds_rare_kinds_before_more_of_common_ones():
    pool = images_of([0] * 50 + [1] * 3 + [2] * 50)
    sample = pool.sample(13, np.random.RandomState(0))
    kinds, counts = np.unique(sample.targets.argmax(1), return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {0: 5, 1: 3, 2: 5}
    np.testing.assert_array_equal(sample.activations[:, 0], sample.targets.argmax(1))


def test_a_small_pool_is_kept_whole():
    pool = images_of([0, 1])
    assert pool.sample(10, np.random.RandomState(0)) is pool


def test_two_pools_follow_each_other():
    both = images_of([0, 1]).concatenated_with(images_of([2]))
    assert both.targets.argmax(1).tolist() == [0, 1, 2]
    assert len(both) == len(both.weights) == len(both.counts) == 3


def test_numbers_are_drawn_at_random():
    pool = Replay(np.arange(20.0)[:, None], np.arange(20.0)[:, None], *np.ones((2, 20)))
    one, other = (pool.sample(5, np.random.RandomState(seed)) for seed in (0, 1))
    assert len(one) == 5
    assert one.targets.tolist() != other.targets.tolist()
