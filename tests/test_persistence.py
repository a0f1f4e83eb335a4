"""Saved estimators: what is in them, what they need, and what they say when it is missing."""

import ast
import copy
import io
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureTransformer,
    _base,
    exceptions,
    register_backbone,
)
from sktransfer.backbones import _registry
from sktransfer.backbones._weights import read_metadata, read_tensors, write_backbone_file
from sktransfer.backbones.sources import _registered
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

MOST_BYTES = 50_000  # of a fitted transformer
FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "max_epochs": 1,
    "precision": "float32",
    "feature_cache": None,
    "random_state": 0,
}


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch):
    """Forget the networks in use and what a test registers."""
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())
    monkeypatch.setattr(_registry, "_moved", set())
    monkeypatch.setattr(_registered, "registered", dict(_registered.registered))


def own_network(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.Conv2d(width, 16, 3, 2))


def register_own():
    stages = {"first": ("0", "1"), "second": ("2",)}
    numbers = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    register_backbone("own network", own_network, stages, numbers)


def backbone_file(folder, mini_file):
    path = str(folder / "own.safetensors")
    write_backbone_file(path, read_tensors(mini_file), read_metadata(mini_file))
    return path


def state_dict_file(folder):
    path = str(folder / "weights.pth")
    torch.save(_registry.load_backbone("mini").model.state_dict(), path)
    return path


def parameters_of(kind, folder, mini_file):
    if kind == "embedded":
        return {"backbone": "mini"}
    if kind == "random":
        return {
            "backbone": "mobilenet_v2",
            "weights": None,
            "backbone_params": {"width_mult": 0.1},
            "image_size": 32,
        }
    if kind == "registered":
        register_own()
        return {"backbone": "own network"}
    if kind == "backbone file":
        return {"backbone": backbone_file(folder, mini_file)}
    return {"backbone": "mini", "weights": state_dict_file(folder)}


KINDS = ["embedded", "random", "registered", "backbone file", "state dict"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_transformer_is_small_and_gives_the_same_rows(kind, shapes, tmp_path, mini_file):
    X, _ = shapes
    fitted = PretrainedFeatureTransformer(
        **parameters_of(kind, tmp_path, mini_file), feature_cache=None
    ).fit(X[:4])
    expected = fitted.transform(X[:4])
    saved = pickle.dumps(fitted)
    assert len(saved) < MOST_BYTES
    _registry._kept.clear()
    np.testing.assert_allclose(pickle.loads(saved).transform(X[:4]), expected, rtol=1e-6)


def test_a_backbone_file_that_is_gone_is_named_at_the_first_use(shapes, tmp_path, mini_file):
    X, _ = shapes
    path = backbone_file(tmp_path, mini_file)
    saved = pickle.dumps(PretrainedFeatureTransformer(path).fit(X[:2]))
    (tmp_path / "own.safetensors").unlink()
    loaded = pickle.loads(saved)
    with pytest.raises(WeightsNotFoundError, match="saved without the weights") as caught:
        loaded.transform(X[:2])
    assert f"no such file of weights: {path}" in str(caught.value)


def test_a_state_dict_that_is_gone_is_named_at_the_first_use(shapes, tmp_path):
    X, _ = shapes
    path = state_dict_file(tmp_path)
    saved = pickle.dumps(PretrainedFeatureTransformer("mini", weights=path).fit(X[:2]))
    (tmp_path / "weights.pth").unlink()
    loaded = pickle.loads(saved)
    with pytest.raises(WeightsNotFoundError, match="saved without the weights") as caught:
        loaded.transform(X[:2])
    assert path in str(caught.value)


@pytest.mark.parametrize("parameter", ["backbone", "weights"])
def test_a_file_that_has_moved_is_named_by_the_parameter_that_the_error_says(
    parameter, shapes, tmp_path, mini_file
):
    X, _ = shapes
    if parameter == "backbone":
        path = backbone_file(tmp_path, mini_file)
        fitted = PretrainedFeatureTransformer(path, feature_cache=None)
    else:
        path = state_dict_file(tmp_path)
        fitted = PretrainedFeatureTransformer("mini", weights=Path(path), feature_cache=None)
    expected = fitted.fit_transform(X[:4])
    saved = pickle.dumps(fitted)
    moved = Path(path).rename(tmp_path / f"moved{Path(path).suffix}")
    loaded = pickle.loads(saved)
    with pytest.raises(WeightsNotFoundError, match=rf"name it: set_params\({parameter}="):
        loaded.transform(X[:4])
    loaded.set_params(**{parameter: f"{moved.parent}/wrong{moved.suffix}"})
    with pytest.raises(WeightsNotFoundError, match=r"no such file of weights: .*wrong"):
        loaded.transform(X[:4])
    loaded.set_params(**{parameter: moved})
    np.testing.assert_array_equal(loaded.transform(X[:4]), expected)
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.transform(X[:4]), expected)
    np.testing.assert_array_equal(clone(loaded).fit_transform(X[:4]), expected)


