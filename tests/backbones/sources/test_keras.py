"""Networks of keras.applications as backbones, with random weights: nothing is downloaded."""

import importlib.util
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer.backbones import _registry
from sktransfer.backbones._catalogue import backbone_info, list_backbones
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones.sources import _keras, find_architecture
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

if importlib.util.find_spec("keras") is None:  # its import needs a backend, which `module` chooses
    pytest.skip("needs keras", allow_module_level=True)
h5py = pytest.importorskip("h5py")

# Keras' own, with newer versions of NumPy
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

keras = _keras.module()
applications = keras.applications

# name, parameters, image size, stages, preprocessing
NETWORKS = {
    "MobileNetV2": ({"alpha": 0.35}, 64, 5, applications.mobilenet_v2.preprocess_input),
    "ResNet50": ({}, 64, 5, applications.resnet.preprocess_input),
    "VGG16": ({}, 32, 5, applications.vgg16.preprocess_input),
    "InceptionV3": ({}, 75, 5, applications.inception_v3.preprocess_input),
    "EfficientNetB0": ({}, 64, 5, applications.efficientnet.preprocess_input),
    "MobileNetV3Small": ({}, 65, 5, applications.mobilenet_v3.preprocess_input),
    "DenseNet121": ({}, 32, 5, applications.densenet.preprocess_input),
    "ConvNeXtTiny": ({}, 32, 4, applications.convnext.preprocess_input),
}
SMALL = "keras:MobileNetV2"
NARROW = {"alpha": 0.35}


def network(name, **params):
    """Return a network of Keras with norms that are drawn, not the identity."""
    model = getattr(applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3), **params
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if any(word in weight.path for word in ("moving_mean", "beta", "bias")):
            weight.assign(rng.normal(0, 0.05, weight.shape))
        elif any(word in weight.path for word in ("gamma", "variance")):
            weight.assign(rng.uniform(0.6, 1, weight.shape))
    return model


def pixels(size, n=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def rows_of(backbone, images):
    with torch.inference_mode():
        return backbone.frozen(len(backbone.stages), backbone.pooling("auto"))(images).numpy()


def rows_of_keras(model, images, preprocess=applications.mobilenet_v2.preprocess_input):
    x = preprocess(images.permute(0, 2, 3, 1).numpy().astype(np.float32))
    with torch.no_grad():
        return keras.ops.convert_to_numpy(model(x, training=False))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())


@pytest.fixture(scope="module")
def small():
    return network("MobileNetV2", **NARROW)


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "small.weights.h5"
    small.save_weights(path)
    return path


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if name != "DenseNet121"]
)  # it takes 5 s
def test_rows_are_those_of_keras(name, tmp_path):
    params, size, n_stages, preprocess = NETWORKS[name]
    model = network(name, **params)
    model.save_weights(tmp_path / "x.weights.h5")
    backbone = load_backbone(f"keras:{name}", params, tmp_path / "x.weights.h5")
    assert len(backbone.stages) == n_stages
    assert all(any(True for _ in stage.parameters()) for stage in backbone.stages.values())
    images = pixels(size)
    expected = rows_of_keras(model, images, preprocess)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(rows_of(backbone, images), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("size", "params"), [(96, {}), (50, {"image_size": 50})])
def test_rows_are_those_of_a_network_that_is_made_for_a_size(small, saved, size, params):
    fixed = applications.MobileNetV2(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3), **NARROW
    )
    fixed.set_weights([keras.ops.convert_to_numpy(weight) for weight in small.weights])
    backbone = load_backbone(SMALL, {**NARROW, **params}, saved)
    images = pixels(size)
    np.testing.assert_allclose(rows_of(backbone, images), rows_of_keras(fixed, images), atol=1e-5)
    assert backbone.structure.image_size == params.get("image_size")
    assert backbone.spec.input.size == (params.get("image_size") or 224)


def test_every_preprocessing_is_that_of_keras():
    images = pixels(8)
    for name, (_, _, _, preprocess) in NETWORKS.items():
        spec = find_architecture(f"keras:{name}").input()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
        ours = (images / 255 - mean) / std
        if _keras._NETWORKS[name].mode == "caffe":
            ours = ours.flip(1)
        theirs = preprocess(images.permute(0, 2, 3, 1).numpy().astype(np.float32))
        np.testing.assert_allclose(ours.permute(0, 2, 3, 1), theirs, atol=1e-4, err_msg=name)


def test_random_weights_and_names_do_not_depend_on_what_keras_made_before():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    first = load_backbone("keras:MobileNetV3Small", {}, None)
    assert random.random() == expected
    _registry._kept.clear()
    second = load_backbone("keras:MobileNetV3Small", {}, None)
    assert second is not first
    assert second.spec == first.spec


def test_the_description_names_stages_after_layers_of_keras():
    info = backbone_info(SMALL, NARROW)
    assert info.source == "keras"
    assert [stage.name for stage in info.stages][1:3] == ["block_2_add", "block_5_add"]
    assert info.widths == (3, 8, 8, 16, 32, 1280)
    assert [offer.name for offer in info.weights] == ["imagenet"]


