import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import (
    DepthCurveDisplay,
    FineTunedClassifier,
    PretrainedFeatureTransformer,
    backbone_info,
)

FAST = {"backbone": "mini", "recipe": "fast", "image_size": 32, "max_epochs": 1, "random_state": 0}
DEPTH = "pretrainedfeaturetransformer__depth"


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def searched(params, scores, estimator=None, metric="score", **attributes):
    """Return what a search leaves behind: candidates, and a row of scores for each."""
    scores = np.array(scores, dtype=float)
    results = {"params": params, f"mean_test_{metric}": scores.mean(axis=1)}
    results |= {f"split{fold}_test_{metric}": column for fold, column in enumerate(scores.T)}
    return SimpleNamespace(
        estimator=FineTunedClassifier("mini", recipe="fast") if estimator is None else estimator,
        cv_results_=results | attributes.pop("results", {}),
        scoring=None,
        refit=True,
        **attributes,
    )


def over(depths, **attributes):
    scores = [[0.5, 0.6]] * len(depths)
    return searched([{"freeze_depth": depth} for depth in depths], scores, **attributes)


def ticks(display):
    return [label.get_text() for label in display.ax_.get_xticklabels()]


def test_a_grid_search_is_drawn_as_it_scored(shapes):
    search = GridSearchCV(FineTunedClassifier(**FAST), {"freeze_depth": [-2, None, -1]}, cv=3)
    display = DepthCurveDisplay.from_grid(search.fit(*shapes))
    order = [1, 2, 0]
    assert display.depths == [None, -1, -2]
    results = search.cv_results_
    mean = results["mean_test_score"][order]
    np.testing.assert_allclose(display.lines_[0].get_ydata(), mean)
    np.testing.assert_allclose(display.test_scores.std(axis=1), results["std_test_score"][order])
    assert display.depths[display.best_index] == search.best_params_["freeze_depth"]
    (bars,) = display.errorbar_.lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose((ends[:, 1] - ends[:, 0]) / 2, results["std_test_score"][order])


def test_the_depth_of_a_transformer_in_a_pipeline_is_found(shapes):
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini", image_size=32), LogisticRegression(max_iter=5000)
    )
    grid = {DEPTH: [-2, None], "logisticregression__C": [0.01, 1.0]}
    search = RandomizedSearchCV(pipeline, grid, n_iter=4, cv=2, scoring="balanced_accuracy")
    display = DepthCurveDisplay.from_grid(search.fit(*shapes))
    assert display.param_name == DEPTH
    assert display.depths == [None, -2]
    assert display.chosen_over == "best over C"
    assert display.ax_.get_xlabel().startswith("depth ")
    assert display.ax_.get_ylabel().startswith("Balanced accuracy")
    assert display.test_scores.mean(axis=1).max() == pytest.approx(search.best_score_)


def test_a_halving_search_is_drawn_at_its_last_round_of_all_depths(shapes):
    search = HalvingGridSearchCV(
        FineTunedClassifier(**FAST),
        {"freeze_depth": [None, -1, -2], "lr": [1e-3, 1e-2]},
        cv=2,
        min_resources=12,
        random_state=0,
    ).fit(*shapes)
    display = DepthCurveDisplay.from_grid(search)
    results = search.cv_results_
    assert display.depths == [None, -1, -2]
    rounds = [i for i, n in enumerate(results["n_resources"]) if n == 12]
    first = {depth: [] for depth in display.depths}
    for i in rounds:
        first[results["params"][i]["freeze_depth"]].append(results["mean_test_score"][i])
    expected = [max(first[depth]) for depth in display.depths]
    np.testing.assert_allclose(display.lines_[0].get_ydata(), expected)
    assert display.chosen_over == "best over lr, halving at 12 resources"


@pytest.mark.parametrize(
    ("depths", "ordered"),
    [
        ([0, -1, None, -2], [None, -1, -2, 0]),
        ([0, 3, 1, None], [None, 3, 1, 0]),
        ([1, -1, 2, -2, None, 0], [None, -1, -2, 2, 1, 0]),  # "mini" has five stages
        ([np.int64(-3), np.int64(-1)], [-1, -3]),
    ],
)
def test_depths_are_ordered_from_most_stages_to_least(depths, ordered):
    display = DepthCurveDisplay.from_grid(over(depths))
    assert display.depths == ordered
    assert ticks(display) == [str(depth) for depth in ordered]