def test_a_name_whose_weights_cant_be_loaded_here_takes_a_file_of_the_same(shapes, tmp_path):
    X, _ = shapes
    fitted = PretrainedFeatureTransformer("mini", feature_cache=None).fit(X[:4])
    expected = fitted.transform(X[:4])
    path = state_dict_file(tmp_path)
    fitted.backbone_spec_ = replace(fitted.backbone_spec_, weights=str(tmp_path / "gone.pth"))
    np.testing.assert_array_equal(fitted.set_params(weights=path).transform(X[:4]), expected)


def test_where_weights_are_no_more_is_tried_once(shapes, tmp_path, monkeypatch):
    X, _ = shapes
    path = state_dict_file(tmp_path)
    fitted = PretrainedFeatureTransformer("mini", weights=path, feature_cache=None).fit(X[:2])
    moved = Path(path).rename(tmp_path / "moved.pth")
    fitted.set_params(weights=moved)
    tried = []
    load = _registry.load_backbone
    monkeypatch.setattr(
        _registry, "load_backbone", lambda *names: (tried.append(names[-1]), load(*names))[1]
    )
    fitted.transform(X[:2])
    fitted.transform(X[:2])
    assert tried == [path, moved, moved]


def test_another_file_than_the_one_that_has_moved_is_refused(shapes, tmp_path):
    X, _ = shapes
    path = state_dict_file(tmp_path)
    fitted = PretrainedFeatureTransformer("mini", weights=path, feature_cache=None).fit(X[:2])
    state = torch.load(path)
    other = tmp_path / "other.pth"
    torch.save({**state, "stem.1.bias": state["stem.1.bias"] + 1}, other)
    Path(path).unlink()
    _registry._kept.clear()
    fitted.set_params(weights=other)
    with pytest.raises(WeightsError, match=r"other\.pth' are not those that this estimator was"):
        fitted.transform(X[:2])


def test_what_is_set_after_a_fit_is_of_no_effect_where_the_weights_are_there(shapes):
    X, _ = shapes
    fitted = PretrainedFeatureTransformer("mini", feature_cache=None).fit(X[:2])
    expected = fitted.transform(X[:2])
    fitted.set_params(weights=None)
    np.testing.assert_array_equal(fitted.transform(X[:2]), expected)


def test_a_state_dict_that_changed_is_refused(shapes, tmp_path):
    X, _ = shapes
    path = state_dict_file(tmp_path)
    saved = pickle.dumps(PretrainedFeatureTransformer("mini", weights=path).fit(X[:2]))
    state = torch.load(path)
    torch.save({**state, "stem.1.bias": state["stem.1.bias"] + 1}, path)
    with pytest.raises(WeightsError, match="not those that this estimator was fitted with"):
        pickle.loads(saved).transform(X[:2])


def test_random_weights_that_are_drawn_otherwise_are_refused(shapes, monkeypatch):
    X, _ = shapes
    saved = pickle.dumps(PretrainedFeatureTransformer("mini", weights=None).fit(X[:2]))
    _registry._kept.clear()
    seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda _: seed(1))
    with pytest.raises(WeightsError, match="this version of torch draws others"):
        pickle.loads(saved).transform(X[:2])


def test_a_registered_backbone_must_be_registered_where_it_is_loaded(shapes):
    X, _ = shapes
    register_own()
    fitted = PretrainedFeatureTransformer("own network", feature_cache=None).fit(X[:2])
    saved = pickle.dumps(fitted)
    expected = fitted.transform(X[:2])
    _registered.registered.clear()
    _registry._kept.clear()
    loaded = pickle.loads(saved)
    with pytest.raises(WeightsNotFoundError, match=r"'own network'.*call register_backbone"):
        loaded.transform(X[:2])
    register_own()
    np.testing.assert_allclose(loaded.transform(X[:2]), expected, rtol=1e-6)


