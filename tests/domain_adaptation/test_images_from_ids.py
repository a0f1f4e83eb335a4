"""The step that turns ids into images."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from sktransfer import PretrainedFeatureTransformer
from sktransfer.domain_adaptation import ImagesFromIds

PATHS = ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    "images",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, dtype=object),
        pd.Series(PATHS, index=[5, 6, 7]),
        pd.DataFrame({"path": PATHS}),
    ],
    ids=["list", "tuple", "strings", "objects", "Series", "DataFrame"],
)
@pytest.mark.parametrize(
    "ids", [[[2], [0], [2]], np.array([2, 0, 2]), pd.DataFrame({"id": [2, 0, 2]})]
)
def test_ids_are_positions(images, ids):
    chosen = ImagesFromIds(images).fit(ids).transform(ids)
    assert isinstance(chosen, np.ndarray)
    assert chosen.tolist() == ["c.png", "a.png", "c.png"]


def test_arrays_of_different_sizes_stay_what_they_are():
    images = [np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), np.ones((2, 3))]
    chosen = ImagesFromIds(images).transform([[0], [1]])
    assert chosen.shape == (2,)
    assert chosen[1] is images[1]


def test_a_stack_stays_a_stack():
    stack = np.arange(24).reshape(3, 2, 4)
    np.testing.assert_array_equal(ImagesFromIds(stack).transform([[1], [1]]), stack[[1, 1]])


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([[0], [3]], ValueError, "from 0 to 2, as there are 3 images, got 3 at position 1"),
        ([-1], ValueError, "got -1 at position 0"),
        ([[0.5]], TypeError, "of an integer type, got float64"),
        ([["a.png"]], TypeError, "of an integer type, got <U5"),
        ([[0, 1]], ValueError, r"one column, got the shape \(1, 2\)"),
    ],
)
def test_what_is_no_id_is_an_error(ids, error, message):
    for method in ("fit", "transform"):
        with pytest.raises(error, match=message):
            getattr(ImagesFromIds(PATHS), method)(ids)


def test_a_table_of_several_columns_is_an_error():
    with pytest.raises(ValueError, match="images has 2 columns"):
        ImagesFromIds(pd.DataFrame({"a": PATHS, "b": PATHS})).transform([[0]])


def test_a_clone_and_a_pickle_give_the_same_images():
    step = ImagesFromIds(np.array(PATHS, dtype=object)).fit([[0]])
    for copied in (clone(step), pickle.loads(pickle.dumps(step))):
        assert copied.transform([[1]]).tolist() == ["b.png"]
    assert not get_tags(step).requires_fit
    assert step.n_features_in_ == 1


def test_the_next_step_reads_the_images(shapes):
    X, _ = shapes
    rows = PretrainedFeatureTransformer("mini", image_size=32, precision="float32")
    expected = rows.fit_transform(X)[[3, 1]]
    pipeline = make_pipeline(ImagesFromIds(X), clone(rows)).fit([[3], [1]])
    np.testing.assert_allclose(pipeline.transform([[3], [1]]), expected, rtol=1e-5)
