import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from sktransfer import FineTunedRegressor, count_forward_passes

FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "max_epochs": 10,
    "batch_size": 8,
    "random_state": 0,
}


@pytest.fixture
def lengths(shapes):
    """Return the paths of the shapes and a number for each, far from zero."""
    X, y = shapes
    return X, (y == "disc") * 50.0 + 1000


@pytest.mark.parametrize("freeze_depth", [None, -1, 0])
def test_numbers_come_out_in_their_own_unit(lengths, freeze_depth):
    X, y = lengths
    fitted = FineTunedRegressor(**FAST, freeze_depth=freeze_depth).fit(X, y)
    predicted = fitted.predict(X)
    assert predicted.shape == y.shape
    assert predicted.dtype == np.float64
    assert 990 < predicted.min() < predicted.max() < 1060
    assert fitted.score(X, y) > 0.7


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_many_numbers_go_in_and_out_as_a_matrix(lengths, n_outputs):
    X, y = lengths
    matrix = y[:, None] * np.arange(1, n_outputs + 1)
    fitted = FineTunedRegressor(**FAST).fit(X, matrix)
    assert fitted.predict(X).shape == (len(X), n_outputs)
    assert fitted.score(X, matrix) > 0.7


def test_the_unit_of_the_targets_does_not_matter(lengths):
    X, y = lengths
    metres = FineTunedRegressor(**FAST).fit(X, y).predict(X)
    millimetres = FineTunedRegressor(**FAST).fit(X, y * 1000).predict(X)
    np.testing.assert_allclose(millimetres, metres * 1000, rtol=1e-5)


def test_a_constant_target_is_predicted(lengths):
    X, _ = lengths
    np.testing.assert_allclose(
        FineTunedRegressor(**FAST).fit(X, np.full(len(X), 7.0)).predict(X), 7, atol=0.1
    )


def test_each_image_passes_once_in_a_grid_search(lengths, cache):
    X, y = lengths
    search = GridSearchCV(
        FineTunedRegressor(**FAST, feature_cache=cache), {"lr": [1e-3, 1e-2]}, cv=3
    )
    with count_forward_passes() as counter:
        search.fit(X, y)
    assert counter.computed == len(X)


def test_early_stopping_tells_r2_on_what_it_holds_out(lengths):
    X, y = lengths
    stopping = FineTunedRegressor(**FAST, early_stopping=True)
    fitted = stopping.fit(X[:16], y[:16], X_val=X[16:], y_val=y[16:])
    best = fitted.history_[fitted.best_epoch_ - 1]
    assert best["valid_score"] == pytest.approx(fitted.score(X[16:], y[16:]), abs=1e-5)


def test_partial_fit_keeps_the_unit_of_its_first_call(lengths):
    X, y = lengths
    fitted = FineTunedRegressor(**FAST, replay=24).partial_fit(X, y)
    before = fitted._targets
    fitted.partial_fit(X[:4], y[:4] + 100)
    assert fitted._targets is before
    with pytest.raises(ValueError, match="y has 2 outputs, the regressor was fitted with 1"):
        fitted.partial_fit(X[:4], np.ones((4, 2)))


@pytest.mark.parametrize("y", [["a", "b", "c"], [1.0, np.nan, 2.0], [1.0, 2.0]])
def test_targets_that_are_no_numbers_or_too_few_are_an_error(lengths, y):
    X, _ = lengths
    with pytest.raises(ValueError, match=r"y|inconsistent|convert"):
        FineTunedRegressor(**FAST).fit(X[:3], y)
