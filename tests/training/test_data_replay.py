import numpy as np
import pytest

from sktransfer.training._data import Replay, lowest_priorities


def draw(n, labels, *, seed=0, old=None, call=0):
    """Return a sample of images of these labels, whose weight tells in which call they came."""
    labels = np.asarray(labels)
    weights = np.full(len(labels), float(call))
    return Replay.draw(
        n, labels[:, None] * 1.0, np.eye(5)[labels], weights, weights + 10, seed=seed, old=old
    )


def counts_of(values):
    return dict(
        zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True)
    )


def test_a_sample_holds_rare_kinds_before_more_of_common_ones():
    sample = draw(13, [0] * 50 + [1] * 3 + [2] * 50)
    assert counts_of(sample.targets.argmax(1)) == {0: 5, 1: 3, 2: 5}
    np.testing.assert_array_equal(sample.activations[:, 0], sample.targets.argmax(1))


def test_few_images_are_kept_whole_and_in_their_order():
    sample = draw(10, [1, 0, 2])
    assert sample.targets.argmax(1).tolist() == [1, 0, 2]
    assert sample.n_seen == len(sample) == 3


def test_values_of_an_image_stay_together():
    sample = None
    for call in range(3):
        sample = draw(20, [0, 1, 2] * 10, old=sample, call=call)
    np.testing.assert_array_equal(sample.counts, sample.weights + 10)
    np.testing.assert_array_equal(sample.activations[:, 0], sample.targets.argmax(1))


@pytest.mark.parametrize("sizes", [(1000, 1000, 1000), (300, 10, 1000, 20)])
def test_every_image_seen_so_far_has_the_same_chance(sizes):
    n, n_runs, held = 100, 200, np.zeros(len(sizes))
    for seed in range(n_runs):
        sample = None
        for call, size in enumerate(sizes):
            sample = draw(n, np.zeros(size, dtype=int), seed=seed, old=sample, call=call)
        assert len(sample) == n
        assert sample.n_seen == sum(sizes)
        held += [np.sum(sample.weights == call) for call in range(len(sizes))]
    # each image is one of Bernoulli draws; five standard deviations for the sum of them
    share = n / sum(sizes)
    expected = np.array(sizes) * share * n_runs
    assert np.all(np.abs(held - expected) < 5 * np.sqrt(expected * (1 - share)) + 1)


def test_rare_classes_of_the_first_call_are_kept_whole():
    sample = draw(30, [4] * 5 + [0] * 100, call=0)
    for call in range(1, 6):
        sample = draw(30, [0] * 200 + [1] * 200, old=sample, call=call)
    assert counts_of(sample.targets.argmax(1))[4] == 5
    common = sample.weights[sample.targets.argmax(1) != 4]
    assert len(set(common.tolist())) > 3  # from most of the calls


def test_numbers_are_of_as_many_kinds_as_there_are_images():
    numbers = np.arange(1000.0)[:, None]
    sample = Replay.draw(50, numbers, numbers, *np.ones((2, 1000)), seed=0)
    assert len(set(sample.targets.ravel().tolist())) == 50


def test_one_seed_draws_other_images_in_each_call():
    first = draw(20, [0] * 100)
    both = draw(20, [0] * 100, old=first)
    assert len(set(both.priorities.tolist())) == 20


@pytest.mark.parametrize("n", [1, 7, 30])
def test_a_sample_of_samples_is_the_sample_of_all(n):
    rng = np.random.default_rng(0)
    targets = np.eye(4)[rng.choice(4, 200, p=[0.7, 0.2, 0.07, 0.03])]
    priorities = rng.random(200)
    held = np.empty(0, dtype=int)
    for part in np.split(np.arange(200), [10, 80, 90, 150]):
        together = np.concatenate([held, part])
        held = together[lowest_priorities(targets[together], priorities[together], n)]
    np.testing.assert_array_equal(held, lowest_priorities(targets, priorities, n))
