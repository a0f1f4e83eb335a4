"""Names of the columns of multilabel and multi-output targets."""

import pickle

import numpy as np
import pandas as pd
import pytest

from sktransfer import FineTunedClassifier, FineTunedRegressor

FAST = {
    "backbone": "mini",
    "image_size": 32,
    "freeze_depth": None,
    "max_epochs": 1,
    "random_state": 0,
}
NAMES = ["round", "bright"]


@pytest.fixture(params=[FineTunedClassifier, FineTunedRegressor])
def estimator(request):
    return request.param(**FAST)


@pytest.fixture
def table(shapes):
    """Return the paths of the shapes and a table of two columns of 0 and 1."""
    X, y = shapes
    return X, pd.DataFrame({"round": (y == "disc") * 1, "bright": np.arange(len(X)) % 2})


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_columns_of_a_table_are_the_names_of_the_targets(estimator, table, library):
    X, y = table
    if library == "polars":
        y = pytest.importorskip("polars").DataFrame(y.to_dict("list"))
    fitted = estimator.fit(X, y, sample_weight=np.arange(len(X)))
    assert fitted.target_names_.tolist() == NAMES
    assert fitted.target_names_.dtype == object
    predicted = fitted.predict(X)
    assert isinstance(predicted, np.ndarray)
    assert predicted.shape == (len(X), 2)


def test_targets_without_names_have_none(estimator, table):
    X, y = table
    fitted = estimator.fit(X, y)
    assert hasattr(fitted, "target_names_")
    for nameless in (y.to_numpy(), y.set_axis([0, 1], axis=1), y.set_axis(["a", 1], axis=1)):
        assert not hasattr(fitted.fit(X, nameless), "target_names_")


def test_one_label_an_image_has_no_name_and_one_number_in_a_table_has_one(table):
    X, y = table
    assert not hasattr(FineTunedClassifier(**FAST).fit(X, y["round"]), "target_names_")
    assert not hasattr(FineTunedRegressor(**FAST).fit(X, y["round"]), "target_names_")
    fitted = FineTunedRegressor(**FAST).fit(X, y[["round"]])
    assert fitted.target_names_.tolist() == ["round"]


@pytest.mark.parametrize("going_on", ["partial_fit", "warm_start"])
def test_a_later_call_with_other_columns_is_an_error_that_names_them(estimator, table, going_on):
    X, y = table
    estimator.set_params(warm_start=going_on == "warm_start").fit(X, y)
    go_on = estimator.fit if going_on == "warm_start" else estimator.partial_fit
    before = estimator.predict(X)
    with pytest.raises(
        ValueError, match=r"(?s)y has the columns \['bright', 'round'\].*pass y\[\['round', 'bri"
    ):
        go_on(X, y[["bright", "round"]])
    with pytest.raises(ValueError, match=r"unknown: \['large'\].*missing: \['round'\]"):
        go_on(X, y.rename(columns={"round": "large"}))
    with pytest.raises(ValueError, match=r"unknown: \['large'\].*missing: \[\]"):
        go_on(X, y.assign(large=0))
    np.testing.assert_array_equal(estimator.predict(X), before)
    assert go_on(X, y).target_names_.tolist() == NAMES
    assert go_on(X, y.to_numpy()).target_names_.tolist() == NAMES


def test_columns_of_validation_targets_are_checked_too(estimator, table):
    X, y = table
    estimator.set_params(early_stopping=True)
    with pytest.raises(ValueError, match=r"y_val has the columns \['bright', 'round'\]"):
        estimator.fit(X, y, X_val=X, y_val=y[["bright", "round"]])


def test_names_of_targets_are_saved(estimator, table, tmp_path):
    skops = pytest.importorskip("skops.io")
    X, y = table
    fitted = estimator.fit(X, y)
    skops.dump(fitted, tmp_path / "fitted.skops")
    types = skops.get_untrusted_types(file=tmp_path / "fitted.skops")
    assert all(name.startswith("sktransfer.") for name in types), types
    for loaded in (
        pickle.loads(pickle.dumps(fitted)),
        skops.load(tmp_path / "fitted.skops", trusted=types),
    ):
        assert loaded.target_names_.tolist() == NAMES
        with pytest.raises(ValueError, match="y has the columns"):
            loaded.partial_fit(X, y[["bright", "round"]])
