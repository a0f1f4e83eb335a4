"""The models that the tests of composition put into other tools."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer


@pytest.fixture
def transformer(cache):
    """Return a transformer with a store of its own, so that its passes can be counted."""
    return PretrainedFeatureTransformer(
        "mini", image_size=32, precision="float32", feature_cache=str(cache)
    )


@pytest.fixture
def model(transformer):
    """Return the pipeline of a transformer and a linear model, named `rows` and `linear`."""
    return Pipeline([("rows", transformer), ("linear", LogisticRegression(max_iter=1000))])


@pytest.fixture
def classifier(cache):
    """Return a classifier that trains its head alone, for few epochs."""
    return FineTunedClassifier(
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


@pytest.fixture
def pixels(shapes):
    """Return the images as rows of numbers, for tools that take nothing else."""
    X, _ = shapes
    images = [Image.open(path).resize((24, 24)) for path in X]
    return np.stack([np.asarray(image).ravel() for image in images])
