"""Saved estimators: what is in them, what they need, and what they say when it is missing."""

import copy
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import PretrainedFeatureTransformer, _saved_versions, exceptions, register_backbone
from sktransfer.backbones import _registered, _registry
from sktransfer.backbones._file import read_passport, read_tensors, write_backbone_file
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

MOST_BYTES = 50_000  # of a fitted transformer


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch):
    """Forget the networks in use and what a test registers."""
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())
    monkeypatch.setattr(_registered, "_registered", dict(_registered._registered))


def own_network(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.Conv2d(width, 16, 3, 2))


def register_own():
    stages = {"first": ("0", "1"), "second": ("2",)}
    numbers = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    register_backbone("own network", own_network, stages, numbers)


def backbone_file(folder, mini_file):
    path = str(folder / "own.safetensors")
    write_backbone_file(path, read_tensors(mini_file), read_passport(mini_file))
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
    _registered._registered.clear()
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


def test_a_saved_pipeline_works_in_a_fresh_process_without_network(shapes, tmp_path):
    X, y = shapes
    transformer = PretrainedFeatureTransformer("mini", precision="float32", feature_cache=None)
    fitted = make_pipeline(transformer, LogisticRegression()).fit(X, y)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    np.save(tmp_path / "X.npy", X)
    program = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import joblib, numpy as np\n"
        "folder = sys.argv[1]\n"
        "X = np.load(f'{folder}/X.npy', allow_pickle=True)\n"
        "np.save(f'{folder}/p.npy', joblib.load(f'{folder}/fitted.joblib').predict_proba(X))\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), fitted.predict_proba(X), atol=1e-6)


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
    installed = _saved_versions.installed_versions()
    others = {package.replace("_", "-"): version for package, version in others.items()}
    with monkeypatch.context() as patch:
        patch.setattr(_saved_versions, "installed_versions", lambda: {**installed, **others})
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
    here = _saved_versions.installed_versions()
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
