"""ZeroShotClassifier beside open_clip's own path, on small models with random weights."""

import inspect
import json
import pickle
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score

from sktransfer import (
    PretrainedFeatureTransformer,
    ZeroShotClassifier,
    _zero_shot_classifier,
    count_forward_passes,
)
from sktransfer.backbones import _text_tower
from sktransfer.backbones._weights import write_backbone_file
from sktransfer.backbones.sources import _open_clip, find_architecture
from sktransfer.exceptions import UnreadableImageWarning, WeightsError

open_clip = pytest.importorskip("open_clip")

TEXT = {"context_length": 24, "width": 32, "heads": 2, "layers": 2}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32}
# As SigLIP's, but for the tokenizer, which has to be downloaded.
SIGLIP_TEXT = {**TEXT, "hf_tokenizer_name": None, "vocab_size": 49408}
SIGLIP_VISION = {"timm_model_name": "test_vit3", "image_size": 160}

# name, parameters: a ViT, a ResNet, and a tower of timm that was trained with a sigmoid
MODELS = {
    "ViT": ("openclip:ViT-B-32", {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}),
    "ResNet": ("openclip:RN50", {"embed_dim": 24, "vision_cfg": RESNET, "text_cfg": TEXT}),
    "SigLIP": (
        "openclip:ViT-B-16-SigLIP",
        {"embed_dim": 96, "vision_cfg": SIGLIP_VISION, "text_cfg": SIGLIP_TEXT},
    ),
}
NAMES = ["sea lion", "disc", "square"]
EXACT = {"precision": "float32", "device": "cpu", "feature_cache": None}


class Saved:
    """A model of open_clip with drawn weights, and its file."""

    def __init__(self, kind, folder):
        self.backbone, self.params = MODELS[kind]
        torch.manual_seed(1)
        self.model = _open_clip.image_text_model(find_architecture(self.backbone), self.params)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        self.path = str(folder / "model.safetensors")
        state = {key: value.contiguous() for key, value in self.model.state_dict().items()}
        save_file(state, self.path)
        self.size = self.params["vision_cfg"]["image_size"]

    def classifier(self, classes=NAMES, **others):
        parameters = {"backbone_params": self.params, "weights": self.path, **EXACT, **others}
        return ZeroShotClassifier(self.backbone, classes, **parameters)

    def images(self, n=4):
        rng = np.random.default_rng(0)
        shape = (n, self.size, self.size, 3)
        return [Image.fromarray(pixels) for pixels in rng.integers(0, 256, shape, dtype=np.uint8)]


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    return Saved(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return Saved("ViT", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def pictures(vit, shapes):
    """Return 24 arrays of discs and squares, and their labels."""
    X, y = shapes
    return np.stack([np.asarray(Image.open(path).resize((32, 32))) for path in X]), y


def test_a_change_of_fitted_vectors_reaches_no_other_fit(vit):
    first = vit.classifier().fit()
    before = first.class_vectors_.copy()
    first.class_vectors_[:] = 0
    np.testing.assert_array_equal(vit.classifier().fit().class_vectors_, before)


def test_a_text_tower_is_loaded_without_the_lock_of_a_gpu_and_computes_with_it(vit, monkeypatch):
    held, events = [], []

    @contextmanager
    def gpu_lock(device):
        held.append(device)
        yield
        held.clear()

    monkeypatch.setattr(_zero_shot_classifier, "gpu_lock", gpu_lock)

    def noted(name):
        call = getattr(_text_tower, name)

        def work(*arguments):
            events.append((name, len(held)))
            return call(*arguments)

        monkeypatch.setattr(_text_tower, name, work)

    noted("_loaded")
    noted("_encoded")
    vit.classifier(["of", "no", "other", "test"]).fit()
    assert events == [("_loaded", 0), ("_encoded", 1)]
    assert not held


def theirs(saved, names, templates):
    """Return the class matrix of open_clip's own function, and embeddings of unit length."""
    tokenizer = _open_clip.tokenizer_of(find_architecture(saved.backbone), saved.params)
    matrix = open_clip.build_zero_shot_classifier(saved.model, tokenizer, names, templates)
    config = find_architecture(saved.backbone).input()
    transform = open_clip.image_transform(
        saved.size, is_train=False, mean=config.mean, std=config.std
    )
    with torch.inference_mode():
        images = torch.stack([transform(image) for image in saved.images()])
        return matrix, saved.model.encode_image(images, normalize=True)


@pytest.mark.parametrize(
    ("templates", "their_templates"),
    [
        ("simple", open_clip.SIMPLE_IMAGENET_TEMPLATES),
        (
            ["a {} here", lambda name: f"the {name}"],
            [lambda c: f"a {c} here", lambda c: f"the {c}"],
        ),
    ],
    ids=["simple", "own"],
)
def test_classes_and_probabilities_are_those_of_open_clips_own_path(
    saved, templates, their_templates
):
    classifier = saved.classifier(templates=templates).fit()
    assert classifier.classes_.tolist() == sorted(NAMES)
    matrix, embeddings = theirs(saved, sorted(NAMES), their_templates)
    np.testing.assert_allclose(classifier.class_vectors_, matrix.T.numpy(), rtol=0, atol=1e-5)
    with torch.inference_mode():
        logits = saved.model.logit_scale.exp() * embeddings @ matrix
    images = saved.images()
    np.testing.assert_allclose(
        classifier.decision_function(images), logits.numpy(), rtol=1e-5, atol=2e-5
    )
    probabilities = classifier.predict_proba(images)
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), rtol=0, atol=1e-5)
    chosen = np.array(sorted(NAMES))[logits.argmax(1).numpy()]
    assert np.array_equal(classifier.predict(images), chosen)