def test_weights_that_need_a_network_say_so_at_the_first_use(shapes, tmp_path, monkeypatch):
    X, _ = shapes
    folder = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))

    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    fitted = PretrainedFeatureTransformer("mobilenet_v2", weights=None, image_size=32).fit(X[:2])
    spec = _registry.BackboneSpec(**{**vars(fitted.backbone_spec_), "weights": "IMAGENET1K_V1"})
    fitted.backbone_spec_ = spec  # as if it had been fitted where there is a network
    loaded = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(WeightsNotFoundError, match="saved without the weights") as caught:
        loaded.transform(X[:2])
    assert "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth" in str(caught.value)


def test_saved_estimators_predict_the_same_in_a_fresh_process_without_network(shapes, tmp_path):
    X, y = shapes
    transformer = PretrainedFeatureTransformer("mini", precision="float32", feature_cache=None)
    fitted = [
        make_pipeline(transformer, LogisticRegression()).fit(X, y),
        FineTunedClassifier(**FAST).fit(X, y),
    ]
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    np.save(tmp_path / "X.npy", X)
    program = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import joblib, numpy as np\n"
        "folder = sys.argv[1]\n"
        "X = np.load(f'{folder}/X.npy', allow_pickle=True)\n"
        "loaded = joblib.load(f'{folder}/fitted.joblib')\n"
        "np.save(f'{folder}/p.npy', [each.predict_proba(X) for each in loaded])\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True)
    expected = [each.predict_proba(X) for each in fitted]
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, atol=1e-6)


def small_head(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, n_out))


WAYS_TO_TRAIN = {
    "probe": {"freeze_depth": None},
    "last stage": {"freeze_depth": -1},
    "whole network": {"freeze_depth": 0, "batch_norm": "train"},
    "hidden layer": {"head": (16,), "dropout": 0.2},
    "own head": {"head": small_head, "freeze_depth": None},
    "early stopping": {"early_stopping": True, "max_epochs": 2, "replay": 4},
}


def saved_and_loaded(estimator):
    return pickle.loads(pickle.dumps(estimator))


def packages_in(saved):
    """Return the packages whose classes and functions a pickle asks for."""
    packages = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            packages.add(module.partition(".")[0])
            return super().find_class(module, name)

    Unpickler(io.BytesIO(saved)).load()
    return packages


