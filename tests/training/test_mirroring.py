"""Whether images may be mirrored, told by linear models on rows."""

import tracemalloc

import numpy as np
import pytest

from sktransfer.training import _mirroring, _probe
from sktransfer.training._mirroring import is_harmless
from sktransfer.training._targets import ClassTargets, LabelTargets, NumberTargets


def rows_of(n=80, width=12, seed=0):
    """Return rows whose first value tells the target, and a sign for each."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, width)).astype(np.float32)
    return rows, (rows[:, 0] > 0).astype(int), rng


def harmless(rows, mirrored, y, targets):
    return is_harmless(rows, mirrored, targets.encode(y), np.ones(len(y)), targets)


def turned(rows):
    """Return rows in which the value that tells the target has the other sign."""
    return rows * np.r_[-1, np.ones(rows.shape[1] - 1)].astype(np.float32)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_rows_that_change_their_target_are_no_copies(kind):
    rows, y, rng = rows_of()
    if kind == "classes":
        targets = ClassTargets(2)
    elif kind == "labels":
        y = np.stack([y, rng.integers(0, 2, len(y))], axis=1)
        targets = LabelTargets.of(y, np.ones(len(y)), balanced=False)
    else:
        y = rows[:, :1].astype(float) * 5 + 100
        targets = NumberTargets.of(y, np.ones(len(y)))
    noise = 0.01 * rng.standard_normal(rows.shape).astype(np.float32)
    assert harmless(rows, rows, y, targets)
    assert harmless(rows, rows + noise, y, targets)
    assert not harmless(rows, turned(rows), y, targets)


def test_where_it_can_not_be_tried_images_are_not_mirrored():
    rows, _, _ = rows_of(4)
    assert not harmless(rows, rows, np.arange(4), ClassTargets(4))
    assert not harmless(
        rows[:1], rows[:1], np.zeros((1, 1)), NumberTargets(np.zeros(1), np.ones(1))
    )


def test_a_class_without_images_is_no_hindrance():
    rows, y, _ = rows_of()
    assert harmless(rows, rows, y, ClassTargets(3))


@pytest.fixture
def drawn(monkeypatch):
    """Return rows, mirrored ones and targets, of which few may be copied; one class is rare."""
    rows, y, rng = rows_of(20_000, 64)
    y[rng.permutation(np.flatnonzero(y))[:5]] = 2
    monkeypatch.setattr(_probe, "LARGE", 2000 * (64 + 3))
    return rows, turned(rows), y


def test_very_many_rows_are_told_by_a_sample_without_a_copy_of_all(drawn):
    rows, mirrored, y = drawn
    targets, ones = ClassTargets(3), np.ones(len(y))
    encoded = targets.encode(y)
    for of_mirrored, expected in ((rows, True), (mirrored, False)):
        tracemalloc.start()
        assert is_harmless(rows, of_mirrored, encoded, ones, targets) is expected
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < rows.nbytes


def test_a_sample_has_images_of_a_rare_class_for_each_fold(drawn):
    rows, _, y = drawn
    targets = ClassTargets(3)
    for encoded in (targets.encode(y), y):  # rows, and positions
        chosen = _mirroring._sample(rows.shape, encoded, targets)
        assert 2000 <= len(chosen) <= 2010
        assert np.bincount(y[chosen])[2] == 5
        assert np.mean(y[chosen] == 1) == pytest.approx(np.mean(y == 1), abs=0.05)


def test_a_sample_of_numbers_has_as_many_images_as_are_copied(drawn):
    rows, _, _ = drawn
    targets = NumberTargets(np.zeros(3), np.ones(3))
    chosen = _mirroring._sample(rows.shape, np.zeros((len(rows), 3)), targets)
    assert len(np.unique(chosen)) == len(chosen) == 2000
    assert 0.4 < chosen.mean() / len(rows) < 0.6