def test_a_model_of_a_sigmoid_has_a_probability_of_each_class_by_itself(saved):
    classifier = saved.classifier().fit()
    images = saved.images()
    if "SigLIP" not in saved.backbone:
        assert classifier.logit_bias_ is None
        assert not hasattr(classifier, "predict_match_proba")
        with pytest.raises(AttributeError) as caught:
            classifier.predict_match_proba(images)
        assert "trained with a softmax" in str(caught.value.__cause__)
        return
    matrix, embeddings = theirs(saved, sorted(NAMES), open_clip.SIMPLE_IMAGENET_TEMPLATES)
    with torch.inference_mode():
        logits = saved.model.logit_scale.exp() * embeddings @ matrix + saved.model.logit_bias
    matches = classifier.predict_match_proba(images)
    np.testing.assert_allclose(matches, logits.sigmoid().numpy(), rtol=0, atol=1e-5)
    odds = matches / (1 - matches)
    given_one = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(images), given_one, rtol=1e-6)


def test_a_pickle_holds_no_network_and_predicts_the_same(saved):
    classifier = saved.classifier().fit()
    content = pickle.dumps(classifier)
    assert len(content) < 50_000  # a text tower of these has 6 MB
    images = saved.images()
    again = pickle.loads(content)
    assert np.array_equal(again.predict_proba(images), classifier.predict_proba(images))


def test_an_exported_file_gives_the_same_probabilities(vit, pictures, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    classifier = vit.classifier().fit(*pictures)
    classifier.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == classifier.classes_.tolist()
    images = vit.images()
    (found,) = session.run(["probabilities"], {"images": np.stack(images)})
    np.testing.assert_allclose(found, classifier.predict_proba(images), rtol=0, atol=1e-4)


def test_rows_are_shared_with_the_transformer_of_the_same_model(vit, cache):
    parameters = {**EXACT, "feature_cache": cache}
    images = vit.images()
    transformer = PretrainedFeatureTransformer(
        vit.backbone, backbone_params=vit.params, weights=vit.path, **parameters
    )
    rows = transformer.fit_transform(images)
    classifier = vit.classifier(feature_cache=cache).fit()
    with count_forward_passes() as passes:
        scores = classifier.decision_function(images)
    assert passes.computed == 0
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, unit @ classifier.coef_.T, rtol=1e-4, atol=1e-5)


def test_one_file_of_both_towers_describes_itself(vit, tmp_path):
    path = tmp_path / "both.safetensors"
    config = find_architecture(vit.backbone).input()
    values = {key: getattr(config, key) for key in ("mean", "std", "interpolation")}
    metadata = {
        **{"architecture": vit.backbone, "params": vit.params, "head": False},
        **{"source": "a test", "licence": "CC0-1.0", "input": {"size": 32, "resize": 32, **values}},
    }
    write_backbone_file(path, vit.model.state_dict(), metadata)
    classifier = ZeroShotClassifier(path, NAMES, **EXACT).fit()
    assert classifier.backbone_spec_.licence == "CC0-1.0"
    images = vit.images()
    expected = vit.classifier().fit().predict_proba(images)
    np.testing.assert_allclose(classifier.predict_proba(images), expected, rtol=0, atol=1e-7)
    write_backbone_file(path, vit.model.visual.state_dict(), metadata)
    with pytest.raises(WeightsError, match="an image tower and a text tower"):
        ZeroShotClassifier(path, NAMES, **EXACT).fit()