@pytest.mark.parametrize("way", WAYS_TO_TRAIN)
def test_a_saved_classifier_is_the_same_classifier(way, shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**{**FAST, **WAYS_TO_TRAIN[way]}).fit(X, y)
    loaded = saved_and_loaded(fitted)
    np.testing.assert_allclose(loaded.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    assert vars(loaded).keys() == vars(fitted).keys()
    assert loaded.stages_ == fitted.stages_
    assert repr(loaded.stages_) == repr(fitted.stages_)
    assert loaded.history_ == fitted.history_
    assert loaded.net_.history[:, "train_loss"] == fitted.net_.history[:, "train_loss"]
    of_net, of_loaded = fitted.net_.module_.state_dict(), loaded.net_.module_.state_dict()
    assert of_net.keys() == of_loaded.keys()
    assert all(value.equal(of_loaded[name]) for name, value in of_net.items())
    assert all(value.dtype == of_loaded[name].dtype for name, value in of_net.items())


def test_training_goes_on_after_loading_as_if_nothing_had_been(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=-2, replay=6).fit(X, y)
    loaded = saved_and_loaded(fitted)
    for classifier in (fitted, loaded):
        classifier.partial_fit(X[:8], y[:8])
    np.testing.assert_allclose(loaded.predict_proba(X), fitted.predict_proba(X), atol=1e-5)


def test_a_copy_that_goes_on_training_leaves_the_other_as_it_was(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST).fit(X, y)
    before = fitted.predict_proba(X)
    for copied in (copy.copy(fitted), copy.deepcopy(fitted)):
        copied.partial_fit(X[:8], y[::-1][:8])
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


def test_saved_labels_and_numbers_are_the_same(shapes):
    X, y = shapes
    labels = np.stack([y == "disc", y != "disc"], axis=1).astype(int)
    classifier = FineTunedClassifier(**FAST, class_weight="balanced").fit(X, labels)
    np.testing.assert_allclose(
        saved_and_loaded(classifier).predict_proba(X), classifier.predict_proba(X), atol=1e-6
    )
    regressor = FineTunedRegressor(**FAST).fit(X, np.arange(len(X)) * 1000.0)
    np.testing.assert_allclose(
        saved_and_loaded(regressor).predict(X), regressor.predict(X), rtol=1e-6
    )


def test_a_saved_classifier_holds_its_network_once_and_nothing_of_torch(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=0, optimizer="adamw").fit(X, y)
    saved = pickle.dumps(fitted)
    n_bytes = sum(value.nbytes for value in fitted.net_.module_.state_dict().values())
    assert len(saved) < 1.05 * n_bytes  # AdamW alone has twice as much again
    assert packages_in(saved) <= {"sktransfer", "numpy", "builtins"}


def test_saving_and_loading_leave_the_random_state_of_torch_as_it_was(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, head=(8,)).fit(X, y)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    saved_and_loaded(fitted)
    assert torch.equal(torch.rand(3), expected)


def test_a_trained_registered_backbone_must_be_registered_before_it_is_loaded(shapes):
    X, y = shapes
    register_own()
    fitted = FineTunedClassifier(**{**FAST, "backbone": "own network"}).fit(X, y)
    saved, expected = pickle.dumps(fitted), fitted.predict_proba(X)
    _registered.registered.clear()
    with pytest.raises(WeightsNotFoundError, match=r"'own network'.*call register_backbone"):
        pickle.loads(saved)
    register_own()
    np.testing.assert_allclose(pickle.loads(saved).predict_proba(X), expected, atol=1e-6)


def registered_again(make, stages):
    """Register another network by the same name, as a process with other code would."""
    _registered.registered.clear()
    _registry._kept.clear()
    numbers = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    register_backbone("own network", make, stages, numbers)


def with_another_activation(width=8):
    network = own_network(width)
    network[1] = nn.LeakyReLU()
    return network


CHANGES = {
    "the stage 'first' computes otherwise": (
        with_another_activation,
        {"first": ("0", "1"), "second": ("2",)},
        "computes other than it did .*the code of stage 'first' has changed",
    ),
    "the activation has moved to 'second'": (
        own_network,
        {"first": ("0",), "second": ("1", "2")},
        "computes other than it did .*the code of stage 'first' has changed",
    ),
    "the stages have other names": (
        own_network,
        {"a": ("0", "1"), "b": ("2",)},
        "was cut into the stages first, second, and here it is cut into a, b",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_transformer_is_not_loaded_over_a_network_of_other_code(change, shapes):
    X, _ = shapes
    make, stages, message = CHANGES[change]
    register_own()
    saved = pickle.dumps(PretrainedFeatureTransformer("own network", feature_cache=None).fit(X[:2]))
    registered_again(make, stages)
    loaded = pickle.loads(saved)
    with pytest.raises(WeightsError, match=message):
        loaded.transform(X[:2])


@pytest.mark.parametrize("change", CHANGES)
def test_a_trained_network_is_not_loaded_over_other_code(change, shapes):
    X, y = shapes
    make, stages, message = CHANGES[change]
    register_own()
    fitted = FineTunedClassifier(**{**FAST, "backbone": "own network"}, freeze_depth=-1).fit(X, y)
    saved = pickle.dumps(fitted)
    registered_again(make, stages)
    with pytest.raises(WeightsError, match=message):
        pickle.loads(saved)


def test_a_head_that_is_made_otherwise_than_it_was_is_named(shapes):
    X, y = shapes
    state = FineTunedClassifier(**FAST, head=small_head).fit(X, y).__getstate__()
    state["_structure"] = {**state["_structure"], "head": nn.Linear}  # the code has changed
    loaded = FineTunedClassifier.__new__(FineTunedClassifier)
    with pytest.raises(WeightsError, match=r"what was saved of head=.* does not fit it"):
        loaded.__setstate__(state)


def test_what_is_saved_is_not_changed_by_saving_and_loading(shapes):
    X, _ = shapes
    fitted = PretrainedFeatureTransformer("mini").fit(X[:2])
    before = dict(vars(fitted))
    state = fitted.__getstate__()
    again = dict(state)
    loaded = PretrainedFeatureTransformer.__new__(PretrainedFeatureTransformer)
    loaded.__setstate__(state)
    assert vars(fitted) == before == vars(loaded) == vars(copy.deepcopy(fitted))
    assert state == again


@pytest.mark.parametrize(
    "package", ["sktransfer", "scikit-learn", "skorch", "torch", "torchvision"]
)
def test_versions_are_recorded(package):
    from importlib.metadata import version

    state = PretrainedFeatureTransformer("mini").__getstate__()
    assert state["_versions"][package] == version(package)


def _saved_with(monkeypatch, **others):
    """Return the pickle of an estimator as other versions would have written it."""
    installed = _base.installed_versions()
    others = {package.replace("_", "-"): version for package, version in others.items()}
    with monkeypatch.context() as patch:
        patch.setattr(_base, "installed_versions", lambda: {**installed, **others})
        return pickle.dumps(PretrainedFeatureTransformer("mini"))


def test_another_version_at_load_warns_as_scikit_learn_does(monkeypatch):
    saved = _saved_with(monkeypatch, sktransfer="0.0.1", scikit_learn="1.5.0")
    with pytest.warns(InconsistentVersionWarning) as caught:
        loaded = pickle.loads(saved)
    assert loaded.backbone == "mini"
    (warning,) = caught
    assert warning.filename == __file__
    message = warning.message
    assert isinstance(message, exceptions.InconsistentVersionWarning)
    assert "PretrainedFeatureTransformer was saved with sktransfer 0.0.1 (here " in str(message)
    assert "scikit-learn 1.5.0" in str(message)
    assert "torch " not in str(message)
    assert message.original_sklearn_version == "1.5.0"
    assert message.saved["sktransfer"] == "0.0.1"


def test_the_same_version_at_load_and_another_torch_do_not_warn(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(_saved_with(monkeypatch, torch="2.1.0"))


def test_a_state_without_versions_warns():
    estimator = PretrainedFeatureTransformer("mini")
    with pytest.warns(InconsistentVersionWarning, match="saved with sktransfer unknown"):
        estimator.__setstate__(dict(vars(estimator)))


def test_the_version_warning_survives_a_pickle():
    here = _base.installed_versions()
    warning = exceptions.InconsistentVersionWarning("X", {"sktransfer": "0"}, here)
    assert str(pickle.loads(pickle.dumps(warning))) == str(warning)


def test_skops_loads_a_pipeline_with_this_package_s_types_to_trust(shapes, tmp_path):
    skops = pytest.importorskip("skops.io")
    X, y = shapes
    transformer = PretrainedFeatureTransformer("mini", precision="float32", feature_cache=None)
    fitted = make_pipeline(transformer, LogisticRegression()).fit(X, y)
    skops.dump(fitted, tmp_path / "fitted.skops")
    types = skops.get_untrusted_types(file=tmp_path / "fitted.skops")
    assert types
    assert all(name.startswith("sktransfer.") for name in types)
    loaded = skops.load(tmp_path / "fitted.skops", trusted=types)
    assert loaded[0].backbone_spec_ == fitted[0].backbone_spec_
    np.testing.assert_allclose(loaded.predict_proba(X), fitted.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize(
    "way", [{"freeze_depth": None}, {"freeze_depth": -1, "head": (8,)}], ids=repr
)
def test_skops_loads_a_classifier_with_this_package_s_types_to_trust(way, shapes, tmp_path):
    skops = pytest.importorskip("skops.io")
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, **way).fit(X, y)
    skops.dump(fitted, tmp_path / "fitted.skops")
    types = skops.get_untrusted_types(file=tmp_path / "fitted.skops")
    assert types
    assert all(name.startswith("sktransfer.") for name in types), types
    loaded = skops.load(tmp_path / "fitted.skops", trusted=types)
    np.testing.assert_allclose(loaded.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    assert repr(loaded.stages_) == repr(fitted.stages_)


def test_skops_loads_a_regressor_with_this_package_s_types_to_trust(shapes, tmp_path):
    skops = pytest.importorskip("skops.io")
    X, _ = shapes
    fitted = FineTunedRegressor(**FAST).fit(X, np.arange(len(X)))
    skops.dump(fitted, tmp_path / "fitted.skops")
    types = skops.get_untrusted_types(file=tmp_path / "fitted.skops")
    assert all(name.startswith("sktransfer.") for name in types), types
    loaded = skops.load(tmp_path / "fitted.skops", trusted=types)
    np.testing.assert_allclose(loaded.predict(X), fitted.predict(X), rtol=1e-6)


def test_no_module_reads_a_file_in_a_way_that_could_run_code():
    package = Path(exceptions.__file__).parent
    calls = [
        (module.name, ast.unparse(node.func), ast.unparse(node))
        for module in package.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call)
    ]
    unsafe = {"eval", "exec", "pickle.load", "pickle.loads", "joblib.load", "np.load"}
    assert not [call for call in calls if call[1] in unsafe]
    of_torch = [call for call in calls if call[1] == "torch.load"]
    assert of_torch
    assert all("weights_only=True" in call for _, _, call in of_torch)
