import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedGroupKFold, cross_val_score

from sktransfer import PretrainedFeatureTransformer
from sktransfer.exceptions import ImageFailure, ImageReadError
from sktransfer.model_selection._candidates import Candidate
from sktransfer.model_selection._halving import Halving, in_order
from sktransfer.model_selection._probes import linear, neighbours

N = 400
Y = np.random.default_rng(0).integers(0, 2, N)


class Known(Candidate):
    """A candidate whose rows are known, so that no image passes a network."""

    def load_rows(self, rows, failing=()):
        self.known, self.failing, self.widths = rows, failing, (rows.shape[1],)
        return self

    def extend(self, X, start, end):
        self.forward_passes += end - start
        self.rows = self.known[:end]
        return [ImageFailure(i, "x", "bad") for i in self.failing if start <= i < end]


def candidate(name, signal, seed=1, **facts):
    """Return a candidate whose rows tell the classes apart the better, the larger `signal`."""
    rows = np.random.default_rng(seed).normal(size=(N, 8)).astype(np.float32)
    rows[:, 0] += signal * Y
    return Known(name, PretrainedFeatureTransformer(), **facts).load_rows(rows)


def halving(cv=5, groups=None, ends=(100, 200, 400), y=Y, is_classes=True):
    groups = np.arange(N) if groups is None else groups
    return Halving(None, y, groups, cv, None, is_classes, list(ends))


def test_fewer_and_fewer_candidates_get_more_images_and_bad_ones_are_dropped_first():
    good = [candidate(f"good {i}", 3, seed=i) for i in range(2)]
    bad = [candidate(f"bad {i}", 0, seed=10 + i) for i in range(4)]
    rounds = halving()
    rounds.run([*bad, *good])
    assert rounds.n_images == [100, 200, 400]
    assert [c.forward_passes for c in good] == [400, 400]
    assert sum(c.forward_passes for c in bad) < 4 * 200
    assert {c.label for c in in_order([*bad, *good])[:2]} == {"good 0", "good 1"}
    dropped = [c for c in bad if c.round == 1]
    assert dropped
    assert all("dropped in round 1 of 3: 0." in c.outcome for c in dropped)
    assert all(len(c.rows) == 0 for c in dropped)


def test_what_is_within_noise_of_the_best_stays_to_the_end():
    alike = [candidate(f"{i}", 1.0, seed=i) for i in range(6)]
    for one in alike:
        one.known = alike[0].known + 0.02 * one.known
    halving().run(alike)
    assert [c.round for c in alike] == [3] * 6  # halving alone would leave two
    best = next(c for c in alike if c.outcome == "best")
    assert (best.difference, best.error) == (0, 0)
    for one in alike:
        assert one.outcome.startswith("worse") == (one.difference > one.error)


def test_the_better_half_stays_even_where_it_is_clearly_worse():
    many = [candidate("best", 6), candidate("second", 1.5, seed=2), candidate("third", 0, seed=3)]
    halving().run(many)
    assert [c.round for c in many] == [3, 2, 1]  # two of three, then one of two
    assert in_order(many[::-1]) == many


def test_neighbours_score_the_first_of_several_rounds_and_the_linear_model_the_others():
    best, worst, alone = candidate("best", 6), candidate("worst", 0, seed=2), candidate("alone", 1)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    halving(ends=[200, N]).run([best, worst])
    assert (best.round, worst.round) == (2, 1)
    few = {"y": Y[:200], "groups": np.arange(200), "cv": folds}
    expected = cross_val_score(neighbours(True, 200), worst.known[:200], **few)
    np.testing.assert_allclose(worst.scores, expected)
    every = {"y": Y, "groups": np.arange(N), "cv": folds}
    np.testing.assert_allclose(best.scores, cross_val_score(linear(True), best.known, **every))
    halving(ends=[N]).run([alone])
    np.testing.assert_allclose(alone.scores, cross_val_score(linear(True), alone.known, **every))


def test_the_error_is_that_of_the_differences_fold_by_fold():
    one, other = candidate("one", 3), candidate("other", 1, seed=2)
    halving(ends=[N]).run([one, other])
    differences = one.scores - other.scores
    assert other.difference == pytest.approx(differences.mean())
    assert other.error == pytest.approx(differences.std(ddof=1) / np.sqrt(5))
    assert (one.difference, one.error) == (0, 0)


def test_imagenet_accuracy_orders_those_within_noise_and_no_others():
    tied = [candidate(name, 0, top1=top1) for name, top1 in
            [("a", None), ("b", 60.0), ("c", 80.0)]]  # fmt: skip
    worse = candidate("worse", 0, top1=90.0)
    for c, score, error in [(*pair, 0.01) for pair in zip(tied, (0.9, 0.895, 0.892), strict=True)]:
        c.scores, c.difference, c.error, c.round = np.full(5, score), 0.9 - score, error, 2
    worse.scores, worse.difference, worse.error, worse.round = np.full(5, 0.8), 0.1, 0.01, 2
    assert [c.label for c in in_order([worse, *tied])] == ["a", "c", "b", "worse"]
    assert [c.label for c in in_order([worse, *tied[1:]])] == ["c", "b", "worse"]
    assert tied[2].outcome == "within noise of the best, and first by ImageNet accuracy"


def test_images_that_can_not_be_read_are_in_no_fold():
    one, other = candidate("one", 2), candidate("other", 2, seed=3)
    one.failing = other.failing = (3, 150)
    one.known[[3, 150]] = np.nan
    rounds = halving()
    rounds.run([one, other])
    assert rounds.n_images == [99, 198, 398]
    assert sorted(rounds.failures) == [3, 150]
    assert 150 not in rounds.readable(N)
    one.failing = range(N)
    with pytest.raises(ImageReadError):
        halving().run([clone_of(one)])


def clone_of(known):
    return Known(known.label, clone(known.transformer)).load_rows(known.known, known.failing)


def test_a_network_that_gives_no_numbers_is_left_out_with_the_reason():
    good, broken = candidate("good", 2), candidate("broken", 2)
    broken.known[5, 2] = np.inf
    halving().run([broken, good])
    assert broken.reason == "its rows hold values that are not finite"
    assert in_order([broken, good]) == [good, broken]
    with pytest.raises(ValueError, match=r"backbones: none .* broken: its rows hold"):
        halving().run([clone_of(broken)])


def test_a_splitter_that_lets_groups_cross_is_refused_and_one_that_does_not_is_used():
    groups = np.repeat(np.arange(N // 4), 4)
    with pytest.raises(ValueError, match=r"cv=KFold.* lets a group or duplicates cross"):
        halving(KFold(4, shuffle=True), groups).run([candidate("one", 2)])
    one = candidate("one", 2)
    halving(StratifiedGroupKFold(4), groups).run([one])
    assert len(one.scores) == 4


def test_numbers_are_predicted_by_a_ridge_regression():
    one, other = candidate("one", 0), candidate("other", 0, seed=2)
    y = one.known[:, 1] + 0.1 * one.known[:, 2]
    halving(y=y, is_classes=False).run([one, other])
    assert one.scores.mean() > 0.99
    assert other.scores.mean() < 0.2
