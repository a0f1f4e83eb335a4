"""The picture of the cut network in scikit-learn's diagrams."""

import pickle
import re

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    PretrainedFeatureTransformer,
    count_forward_passes,
)
from sktransfer._base import ImageEstimator
from sktransfer.backbones import _registry
from sktransfer.model_selection._pixel_rows import PixelRows

SMALL = {"backbone": "mini", "image_size": 32}
TUNED = {**SMALL, "recipe": "fast", "freeze_depth": -1, "max_epochs": 1, "random_state": 0}

has_boxes = pytest.mark.skipif(
    not hasattr(BaseEstimator, "_get_params_html"),
    reason="the boxes of scikit-learn 1.6 have no content",
)


def shown(estimator):
    """Return what screen readers hear of each picture in a diagram."""
    return re.findall(r'<svg role="img" aria-label="([^"]*)"', estimator._repr_html_())


def heard(stages):
    return "; ".join(f"{name}: {role}" for name, role in stages)


def without_numbers(sentence):
    return re.sub(r", (width \d+|[\d.]+ ?[kM]? parameters)", "", sentence)


MINI = ["stem", "stage1", "stage2", "stage3", "stage4"]


@pytest.fixture(scope="module")
def rows(shapes):
    return PretrainedFeatureTransformer(**SMALL, depth=-1).fit(shapes[0])


@pytest.fixture(scope="module")
def classifier(shapes):
    return FineTunedClassifier(**TUNED).fit(*shapes)


@pytest.mark.parametrize("of", ["_repr_html_", "_repr_mimebundle_"])
def test_a_fitted_transformer_shows_what_is_frozen_and_what_is_not_used(rows, of):
    page = getattr(rows, of)()
    page = page if isinstance(page, str) else page["text/html"]
    assert "sk-top-container" in page
    assert page.count('<svg role="img"') == 1
    assert page.count(">depth 4</text>") == 1
    (sentence,) = shown(rows)
    roles = ["frozen"] * 4 + ["unused"]
    expected = heard(zip(MINI, roles, strict=True))
    assert without_numbers(sentence) == f"mini, 32 pixels. {expected}"
    assert "stage3: frozen, width 128, 526 k parameters" in sentence


def test_all_depths_of_a_transformer_are_cuts(shapes):
    several = PretrainedFeatureTransformer(**SMALL, depth=(-2, None)).fit(shapes[0])
    page = several._repr_html_()
    assert ">depth 3</text>" in page
    assert ">5</text>" in page


@pytest.mark.parametrize("kind", [FineTunedClassifier, FineTunedRegressor])
def test_a_fine_tuned_estimator_shows_what_is_trained(shapes, classifier, kind):
    X, y = shapes
    fitted = classifier if kind is FineTunedClassifier else kind(**TUNED).fit(X, y == "disc")
    (sentence,) = shown(fitted)
    roles = ["frozen"] * 4 + ["trained"] * 2
    expected = heard(zip([*MINI, "(head)"], roles, strict=True))
    assert without_numbers(sentence) == f"mini, 32 pixels. {expected}"


@pytest.mark.parametrize(
    ("estimator", "stages"),
    [
        (FineTunedClassifier(freeze_depth=-2), "stages[:-2]: frozen; stages[-2:]: trained; head"),
        (FineTunedClassifier(freeze_depth=2), "stages[:2]: frozen; stages[2:]: trained; head"),
        (FineTunedClassifier(freeze_depth=0), "all stages: trained; head"),
        (FineTunedRegressor(freeze_depth=None), "all stages: frozen; head"),
        (FineTunedRegressor(), "all stages: cut by recipe; head"),
    ],
)
def test_before_fit_it_shows_what_freeze_depth_says(estimator, stages):
    assert shown(estimator) == [f"resnet18, not fitted. {stages}: trained"]


@pytest.mark.parametrize(
    ("depth", "stages"),
    [
        (None, "all stages: frozen"),
        (-1, "stages[:-1]: frozen; stages[-1:]: unused"),
        (0, "all stages: unused"),
        ((-1, None), "all stages: frozen"),
    ],
)
def test_before_fit_it_shows_what_depth_says(depth, stages):
    transformer = PretrainedFeatureTransformer("path/of/tuned.safetensors", depth=depth)
    assert shown(transformer) == [f"tuned.safetensors, not fitted. {stages}"]
    assert f">depth={depth}</text>" in transformer._repr_html_()


