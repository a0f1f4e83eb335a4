"""The scores of depths in a search, by fold, from most stages to least."""

import math
import re
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.exceptions import NotFittedError

from .._base import ImageEstimator
from ..backbones._catalogue import backbone_info

DEPTH_NAMES = ("freeze_depth", "depth")


@dataclass(frozen=True)
class DepthScores:
    """What `DepthCurveDisplay` draws; its fields are explained there."""

    depths: list
    test_scores: np.ndarray
    best_index: int
    param_name: str
    score_name: str
    chosen_over: str | None
    stages: list[str] | None
    fit_times: np.ndarray | None


def depth_scores(search, param=None, metric=None):
    """Read the scores of each depth from a fitted search."""
    results = _results(search)
    params = results["params"]
    param = _depth_param(search, params, param)
    metric = _metric(search, results, metric)
    by_fold = re.compile(rf"split\d+_test_{re.escape(metric)}")
    scores = np.column_stack([results[key] for key in results if by_fold.fullmatch(key)])
    candidates, n_resources = _comparable(results, param)
    chosen = _best_at_each_depth(candidates, params, param, scores.mean(axis=1))
    depths = _most_stages_first(list(chosen), search, param)
    scores = scores[[chosen[depth] for depth in depths]]
    return DepthScores(
        depths=[None if depth is None else int(depth) for depth in depths],
        test_scores=scores,
        best_index=_best(depths, scores.mean(axis=1), search, param),
        param_name=param,
        score_name=_score_name(search, metric),
        chosen_over=_chosen_over(candidates, params, param, n_resources),
        stages=_stages_at(depths, search, params, param),
        fit_times=None
        if "mean_fit_time" not in results
        else np.asarray(results["mean_fit_time"])[[chosen[depth] for depth in depths]],
    )


def cheaper_within_noise(test_scores, best_index, param_name):
    """Return the position of the cheapest depth that is as good as the best, within noise.

    As good is a mean difference over the folds of at most one standard error of the
    differences. Cheapest is where the most stages are frozen, or the fewest are used.

    Parameters
    ----------
    test_scores : ndarray of shape (n_depths, n_folds)
        From most stages to least.
    best_index : int
        Position of the depth to compare with.
    param_name : str
    """
    differences = np.asarray(test_scores)[best_index] - np.asarray(test_scores)
    n_folds = differences.shape[1]
    if n_folds < 2:
        return best_index
    errors = differences.std(axis=1, ddof=1) / np.sqrt(n_folds)
    as_good = np.flatnonzero(differences.mean(axis=1) <= errors)  # False for NaN
    if param_name.rpartition("__")[2] == "freeze_depth":
        return int(min(best_index, as_good.min(initial=best_index)))
    return int(max(best_index, as_good.max(initial=best_index)))


def _results(search):
    if hasattr(search, "cv_results_"):
        return search.cv_results_
    if hasattr(search, "estimator") and hasattr(search, "refit"):
        raise NotFittedError(f"This {type(search).__name__} is not fitted yet; call fit first")
    raise TypeError(
        "DepthCurveDisplay.from_grid takes a fitted GridSearchCV, RandomizedSearchCV or their "
        f"halving kin; got {type(search).__name__}"
    )


def _depth_param(search, candidates, param):
    """Return the name of the parameter of the grid that is a depth."""
    names = sorted({name for candidate in candidates for name in candidate})
    if param is not None:
        if param not in names:
            raise ValueError(f"param={param!r} is not in the grid, which has {_listed(names)}")
        found = [param]
    else:
        found = [name for name in names if _is_depth(search.estimator, name)]
    if not found:
        raise ValueError(
            "the grid has no freeze_depth, and no depth of a PretrainedFeatureTransformer; it "
            f"has {_listed(names)}"
        )
    if len(found) > 1:
        raise ValueError(f"the grid has several depths; name one with param=: {_listed(found)}")
    depths = {candidate[found[0]] for candidate in candidates if found[0] in candidate}
    wrong = [d for d in depths if d is not None and not isinstance(d, Integral)]
    if wrong:
        raise ValueError(f"{found[0]} must hold ints and None to be drawn, got {wrong[0]!r}")
    if len(depths) < 2:
        raise ValueError(
            f"{found[0]} has a single value in the grid, {depths.pop()!r}; a curve needs two"
        )
    return found[0]


