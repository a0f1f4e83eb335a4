import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact

from sktransfer.monitoring._two_sample import (
    corrected,
    distribution_difference,
    n_permutations,
    p_value_of_low_scores,
    p_value_of_more,
    permutation_p_value,
    share_difference,
)


def share_at_most(p_values, level):
    """Return the share of p-values at most `level`, less three standard errors."""
    error = np.sqrt(level * (1 - level) / len(p_values))
    return np.mean(np.array(p_values) <= level) - 3 * error


def test_differences_of_distributions_are_found_and_measured():
    rng = np.random.default_rng(0)
    before = rng.normal(size=400)
    effect, p_value = distribution_difference(before, np.r_[rng.normal(size=280), np.full(120, 9)])
    assert effect == pytest.approx(0.3, abs=0.08)
    assert p_value < 1e-6
    assert distribution_difference(before, before) == (0.0, 1.0)


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_p_values_of_equal_samples_are_small_no_more_often_than_they_say(level):
    rng = np.random.default_rng(1)
    distributions, shares, novelty = [], [], []
    for _ in range(300):
        before, now = rng.integers(0, 8, 40), rng.integers(0, 8, 60)  # with ties
        distributions.append(distribution_difference(before, now)[1])
        counts = [np.bincount(of, minlength=8) for of in (before, now)]
        shares.append(share_difference(*counts, 99, rng)[1])
        scores, new = rng.normal(size=50), rng.normal(size=80)
        offset = np.nextafter(np.sort(scores)[4], np.inf)
        novelty.append(p_value_of_low_scores(scores, offset, new))
    for p_values in (distributions, shares, novelty):
        assert share_at_most(p_values, level) <= level
    # and not never
    assert np.mean(np.array(shares) <= level) > level / 3
    assert np.mean(np.array(novelty) <= level) > level / 3


def test_shares_differ_by_what_must_change_to_make_one_the_other():
    rng = np.random.default_rng(2)
    effect, p_value = share_difference(np.array([50, 50, 0]), np.array([30, 50, 20]), 199, rng)
    assert effect == pytest.approx(0.2)
    assert p_value == 1 / 200


def test_many_low_scores_are_significant_and_none_are_not():
    scores = np.arange(100.0)
    assert p_value_of_low_scores(scores, 4.5, np.full(50, 99.0)) == 1.0
    assert p_value_of_low_scores(scores, 4.5, np.r_[np.full(20, -1.0), np.full(30, 50.0)]) < 1e-6


def test_a_larger_share_has_the_p_value_of_fishers_test():
    expected = fisher_exact([[7, 43], [2, 98]], alternative="greater").pvalue
    assert p_value_of_more(100, 50, 2, 7) == pytest.approx(expected)
    assert p_value_of_more(100, 50, 0, 0) == 1.0


def test_the_correction_is_that_of_holm():
    assert corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert corrected([0.6, 0.7]) == [1.0, 1.0]
    p_values = np.random.default_rng(3).uniform(size=9)
    assert (np.array(corrected(p_values)) >= false_discovery_control(p_values) - 1e-12).all()


def test_the_observed_statistic_is_one_of_the_permutations():
    assert permutation_p_value(3.0, np.array([1.0, 2.0, 3.0])) == 0.5
    assert permutation_p_value(9.0, np.zeros(99)) == 0.01
    assert n_permutations(0.01) == 999
    assert n_permutations(1e-5) == 199_999
