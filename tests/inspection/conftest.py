"""A report that the tests of its parts share."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer

COLOURS = ("red", "green", "blue")
WRONG = (3, 17, 40)


@pytest.fixture(scope="session")
def colours():
    """Return 60 images of three colours, and their labels, three of which are wrong."""
    rng = np.random.default_rng(0)
    k = np.arange(60) % 3
    X = rng.integers(0, 60, (60, 32, 32, 3), dtype=np.uint8)
    X[np.arange(60), :, :, k] += 150
    y = np.array(COLOURS)[k]
    y[list(WRONG)] = np.array(["green", "blue", "red"])[k[list(WRONG)]]
    return X, y


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Return the folder of a store that these tests share: rows are computed once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def pipeline(store):
    """Return a pipeline of "mini" and a linear model, which stores its rows."""
    network = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=store)
    return make_pipeline(network, LogisticRegression(C=0.01, max_iter=1000))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, colours):
    """Return paths and labels whose names would run a script where they are not escaped."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [
        "<img src=x onerror=window.ran=1>",
        "\"'><svg onload=window.ran=1>",
        "javascript:window.ran=1",
        "{{ 7 * 7 }}",
        "<script>window.ran=1",
        "</script><script>window.ran=1".replace("/", "&sol;"),
    ]
    classes = [
        "</script><script>window.ran=1</script>",
        '" onmouseover="window.ran=1" x=\'',
        "javascript:window.ran=1",
    ]
    X, y = colours
    paths = []
    for i, pixels in enumerate(X):
        path = folder / f"{names[i % len(names)]} {i}.png"
        Image.fromarray(pixels).resize((64, 48)).save(path)
        paths.append(str(path))
    of = dict(zip(COLOURS, classes, strict=True))
    return np.array(paths, dtype=object), np.array([of[label] for label in y])
