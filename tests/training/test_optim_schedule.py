import pytest

from sktransfer.training._optim import WarmUpAndCosine


@pytest.mark.parametrize("n_steps", [1, 2, 10, 1000])
def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing(n_steps):
    factors = [WarmUpAndCosine(n_steps)(step) for step in range(n_steps)]
    peak = factors.index(max(factors))
    assert max(factors) == 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)


def test_a_step_after_the_last_has_no_rate():
    assert WarmUpAndCosine(10)(11) == pytest.approx(0, abs=1e-12)
