"""Power laws are found again in curves that were drawn from them."""

import numpy as np
import pytest

from sktransfer.inspection._power_law import PowerLaw, continuation

SIZES = np.array([25, 50, 100, 200, 400])


def drawn(law, noise, n_repeats=8, seed=0):
    rng = np.random.default_rng(seed)
    return law(SIZES)[:, None] + noise * rng.normal(size=(len(SIZES), n_repeats))


@pytest.mark.parametrize(
    "law", [PowerLaw(0.95, 1.5, 0.5), PowerLaw(0.8, 0.9, 0.3), PowerLaw(1.0, 3.0, 1.0)]
)
def test_a_curve_without_noise_gives_its_own_law(law):
    found = continuation(SIZES, drawn(law, 1e-6), 1.0, 1.0).law
    assert found.a == pytest.approx(law.a, abs=0.01)
    assert found.c == pytest.approx(law.c, rel=0.05)
    np.testing.assert_allclose(found(4 * SIZES), law(4 * SIZES), atol=0.003)


def test_the_band_holds_the_law_in_most_draws():
    law, inside = PowerLaw(0.9, 1.5, 0.5), []
    for seed in range(60):
        found = continuation(SIZES, drawn(law, 0.02, seed=seed), 1.0, 1.0)
        low, high = found.band(np.array([400, 1600]))
        inside.append((low <= law([400, 1600])) & (law([400, 1600]) <= high))
    assert np.mean(inside, axis=0).min() >= 0.8
    assert np.mean(inside, axis=0).max() < 1


def test_the_band_is_wider_for_repeats_that_share_images_and_further_away():
    scores = drawn(PowerLaw(0.9, 1.5, 0.5), 0.02)
    at = np.array([400, 1600])
    independent, sharing = (np.diff(continuation(SIZES, scores, 1.0, f).band(at), axis=0)[0]
                            for f in (1.0, 2.0))  # fmt: skip
    assert (sharing > 1.3 * independent).all()
    assert sharing[1] > sharing[0]


def test_bounds_hold_whatever_the_scores():
    for seed in range(20):
        found = continuation(SIZES, np.clip(drawn(PowerLaw(1, 1, 0.3), 0.3, 3, seed), 0, 1), 1, 2.0)
        a, b, _ = found.draws.T
        assert (a <= 1 + 1e-12).all()
        assert (b >= 0).all()


def test_a_falling_curve_is_fitted_as_a_flat_one():
    found = continuation(SIZES, drawn(PowerLaw(0.5, -1.0, 0.5), 0.001), 1.0, 1.0)
    assert found.law.b == 0
    assert found.gain(400, 800) == (0, 0)


def test_losses_have_their_bound_at_zero():
    found = continuation(SIZES, drawn(PowerLaw(0.0, 4.0, 0.5), 1e-6), 0.0, 1.0)
    assert found.law.a == pytest.approx(0, abs=0.02)
    assert found.law.c == pytest.approx(0.5, rel=0.05)
