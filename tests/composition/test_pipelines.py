"""Chains and unions of steps."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_selection import RFECV, SelectKBest, VarianceThreshold, f_classif
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer import FineTunedRegressor, count_forward_passes, register_backbone
from sktransfer.backbones.sources import _registered


def small_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights, and the same ones each time
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 64, 3, stride=2), nn.ReLU()
        )


@pytest.fixture
def own_backbone(monkeypatch):
    """Register a network of one's own for the time of a test."""
    monkeypatch.setattr(_registered, "registered", {})
    stages = {"first": ("0", "1"), "second": ("2", "3")}
    numbers = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    register_backbone("own", small_network, stages, numbers)
    return "own"


def test_a_pipeline_is_its_steps_one_after_another(shapes, model):
    X, y = shapes
    model.fit(X[:16], y[:16])
    rows = clone(model["rows"]).fit_transform(X)
    by_hand = LogisticRegression(max_iter=1000).fit(rows[:16], y[:16])
    np.testing.assert_array_equal(model.predict_proba(X), by_hand.predict_proba(rows))
    assert model.score(X[16:], y[16:]) == 1.0


def test_a_clone_has_the_parameters_and_nothing_that_was_learned(shapes, model, classifier):
    X, y = shapes
    for fitted in (model.fit(X, y), classifier.fit(X, y)):
        copy = clone(fitted)
        of_fitted, of_copy = fitted.get_params(), copy.get_params()
        assert {name: repr(value) for name, value in of_copy.items()} == {
            name: repr(value) for name, value in of_fitted.items()
        }
        assert not copy.__sklearn_is_fitted__()
        np.testing.assert_array_equal(copy.fit(X, y).predict_proba(X), fitted.predict_proba(X))


def test_a_union_of_two_depths_and_poolings_is_their_rows_side_by_side(shapes, transformer):
    X, _ = shapes
    last, middle = clone(transformer), clone(transformer).set_params(depth=-1, pooling="max")
    union = FeatureUnion([("last", last), ("middle", middle)])
    with count_forward_passes() as counter:
        rows = union.fit_transform(X)
    by_hand = np.hstack([last.fit_transform(X), middle.fit_transform(X)])
    np.testing.assert_array_equal(rows, by_hand)
    assert rows.shape == (len(X), 256 + 128)
    assert counter.computed == 2 * len(X)  # once for each of the two
    names = union.get_feature_names_out()
    assert names[0] == "last__pretrainedfeaturetransformer0"
    assert names[-1] == "middle__pretrainedfeaturetransformer127"


def test_a_union_of_two_networks_goes_on_to_one_linear_model(shapes, transformer, own_backbone):
    X, y = shapes
    other = clone(transformer).set_params(backbone=own_backbone)
    union = FeatureUnion([("mini", transformer), ("own", other)])
    model = make_pipeline(union, StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(X[:16], y[:16])
    assert model["logisticregression"].coef_.shape == (1, 256 + 64)
    assert model.score(X[16:], y[16:]) >= 0.75


def test_memory_of_a_pipeline_gives_the_same_and_fits_the_transformer_once(shapes, model, tmp_path):
    X, y = shapes
    remembering = clone(model).set_params(memory=str(tmp_path / "memory"))
    with count_forward_passes() as first:
        remembering.fit(X, y)
    with count_forward_passes() as second:
        again = clone(remembering).set_params(linear__C=0.1).fit(X, y)
    assert (first.computed, second.computed + second.cache_hits) == (len(X), 0)
    expected = model.set_params(linear__C=0.1).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), expected.predict_proba(X))


def test_the_best_columns_are_chosen_among_the_rows(shapes, transformer):
    X, y = shapes
    # some columns are zero in all of these few images, and the F-test warns of them
    varying, best = VarianceThreshold(), SelectKBest(f_classif, k=10)
    model = make_pipeline(transformer, varying, best, LogisticRegression())
    model.fit(X[:16], y[:16])
    assert model.score(X[16:], y[16:]) == 1.0
    chosen = model[:-1].get_feature_names_out()
    assert len(chosen) == 10
    assert set(chosen) <= set(model[0].get_feature_names_out())


def test_recursive_elimination_keeps_few_columns(shapes, transformer):
    X, y = shapes
    eliminate = RFECV(LogisticRegression(), step=0.5, cv=2, min_features_to_select=4)
    with count_forward_passes() as counter:
        model = make_pipeline(transformer.set_params(depth=-2), eliminate).fit(X[:16], y[:16])
    assert counter.computed == 16  # eliminating reads the rows, not the images
    assert 4 <= model[-1].n_features_ <= 64
    assert model.score(X[16:], y[16:]) >= 0.75


def test_a_transformed_target_comes_back_in_its_own_unit(shapes, transformer):
    X, y = shapes
    # areas of three orders of magnitude, which the logarithm brings together
    area = np.where(y == "disc", 10.0, 10_000.0)
    ridge = make_pipeline(transformer, StandardScaler(), Ridge(10.0))
    model = TransformedTargetRegressor(ridge, func=np.log, inverse_func=np.exp)
    predicted = model.fit(X[:16], area[:16]).predict(X[16:])
    by_hand = np.exp(clone(ridge).fit(X[:16], np.log(area[:16])).predict(X[16:]))
    np.testing.assert_allclose(predicted, by_hand)
    assert np.abs(np.log10(predicted) - np.log10(area[16:])).max() < 1.5  # on the right side


def test_a_transformed_target_goes_round_a_fine_tuned_regressor(shapes, cache):
    X, y = shapes
    area = np.where(y == "disc", 10.0, 10_000.0)
    regressor = FineTunedRegressor(
        "mini",
        recipe="fast",
        freeze_depth=None,
        image_size=32,
        max_epochs=4,
        batch_size=8,
        precision="float32",
        feature_cache=str(cache),
        random_state=0,
    )
    model = TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)
    with count_forward_passes() as counter:
        predicted = model.fit(X[:16], area[:16]).predict(X)
        by_hand = np.exp(clone(regressor).fit(X[:16], np.log(area[:16])).predict(X))
    assert counter.computed == len(X)
    np.testing.assert_allclose(predicted, by_hand, rtol=1e-5)
    assert np.abs(np.log10(predicted[16:]) - np.log10(area[16:])).max() < 1.5
