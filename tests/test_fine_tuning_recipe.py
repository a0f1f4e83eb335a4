"""What the fine-tuned estimators do where a parameter is left to the recipe."""

import pickle

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.model_selection import GridSearchCV

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    _fine_tuning_recipe,
    count_forward_passes,
)
from sktransfer.exceptions import ImageReadError, UnreadableImageWarning
from sktransfer.images import _image_ref
from sktransfer.images._remembered import RememberedImages

QUICK = {"backbone": "mini", "image_size": 32, "max_epochs": 1, "random_state": 0}


@pytest.fixture(scope="module")
def arrows():
    """Return drawn arrows that point left or right, and where they point."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for i in range(40):
        x, y, size = rng.integers(6, 12, 3)
        image = Image.new("RGB", (32, 32), tuple(rng.integers(0, 60, 3).tolist()))
        points = [(x, y), (x, y + size), (x + size, y + size // 2)]
        ImageDraw.Draw(image).polygon(points, fill=tuple(rng.integers(150, 256, 3).tolist()))
        pixels = np.asarray(image)
        images.append(pixels if i % 2 else pixels[:, ::-1])
        labels.append("right" if i % 2 else "left")
    return np.stack(images), np.array(labels)


def test_the_recipe_is_an_attribute_and_what_is_given_stays(shapes, cache):
    X, y = shapes
    fitted = FineTunedClassifier(**QUICK, feature_cache=cache).fit(X, y)
    assert fitted.recipe_ == {
        "freeze_depth": 3,
        "augment": "light",
        "augment_views": 8,
        "dropout": 0.3,
        "label_smoothing": 0.1,
        "max_grad_norm": 2.0,
        "probe_weight": 0.3,
        "tta": "mirror",
    }
    assert fitted.freeze_depth_ == 3
    given = {
        "freeze_depth": -1,
        "augment": None,
        "dropout": 0.5,
        "label_smoothing": 0.2,
        "max_grad_norm": None,
        "probe_weight": 0.1,
        "tta": 1,
    }
    fitted = FineTunedClassifier(**QUICK, **given, feature_cache=cache).fit(X, y)
    assert fitted.recipe_ == {**given, "freeze_depth": 4, "augment_views": None}


def test_images_are_mirrored_only_where_their_class_stays_the_same(shapes, arrows, cache):
    augments = {}
    for name, (X, y) in {"shapes": shapes, "arrows": arrows}.items():
        fitted = FineTunedClassifier(**QUICK, feature_cache=cache).fit(X, y)
        augments[name] = fitted.recipe_["augment"]
    assert augments == {"shapes": "light", "arrows": "crop"}


def test_rows_that_tell_whether_images_may_be_mirrored_are_not_copied(
    shapes, cache, tmp_path, monkeypatch
):
    X, y = shapes
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    extracted, extract = [], FineTunedClassifier._extract
    told = []

    def noted(*arguments, **options):
        extracted.append(extract(*arguments, **options))
        return extracted[-1]

    def is_harmless(rows, mirrored, *others):
        told.append((rows, mirrored, len(others[0])))
        return True

    monkeypatch.setattr(FineTunedClassifier, "_extract", noted)
    monkeypatch.setattr(_fine_tuning_recipe, "is_harmless", is_harmless)
    parameters = {**QUICK, "on_error": "skip", "feature_cache": cache}
    with pytest.warns(UnreadableImageWarning):
        FineTunedClassifier(**parameters).fit([X[0], bad, *X[1:]], [y[0], y[0], *y[1:]])
    FineTunedClassifier(**parameters).fit(X, y)
    (*without_bad, n), (*all_good, _) = told
    assert len(without_bad[0]) == len(without_bad[1]) == n == len(X)
    for rows, whole in zip(without_bad, extracted, strict=False):
        assert np.shares_memory(rows, whole.values)
    for one, other in zip(without_bad, all_good, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("recipe", ["default", "thorough"])
def test_a_file_is_decoded_once_for_all_its_views(shapes, recipe, monkeypatch):
    X, y = shapes
    decoded = []
    decode = _image_ref.decode_bytes

    def counting(data, *arguments):
        decoded.append(data)
        return decode(data, *arguments)

    monkeypatch.setattr(_image_ref, "decode_bytes", counting)
    parameters = {**QUICK, "recipe": recipe, "max_epochs": 2}
    FineTunedClassifier(**parameters, feature_cache=None).fit(X, y)
    assert len(decoded) == len(set(decoded)) == len(X)


@pytest.mark.parametrize("n_views", [1, 2])
def test_no_pixels_are_held_while_stored_views_are_trained_on(shapes, n_views, monkeypatch):
    X, y = shapes
    calls = []
    forget = RememberedImages.forget
    monkeypatch.setattr(RememberedImages, "forget", lambda self: calls.append(forget(self)))
    parameters = {**QUICK, "augment": "light", "augment_views": n_views}
    FineTunedClassifier(**parameters, freeze_depth=-1, feature_cache=None).fit(X, y)
    assert len(calls) == 1


def test_numbers_are_learned_from_images_as_they_are(arrows, cache):
    X, y = arrows
    regressor = FineTunedRegressor(**QUICK, feature_cache=cache)
    with count_forward_passes() as counter:
        fitted = regressor.fit(X, np.where(y == "left", -7.0, 12.0))
    assert fitted.recipe_ == {
        "freeze_depth": 3,
        "augment": None,
        "augment_views": None,
        "dropout": 0.0,
        "max_grad_norm": 2.0,
        "probe_weight": 0.0,
        "tta": 1,
    }
    assert counter.computed == len(X)


def test_each_recipe_costs_the_forward_passes_that_the_page_says(shapes, tmp_path):
    X, y = shapes
    passes = {}
    for recipe in ("fast", "default", "thorough"):
        classifier = FineTunedClassifier(**QUICK, recipe=recipe, feature_cache=tmp_path / recipe)
        with count_forward_passes() as counter:
            classifier.fit(X, y)
        passes[recipe] = counter.computed / len(X)
    # two whole passes tell whether images may be mirrored; eight views pass the frozen stages
    assert passes == {"fast": 1, "default": 2 + 8, "thorough": 2}


def test_a_search_over_recipes_and_rates_computes_nothing_twice(shapes, cache):
    X, y = shapes
    grid = {"recipe": ["fast", "default", "thorough"], "lr": [1e-3, 3e-3]}
    classifier = FineTunedClassifier(**QUICK, feature_cache=cache)
    with count_forward_passes() as counter:
        GridSearchCV(classifier, grid, cv=2).fit(X, y)
    # rows of plain and mirrored images; eight views at the cut of default; images as they are at
    # the same cut, for fast and to score, and mirrored ones to score
    assert counter.computed == len(X) * (2 + 8 + 1 + 1)


def test_a_continued_fit_goes_on_with_what_the_first_found(arrows, cache):
    X, y = arrows
    classifier = FineTunedClassifier(**QUICK, feature_cache=cache, warm_start=True).fit(X, y)
    assert classifier.recipe_["augment"] == "crop"
    one = X[:4], y[:4]  # too few to tell anything
    assert classifier.fit(*one).recipe_["augment"] == "crop"
    assert classifier.set_params(augment=None).fit(*one).recipe_["augment"] is None
    assert classifier.set_params(augment="auto").fit(*one).recipe_["augment"] == "crop"


def test_a_continued_fit_whose_augmentation_is_left_to_the_recipe_later_has_the_first(
    shapes, cache
):
    X, y = shapes
    classifier = FineTunedClassifier(**QUICK, feature_cache=cache, warm_start=True, augment=None)
    classifier.fit(X, y).set_params(augment="auto")
    assert classifier.fit(X, y).recipe_["augment"] is None


def test_the_recipe_is_saved_and_forgotten_by_a_fit_that_fails(shapes, cache):
    X, y = shapes
    fitted = FineTunedClassifier(**QUICK, feature_cache=cache).fit(X, y)
    assert pickle.loads(pickle.dumps(fitted)).recipe_ == fitted.recipe_
    with pytest.raises(ValueError, match="one class only"):
        fitted.fit(X, ["disc"] * len(X))
    assert not hasattr(fitted, "recipe_")


def test_images_that_can_not_be_read_are_listed_once(shapes, tmp_path, cache):
    X, y = shapes
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    X = np.append(X, str(bad))
    y = np.append(y, "disc")
    with pytest.raises(ImageReadError, match=r"bad\.png"):
        FineTunedClassifier(**QUICK, feature_cache=cache).fit(X, y)
    skipping = FineTunedClassifier(**QUICK, feature_cache=cache, on_error="skip")
    with pytest.warns(UnreadableImageWarning, match=r"bad\.png") as caught:
        skipping.fit(X, y)
    assert len(caught) == 1
    assert skipping.recipe_["augment"] == "light"


@pytest.mark.parametrize(
    ("parameter", "value"), [("recipe", "slow"), ("freeze_depth", "half"), ("dropout", "much")]
)
def test_another_word_is_an_error_that_names_the_parameter(shapes, parameter, value):
    X, y = shapes
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter|{parameter} must be"):
        FineTunedClassifier(**QUICK).set_params(**{parameter: value}).fit(X, y)


def test_views_of_a_head_alone_need_an_augmentation(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**QUICK, freeze_depth=None, augment_views=4)
    with pytest.raises(ValueError, match=r"augment_views=4 needs random views"):
        classifier.fit(X, y)