def test_a_keras_file_and_a_network_nested_in_another_give_the_same_weights(small, saved, tmp_path):
    expected = load_backbone(SMALL, NARROW, saved).spec.digest
    small.save(tmp_path / "alone.keras")
    layers = [keras.Input((64, 64, 3)), keras.layers.Rescaling(1 / 127.5, -1), small]
    whole = keras.Sequential([*layers, keras.layers.Dense(3)])
    whole.save(tmp_path / "nested.keras")
    for name in ("alone.keras", "nested.keras"):
        assert load_backbone(SMALL, NARROW, tmp_path / name).spec.digest == expected


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*:DeprecationWarning")
def test_files_of_earlier_versions_of_keras_are_read_by_names(tmp_path):
    model = network("InceptionV3")  # whose layers are numbered
    model.save_weights(tmp_path / "x.weights.h5")
    model.save(tmp_path / "x.h5")
    specs = [
        load_backbone("keras:InceptionV3", {}, tmp_path / name).spec
        for name in ("x.weights.h5", "x.h5")
    ]
    assert specs[0].digest == specs[1].digest


def test_weights_of_another_network_are_refused(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"'Conv1' have the shapes \(3, 3, 3, 16\), expected"):
        load_backbone(SMALL, {}, saved)
    with pytest.raises(WeightsError, match=r"Rescaling|'conv1' is|'Conv1', expected"):
        load_backbone("keras:MobileNet", {}, saved)
    with h5py.File(tmp_path / "x.weights.h5", "w") as file, h5py.File(saved) as source:
        source.copy("layers", file)
        del file["layers/conv2d"]
        file["layers/conv2d_99/vars/0"] = np.zeros(3)
    with pytest.raises(WeightsError, match=r"missing 1 layers \(Conv1 .*unexpected 1 layers"):
        load_backbone(SMALL, NARROW, tmp_path / "x.weights.h5")


