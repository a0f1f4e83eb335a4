"""Which strategies are tried, in which order, and which are not: with scores that are given."""

import numpy as np
import pytest

from sktransfer.model_selection._limits import Limits
from sktransfer.model_selection._schedule import Schedule
from sktransfer.model_selection._strategies import (
    FINE_TUNING,
    ROWS,
    OfBackbone,
    RowsAtDepth,
    Strategy,
)
from sktransfer.model_selection._strategy_table import answer, strategy_table
from sktransfer.model_selection._trials import Trials

NOISE = np.array([-0.01, 0.0, 0.01])
SECONDS = 2.0  # of every fit


class Transformer:
    """Reads nothing."""

    feature_cache = None
    pixel_range = None

    def fit(self, X):
        return self


def named(name, kind, work=0.0):
    return Strategy(name, kind, [("model", name)], "net", work)


def backbone(n_depths=2, n_recipes=3, n_cuts=3):
    """Return the strategies with one backbone: names say the depth, or recipe and cut."""
    at_depths = [
        RowsAtDepth([named(f"{i}a", ROWS), named(f"{i}b", ROWS)], [named(f"{i}c", ROWS)])
        for i in range(n_depths)
    ]
    tuned = {
        (r, c): named(f"r{r}c{c}", FINE_TUNING, 4.0**r * 2.1**c)
        for r in range(n_recipes)
        for c in range(n_cuts)
    }
    return OfBackbone("net", Transformer(), at_depths, tuned)


@pytest.fixture
def run():
    """Return a function that searches with given mean scores, 0.5 where none is given."""

    def search(scores, of, n_errors=2.0, errors=1.0, **limits):
        tried = []

        def evaluate(candidates, more_results):
            tried.extend(more_results["strategy"])
            means = np.array([scores.get(name, 0.5) for name in tried])
            noise = np.array([np.roll(NOISE, i) for i in range(len(tried))])
            folds = means[:, None] + errors * noise
            return {
                **{f"split{k}_test_score": folds[:, k] for k in range(3)},
                "mean_test_score": means,
                "mean_fit_time": np.full(len(tried), SECONDS),
            }

        limits = {"max_time": None, "max_fits": None, **limits}
        trials = Trials(evaluate, Limits(n_folds=3, **limits), True, False)
        Schedule(trials, n_errors).run(None, [of], None)
        reasons = {trial.strategy.name: trial.reason for trial in trials if trial.scores is None}
        return tried, reasons, trials

    return search


def test_depths_that_are_clearly_worse_get_no_other_heads(run):
    tried, reasons, _ = run({"0a": 0.9, "0b": 0.8}, backbone(n_recipes=0))
    assert tried == ["0a", "0b", "1a", "1b", "0c"]
    assert list(reasons) == ["1c"]
    assert reasons["1c"].startswith("quick heads 0.400 ± ")


def test_depths_within_noise_get_all_heads(run):
    tried, reasons, _ = run({"0a": 0.51, "0b": 0.4}, backbone(n_recipes=0), errors=3.0)
    assert {"0c", "1c"} <= set(tried)
    assert not reasons


def test_fine_tuning_goes_on_from_what_was_better_and_the_cheapest_first(run):
    scores = {"r0c0": 0.6, "r0c1": 0.7, "r1c1": 0.8, "r0c2": 0.1}
    tried, reasons, _ = run(scores, backbone())
    # the next cut costs less than the next recipe; from r0c1 on likewise
    assert [name for name in tried if name[0] == "r"] == [
        "r0c0", "r0c1", "r0c2", "r1c1", "r1c2", "r2c1",
    ]  # fmt: skip
    # the other recipe at a cut that was worse than the next
    assert reasons["r1c0"].startswith("the step before 0.100 ± ")


def test_fine_tuning_goes_on_from_all_that_are_equally_good(run):
    tried, _, _ = run({"r0c0": 0.6, "r0c1": 0.6, "r1c0": 0.6}, backbone())
    assert {"r0c2", "r1c1"} <= set(tried)


