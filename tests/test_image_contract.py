"""Our own contract, beside scikit-learn's: what every public estimator keeps with images as X."""

import copy
import inspect
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimators_pickle

import sktransfer
from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    PretrainedFeatureTransformer,
    ZeroShotClassifier,
)
from sktransfer.exceptions import UnreadableImageWarning

# Without a store each output is computed, not looked up; on the CPU and in float32 the same
# operations give the same bits.
EXACT = {
    "backbone": "mini",
    "image_size": 32,
    "device": "cpu",
    "precision": "float32",
    "feature_cache": None,
}
SHORT = {**EXACT, "recipe": "fast", "max_epochs": 2, "batch_size": 4, "random_state": 0}

# A model of both towers with random weights, of 32 pixels.
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 64, "patch_size": 8, "image_size": 32},
    "text_cfg": {"layers": 1, "width": 32, "heads": 1},
}
CLIP = {"backbone": "openclip:ViT-B-32", "backbone_params": TINY, "weights": None}

ESTIMATORS = {
    "PretrainedFeatureTransformer": PretrainedFeatureTransformer(**EXACT),
    "FineTunedClassifier, only the head trains": FineTunedClassifier(**SHORT, freeze_depth=None),
    "FineTunedClassifier, a stage trains": FineTunedClassifier(**SHORT, freeze_depth=-1),
    "FineTunedRegressor": FineTunedRegressor(**SHORT, freeze_depth=-1),
    "FineTunedTransformer": FineTunedTransformer(
        FineTunedClassifier(**SHORT, freeze_depth=-1), cv=2, random_state=0
    ),
    "ZeroShotClassifier": ZeroShotClassifier(**{**EXACT, **CLIP}, templates=["a {}"]),
}
TRAINED = [name for name in ESTIMATORS if name.startswith("FineTuned")]
CLASSIFIERS = [name for name in ESTIMATORS if name.startswith("FineTunedClassifier")]

OUTPUTS = ("transform", "predict", "predict_proba", "decision_function")

_ran = Counter()


@pytest.fixture(params=ESTIMATORS)
def name(request):
    """Return the name of one of the estimators, and count the check."""
    _ran[request.param] += 1
    return request.param


@pytest.fixture
def estimator(name):
    return clone(ESTIMATORS[name])


@pytest.fixture(scope="session")
def images(shapes):
    """Return the paths of a few shapes, and their labels."""
    X, y = shapes
    return X[:9], y[:9]


@pytest.fixture(scope="session")
def fitted_on(images):
    """Return a function of names: the estimator fitted on paths. Not to be changed."""

    @cache
    def fit(name):
        estimator = clone(ESTIMATORS[name])
        return estimator.fit(list(images[0]), targets(estimator, images[1]))

    return fit


@pytest.fixture
def fitted(name, fitted_on):
    """Return an own copy of an estimator that was fitted on paths."""
    return copy.deepcopy(fitted_on(name))


def inner(estimator):
    """Return the estimator that has the parameters of images and training."""
    return getattr(estimator, "estimator", estimator)


def depth_of(estimator):
    """Return the name of the parameter that says where the network is cut; None for none."""
    names = ("depth", "freeze_depth")
    return next((name for name in names if hasattr(inner(estimator), name)), None)


def set_inner(estimator, **parameters):
    """Set parameters of images and training; return the estimator."""
    inner(estimator).set_params(**parameters)
    return estimator


def values_of_parameters(estimator):
    """Return a copy of the parameters that are not estimators, those of these included."""
    parameters = estimator.get_params().items()
    return {
        name: copy.deepcopy(value)
        for name, value in parameters
        if not isinstance(value, BaseEstimator)
    }


def targets(estimator, labels):
    """Return labels, or a number for each where the estimator predicts numbers."""
    if is_regressor(estimator):
        return (labels == "disc") * 2.5 + np.arange(len(labels))
    return labels


def outputs(fitted, X):
    """Return what each method of a fitted estimator makes of `X`, by its name."""
    return {
        method: np.asarray(getattr(fitted, method)(X))
        for method in OUTPUTS
        if hasattr(fitted, method)
    }