@pytest.mark.parametrize("wrong", ["<i>", 1.5, object(), []])
def test_a_diagram_of_parameters_that_are_not_allowed_can_be_shown(wrong):
    for estimator in (
        PretrainedFeatureTransformer(wrong, depth=wrong),
        FineTunedClassifier(wrong, freeze_depth=wrong),
    ):
        page = estimator._repr_html_()
        assert '<svg role="img"' in page
        assert "<i>" not in page


def test_an_estimator_without_a_choice_of_depth_shows_stages_without_a_cut_once_it_has_some(rows):
    class Network(ImageEstimator):
        image_shape = None

        def __init__(self, backbone="mini"):
            self.backbone = backbone

        def fit(self, X, y=None):
            self.stages_, self.image_size_ = rows.stages_, 32
            return self

        def __sklearn_is_fitted__(self):
            return hasattr(self, "stages_")

    assert "Network" in Network()._repr_html_()
    assert shown(Network()) == []
    fitted = Network().fit(None)
    assert shown(fitted) == shown(rows)
    assert "depth" not in fitted._repr_html_()


def test_raw_pixels_have_no_picture():
    assert "PixelRows" in PixelRows()._repr_html_()
    assert shown(PixelRows()) == []


def test_a_clone_shows_its_parameters(rows):
    assert shown(clone(rows)) == ["mini, not fitted. stages[:-1]: frozen; stages[-1:]: unused"]


def test_a_fit_that_fails_leaves_the_parameters(rows, shapes):
    failed = pickle.loads(pickle.dumps(rows)).set_params(depth=99)
    with pytest.raises(ValueError, match="out of range"):
        failed.fit(shapes[0])
    assert shown(failed) == ["mini, not fitted. stages[:99]: frozen; stages[99:]: unused"]


@has_boxes
def test_a_pipeline_and_a_search_show_it_in_the_box(shapes):
    pipeline = make_pipeline(PretrainedFeatureTransformer(**SMALL), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1]}, cv=2)
    before = ["mini, not fitted. all stages: frozen"]
    assert shown(pipeline) == shown(search) == before
    search.fit(*shapes)
    (sentence,) = shown(search)
    assert without_numbers(sentence).endswith(heard((name, "frozen") for name in MINI))
    assert search.best_estimator_[0].stages_.summary() in search._repr_html_()


@has_boxes
def test_a_fine_tuned_transformer_shows_the_network_that_was_trained_on_all_images(shapes):
    transformer = FineTunedTransformer(FineTunedClassifier(**TUNED), cv=2, random_state=0)
    assert shown(transformer) == [
        "mini, not fitted. stages[:-1]: frozen; stages[-1:]: trained; head: trained"
    ]
    transformer.fit(*shapes)
    assert shown(transformer) == shown(transformer.estimator_)
    assert "estimator_: FineTunedClassifier" in transformer._repr_html_()


def test_a_fine_tuned_transformer_that_chooses_its_network_shows_its_box_alone():
    transformer = FineTunedTransformer()
    assert "FineTunedTransformer" in transformer._repr_html_()
    assert shown(transformer) == []


@has_boxes
def test_where_scikit_learn_makes_boxes_in_another_way_they_are_as_it_makes_them(rows, monkeypatch):
    class Params:
        def _repr_html_inner(self):
            return "<p>parameters of some later version</p>"

    monkeypatch.setattr(BaseEstimator, "_get_params_html", lambda *args, **kwargs: Params())
    assert "<p>parameters of some later version</p>" in rows._repr_html_()
    assert shown(rows) == []


def test_as_text_there_is_no_page(rows):
    with config_context(display="text"):
        assert not hasattr(rows, "_repr_html_")
        assert set(rows._repr_mimebundle_()) == {"text/plain"}


def test_showing_loads_no_backbone_and_passes_no_image(rows, classifier, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a representation must not load")

    fitted = [pickle.loads(pickle.dumps(estimator)) for estimator in (rows, classifier)]
    monkeypatch.setattr(_registry, "_load", fail)
    monkeypatch.setattr(_registry, "_kept", {})
    with count_forward_passes() as counter:
        for estimator in (*fitted, *map(clone, fitted), FineTunedClassifier("unknown")):
            assert '<svg role="img"' in estimator._repr_html_()
    assert counter.computed == counter.cache_hits == 0


@pytest.mark.parametrize("depth", [np.array([-2, -1]), np.int64(-2), 1.5, "<b>", object(), ()])
def test_a_parameter_of_any_kind_can_be_shown(depth):
    for estimator in (
        PretrainedFeatureTransformer("mini", depth=depth),
        FineTunedClassifier("mini", freeze_depth=depth),
    ):
        assert estimator._repr_html_()
        assert "<b>" not in estimator._stages_html()
