"""The main job on real photographs: ants and bees, with real ImageNet weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torchvision.models import mobilenet_v2
from torchvision.transforms import v2

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.backbones._weights import read_tensors


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("main_job")


def test_a_linear_model_on_frozen_features_reaches_090(imagenet_weights, hymenoptera, store):
    X, y = hymenoptera["train"]
    pipeline = make_pipeline(
        PretrainedFeatureTransformer(imagenet_weights, feature_cache=store),
        LogisticRegression(max_iter=5000),
    )
    grid = {"logisticregression__C": [0.003, 0.01, 0.03, 0.1]}
    with count_forward_passes() as counter:
        search = GridSearchCV(pipeline, grid, cv=5).fit(X, y)
    assert counter.computed == len(X) == 245
    assert search.score(*hymenoptera["val"]) >= 0.90


def test_fine_tuning_over_freeze_depths_reaches_088(imagenet_weights, hymenoptera, store):
    X, y = hymenoptera["train"]
    classifier = FineTunedClassifier(
        imagenet_weights, recipe="fast", random_state=0, feature_cache=store
    )
    with count_forward_passes() as counter:
        search = GridSearchCV(classifier, {"freeze_depth": [None, -1, -2]}, cv=3).fit(X, y)
    # once for each depth; the rows of depth None may be there from the test above
    assert counter.computed in (2 * len(X), 3 * len(X))
    assert set(search.predict(hymenoptera["val"][0])) == {"ants", "bees"}
    assert search.score(*hymenoptera["val"]) >= 0.88


def test_rows_agree_with_torchvision_run_by_hand(imagenet_weights, hymenoptera):
    paths, pictures = [], []
    for path in hymenoptera["val"][0][:24]:
        with Image.open(path) as picture:
            # the hand-made way knows no colour profiles, which the package applies
            if "icc_profile" not in picture.info:
                paths.append(path)
                pictures.append(picture.convert("RGB"))
    network = mobilenet_v2(width_mult=0.35)
    network.load_state_dict(read_tensors(imagenet_weights), strict=False)
    preprocess = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(257, antialias=True),
            v2.CenterCrop(225),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    images = torch.stack([preprocess(picture) for picture in pictures])
    with torch.inference_mode():
        expected = network.eval().features(images).mean((2, 3)).numpy()
    # What is computed unasked agrees as well; bfloat16 must be asked for with this network.
    # torchvision 0.21 resizes in floats where the processor has AVX-512, and a pixel in five
    # is one of 255 off: 0.9986 there.
    for precision, least in (("auto", 0.998), ("float32", 0.998), ("bfloat16", 0.98)):
        transformer = PretrainedFeatureTransformer(
            imagenet_weights, precision=precision, feature_cache=None
        )
        rows = transformer.fit_transform(paths)
        cosine = (rows * expected).sum(1)
        cosine /= np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        assert cosine.min() > least, precision