def assert_same_outputs(actual, expected, tolerance=0.0):
    assert actual.keys() == expected.keys()
    assert actual
    for method, values in expected.items():
        assert actual[method].dtype == values.dtype
        if values.dtype.kind == "f":
            np.testing.assert_allclose(actual[method], values, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(actual[method], values)


def pixels(paths):
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def channels_first(paths):
    return torch.from_numpy(np.ascontiguousarray(pixels(paths).transpose(0, 3, 1, 2)))


# A PNG file keeps each pixel, so all of these are the same images.
KINDS = {
    "list of paths": list,
    "list of Path": lambda paths: [Path(path) for path in paths],
    "array of objects": lambda paths: np.array(paths, dtype=object),
    "array of strings": lambda paths: np.array(paths, dtype=str),
    "Series": lambda paths: pd.Series(paths, name="photo"),
    "DataFrame": lambda paths: pd.DataFrame({"photo": paths}),
    "polars": lambda paths: pytest.importorskip("polars").DataFrame({"photo": list(paths)}),
    "bytes": lambda paths: [Path(path).read_bytes() for path in paths],
    "dicts": lambda paths: [{"bytes": Path(path).read_bytes(), "path": None} for path in paths],
    "PIL": lambda paths: [Image.open(path).convert("RGB") for path in paths],
    "list of arrays": lambda paths: list(pixels(paths)),
    "uint8 array": pixels,
    "float array": lambda paths: pixels(paths) / 255,
    "uint8 tensor": channels_first,
    "float tensor": lambda paths: channels_first(paths) / 255,
}


def are_the_same(one, other):
    """Tell whether two `X` are equal, cell by cell and in type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(are_the_same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one.equals(other) if hasattr(one, "equals") else one == other


@pytest.fixture(scope="session")
def run_on(images):
    """Return a function (name, kind) -> X, a copy from before, and outputs of a fit on X."""

    @cache
    def run(name, kind):
        estimator = clone(ESTIMATORS[name])
        X = KINDS[kind](images[0])
        before = copy.deepcopy(X)
        estimator.fit(X, targets(estimator, images[1]))
        return X, before, outputs(estimator, X)

    return run


# what X is


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_x_gives_the_same_output(name, kind, run_on):
    assert_same_outputs(run_on(name, kind)[2], run_on(name, "list of paths")[2], 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_and_predict_leave_x_as_it_was(name, kind, run_on):
    X, before, _ = run_on(name, kind)
    assert are_the_same(X, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_read_only_and_memory_mapped_arrays_are_read(estimator, dtype, images, tmp_path):
    values = pixels(images[0])
    values = values if dtype == np.uint8 else (values / 255).astype(dtype)
    y = targets(estimator, images[1])
    expected = outputs(estimator.fit(values, y), values)

    np.save(tmp_path / "X.npy", values)
    raw = np.memmap(tmp_path / "X.raw", dtype=dtype, mode="w+", shape=values.shape)
    raw[:] = values
    raw.flush()
    read_only = values.copy()
    read_only.setflags(write=False)
    for X in (
        np.load(tmp_path / "X.npy", mmap_mode="r"),
        np.memmap(tmp_path / "X.raw", dtype=dtype, mode="r", shape=values.shape),
        read_only,
        list(read_only),
    ):
        assert_same_outputs(outputs(clone(estimator).fit(X, y), X), expected)


def test_the_layout_of_an_array_in_memory_does_not_matter(fitted, images):
    values = pixels(images[0])
    expected = outputs(fitted, values)
    backwards = np.ascontiguousarray(values[:, ::-1, ::-1])[:, ::-1, ::-1]
    for X in (np.asfortranarray(values), backwards):
        assert not X.flags.c_contiguous
        assert_same_outputs(outputs(fitted, X), expected)


# rows of X


def test_permuted_images_give_permuted_outputs(fitted, images):
    X, _ = images
    order = np.random.default_rng(0).permutation(len(X))
    expected = {method: values[order] for method, values in outputs(fitted, X).items()}
    assert_same_outputs(outputs(fitted, X[order]), expected, 1e-6)


def test_an_output_does_not_depend_on_the_other_images(fitted, images):
    X, _ = images
    together = outputs(fitted, X)
    for i in range(len(X)):
        alone = {method: values[i : i + 1] for method, values in together.items()}
        assert_same_outputs(outputs(fitted, X[i : i + 1]), alone, 1e-5)
    some = {method: values[::3] for method, values in together.items()}
    assert_same_outputs(outputs(fitted, X[::3]), some, 1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_an_output_does_not_depend_on_the_size_of_batches(fitted, images, batch_size):
    X, _ = images
    expected = outputs(fitted, X)
    assert_same_outputs(outputs(set_inner(fitted, batch_size=batch_size), X), expected, 1e-5)


# fit


def test_fitting_again_is_fitting_once(estimator, images):
    X, y = images[0], targets(estimator, images[1])
    once = outputs(clone(estimator).fit(X, y), X)
    assert_same_outputs(outputs(estimator.fit(X, y).fit(X, y), X), once)
    others = estimator.fit(pixels(X[:5]), y[:5])
    assert_same_outputs(outputs(others.fit(X, y), X), once)


def test_fit_and_predict_leave_the_global_random_states_as_they_were(estimator, images):
    X, y = images[0], targets(estimator, images[1])
    if hasattr(inner(estimator), "head"):
        set_inner(estimator, head=(8,), dropout=0.5)  # what draws most numbers
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    outputs(estimator.fit(X, y), X)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_equal(np.random.get_state(), before[1])
    assert random.getstate() == before[2]


def assert_not_fitted(estimator, images, folder):
    for call in calls_after_fit(estimator, images, folder).values():
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()


@pytest.mark.parametrize("cause", ["backbone", "depth", "X"])
def test_a_fit_that_fails_leaves_it_not_fitted(fitted, cause, images, tmp_path):
    X, y = images[0], targets(fitted, images[1])
    if cause == "X":
        X = np.zeros((len(X), 7))
    elif cause == "backbone":
        set_inner(fitted, backbone="resnet17")
    elif depth_of(fitted) is None:
        set_inner(fitted, image_size=64)
    else:
        set_inner(fitted, **{depth_of(fitted): 9})
    with pytest.raises(ValueError, match=r"resnet17|depth=9|image_size=64|image_shape"):
        fitted.fit(X, y)
    assert_not_fitted(fitted, images, tmp_path)


@pytest.mark.parametrize("name", TRAINED, indirect=True)
@pytest.mark.parametrize("cause", ["image", "y", "sample_weight", "combination"])
def test_training_that_fails_leaves_it_not_fitted(fitted, cause, images, tmp_path):
    X, y, weights = list(images[0]), targets(fitted, images[1]), np.ones(len(images[0]))
    if cause == "image":
        X[4] = str(tmp_path / "missing.png")
    elif cause == "y":
        y = y[:5]
    elif cause == "sample_weight":
        weights[3] = -1
    else:
        set_inner(fitted, tta=2)
    with pytest.raises(ValueError, match=r"missing\.png|inconsistent|negative|tta=2"):
        fitted.fit(X, y, sample_weight=weights)
    assert_not_fitted(fitted, images, tmp_path)


@pytest.mark.parametrize("name", TRAINED, indirect=True)
def test_weights_of_one_are_no_weights(estimator, images):
    X, y = images[0], targets(estimator, images[1])
    expected = outputs(clone(estimator).fit(X, y), X)
    ones = clone(estimator).fit(X, y, sample_weight=np.ones(len(X)))
    assert_same_outputs(outputs(ones, X), expected)


@pytest.mark.parametrize("name", CLASSIFIERS, indirect=True)
def test_labels_of_any_type_go_in_and_come_out(estimator, fitted_on, name, images):
    X, y = images
    probabilities = fitted_on(name).predict_proba(X)
    is_square = y == "square"  # the second label in each of these types
    for labels in (is_square, is_square * 7 - 3, y.astype(object), np.where(is_square, "b", "a")):
        fitted = clone(estimator).fit(X, labels)
        predicted = fitted.predict(X)
        assert predicted.dtype == fitted.classes_.dtype == labels.dtype
        np.testing.assert_array_equal(fitted.classes_, np.unique(labels))
        assert set(predicted) <= set(labels)
        np.testing.assert_array_equal(fitted.predict_proba(X), probabilities)


# parameters


def mutable_parameters(estimator):
    """Return parameters that hold dicts and lists, for images of 48 pixels."""
    estimator = inner(estimator)
    given = {"image_shape": [48, 48, 3], "pixel_range": [0, 255]}
    given["backbone_params"] = copy.deepcopy(estimator.backbone_params or {})
    if hasattr(estimator, "head"):
        given |= {"head": [8], "optimizer_params": {"betas": (0.8, 0.9)}, "callbacks": []}
        given |= {"net_params": {}}
    if hasattr(estimator, "class_weight"):
        given |= {"class_weight": {"disc": 1.0, "square": 2.0}}
    return given


def test_fit_and_predict_leave_parameters_as_they_were(estimator, images):
    X, y = pixels(images[0]), targets(estimator, images[1])
    given = mutable_parameters(estimator)
    set_inner(estimator, **given)
    before = values_of_parameters(estimator)
    outputs(estimator.fit(X, y), X)
    assert values_of_parameters(estimator) == before
    for parameter, value in given.items():
        assert getattr(inner(estimator), parameter) is value


def test_a_clone_has_the_parameters_and_nothing_that_was_learned(fitted, images):
    X, y = images[0], targets(fitted, images[1])
    again = clone(fitted)
    assert values_of_parameters(again) == values_of_parameters(fitted)
    assert vars(again).keys() == again.get_params(deep=False).keys()
    assert_same_outputs(outputs(again.fit(X, y), X), outputs(fitted, X))


def test_parameters_make_the_round_trip(estimator):
    parameters = estimator.get_params()
    own = estimator.get_params(deep=False)
    assert list(own) == sorted(inspect.signature(type(estimator)).parameters)
    fresh = type(estimator)().set_params(**parameters)
    assert fresh.get_params() == parameters
    assert repr(fresh) == repr(estimator)


def test_what_was_fitted_stays_until_the_next_fit(fitted, images):
    X, y = images[0], targets(fitted, images[1])
    expected = outputs(fitted, X)
    if depth_of(fitted) is not None:
        set_inner(fitted, **{depth_of(fitted): 1})
    set_inner(fitted, backbone="resnet17", weights=None, image_size=64)
    set_inner(fitted, pixel_range=(0, 7), image_shape=(48, -1))
    if hasattr(inner(fitted), "head"):
        set_inner(fitted, head=(4,))
    assert_same_outputs(outputs(fitted, X), expected)
    with pytest.raises(ValueError, match="backbone='resnet17' is unknown"):
        fitted.fit(X, y)


def test_an_unknown_parameter_in_a_grid_is_scikit_learns_error(estimator, images):
    search = GridSearchCV(estimator, {"freeze": [1]}, cv=2, scoring=lambda *_: 0.0)
    with pytest.raises(ValueError, match="Invalid parameter 'freeze' for estimator"):
        search.fit(images[0], targets(estimator, images[1]))


# what is asked of a fitted estimator


def calls_after_fit(estimator, images, folder):
    """Return calls, by name, of all public methods that need a fit."""
    X, y = images
    arguments = {"X": X, "y": targets(estimator, y), "path": folder / "file"}
    calls = {}
    for method in dir(type(estimator)):
        if method.startswith(("_", "set_", "get_params", "get_metadata", "fit", "partial_fit")):
            continue
        if not callable(getattr(type(estimator), method)) or not hasattr(estimator, method):
            continue
        needed = [
            arguments[parameter.name]
            for parameter in inspect.signature(getattr(estimator, method)).parameters.values()
            if parameter.default is parameter.empty
        ]
        calls[method] = lambda method=method, needed=needed: getattr(estimator, method)(*needed)
    return calls


def test_every_method_of_a_not_fitted_estimator_says_so(estimator, images, tmp_path):
    calls = calls_after_fit(estimator, images, tmp_path)
    expected = {"predict", "score"}
    if hasattr(estimator, "transform"):
        expected = {"transform", "get_feature_names_out"}
    elif not isinstance(estimator, ZeroShotClassifier):
        expected |= {"save_backbone"}
    assert expected <= calls.keys()
    assert_not_fitted(estimator, images, tmp_path)


# names of columns


def test_a_column_of_another_name_or_one_more_is_scikit_learns_error(estimator, images):
    X, y = images[0], targets(estimator, images[1])
    estimator.fit(pd.DataFrame({"photo": X}), y)
    assert estimator.feature_names_in_.tolist() == ["photo"]
    assert estimator.n_features_in_ == 1
    for wrong in (pd.DataFrame({"picture": X}), pd.DataFrame({"photo": X, "picture": X})):
        for method in outputs(estimator, pd.DataFrame({"photo": X[:1]})):
            with pytest.raises(ValueError, match=r"feature names should match.*\n.*unseen at fit"):
                getattr(estimator, method)(wrong)


def test_another_number_of_pixels_in_rows_is_scikit_learns_error(estimator, images):
    y = targets(estimator, images[1])
    rows = pixels(images[0])[:, :8, :8].reshape(len(y), -1)
    set_inner(estimator, image_shape=(8, -1, 3)).fit(rows, y)
    assert estimator.n_features_in_ == 192
    reader = type(inner(estimator)).__name__
    message = f"X has 168 features, but {reader} is expecting 192 features"
    for method in outputs(estimator, rows):
        with pytest.raises(ValueError, match=message):
            getattr(estimator, method)(rows[:, :168])


def test_names_are_learned_of_tables_only_and_forgotten_by_the_next_fit(estimator, images):
    X, y = images[0], targets(estimator, images[1])
    estimator.fit(pd.DataFrame({"photo": X}), y).fit(X, y)
    assert not hasattr(estimator, "feature_names_in_")
    assert not hasattr(estimator, "n_features_in_")


@pytest.mark.parametrize("name", ["PretrainedFeatureTransformer"], indirect=True)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_rows_come_out_as_a_table_with_the_names_of_the_features(fitted, library, images):
    pytest.importorskip(library)
    X = pd.DataFrame({"photo": images[0]}, index=np.arange(len(images[0])) + 10)
    fitted.fit(X)
    rows = fitted.transform(X)
    names = fitted.get_feature_names_out()
    assert names.tolist() == [f"pretrainedfeaturetransformer{i}" for i in range(rows.shape[1])]
    assert fitted.get_feature_names_out(["photo"]).tolist() == names.tolist()
    table = fitted.set_output(transform=library).transform(X)
    assert type(table).__module__.startswith(library)
    assert list(table.columns) == names.tolist()
    np.testing.assert_array_equal(table.to_numpy(), rows)
    if library == "pandas":
        assert table.index.tolist() == X.index.tolist()


# saved


WAYS = ["pickle", "joblib", "cloudpickle"]

# One process for all that was saved: to import torch takes longer than the rest.
LOAD_AND_PREDICT = """
import joblib, pathlib, pickle, socket, sys
def refuse(*args, **kwargs):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
folder = pathlib.Path(sys.argv[1])
X = (folder / "X.txt").read_text().splitlines()
results = {}
for path in folder.glob("*.saved"):
    with open(path, "rb") as file:
        fitted = joblib.load(file) if "joblib" in path.name else pickle.load(file)
    methods = [m for m in sys.argv[2:] if hasattr(fitted, m)]
    results[path.stem] = {method: getattr(fitted, method)(X) for method in methods}
(folder / "results.pickle").write_bytes(pickle.dumps(results))
"""


@pytest.fixture(scope="session")
def outputs_elsewhere(fitted_on, images, tmp_path_factory):
    """Return, by way and name, outputs of saved estimators in a process of its own."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "X.txt").write_text("\n".join(images[0]))
    for name in ESTIMATORS:
        for way in WAYS:
            if way == "cloudpickle" and find_spec(way) is None:
                continue
            with open(folder / f"{way} {name}.saved", "wb") as file:
                if way == "joblib":
                    joblib.dump(fitted_on(name), file)
                else:
                    file.write(__import__(way).dumps(fitted_on(name)))
    nothing = folder / "nothing"
    nothing.mkdir()
    places = ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "SKTRANSFER_CACHE")
    subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD_AND_PREDICT, str(folder), *OUTPUTS],
        env={**os.environ, **dict.fromkeys(places, str(nothing))},
        check=True,
    )
    return pickle.loads((folder / "results.pickle").read_bytes())


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_predicts_the_same_elsewhere(name, fitted, way, images, outputs_elsewhere):
    if way == "cloudpickle":
        pytest.importorskip(way)
    assert_same_outputs(outputs_elsewhere[f"{way} {name}"], outputs(fitted, images[0]), 1e-6)