def test_a_backbone_without_a_text_tower_is_refused():
    with pytest.raises(ValueError, match=r"'mini' has no text tower; .*openclip:ViT-B-32"):
        ZeroShotClassifier("mini", NAMES, **EXACT).fit()


# classes and prompts


def test_a_dict_names_classes_or_gives_their_prompts(vit):
    names = {2: "sea lion", 0: "disc", 1: ["a square, drawn", "four corners"]}
    classifier = vit.classifier(names, templates=["a {}"]).fit()
    assert classifier.classes_.tolist() == [0, 1, 2]
    expected = vit.classifier({0: ["a disc"], 1: names[1], 2: ["a sea lion"]}).fit()
    assert np.array_equal(classifier.class_vectors_, expected.class_vectors_)
    assert classifier.predict(vit.images()).dtype == np.array([0]).dtype


def test_the_order_of_classes_does_not_matter(vit):
    one, other = vit.classifier(NAMES).fit(), vit.classifier(NAMES[::-1]).fit()
    assert np.array_equal(one.class_vectors_, other.class_vectors_)


def test_a_prompt_that_is_cut_off_warns(vit):
    with pytest.warns(UserWarning, match="has 31 tokens, and the text tower reads 22"):
        vit.classifier({"a": ["very " * 30 + "long"], "b": ["short"]}).fit()


def test_the_text_tower_is_loaded_once_for_the_same_prompts(vit, pictures, monkeypatch):
    X, y = pictures
    loads = []
    load = _text_tower._loaded
    monkeypatch.setattr(_text_tower, "_loaded", lambda *given: loads.append(1) or load(*given))
    grid = {"templates": [["one {}"], ["one more {}"]]}
    search = GridSearchCV(vit.classifier(["disc", "square"]), grid, cv=3).fit(X, y)
    assert len(loads) == 2
    assert search.best_params_["templates"] in grid["templates"]


# labels


def test_labels_change_the_scores_and_no_labels_do_not(vit, pictures):
    X, y = pictures
    without = vit.classifier(["disc", "square"]).fit(X)
    assert (without.text_weight_, without.label_weight_) == (1.0, 0.0)
    assert without.n_features_in_ if hasattr(without, "n_features_in_") else True
    alone = vit.classifier(["disc", "square"]).fit()
    assert np.array_equal(without.predict_proba(X), alone.predict_proba(X))
    labelled = vit.classifier(["disc", "square"]).fit(X, y)
    assert labelled.label_weight_ > 0
    assert np.array_equal(labelled.class_vectors_, without.class_vectors_)
    assert labelled.score(X, y) > without.score(X, y) + 0.2


def test_a_classifier_fitted_again_without_labels_forgets_them(vit, pictures):
    X, y = pictures
    fitted = vit.classifier(["disc", "square"]).fit(X, y)
    once = vit.classifier(["disc", "square"]).fit()
    assert np.array_equal(fitted.fit().predict_proba(X), once.predict_proba(X))


def test_classes_are_the_labels_where_none_are_given(vit, pictures):
    X, y = pictures
    classifier = vit.classifier(None).fit(X, y)
    assert classifier.classes_.tolist() == ["disc", "square"]
    given = vit.classifier(["disc", "square"]).fit(X, y)
    assert np.array_equal(classifier.coef_, given.coef_)


def test_some_classes_may_have_no_label(vit, pictures):
    X, y = pictures
    classifier = vit.classifier(NAMES).fit(X, y)
    assert classifier.classes_.tolist() == sorted(NAMES)
    assert classifier.predict_proba(X).shape == (len(X), 3)
    of_none = classifier.classes_.tolist().index("sea lion")
    assert classifier.intercept_[of_none] == 0
    expected = classifier.text_weight_ * classifier.logit_scale_ * classifier.class_vectors_
    np.testing.assert_allclose(classifier.coef_[of_none], expected[of_none], rtol=1e-5)


def test_two_classes_have_one_decision(vit, pictures):
    X, y = pictures
    classifier = vit.classifier(["disc", "square"]).fit(X, y)
    decision, probabilities = classifier.decision_function(X), classifier.predict_proba(X)
    assert decision.shape == (len(X),)
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), probabilities[:, 1], atol=1e-12)