def test_another_name_of_a_layer_is_refused(saved, tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file, h5py.File(saved) as source:
        source.copy("layers", file)
        file["layers/conv2d/vars"].attrs["name"] = "stem"
    with pytest.raises(WeightsError, match="the layer 'stem', expected 'Conv1'"):
        load_backbone(SMALL, NARROW, tmp_path / "x.weights.h5")


def test_a_lambda_layer_is_refused_and_does_not_run(small, tmp_path):
    layers = [keras.Input((64, 64, 3)), keras.layers.Lambda(_touch), small]
    keras.Sequential(layers).save(tmp_path / "x.keras")
    _touched.clear()
    with pytest.raises(WeightsError, match="holds a Lambda layer, which is code"):
        load_backbone(SMALL, NARROW, tmp_path / "x.keras")
    assert _touched == []


_touched = []


def _touch(x):
    _touched.append(1)
    return x


@pytest.mark.parametrize("config", ["5", "[" * 100_000, "null"], ids=["number", "deep", "null"])
def test_a_description_that_is_no_network_is_an_error(config, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", config)
    with pytest.raises(WeightsError, match=r"x\.keras is no \.keras file"):
        load_backbone(SMALL, NARROW, tmp_path / "x.keras")


def test_files_that_are_none_are_errors(saved, tmp_path):
    for name, content in (("x.keras", b"no zip file"), ("x.weights.h5", saved.read_bytes()[:900])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=r"no \.keras file|can't be read as HDF5"):
            load_backbone(SMALL, NARROW, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "y.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({}))
    with pytest.raises(WeightsError, match=r"model\.weights\.h5"):
        load_backbone(SMALL, NARROW, tmp_path / "y.keras")
    with pytest.raises(WeightsNotFoundError, match="no such file"):
        load_backbone(SMALL, NARROW, tmp_path / "z.keras")


def test_links_in_a_file_are_refused(saved, tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file, h5py.File(saved) as source:
        source.copy("layers", file)
        del file["layers/conv2d"]
        file["layers/conv2d"] = h5py.ExternalLink(str(saved), "layers/conv2d")
    with pytest.raises(WeightsError, match="link to elsewhere"):
        load_backbone(SMALL, NARROW, tmp_path / "x.weights.h5")


def test_efficientnet_has_one_more_layer_with_the_published_weights(tmp_path, monkeypatch):
    name, path, published = "keras:EfficientNetB0", tmp_path / "x.weights.h5", tmp_path / "y.keras"
    network("EfficientNetB0").save_weights(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *a, **kw: str(path))
    model = applications.EfficientNetB0(
        weights="imagenet", include_top=False, pooling="avg", input_shape=(None, None, 3)
    )
    backbone, images = load_backbone(name), pixels(64)
    expected = rows_of_keras(model, images, lambda x: x)
    np.testing.assert_allclose(rows_of(backbone, images), expected, atol=1e-4, rtol=1e-5)
    model.save(published)
    again = load_backbone(name, {"imagenet_rescaling": True}, published)
    assert again.spec.digest == backbone.spec.digest
    with pytest.raises(WeightsError, match="has 1 Rescaling layers, and the file 2"):
        load_backbone(name, {}, published)
    with pytest.raises(ValueError, match="is for EfficientNetB0 to"):
        load_backbone("keras:VGG16", {"imagenet_rescaling": True}, None)


def test_published_weights_become_those_of_the_backbone(small, monkeypatch):
    def load(keras_name, weights, params):
        return small if weights == "imagenet" else load_own(keras_name, weights, params)

    load_own = _keras._keras_model
    monkeypatch.setattr(_keras, "_keras_model", load)
    backbone = load_backbone(SMALL, NARROW)
    assert backbone.spec.source == "keras.applications.MobileNetV2(weights='imagenet')"
    images = pixels(64)
    np.testing.assert_allclose(rows_of(backbone, images), rows_of_keras(small, images), atol=1e-5)


def test_weights_that_cannot_be_downloaded_are_named(monkeypatch):
    def fail(keras_name, weights, params):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(_keras, "_keras_model", fail)
    with pytest.raises(WeightsNotFoundError, match=r"fetch failure.*MobileNetV2\(weights='imag"):
        load_backbone(SMALL)


def test_downloaded_weights_work_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert list_backbones(source="keras", offline=True) == []
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / _keras._NETWORKS["ResNet50"].file).write_bytes(b"")
    assert list_backbones(source="keras", offline=True) == ["keras:ResNet50"]
    assert "keras:ResNet50" in list_backbones(offline=True)


@pytest.fixture(scope="module")
def saved_and_images(saved):
    images = pixels(64, n=12).permute(0, 2, 3, 1).numpy()
    images[::2] //= 2
    return str(saved), list(images), np.array(["dark", "light"] * 6)


@pytest.fixture(scope="module", params=["frozen", "train"])
def tuned(request, saved_and_images):
    path, images, y = saved_and_images
    short = {"max_epochs": 2, "device": "cpu", "feature_cache": None, "random_state": 0}
    classifier = FineTunedClassifier(
        SMALL,
        backbone_params=NARROW,
        weights=path,
        image_size=64,
        freeze_depth=3,
        batch_norm=request.param,
        augment=None,
        **short,
    )
    return classifier.fit(images, y), images


def test_fine_tuning_trains_what_follows_the_cut_and_nothing_before_it(tuned, saved):
    classifier, _ = tuned
    pristine = load_backbone(SMALL, NARROW, saved)
    before = pristine.frozen(3, None).state_dict()
    after = classifier._backbone.frozen(3, None).state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(before[name]) for name, value in after.items())
    parts = [list(network.stages.values())[3:] for network in (pristine, classifier._backbone)]
    for old, new in zip(*parts, strict=True):
        pairs = list(zip(old.named_parameters(), new.named_parameters(), strict=True))
        assert not any(a.equal(b) for (_, a), (_, b) in pairs)
        means = [
            [value for name, value in stage.named_buffers() if name.endswith("running_mean")]
            for stage in (old, new)
        ]
        are_same = [a.equal(b) for a, b in zip(*means, strict=True)]
        assert are_same == [classifier.batch_norm == "frozen"] * len(are_same)


def test_a_pickle_and_a_saved_backbone_give_the_same(tuned, tmp_path):
    classifier, images = tuned
    restored = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(restored.predict_proba(images), classifier.predict_proba(images))
    classifier.save_backbone(tmp_path / "tuned.safetensors")
    backbone = load_backbone(tmp_path / "tuned.safetensors")
    assert backbone.spec.architecture == SMALL
    size = pixels(64)
    np.testing.assert_array_equal(rows_of(backbone, size), rows_of(classifier._backbone, size))


def test_rows_of_the_transformer_are_those_of_the_network(saved_and_images, small, tmp_path):
    path, images, _ = saved_and_images
    transformer = PretrainedFeatureTransformer(
        *(SMALL,),
        backbone_params=NARROW,
        weights=path,
        image_size=64,
        precision="float32",
        feature_cache=tmp_path,
    )
    rows = transformer.fit_transform(images)
    expected = rows_of_keras(small, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    restored = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(restored.transform(images), rows)


def test_a_backend_that_is_absent_is_named():
    code = """
import os
from sktransfer.backbones.sources import _keras
os.environ["KERAS_BACKEND"] = "no_such_backend"
try:
    _keras.module()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "KERAS_BACKEND='no_such_backend'" in done.stdout


def test_keras_runs_on_torch_and_the_environment_stays_as_it_is():
    assert keras.backend.backend() == os.environ.get("KERAS_BACKEND", "torch")


def test_the_extra_is_named_where_keras_is_missing(monkeypatch):
    monkeypatch.setattr(_keras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"sktransfer\[keras\]"):
        load_backbone(SMALL)
    assert _keras.names_like("MobileNetV2") == []


def test_names_are_suggested():
    with pytest.raises(ValueError, match="keras:MobileNetV2"):
        load_backbone("MobileNetV2")
    with pytest.raises(ValueError, match=r"weights='tuned\.keras'"):
        load_backbone("tuned.keras")
    with pytest.raises(ValueError, match="dropout is unknown; allowed are image_size, alpha"):
        load_backbone(SMALL, {"dropout": 0.5}, None)