def test_the_device_of_the_fit_is_a_record_that_no_later_call_reads(fitted, images):
    network = getattr(fitted, "estimator_", fitted)
    assert network.device_ == "cpu"
    expected = outputs(fitted, images[0])
    network.device_ = "cuda:7"  # as one that was fitted where there are eight
    loaded = pickle.loads(pickle.dumps(fitted))
    assert getattr(loaded, "estimator_", loaded).device_ == "cuda:7"
    assert_same_outputs(outputs(loaded, images[0]), expected)


# what an estimator says of itself


def test_tags_say_what_x_can_be(estimator):
    paths = get_tags(estimator).input_tags
    assert (paths.one_d_array, paths.two_d_array) == (True, False)
    rows = get_tags(set_inner(estimator, image_shape=(8, 8))).input_tags
    assert (rows.one_d_array, rows.two_d_array) == (False, True)
    for tags in (paths, rows):
        assert tags.three_d_array
        assert tags.string
        assert tags.dict
        assert not tags.allow_nan
        assert not tags.sparse
        assert not tags.categorical
        assert not tags.positive_only
        assert not tags.pairwise


def test_tags_say_what_y_and_the_output_can_be(estimator):
    tags = get_tags(estimator)
    assert tags.requires_fit
    assert not tags.non_deterministic
    assert not tags.no_validation
    assert not tags.array_api_support
    assert tags.target_tags.required == (not isinstance(estimator, PretrainedFeatureTransformer))
    assert tags.target_tags.multi_output == is_regressor(estimator)
    assert tags.target_tags.single_output
    if is_classifier(estimator):
        assert tags.estimator_type == "classifier"
        assert tags.classifier_tags.multi_class
        assert tags.classifier_tags.multi_label == isinstance(estimator, FineTunedClassifier)
        assert not tags.classifier_tags.poor_score
    elif is_regressor(estimator):
        assert tags.estimator_type == "regressor"
        assert not tags.regressor_tags.poor_score
    else:
        assert tags.estimator_type is None  # as scikit-learn's own transformers
        assert tags.transformer_tags.preserves_dtype == ["float32"]