def test_scorers_read_its_probabilities(vit, pictures):
    X, y = pictures
    classifier = vit.classifier(["square", "disc"]).fit(X, y)
    by_hand = -np.log(classifier.predict_proba(X)[np.arange(len(y)), (y == "square").astype(int)])
    assert log_loss(y, classifier.predict_proba(X)) == pytest.approx(by_hand.mean())
    scores = cross_val_score(classifier, X, y, scoring="roc_auc", cv=3)
    assert scores.shape == (3,)


def test_paths_arrays_and_frames_are_the_same_images(vit, shapes):
    X, _ = shapes
    classifier = vit.classifier().fit()
    expected = classifier.predict_proba(X[:4])
    for images in (
        [Image.open(path) for path in X[:4]],
        np.stack([np.asarray(Image.open(path)) for path in X[:4]]),
        pd.DataFrame({"image": X[:4]}),
        [Path(path).read_bytes() for path in X[:4]],
    ):
        assert np.array_equal(classifier.predict_proba(images), expected)


def test_labelled_images_that_cannot_be_read_are_left_out(vit, shapes, tmp_path):
    X, y = list(shapes[0]), shapes[1]
    X[5] = str(tmp_path / "missing.png")
    with pytest.raises(ValueError, match=r"missing\.png"):
        vit.classifier(None).fit(X, y)
    with pytest.warns(UnreadableImageWarning, match="left out of fit"):
        classifier = vit.classifier(None, on_error="skip").fit(X, y)
    kept = [i for i in range(len(X)) if i != 5]
    expected = vit.classifier(None).fit([X[i] for i in kept], y[kept])
    assert np.array_equal(classifier.coef_, expected.coef_)
    with pytest.raises(ValueError, match=r"missing\.png"):
        classifier.predict(X)


# errors


@pytest.mark.parametrize(
    ("parameters", "given", "error", "message"),
    [
        ({"classes": None}, (None, None), ValueError, "without classes.*requires y to be passed"),
        ({"classes": ["disc"]}, (None, None), ValueError, "at least 2 labels"),
        ({}, ("X", "other"), ValueError, r"not in classes: 'other'; classes are \['disc'"),
        ({"classes": None}, ("X", "disc"), ValueError, "y has one class only, 'disc'"),
        ({}, (None, "disc"), ValueError, "y is given without X"),
        ({"pixel_range": "fit"}, (None, None), ValueError, "pixel_range='fit' needs X"),
        ({"templates": "a photo of a {}"}, (None, None), ValueError, "is a sequence too"),
        ({"image_size": 64}, (None, None), ValueError, "image_size=64 does not fit"),
    ],
)
def test_what_is_not_allowed_is_an_error_that_says_so(parameters, given, error, message, vit):
    classifier = vit.classifier(**{"classes": NAMES[1:], **parameters})
    X, label = given
    images = vit.images(2)
    with pytest.raises(error, match=message):
        classifier.fit(images if X else None, None if label is None else [label] * 2)
    with pytest.raises(NotFittedError):
        classifier.predict(images)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=str)
def test_images_without_a_label_are_named(missing, vit):
    with pytest.raises(ValueError, match="no label at 1 of 3 positions, the first is 1"):
        vit.classifier().fit(vit.images(3), pd.Series(["disc", missing, "square"], dtype=object))


def test_as_many_labels_as_images_are_needed(vit):
    with pytest.raises(ValueError, match="inconsistent"):
        vit.classifier().fit(vit.images(3), ["disc", "square"])


def test_every_fitted_attribute_is_documented(vit, pictures):
    documented = inspect.getdoc(ZeroShotClassifier).split("Attributes\n")[1].split("See Also\n")[0]
    fitted = vit.classifier(None).fit(*pictures)
    learned = [name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")]
    assert len(learned) > 10
    for name in learned:
        assert f"\n{name} : " in documented


def test_a_clone_has_the_same_parameters(vit):
    classifier = vit.classifier({0: "disc", 1: ["a square"]}, templates=["{}"])
    assert clone(classifier).get_params() == classifier.get_params()


def test_other_weights_than_those_of_the_fit_are_refused(vit, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(Path(vit.path).read_bytes())
    classifier = vit.classifier(weights=str(path)).fit()
    state = {key: value + 1.0 for key, value in vit.model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, str(path))
    with pytest.raises(WeightsError, match="not those that this estimator was fitted with"):
        classifier.predict(vit.images())