def _is_depth(template, name):
    """Return whether a parameter is a depth of ours, not another one of the same name."""
    owner, _, last = name.rpartition("__")
    of = template.get_params().get(owner) if owner else template
    return last in DEPTH_NAMES and isinstance(of, ImageEstimator)


def _metric(search, results, metric):
    metrics = [key.removeprefix("mean_test_") for key in results if key.startswith("mean_test_")]
    if metric is None:
        metric = metrics[0] if len(metrics) == 1 else search.refit
    if metric not in metrics:
        raise ValueError(
            f"metric must be one of {_listed(metrics)}, as the search has no other"
            + (f"; got {metric!r}" if isinstance(metric, str) else " and refits by none of them")
        )
    return metric


def _comparable(results, param):
    """Return candidates that were scored on as many images, and the round of a halving search."""
    having = [i for i, candidate in enumerate(results["params"]) if param in candidate]
    if "iter" not in results:
        return having, None
    depths = {results["params"][i][param] for i in having}
    for iteration in sorted(set(results["iter"]), reverse=True):
        now = [i for i in having if results["iter"][i] == iteration]
        if {results["params"][i][param] for i in now} == depths:
            break
    return now, int(results["n_resources"][now[0]])


def _best_at_each_depth(candidates, params, param, means):
    """Return the candidate with the best mean score for each depth; failed fits are last."""
    ranked = sorted(candidates, key=lambda i: -math.inf if np.isnan(means[i]) else means[i])
    best = {params[i][param]: i for i in ranked}
    if np.isnan(means[list(best.values())]).all():
        raise ValueError("every candidate of the search has a score of NaN: its fits failed")
    return best


def _most_stages_first(depths, search, param):
    """Order depths as slices are read: None is all stages, -1 all but one, 0 none."""
    counted_from_both_ends = {np.sign(depth) for depth in depths if depth is not None} >= {-1, 1}
    n_stages = _n_stages(search.estimator, param) if counted_from_both_ends else 0

    def n_used(depth):
        if depth is None:
            return math.inf
        return -math.inf if depth == 0 else depth + n_stages * (depth < 0)

    return sorted(depths, key=n_used, reverse=True)


def _n_stages(template, param):
    params, prefix = template.get_params(), _prefix(param)
    info = backbone_info(params[f"{prefix}backbone"], params[f"{prefix}backbone_params"])
    return len(info.stages)


def _prefix(param):
    owner = param.rpartition("__")[0]
    return f"{owner}__" if owner else ""


def _stages_at(depths, search, params, param):
    """Return the name of the last stage before each cut.

    None where networks differ, and where the search holds no fitted one: names are not
    looked up, which may need a file of weights.
    """
    prefix = _prefix(param)
    networks = {f"{prefix}backbone", f"{prefix}backbone_params"}
    fitted = getattr(search, "best_estimator_", None)
    if prefix and fitted is not None:
        fitted = fitted.get_params()[param.rpartition("__")[0]]
    spec = getattr(fitted, "backbone_spec_", None)
    if spec is None or any(networks & candidate.keys() for candidate in params):
        return None
    return [spec.stages[:depth][-1] if spec.stages[:depth] else "none" for depth in depths]


def _best(depths, means, search, param):
    """Return the position of the highest mean; of equal ones, that of the search's choice."""
    tied = np.flatnonzero(means == np.nanmax(means))
    taken = [i for i in tied if (param, depths[i]) in getattr(search, "best_params_", {}).items()]
    return int(taken[0] if taken else tied[0])


def _score_name(search, metric):
    scoring = getattr(search, "scoring", None)
    name = metric if metric != "score" else scoring if isinstance(scoring, str) else "score"
    return re.sub("^neg_", "negative ", name).replace("_", " ").capitalize()


def _chosen_over(candidates, params, param, n_resources):
    """Return what the legend says of the candidates that are not shown, or None."""
    varied: dict[str, set] = {}
    for i in candidates:
        for name, value in params[i].items():
            varied.setdefault(name, set()).add(repr(value))
    others = [
        name.rpartition("__")[2] for name in varied if name != param and len(varied[name]) > 1
    ]
    parts = [f"best over {', '.join(others)}"] if others else []
    if n_resources is not None:
        parts.append(f"halving at {n_resources} resources")
    return ", ".join(parts) or None


def _listed(names):
    return ", ".join(map(repr, names)) or "no parameter"
