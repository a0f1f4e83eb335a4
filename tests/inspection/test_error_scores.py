from itertools import pairwise

import numpy as np
import pytest

from sktransfer.inspection._error_scores import (
    by_class,
    by_quality,
    calibration,
    clearly_worse,
    interval,
    loss_of_frequencies,
    losses,
    most_confused,
    overall,
    percent,
    proportion,
)


def test_the_interval_of_a_share_is_wilsons():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for n_right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        score = proportion(n_right, n)
        assert (score.value, score.n) == (n_right / n, n)
        assert (score.low, score.high) == pytest.approx((low, high), abs=5e-5)
    assert proportion(20, 20).high == 1.0
    assert np.isnan(proportion(0, 0).value)


def test_balanced_accuracy_is_the_mean_over_classes():
    labels = np.array([0] * 30 + [2] * 10)
    predicted = np.array([0] * 30 + [2] * 5 + [1] * 5)
    accuracy, balanced = overall(labels, predicted, None)
    assert accuracy.value == 35 / 40
    assert balanced.value == 0.75
    assert balanced.low < 0.75 < balanced.high


def test_groups_that_are_right_or_wrong_together_widen_the_interval():
    labels = np.zeros(200, dtype=int)
    groups = np.arange(200) // 20
    predicted = groups % 2
    alone, _ = overall(labels, predicted, None)
    grouped, _ = overall(labels, predicted, groups)
    assert grouped.value == alone.value == 0.5
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_scores_of_classes_are_recall_and_precision():
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    first, second = by_class(confusion)  # the third has no image
    assert (first.recall.value, first.precision.value) == (0.8, 8 / 9)
    assert (second.recall.value, second.precision.value) == (0.9, 9 / 11)


def test_confidence_that_is_right_as_often_as_it_says_is_calibrated():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20000)
    right = rng.random(20000) < confidence
    bins, error = calibration(confidence, right)
    assert len(bins) == 10
    assert sum(one.accuracy.n for one in bins) == 20000
    assert error < 0.02
    _, too_confident = calibration(np.full(100, 0.9), np.arange(100) < 60)
    assert too_confident == pytest.approx(0.3)


def test_a_quality_in_which_images_do_not_differ_has_no_parts():
    right = np.arange(100) % 2 == 0
    assert by_quality(np.full(100, 7.0), right) == []
    assert by_quality(np.full(100, np.nan), right) == []
    values = np.arange(100.0)
    values[::10] = np.nan
    bins = by_quality(values, values > 40)
    assert sum(one.accuracy.n for one in bins) == 90
    assert (bins[0].accuracy.value, bins[-1].accuracy.value) == (0, 1)
    assert all(one.high < other.low for one, other in pairwise(bins))


def test_by_chance_a_part_is_seldom_called_worse():
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(200):
        right = rng.random(300) < 0.8
        parts = [by_quality(rng.random(300), right) for _ in range(3)]
        called += any(clearly_worse(bins, right.mean(), 15) for bins in parts)
    assert called / 200 < 0.08  # 0.05, and as many as chance may add; of 95 % alone it is 0.25
    quality = np.arange(300)
    right = quality >= 30  # half of the first fifth
    bins = by_quality(quality, right)
    assert clearly_worse(bins, right.mean(), 15) == bins[:1]


def test_losses_are_finite_and_the_log_loss():
    found = losses(np.array([0, 1]), np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert found[0] == pytest.approx(np.log(4))
    assert np.isfinite(found[1])
    assert loss_of_frequencies(np.array([0, 0, 2, 2])) == pytest.approx(np.log(2))


def test_confusions_are_ordered_and_without_what_is_right():
    assert most_confused(np.array([[9, 1], [3, 9]]), 5) == [(1, 0, 3), (0, 1, 1)]
    assert most_confused(np.diag([3, 4]), 5) == []


def test_rounding_does_not_say_all_or_none():
    assert percent(0.99999) == ">99.9%"
    assert percent(0.00001) == "<0.1%"
    assert percent(1.0) == "100.0%"
    assert percent(0.123) == "12.3%"
    assert interval(proportion(0, 0)) == "- to -"