def test_fine_tuning_ends_where_the_first_step_is_clearly_worse_than_rows(run):
    tried, reasons, _ = run({"0a": 0.9, "r0c0": 0.7}, backbone())
    assert [name for name in tried if name[0] == "r"] == ["r0c0"]
    assert reasons["r0c1"].startswith("the step before 0.200 ± ")
    assert reasons["r2c2"] == "no step before it was worth it"


def test_the_third_recipe_needs_a_gain_over_rows(run):
    close = {"0a": 0.6, "r0c0": 0.595, "r1c0": 0.602, "r0c1": 0.1, "r1c1": 0.1}
    tried, reasons, _ = run(close, backbone())
    assert "r1c0" in tried
    assert reasons["r2c0"].startswith("the recipe before gained 0.002 ± ")
    tried, _, _ = run({**close, "r1c0": 0.7}, backbone())
    assert "r2c0" in tried


def test_a_backbone_whose_rows_are_all_clearly_worse_is_not_fine_tuned(run):
    weak = backbone()
    tried, _, trials = run({"0a": 0.9}, weak)
    other = OfBackbone("net", Transformer(), [RowsAtDepth([named("x", ROWS)], [])], {})
    other.tuned[0, 0] = named("tuned x", FINE_TUNING, 1.0)
    Schedule(trials, 2.0).run(None, [other], None)
    left = {trial.strategy.name: trial.reason for trial in trials if trial.scores is None}
    assert left["tuned x"].startswith("rows at all depths below, 0.400 ± ")
    assert "tuned x" not in tried


def test_without_standard_errors_the_whole_grid_is_tried(run):
    of = backbone()
    tried, reasons, _ = run({"0a": 0.9}, of, n_errors=None)
    assert len(tried) == len(of.rows) + len(of.tuned)
    assert not reasons


def test_max_fits_ends_the_search_and_says_so(run):
    tried, reasons, _ = run({}, backbone(), max_fits=11)
    assert len(tried) == 3
    assert set(reasons.values()) == {"max_fits reached"}


def test_fine_tuning_that_takes_longer_than_what_is_left_is_not_tried(run):
    # r0c0 takes two seconds for a work of 1, r0c1 so 4.2 a fit: three folds and the last fit
    tried, reasons, _ = run({"r0c0": 0.7}, backbone(), max_time=16.0)
    assert [name for name in tried if name[0] == "r"] == ["r0c0"]
    assert reasons["r0c1"] == "max_time reached: about 17 s, 16 s left"
    tried, _, _ = run({"r0c0": 0.7}, backbone(), max_time=18.0)
    assert "r0c1" in tried


def test_one_strategy_is_tried_in_any_case(run):
    tried, reasons, _ = run({}, backbone(), max_time=1e-9)
    assert tried == ["0a"]
    assert set(reasons.values()) == {"max_time reached"}


def test_two_names_of_one_cut_are_one_strategy(run):
    of = backbone(n_recipes=2, n_cuts=3)
    of.tuned[0, 1] = of.tuned[0, 0]
    tried, _, _ = run({"r0c0": 0.6, "r0c2": 0.7}, of)
    assert tried.count("r0c0") == 1
    assert "r0c2" in tried  # reached through the second name


def test_failed_fits_are_last_and_named_so(run):
    _, _, trials = run({"0a": np.nan, "0b": 0.6}, backbone(n_recipes=0))
    table = strategy_table(trials, "score", 2.0)
    assert table[0].strategy == "0b"
    assert {r.strategy: r.status for r in table if r.score is not None}["0a"] == "failed"
    assert answer(trials).startswith("0b: 0.600 ± ")


def test_the_answer_says_what_fine_tuning_adds_or_why_it_was_not_tried(run):
    _, _, trials = run({"0a": 0.6, "r0c0": 0.7}, backbone(n_recipes=1, n_cuts=1))
    said = answer(trials)
    assert said.startswith("0a: 0.600 ± 0.006; r0c0 adds 0.100 ± ")
    assert said.endswith(" for 1 times the time")
    _, _, trials = run({"0a": 0.6}, backbone(), max_fits=9)
    assert answer(trials).endswith("; fine-tuning was not tried: max_fits reached")
