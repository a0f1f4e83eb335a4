"""Drawn images of three kinds, an estimator, and a monitor of it, for the tests of monitoring."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer
from sktransfer.monitoring import DriftMonitor

COLOURS = np.array(["blue", "green", "red"])


def draw_colours(n, seed, shares=None):
    """Return `n` images of 32 pixels, noise with a colour, and the names of these."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, n, p=shares)
    X = rng.integers(0, 150, (n, 32, 32, 3), dtype=np.uint8)
    X[np.arange(n), :, :, 2 - kinds] += rng.integers(10, 60, (n, 1, 1), dtype=np.uint8)
    return X, COLOURS[kinds]


@pytest.fixture(scope="session")
def draw():
    return draw_colours


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a pipeline that was fitted on drawn images, with a store of its own."""
    store = str(tmp_path_factory.mktemp("store"))
    transformer = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=store)
    linear = LogisticRegression(C=0.01, max_iter=1000)
    return make_pipeline(transformer, linear).fit(*draw_colours(90, 0))


@pytest.fixture(scope="module")
def monitor(model):
    """Return a monitor that was fitted on other images with their labels. Not to be changed."""
    X, y = draw_colours(120, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return DriftMonitor().fit(X, y, estimator=model)
