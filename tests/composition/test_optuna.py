"""Optuna: a study with pruning, in which a pruned trial costs no further fold."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sktransfer import count_forward_passes

optuna = pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def _quiet():
    """Keep the log of trials out of the tests' output."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def fold_by_fold(estimator, X, y, trial, folds):
    """Report the mean score after each fold, and stop where the study says so."""
    scores = []
    for step, (train, test) in enumerate(folds):
        fitted = clone(estimator).fit(X[train], y[train])
        scores.append(fitted.score(X[test], y[test]))
        trial.report(np.mean(scores), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return np.mean(scores)


def test_a_study_over_depth_and_c_prunes_and_passes_each_image_once(shapes, model):
    X, y = shapes
    folds = list(StratifiedKFold(3).split(X, y))

    def objective(trial):
        depth = trial.suggest_categorical("depth", [-1, 1])
        strength = trial.suggest_float("C", 1e-3, 10, log=True)
        return fold_by_fold(
            clone(model).set_params(rows__depth=depth, linear__C=strength), X, y, trial, folds
        )

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
    )
    for depth, strength in [(-1, 1.0), (-1, 0.1), (1, 0.1)]:
        study.enqueue_trial({"depth": depth, "C": strength})
    with count_forward_passes() as counter:
        study.optimize(objective, n_trials=8)
    assert counter.computed == len(X)

    third = study.trials[2]
    assert third.state == optuna.trial.TrialState.PRUNED  # after its first fold
    assert list(third.intermediate_values) == [0]
    assert study.best_params["depth"] == -1
    best = clone(model).set_params(rows__depth=-1, linear__C=study.best_params["C"])
    assert study.best_value == pytest.approx(cross_val_score(best, X, y, cv=folds).mean())


def test_a_study_over_the_classifier_passes_each_image_once(shapes, classifier):
    X, y = shapes
    folds = list(StratifiedKFold(2).split(X, y))

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        return fold_by_fold(clone(classifier).set_params(lr=lr), X, y, trial, folds)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    with count_forward_passes() as counter:
        study.optimize(objective, n_trials=4)
    assert counter.computed == len(X)
    assert len(study.trials) == 4
    assert study.best_value >= 0.9


# It reaches for a module of Optuna's own that Optuna 4.9 deprecated.
@pytest.mark.filterwarnings("ignore:.*optuna.terminator.*:FutureWarning")
# It is marked as experimental as a whole.
@pytest.mark.filterwarnings("ignore:.*OptunaSearchCV is experimental:Warning")
# It tells its tags in the way before scikit-learn 1.6, of which that version alone warns.
@pytest.mark.filterwarnings("ignore:The OptunaSearchCV or classes from:FutureWarning")
def test_optunas_search_draws_candidates_and_passes_each_image_once(shapes, model):
    integration = pytest.importorskip("optuna_integration", minversion="5")
    X, y = shapes
    drawn = {"linear__C": optuna.distributions.FloatDistribution(1e-3, 10, log=True)}
    search = integration.OptunaSearchCV(model, drawn, n_trials=4, cv=3, random_state=0)
    with count_forward_passes() as counter:
        search.fit(X, y)
    assert counter.computed == len(X)
    assert search.n_trials_ == 4
    best = clone(model).set_params(**search.best_params_)
    assert search.best_score_ == pytest.approx(cross_val_score(best, X, y, cv=3).mean())
