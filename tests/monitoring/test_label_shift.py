import numpy as np
import pytest

from sktransfer.monitoring._label_shift import corrected_shares


def drawn(rng, shares, n):
    """Return the probabilities of a classifier that confuses three classes, and the classes."""
    labels = rng.choice(3, n, p=shares)
    x = rng.normal(np.array([-1.0, 0.0, 1.0])[labels], 0.6)[:, None]
    logits = -((x - np.array([-1.0, 0.0, 1.0])) ** 2) / (2 * 0.6**2)
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), labels


def test_shares_are_corrected_for_what_the_classifier_confuses():
    rng = np.random.default_rng(0)
    true, errors, naive, covered = np.array([0.1, 0.2, 0.7]), [], [], []
    for _ in range(15):
        before, labels = drawn(rng, [1 / 3] * 3, 600)
        now, _ = drawn(rng, true, 500)
        found = corrected_shares(before, labels, now, rng)
        assert found.values.sum() == pytest.approx(1)
        errors.append(np.abs(found.values - true).mean())
        naive.append(np.abs(np.bincount(now.argmax(1), minlength=3) / 500 - true).mean())
        covered.append((found.low <= true) & (true <= found.high))
    assert np.mean(errors) < 0.04
    assert np.mean(errors) < 0.8 * np.mean(naive)
    assert np.mean(covered) > 0.8


def test_a_class_that_is_gone_has_a_share_of_none():
    rng = np.random.default_rng(1)
    before, labels = drawn(rng, [1 / 3] * 3, 600)
    now, _ = drawn(rng, [0.0, 0.0, 1.0], 400)
    found = corrected_shares(before, labels, now, rng)
    assert found.values[0] < 0.02
    assert (found.values >= 0).all()


def test_the_share_of_a_class_without_an_image_is_not_known():
    rng = np.random.default_rng(2)
    before, labels = drawn(rng, [0.5, 0.0, 0.5], 300)
    found = corrected_shares(before, labels, before, rng)
    assert np.isnan([found.values[1], found.low[1], found.high[1]]).all()
    np.testing.assert_allclose(found.values[[0, 2]], np.bincount(labels)[[0, 2]] / 300, atol=1e-6)
