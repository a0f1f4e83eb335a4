"""Tables: an image column beside others, and tables as output."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktransfer import count_forward_passes


@pytest.fixture
def columns(shapes):
    """Return an image column, a number and a category that tell nothing of the label."""
    X, _ = shapes
    rng = np.random.default_rng(0)
    return {
        "photo": X.tolist(),
        "weight": rng.normal(70, 10, len(X)),
        "camera": rng.choice(["north", "south", "west"], len(X)).tolist(),
    }


@pytest.fixture
def mixed(transformer):
    """Return what makes rows of all three columns."""
    return ColumnTransformer(
        [
            ("image", transformer, "photo"),
            ("number", StandardScaler(), ["weight"]),
            ("category", OneHotEncoder(sparse_output=False), ["camera"]),
        ]
    )


@pytest.mark.parametrize("table", [pd.DataFrame, pl.DataFrame])
def test_an_image_column_stands_beside_numbers_and_categories(shapes, columns, mixed, table):
    _, y = shapes
    X = table(columns)
    rows = mixed.fit_transform(X)
    assert rows.shape == (len(X), 256 + 1 + 3)
    names = mixed.get_feature_names_out()
    assert names[0] == "image__pretrainedfeaturetransformer0"
    assert names[256:].tolist() == [
        "number__weight",
        "category__camera_north",
        "category__camera_south",
        "category__camera_west",
    ]
    images = mixed.named_transformers_["image"]
    np.testing.assert_array_equal(rows[:, :256], images.transform(columns["photo"]))
    np.testing.assert_allclose(rows[:, 256].mean(), 0, atol=1e-6)

    model = make_pipeline(mixed, LogisticRegression(max_iter=1000)).fit(X[:16], y[:16])
    assert model.score(X[16:], y[16:]) == 1.0


def test_a_column_named_by_a_list_comes_as_a_table_of_one_column(shapes, columns, mixed):
    rows = mixed.fit_transform(pd.DataFrame(columns))
    as_table = mixed.set_params(transformers=[("image", mixed.transformers[0][1], ["photo"])])
    np.testing.assert_array_equal(as_table.fit_transform(pd.DataFrame(columns)), rows[:, :256])
    assert as_table.named_transformers_["image"].feature_names_in_.tolist() == ["photo"]


def test_columns_are_selected_by_kind_or_by_name(columns, transformer):
    X = pd.DataFrame(columns)
    mixed = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (transformer, make_column_selector("photo")),
        remainder="drop",
    )
    rows = mixed.fit_transform(X)
    assert mixed.get_feature_names_out()[0] == "standardscaler__weight"
    np.testing.assert_array_equal(rows[:, 1:], transformer.fit_transform(X["photo"]))


@pytest.mark.parametrize(("name", "table"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output_makes_tables_with_named_columns(shapes, transformer, name, table):
    X, _ = shapes
    expected = transformer.fit_transform(X)
    frame = transformer.set_output(transform=name).fit_transform(X)
    assert isinstance(frame, table)
    assert list(frame.columns) == transformer.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame.to_numpy(), expected)


@pytest.mark.parametrize(("name", "table"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output_of_a_pipeline_reaches_every_step(columns, mixed, name, table):
    X = table(columns)
    pipeline = make_pipeline(mixed, StandardScaler()).set_output(transform=name)
    frame = pipeline.fit_transform(X)
    assert isinstance(frame, table)
    assert list(frame.columns) == pipeline.get_feature_names_out().tolist()
    assert frame.shape == (len(X), 260)


def test_a_table_keeps_its_index_as_a_table_of_rows(shapes, transformer):
    X, _ = shapes
    labelled = pd.DataFrame({"photo": X}, index=[f"image {i}" for i in range(len(X))])
    frame = transformer.set_output(transform="pandas").fit_transform(labelled)
    assert frame.index.equals(labelled.index)


@pytest.mark.parametrize(("name", "table"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_the_global_setting_makes_tables_too(shapes, transformer, name, table):
    X, _ = shapes
    with sklearn.config_context(transform_output=name):
        assert isinstance(transformer.fit_transform(X), table)
    assert isinstance(transformer.fit_transform(X), np.ndarray)


def test_a_search_goes_into_the_image_column(shapes, columns, mixed):
    _, y = shapes
    model = make_pipeline(mixed, LogisticRegression(max_iter=1000))
    grid = {"columntransformer__image__depth": [None, 1]}
    with count_forward_passes() as counter:
        search = GridSearchCV(model, grid, cv=3).fit(pd.DataFrame(columns), y)
    assert counter.computed == len(y)
    assert search.best_params_ == {"columntransformer__image__depth": None}
    assert search.best_score_ == 1.0