@pytest.mark.parametrize("name", ["PretrainedFeatureTransformer"], indirect=True)
def test_missing_values_are_taken_where_the_tag_says_so(estimator, images):
    estimator.set_params(on_error="nan")
    assert get_tags(estimator).input_tags.allow_nan
    X = pixels(images[0])[:, :8, :8].reshape(len(images[0]), -1) / 255
    X[[2, 5], 3] = np.nan
    rows_of = clone(estimator).set_params(image_shape=(8, 8, 3))
    for fitted, missing in ((estimator, [*images[0][:2], np.nan, None]), (rows_of, X)):
        with pytest.warns(UnreadableImageWarning, match="rows of NaN: 2 of"):
            rows = fitted.fit(missing).transform(missing)
        expected = [value is None or np.any(value != value) for value in missing]
        assert np.isnan(rows).any(axis=1).tolist() == expected
    X[2, 3] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity"):
        rows_of.fit(X)
    # scikit-learn's check that depends on the tag
    rows_of.set_params(image_shape=(1, -1), pixel_range="fit")
    check_estimators_pickle("PretrainedFeatureTransformer", rows_of)


# the contract itself


def test_every_public_estimator_is_checked(closing_lines):
    public = {
        name
        for name in sktransfer.__all__
        if inspect.isclass(getattr(sktransfer, name))
        and issubclass(getattr(sktransfer, name), BaseEstimator)
    }
    assert public == {type(estimator).__name__ for estimator in ESTIMATORS.values()}
    if not _ran:
        pytest.skip("the checks themselves were not selected")
    for name, count in _ran.items():
        closing_lines.append(f"checks with images run on {name}: {count}")
    assert _ran.keys() == ESTIMATORS.keys()
    assert min(_ran.values()) > 40