def test_the_axis_names_the_last_stage_before_each_cut_where_a_network_is_fitted(shapes, mini_file):
    names = [stage.name for stage in backbone_info("mini").stages]
    expected = [f"None\n{names[-1]}", f"-1\n{names[-2]}"]
    search = GridSearchCV(FineTunedClassifier(**FAST), {"freeze_depth": [None, -1]}, cv=2)
    assert ticks(DepthCurveDisplay.from_grid(search.fit(*shapes))) == expected
    rows = PretrainedFeatureTransformer("mini", image_size=32)
    search = GridSearchCV(make_pipeline(rows, LogisticRegression()), {DEPTH: [None, -1]}, cv=2)
    assert ticks(DepthCurveDisplay.from_grid(search.fit(*shapes))) == expected
    several = {"freeze_depth": [None, -1], "backbone": ["mini", mini_file]}
    search = GridSearchCV(FineTunedClassifier(**FAST), several, cv=2)
    assert ticks(DepthCurveDisplay.from_grid(search.fit(*shapes))) == ["None", "-1"]


@pytest.mark.parametrize(
    ("name", "scores", "best", "marked", "text"),
    [
        # folds differ by more than the means do
        ("freeze_depth", [[0.8, 0.9, 0.7], [0.9, 0.8, 0.8]], 1, 0, "None: cheaper, and as good"),
        ("freeze_depth", [[0.7, 0.8, 0.6], [0.9, 0.9, 0.8]], 1, 1, "best: -1"),
        ("freeze_depth", [[0.9, 0.8, 0.8], [0.8, 0.9, 0.7]], 0, 0, "best: None"),
        ("freeze_depth", [[0.8], [0.9]], 1, 1, "best: -1"),
        ("freeze_depth", [[np.nan, 0.9, 0.7], [0.9, 0.8, 0.8]], 1, 1, "best: -1"),
        ("depth", [[0.9, 0.8, 0.8], [0.8, 0.9, 0.7]], 0, 1, "-1: cheaper, and as good"),
    ],
)
def test_of_depths_as_good_within_noise_the_cheaper_one_is_marked(name, scores, best, marked, text):
    display = DepthCurveDisplay(
        [None, -1], np.array(scores), best_index=best, param_name=name
    ).plot()
    assert display.best_.get_xdata().tolist() == [marked]
    assert display.best_.get_label().startswith(text)


def test_the_seconds_of_a_fit_have_an_axis_of_their_own():
    times = {"mean_fit_time": np.array([3.0, 1.0])}
    display = DepthCurveDisplay.from_grid(over([-1, None], results=times))
    assert display.times_.get_ydata().tolist() == [1.0, 3.0]
    assert "seconds" in display.times_.axes.get_ylabel()
    assert DepthCurveDisplay.from_grid(over([-1, None])).times_ is None


def test_at_each_depth_the_best_of_the_other_parameters_is_shown():
    params = [{"freeze_depth": d, "lr": lr, "head": "linear"} for d in (None, -1) for lr in (1, 2)]
    display = DepthCurveDisplay.from_grid(
        searched(params, [[0.1, 0.3], [0.2, 0.8], [0.9, 0.7], [np.nan, 0.99]])
    )
    np.testing.assert_array_equal(display.test_scores, [[0.2, 0.8], [0.9, 0.7]])
    assert display.chosen_over == "best over lr"
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["best over lr", "None: cheaper, and as good\nas -1 within noise"]


def test_candidates_without_the_depth_are_left_out():
    params = [{"freeze_depth": None}, {"freeze_depth": -1}, {"lr": 1}]
    display = DepthCurveDisplay.from_grid(searched(params, [[0.1], [0.2], [0.9]]))
    assert display.test_scores.tolist() == [[0.1], [0.2]]


def test_of_equal_depths_the_one_that_the_search_took_is_marked():
    assert DepthCurveDisplay.from_grid(over([None, -1])).best_index == 0
    search = over([None, -1], best_params_={"freeze_depth": -1})
    assert DepthCurveDisplay.from_grid(search).best_index == 1


def test_a_depth_whose_fits_failed_is_a_gap():
    search = searched(
        [{"freeze_depth": d} for d in (None, -1, -9)], [[0.5, 0.6], [0.7, 0.8], [np.nan, np.nan]]
    )
    display = DepthCurveDisplay.from_grid(search)
    assert display.depths[display.best_index] == -1
    assert np.isnan(display.lines_[0].get_ydata()[2])


