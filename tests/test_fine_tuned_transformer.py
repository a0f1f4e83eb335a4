"""The fine-tuned network as a transformer: cross-fitting, tables, and the tools of scikit-learn."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from PIL import Image, ImageDraw
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    PretrainedFeatureTransformer,
    count_forward_passes,
)
from sktransfer.exceptions import ImageReadError, UnreadableImageWarning

FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "dropout": 0.0,
    "image_size": 32,
    "freeze_depth": -1,
    "max_epochs": 2,
    "batch_size": 8,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}
NUMBERS = FineTunedRegressor(**FAST)
OUTPUTS = ["predictions", "rows"]


@pytest.fixture
def classifier(cache):
    return FineTunedClassifier(**FAST, label_smoothing=0.0, feature_cache=str(cache))


@pytest.fixture
def transformer(classifier):
    return FineTunedTransformer(classifier, cv=2, random_state=0)


@pytest.fixture
def table(shapes):
    """Return an image column, a number and a category that tell nothing of the label."""
    X, _ = shapes
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "photo": X,
            "weight": rng.normal(70, 10, len(X)),
            "camera": rng.choice(["north", "south", "west"], len(X)),
        }
    )


def draw_pair(red_is_above, rng):
    """Draw a red and a blue disc, one above the other."""
    image = Image.fromarray(rng.integers(0, 120, (32, 32, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    heights = 8 + rng.integers(-3, 4), 24 + rng.integers(-3, 4)
    colours = [(220, 60, 60), (60, 60, 220)]
    for y, colour in zip(heights, colours if red_is_above else colours[::-1], strict=True):
        x = rng.integers(5, 27)
        pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
    return np.asarray(image)


# cross-fitting


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_values_of_an_image_do_not_depend_on_its_own_label(output, shapes, transformer):
    X, y = shapes
    folds = list(KFold(3).split(X))
    transformer.set_params(output=output, cv=folds)
    values = transformer.fit_transform(X, y)
    for _, test in folds:
        others = y.copy()
        others[test] = y[test][::-1]
        again = transformer.fit_transform(X, others)
        np.testing.assert_array_equal(again[test], values[test])
        assert np.abs(np.delete(again - values, test, axis=0)).max() > 1e-3
    # the network of transform has seen all labels
    assert np.abs(transformer.transform(X) - again).max() > 1e-3


def test_each_fold_is_what_a_classifier_trained_on_the_others_predicts(shapes, classifier):
    X, y = shapes
    folds = list(KFold(2).split(X))
    transformer = FineTunedTransformer(classifier, cv=folds)
    values = transformer.fit_transform(X, y)
    assert values.dtype == np.float32
    for train, test in folds:
        fitted = clone(classifier).fit(X[train], y[train])
        second = 0.97 * fitted.predict_proba(X[test])[:, 1] + 0.015
        np.testing.assert_allclose(values[test, 0], logit(second), rtol=1e-5)
    second = 0.97 * clone(classifier).fit(X, y).predict_proba(X)[:, 1] + 0.015
    np.testing.assert_allclose(transformer.transform(X)[:, 0], logit(second), rtol=1e-5)


@pytest.mark.parametrize("freeze_depth", [None, -1])
def test_rows_are_those_of_the_tuned_backbone(freeze_depth, shapes, transformer, tmp_path):
    X, y = shapes
    transformer.set_params(output="rows", estimator__freeze_depth=freeze_depth).fit(X, y)
    transformer.estimator_.save_backbone(tmp_path / "tuned.safetensors")
    tuned = PretrainedFeatureTransformer(
        str(tmp_path / "tuned.safetensors"), precision="float32", feature_cache=None
    )
    np.testing.assert_allclose(transformer.transform(X), tuned.fit_transform(X), atol=1e-4)


def noise(n):
    """Return images of noise, which tell nothing of any label."""
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("output", OUTPUTS)
def test_with_random_labels_the_next_model_is_at_chance(output, classifier):
    X, y = noise(96), np.arange(96) % 2
    transformer = FineTunedTransformer(
        classifier.set_params(max_epochs=8), output=output, random_state=0
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    cross_fitted = cross_val_score(model, transformer.fit_transform(X, y), y).mean()
    of_training_images = cross_val_score(model, transformer.transform(X), y).mean()
    assert of_training_images > 0.9
    assert 0.3 < cross_fitted < 0.65


def score_beside(column, transformer, X, y, n, model, *, cross_fitted=True):
    """Return the score of a model of images and a column on those after the first `n`."""
    rows = transformer.fit_transform(X[:n], y[:n])
    if not cross_fitted:
        rows = transformer.transform(X[:n])
    model.fit(np.column_stack([rows, column[:n]]), y[:n])
    return model.score(np.column_stack([transformer.transform(X[n:]), column[n:]]), y[n:])


def test_images_that_tell_nothing_do_not_hide_a_column_that_does(classifier):
    X, y = noise(160), np.arange(160) % 2
    column = 2 * y - 1 + np.random.default_rng(1).normal(0, 0.8, len(y))
    transformer = FineTunedTransformer(classifier.set_params(max_epochs=8), random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    alone = clone(model).fit(column[:96, None], y[:96]).score(column[96:, None], y[96:])
    with_images = score_beside(column, transformer, X, y, 96, model)
    not_cross_fitted = score_beside(column, transformer, X, y, 96, model, cross_fitted=False)
    assert with_images > alone - 0.03
    assert not_cross_fitted < alone - 0.05


def test_with_a_table_it_beats_frozen_rows_with_the_table(classifier):
    rng = np.random.default_rng(0)
    is_above, column = rng.integers(0, 2, 400), rng.normal(size=400)
    y = (2 * is_above - 1 + 1.2 * column > 0).astype(int)  # neither tells it alone
    X = np.stack([draw_pair(value, rng) for value in is_above])
    frozen = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=None)
    tuned = FineTunedTransformer(classifier.set_params(max_epochs=10), cv=3, random_state=0)
    frozen, tuned = (
        score_beside(column, transformer, X, y, 160, RandomForestClassifier(random_state=0))
        for transformer in (frozen, tuned)
    )
    assert tuned > frozen + 0.05


# what y and X are


def test_numbers_are_predicted_in_their_unit(shapes, cache):
    X, y = shapes
    areas = 1000 + 500.0 * (y == "disc") + np.arange(len(y))
    regressor = clone(NUMBERS).set_params(feature_cache=str(cache), max_epochs=8)
    transformer = FineTunedTransformer(regressor, cv=3, random_state=0)
    values = transformer.fit_transform(X, areas)
    assert values.shape == (len(X), 1)
    assert 900 < values.min() < values.max() < 1700
    assert transformer.get_feature_names_out().tolist() == ["finetunedtransformer0"]
    model = make_pipeline(transformer, Ridge()).fit(X, areas)
    assert model.score(X, areas) > 0.5
    assert transformer.set_params(output="rows").fit_transform(X, areas).shape == (len(X), 256)


@pytest.mark.parametrize("kind", ["three classes", "labels", "two numbers", "a column of numbers"])
def test_each_kind_of_y_has_its_columns(kind, shapes, classifier, transformer):
    X, y = shapes
    numbers = np.linspace(0, 1, len(y))
    targets, names = {
        "three classes": (np.array(["a", "b", "c"])[np.arange(len(y)) % 3], ["_a", "_b", "_c"]),
        "labels": (np.stack([y == "disc", np.arange(len(y)) % 3 == 0], 1) * 1, ["_0", "_1"]),
        "two numbers": (np.stack([numbers, -numbers], 1), ["0", "1"]),
        "a column of numbers": (numbers[:, None], ["0"]),
    }[kind]
    if "numbers" in kind:
        transformer.set_params(estimator=NUMBERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataConversionWarning)
        values = transformer.fit_transform(X, targets)
    assert np.isfinite(values).all()
    assert values.dtype == np.float32
    assert values.shape == transformer.transform(X).shape == (len(X), len(names))
    expected = [f"finetunedtransformer{name}" for name in names]
    assert transformer.get_feature_names_out().tolist() == expected
    if kind == "three classes":
        np.testing.assert_allclose(expit(values).sum(1), 1, rtol=1e-5)
        assert values.min() >= logit(0.01) - 1e-5  # of a network that is as sure as can be


@pytest.mark.parametrize("kind", [FineTunedClassifier, FineTunedRegressor])
def test_without_an_estimator_y_says_which(kind, shapes, monkeypatch):
    X, y = shapes
    targets = y if kind is FineTunedClassifier else np.linspace(0, 1, len(y))
    fitted = {}

    def fit(self, X, y, **params):
        fitted["estimator"] = self
        raise InterruptedError  # its default backbone would be downloaded

    monkeypatch.setattr(kind, "fit", fit)
    transformer = FineTunedTransformer(random_state=0)
    with pytest.raises(InterruptedError):
        transformer.fit_transform(X, targets)
    assert type(fitted["estimator"]) is kind
    assert fitted["estimator"].random_state is not None
    with pytest.raises(NotFittedError):
        transformer.transform(X)


KINDS = {
    "list": list,
    "Series": lambda paths: pd.Series(paths, index=range(5, 5 + len(paths))),
    "DataFrame": lambda paths: pd.DataFrame({"photo": paths}, index=range(5, 5 + len(paths))),
    "polars": lambda paths: pytest.importorskip("polars").DataFrame({"photo": list(paths)}),
    "PIL": lambda paths: [Image.open(path).convert("RGB") for path in paths],
    "array": lambda paths: np.stack([np.asarray(Image.open(path)) for path in paths]),
    "tensor": lambda paths: torch.from_numpy(KINDS["array"](paths).transpose(0, 3, 1, 2).copy()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_x_is_split_into_folds(kind, shapes, transformer):
    X, y = shapes
    expected = transformer.fit_transform(X, y)
    actual = transformer.fit_transform(KINDS[kind](X), y.tolist())
    np.testing.assert_allclose(actual, expected, atol=1e-5)


# in the tools of scikit-learn


def beside_numbers_and_categories(transformer):
    return ColumnTransformer(
        [
            ("image", transformer, "photo"),
            ("number", StandardScaler(), ["weight"]),
            ("category", OneHotEncoder(sparse_output=False), ["camera"]),
        ]
    )


def test_it_stands_beside_numbers_and_categories(shapes, table, transformer):
    _, y = shapes
    columns = beside_numbers_and_categories(transformer)
    rows = columns.fit_transform(table, y)
    assert columns.get_feature_names_out().tolist() == [
        "image__finetunedtransformer_square",
        "number__weight",
        "category__camera_north",
        "category__camera_south",
        "category__camera_west",
    ]
    np.testing.assert_array_equal(rows[:, 0], transformer.fit_transform(table["photo"], y)[:, 0])
    model = make_pipeline(columns, LogisticRegression()).fit(table[:16], y[:16])
    assert model.score(table[16:], y[16:]) > 0.8


def test_a_pipeline_fits_the_next_model_on_cross_fitted_output(shapes, transformer):
    X, y = shapes
    model = make_pipeline(transformer, LogisticRegression()).fit(X, y)
    by_hand = LogisticRegression().fit(clone(transformer).fit_transform(X, y), y)
    np.testing.assert_allclose(model[-1].coef_, by_hand.coef_, rtol=1e-5)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_makes_tables_with_named_columns(library, shapes, table, transformer):
    pytest.importorskip(library)
    _, y = shapes
    X = table[["photo"]].set_axis(range(10, 10 + len(y)))
    values = transformer.fit_transform(X, y)
    assert transformer.feature_names_in_.tolist() == ["photo"]
    transformer.set_output(transform=library)
    for frame in (transformer.fit_transform(X, y), transformer.transform(X)):
        assert type(frame).__module__.startswith(library)
        assert list(frame.columns) == ["finetunedtransformer_square"]
    if library == "pandas":
        assert frame.index.equals(X.index)
        np.testing.assert_array_equal(transformer.fit_transform(X, y), values)


def test_a_search_over_the_depth_passes_each_image_once_for_each_depth(shapes, table, transformer):
    _, y = shapes
    model = make_pipeline(beside_numbers_and_categories(transformer), LogisticRegression())
    grid = {"columntransformer__image__estimator__freeze_depth": [None, -1]}
    with count_forward_passes() as counter:
        search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(table, y)
    assert counter.computed == 2 * len(y)
    assert search.best_score_ > 0.7


def test_each_image_passes_once_for_all_folds(shapes, classifier):
    X, y = shapes
    transformer = FineTunedTransformer(classifier, cv=4)
    with count_forward_passes() as counter:
        transformer.fit_transform(X, y)
        transformer.transform(X)
        transformer.set_params(output="rows").fit_transform(X, y)
    assert counter.computed == len(X)


def test_all_folds_share_the_range_of_the_pixels_of_all_images(shapes, classifier):
    _, y = shapes
    X = noise(len(y)) / np.linspace(300, 900, len(y))[:, None, None, None]  # the first is brightest
    transformer = FineTunedTransformer(classifier.set_params(pixel_range="fit"), cv=4)
    with count_forward_passes() as counter:
        transformer.fit_transform(X, y)
        transformer.transform(X)
    # one pass with values beyond the range cut off, as in transform, and one for all folds
    assert counter.computed == 2 * len(X)


def test_it_is_cross_validated_as_a_whole(shapes, transformer):
    X, y = shapes
    assert cross_val_score(make_pipeline(transformer, LogisticRegression()), X, y, cv=2).min() > 0.7


# weights and groups


def test_sample_weight_reaches_the_network_of_each_fold(shapes, transformer):
    X, y = shapes
    folds = [(np.arange(12, 24), np.arange(12)), (np.arange(12), np.arange(12, 24))]
    weights = np.tile([1.0, 1.0, 0.0, 0.0], 6)
    wrong = np.where(weights == 0, y[::-1], y)
    transformer.set_params(cv=folds)
    values = transformer.fit_transform(X, wrong, sample_weight=weights)
    right = transformer.fit_transform(X, y, sample_weight=weights)
    np.testing.assert_array_equal(values, right)
    assert np.abs(values - transformer.fit_transform(X, wrong)).max() > 1e-3


def test_groups_reach_the_splitter(shapes, transformer):
    X, y = shapes
    groups = np.arange(len(X)) // 4
    folds = list(GroupKFold(3).split(X, y, groups))
    expected = clone(transformer).set_params(cv=folds).fit_transform(X, y)
    transformer.set_params(cv=GroupKFold(3))
    np.testing.assert_array_equal(transformer.fit_transform(X, y, groups=groups), expected)


def test_metadata_is_routed_through_a_table_to_estimator_and_splitter(shapes, table, transformer):
    X, y = shapes
    groups, weights = np.arange(len(X)) // 4, np.tile([1.0, 2.0, 0.5], 8)
    transformer.set_params(cv=GroupKFold(3))
    expected = clone(transformer).fit_transform(X, y, sample_weight=weights, groups=groups)
    with sklearn.config_context(enable_metadata_routing=True):
        transformer.estimator.set_fit_request(sample_weight=True)
        columns = make_column_transformer((transformer, "photo"))
        rows = columns.fit_transform(table, y, sample_weight=weights, groups=groups)
        transformer.estimator.set_fit_request(sample_weight=None)
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
            transformer.fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(rows, expected)


# seeds and state


def test_a_seed_makes_the_same_folds_and_networks(shapes, classifier):
    X, y = shapes
    classifier.set_params(random_state=None)
    first, again, other = (
        FineTunedTransformer(classifier, cv=2, random_state=seed).fit_transform(X, y)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert classifier.random_state is None


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_is_saved_says_the_same(output, shapes, transformer):
    X, y = shapes
    transformer.set_params(output=output).fit_transform(X, y)
    loaded = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_allclose(loaded.transform(X), transformer.transform(X), atol=1e-5)
    assert loaded.get_feature_names_out().tolist() == transformer.get_feature_names_out().tolist()
    assert not hasattr(clone(transformer), "estimator_")


def test_another_output_takes_effect_at_the_next_fit(shapes, transformer):
    X, y = shapes
    transformer.fit(X, y).set_params(output="rows")
    assert transformer.transform(X).shape == (len(X), 1)
    assert transformer.fit(X, y).transform(X).shape == (len(X), 256)


def test_a_fold_that_fails_leaves_it_not_fitted(shapes, transformer, monkeypatch):
    X, y = shapes
    transformer.fit(X, y)
    fit, calls = FineTunedClassifier.fit, []

    def interrupted(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(FineTunedClassifier, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transformer.fit_transform(X, y)
    with pytest.raises(NotFittedError):
        transformer.transform(X)


# what can't be


def test_an_image_that_cannot_be_read_is_named_with_its_position(shapes, transformer, tmp_path):
    X, y = shapes
    broken = [*X[:20], str(tmp_path / "missing.png"), *X[21:]]
    with pytest.raises(ImageReadError, match=r"X\[20\] .*missing\.png"):
        transformer.fit_transform(broken, y)


@pytest.mark.parametrize("output", OUTPUTS)
def test_images_that_are_skipped_become_rows_of_nan(output, shapes, transformer, tmp_path):
    X, y = shapes
    broken = [*X[:20], str(tmp_path / "missing.png"), *X[21:]]
    transformer.set_params(output=output, estimator__on_error="skip")
    with pytest.warns(UnreadableImageWarning, match=r"left out of fit: 1 of 24") as caught:
        values = transformer.fit_transform(broken, y)
    assert len(caught) == 1
    assert np.flatnonzero(np.isnan(values).any(axis=1)).tolist() == [20]
    with pytest.warns(UnreadableImageWarning, match=r"rows of NaN: 1 of 2"):
        values = transformer.transform(broken[20:22])
    assert np.isnan(values).all(axis=1).tolist() == [True, False]
    with pytest.warns(UnreadableImageWarning, match=r"rows of NaN: 1 of 1"):
        assert np.isnan(transformer.transform(broken[20:21])).all()


WRONG_TARGETS = {
    "none": (lambda y: None, {}, "requires y to be passed"),
    "whole numbers": (
        lambda y: np.stack([np.arange(24), np.arange(24)], axis=1),
        {"estimator": None},
        r"y is multiclass-multioutput, and must hold one label.*FineTunedRegressor",
    ),
    "numbers for classes": (lambda y: np.linspace(0, 1, 24), {}, "Unknown label type"),
    "words for numbers": (lambda y: y, {"estimator": NUMBERS}, "could not convert string"),
    "too few": (lambda y: y[:20], {}, "inconsistent numbers of samples"),
    "a rare class": (
        lambda y: np.where(np.arange(24) == 3, "triangle", y),
        {"cv": KFold(2)},
        "no image of the classes 'triangle' to train on in some folds",
    ),
}


@pytest.mark.parametrize("case", WRONG_TARGETS)
def test_targets_that_cannot_be_fitted_are_named(case, shapes, transformer):
    X, y = shapes
    change, parameters, message = WRONG_TARGETS[case]
    transformer.set_params(**parameters)
    with pytest.raises((ValueError, TypeError), match=message):
        transformer.fit_transform(X, change(y))
    with pytest.raises(NotFittedError):
        transformer.transform(X)


FIRST, SECOND = np.arange(12), np.arange(12, 24)
WRONG_PARAMETERS = {
    "too many folds": ({"cv": 13}, r"cv=13 can't split the 24 images.* Set another cv"),
    "an image in two folds": (
        {"cv": ShuffleSplit(3, random_state=0)},
        "must hold out each image in one fold",
    ),
    "a fold that trains on itself": (
        {"cv": [(np.arange(24), FIRST), (FIRST, SECOND)]},
        "and not train on it there",
    ),
    "another estimator": ({"estimator": Ridge()}, "'estimator' parameter .* must be an instance"),
    "another output": ({"output": "probabilities"}, "'output' parameter .* must be a str among"),
}


@pytest.mark.parametrize("case", WRONG_PARAMETERS)
def test_parameters_that_cannot_be_are_named(case, shapes, transformer):
    parameters, message = WRONG_PARAMETERS[case]
    transformer.set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        transformer.fit_transform(*shapes)


def test_images_to_validate_on_are_those_of_each_fold(shapes, transformer):
    X, y = shapes
    with pytest.raises(ValueError, match=r"X_val can't be given.*validation_fraction"):
        transformer.fit_transform(X, y, X_val=X, y_val=y)
    transformer.set_params(estimator__early_stopping=True, estimator__validation_fraction=0.25)
    assert transformer.fit(X, y).estimator_.best_epoch_ >= 1