@pytest.mark.parametrize(
    ("style", "drawn"),
    [("errorbar", {"errorbar_"}), ("fill_between", {"fill_between_"}), (None, set())],
)
def test_the_spread_is_drawn_in_the_style_that_is_asked_for(style, drawn):
    display = DepthCurveDisplay.from_grid(over([None, -1]), std_display_style=style)
    spreads = {"errorbar_", "fill_between_"}
    assert {name for name in spreads if getattr(display, name) is not None} == drawn
    assert ("std" in display.ax_.get_ylabel()) == bool(drawn)


def test_it_draws_again_into_given_axes():
    figure, ax = pyplot.subplots()
    display = DepthCurveDisplay.from_grid(over([None, -1]))
    assert display.plot(ax, line_kw={"lw": 7}) is display
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert display.lines_[0].get_linewidth() == 7


def test_one_of_several_metrics_is_drawn():
    results = {"mean_test_f1": np.array([0.1, 0.2]), "split0_test_f1": np.array([0.1, 0.2])}
    search = over([None, -1], metric="neg_log_loss", results=results)
    search.refit = "f1"
    assert DepthCurveDisplay.from_grid(search).test_scores.tolist() == [[0.1], [0.2]]
    display = DepthCurveDisplay.from_grid(search, metric="neg_log_loss")
    assert display.test_scores.shape == (2, 2)
    assert display.score_name == "Negative log loss"
    with pytest.raises(ValueError, match=r"metric must be one of 'neg_log_loss', 'f1'.*got 'auc'"):
        DepthCurveDisplay.from_grid(search, metric="auc")
    search.refit = False
    with pytest.raises(ValueError, match="refits by none of them"):
        DepthCurveDisplay.from_grid(search)


class Trees(BaseEstimator):
    """Has a parameter of the same name that means something else."""

    def __init__(self, depth=3):
        self.depth = depth


def test_the_depth_of_another_estimator_is_not_taken_for_ours():
    pipeline = make_pipeline(PretrainedFeatureTransformer("mini"), Trees())
    params = [{DEPTH: d, "trees__depth": n} for d in (None, -1) for n in (1, 2)]
    search = searched(params, [[0.1], [0.2], [0.3], [0.4]], estimator=pipeline)
    assert DepthCurveDisplay.from_grid(search).param_name == DEPTH
    with pytest.raises(ValueError, match="has no freeze_depth"):
        DepthCurveDisplay.from_grid(over([None, -1], estimator=Trees()))


def test_several_depths_need_a_name():
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini"), FineTunedClassifier("mini", recipe="fast")
    )
    other = "finetunedclassifier__freeze_depth"
    params = [{DEPTH: d, other: n} for d in (None, -1) for n in (-1, -2)]
    search = searched(params, [[0.1], [0.2], [0.3], [0.4]], estimator=pipeline)
    with pytest.raises(ValueError, match=f"several depths; name one with param=: '{other}'"):
        DepthCurveDisplay.from_grid(search)
    assert DepthCurveDisplay.from_grid(search, param=other).depths == [-1, -2]
    with pytest.raises(ValueError, match="param='depth' is not in the grid, which has 'fine"):
        DepthCurveDisplay.from_grid(search, param="depth")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (searched([{"lr": 1}, {"lr": 2}], [[0.1], [0.2]]), "has no freeze_depth.*it has 'lr'"),
        (over([-1, -1]), "freeze_depth has a single value in the grid, -1"),
        (over([None, "all"]), "must hold ints and None to be drawn, got 'all'"),
        (
            searched([{"freeze_depth": d} for d in (None, 0)], [[np.nan]] * 2),
            "every candidate of the search has a score of NaN",
        ),
    ],
    ids=["no depth", "one depth", "no number", "failed"],
)
def test_what_can_not_be_drawn_is_said(search, message):
    with pytest.raises(ValueError, match=message):
        DepthCurveDisplay.from_grid(search)


def test_an_unknown_style_lists_those_that_are():
    with pytest.raises(ValueError, match="'errorbar', 'fill_between' or None, got 'band'"):
        DepthCurveDisplay.from_grid(over([None, -1]), std_display_style="band")


def test_not_fitted_is_scikit_learns_error():
    search = GridSearchCV(FineTunedClassifier("mini", recipe="fast"), {"freeze_depth": [None, -1]})
    with pytest.raises(NotFittedError, match="GridSearchCV is not fitted"):
        DepthCurveDisplay.from_grid(search)


def test_another_object_is_told_what_is_allowed():
    with pytest.raises(TypeError, match=r"takes a fitted GridSearchCV.*got FineTunedClassifier"):
        DepthCurveDisplay.from_grid(FineTunedClassifier("mini", recipe="fast"))


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'sktransfer\[plot\]'"):
        DepthCurveDisplay.from_grid(over([None, -1]))
