"""The networks of `keras.applications` as ``"keras:NAME"``, an extra: ``sktransfer[keras]``.

Keras describes a network and loads its published weights. What runs are layers of torch,
translated one by one, so that nothing of Keras is called once a backbone is loaded, and its
backend does not matter.
"""

import importlib.util
import os
import random
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..._locking import own_random_state
from ..._spec import InputSpec, WeightsOffer
from ...exceptions import WeightsNotFoundError
from .._architecture import Architecture, NetworkStructure
from .._weights import load_strictly
from ._keras_files import ENDINGS, read_keras_file
from ._keras_graph import KerasLayer, layers_by_key, read_layers, with_layer
from ._keras_network import KerasNetwork, state_from, structure_of

PREFIX = "keras:"
_SIZE, _RESCALING = "image_size", "imagenet_rescaling"
_OF_KERAS = ("alpha", "depth_multiplier", "minimalistic")
_LICENCE = "not stated (Keras itself: Apache-2.0)"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WHOLE = (0.0, 0.0, 0.0), (1 / 255,) * 3  # values from 0 to 255
# Of Keras' preprocess_input, for values in [0, 1]. "caffe" is in the order blue, green, red.
_MODES = {
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
    "own": _WHOLE,
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "torch": _IMAGENET,
}


_PORTED = "{}_weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclass(frozen=True)
class _Network:
    """How images are preprocessed, their size, and the file to which Keras downloads weights."""

    mode: str
    file: str
    size: int = 224


_NETWORKS = {
    **{
        f"ConvNeXt{size}": _Network("own", f"convnext_{size.lower()}_notop.h5")
        for size in ("Tiny", "Small", "Base", "Large", "XLarge")
    },
    **{f"DenseNet{n}": _Network("torch", _PORTED.format(f"densenet{n}")) for n in (121, 169, 201)},
    **{
        f"EfficientNetB{i}": _Network("own", f"efficientnetb{i}_notop.h5", size)
        for i, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    **{
        f"EfficientNetV2{name}": _Network("own", f"efficientnetv2-{name.lower()}_notop.h5", size)
        for name, size in (
            *(("B0", 224), ("B1", 240), ("B2", 260), ("B3", 300)),
            *(("S", 384), ("M", 480), ("L", 480)),
        )
    },
    "InceptionResNetV2": _Network("tf", _PORTED.format("inception_resnet_v2"), 299),
    "InceptionV3": _Network("tf", _PORTED.format("inception_v3"), 299),
    "MobileNet": _Network("tf", "mobilenet_1_0_224_tf_no_top.h5"),
    "MobileNetV2": _Network(
        "tf", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    ),
    **{
        f"MobileNetV3{size}": _Network(
            "own", f"weights_mobilenet_v3_{size.lower()}_224_1.0_float_no_top_v2.h5"
        )
        for size in ("Large", "Small")
    },
    **{f"ResNet{n}": _Network("caffe", _PORTED.format(f"resnet{n}")) for n in (50, 101, 152)},
    **{f"ResNet{n}V2": _Network("tf", _PORTED.format(f"resnet{n}v2")) for n in (50, 101, 152)},
    **{f"VGG{n}": _Network("caffe", _PORTED.format(f"vgg{n}")) for n in (16, 19)},
    "Xception": _Network("tf", _PORTED.format("xception"), 299),
}


def names() -> tuple[str, ...]:
    """Return the names of the networks that can be translated."""
    _require()
    return tuple(PREFIX + name for name in _NETWORKS)


def downloaded_names() -> list[str]:
    """Return the names of networks whose weights Keras has downloaded."""
    if not _is_installed():
        return []
    return [PREFIX + name for name in _NETWORKS if _is_downloaded(name)]


def names_like(name: str) -> list[str]:
    """Return the name with the prefix where Keras, if it is installed, has such a network."""
    wanted = name.removeprefix(PREFIX).lower()
    if ":" in wanted or not _is_installed():
        return []
    return [PREFIX + own for own in _NETWORKS if own == name or own.lower() == wanted != name]


def architecture(name: str) -> Architecture | None:
    """Return the architecture of that name, None where there is none."""
    keras_name = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX):
        return None
    _require()
    if keras_name not in _NETWORKS:
        return None
    return Architecture(
        name=name,
        source="keras",
        build=partial(_build, keras_name),
        structure=partial(_structure, keras_name),
        input=lambda: _input(keras_name),
        offers=lambda: _offers(keras_name),
        pretrained=_pretrained,
        size_param=_SIZE,
        builds_empty=False,
        own_endings=ENDINGS,
        own_file=_own_file,
        is_downloaded=lambda offer: _is_downloaded(keras_name),
    )


def module() -> ModuleType:
    """Return Keras, on torch where neither KERAS_BACKEND nor the program has chosen."""
    _require()
    chosen = "keras" in sys.modules or os.environ.get("KERAS_BACKEND")
    if not chosen:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except (ImportError, ValueError) as error:
        raise ImportError(
            f"Keras can't be imported with KERAS_BACKEND={chosen!r} ({error}). Backbones "
            "'keras:...' work with every backend; that of torch is here: KERAS_BACKEND=torch"
        ) from error
    finally:
        if not chosen:
            del os.environ["KERAS_BACKEND"]
    if keras.__version__.startswith(("0.", "1.", "2.")):
        raise ImportError(
            f"backbones 'keras:...' need Keras 3, and this is {keras.__version__}: "
            "pip install sktransfer[keras]"
        )
    return keras


def _is_installed() -> bool:
    return importlib.util.find_spec("keras") is not None


def _require() -> None:
    if not _is_installed():
        raise ImportError(
            "backbones 'keras:...' need Keras 3, an extra: pip install sktransfer[keras]"
        )


def _input(keras_name: str) -> InputSpec:
    """Return the preprocessing: Keras' own loaders squash an image to the size."""
    network = _NETWORKS[keras_name]
    mean, std = _MODES[network.mode]
    return InputSpec(network.size, network.size, mean, std, crop="squash")


def _offers(keras_name: str) -> dict[str, WeightsOffer]:
    return {
        "imagenet": WeightsOffer(
            name="imagenet",
            location=f"keras.applications.{keras_name}(weights='imagenet')",
            input=_input(keras_name),
            licence=_LICENCE,
            params=((_RESCALING, True),) if _is_rescaled(keras_name) else (),
        )
    }


def _is_rescaled(keras_name: str) -> bool:
    """Tell the networks that Keras builds with one more layer for its ImageNet weights."""
    return re.fullmatch(r"EfficientNetB\d", keras_name) is not None


def _structure(keras_name: str, model: Any) -> NetworkStructure:
    only_size = model.image_size
    return structure_of(model.eval(), only_size or _NETWORKS[keras_name].size, only_size)


def _build(keras_name: str, **params: Any) -> nn.Module:
    is_rescaled = bool(params.pop(_RESCALING, False))
    if is_rescaled and not _is_rescaled(keras_name):
        raise ValueError(f"{_RESCALING} is for EfficientNetB0 to EfficientNetB7")
    unknown = sorted(params.keys() - {_SIZE, *_OF_KERAS})
    if unknown:
        allowed = ", ".join((_SIZE, *_OF_KERAS, _RESCALING))
        raise ValueError(f"{', '.join(unknown)} is unknown; allowed are {allowed}")
    layers = read_layers(_keras_model(keras_name, None, params))
    if is_rescaled:
        layers = _with_rescaling(layers)
    with own_random_state(0):
        is_bgr = _NETWORKS[keras_name].mode == "caffe"
        network = KerasNetwork(layers, is_bgr, params.get(_SIZE))
        network.draw()
    return network


def _with_rescaling(layers: Sequence[KerasLayer]) -> list[KerasLayer]:
    config = {"scale": [1 / deviation**0.5 for deviation in _IMAGENET[1]], "offset": 0.0}
    key = "layers/rescaling_1"
    new = KerasLayer("rescaling_1", "Rescaling", config, ("normalization",), 4, key, ())
    return with_layer(layers, "normalization", new)


def _keras_model(keras_name: str, weights: str | None, params: dict[str, Any]) -> Any:
    keras = module()
    make = getattr(keras.applications, keras_name, None)
    if make is None:
        raise ValueError(f"Keras {keras.__version__} has no keras.applications.{keras_name}")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "backbones 'keras:...' need Keras' default image_data_format, channels_last, and "
            f"{keras.config.image_data_format()!r} is set"
        )
    own = {key: value for key, value in params.items() if key in _OF_KERAS}
    size = params.get(_SIZE)
    with _own_python_random_state(), own_random_state(0), warnings.catch_warnings():
        # Keras warns that weights of 224 pixels are loaded for a network of every size
        warnings.filterwarnings("ignore", message="`input_shape` is undefined")
        return make(
            weights=weights,
            include_top=False,
            pooling="avg",
            input_shape=(size, size, 3),
            **own,
        )


@contextmanager
def _own_python_random_state() -> Iterator[None]:
    """Leave Python's random state as it was: Keras draws seeds from it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _pretrained(
    architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]
) -> nn.Module:
    keras_name = architecture.name.removeprefix(PREFIX)
    title = f"backbone={architecture.name!r}, weights={offer.name!r}"
    try:
        model = _keras_model(keras_name, offer.name, params)
    except ValueError as error:
        raise ValueError(f"the weights of {title} can't be had: {error}") from error
    except Exception as error:  # what Keras' get_file raises for a failed download
        raise WeightsNotFoundError(
            f"the weights of {title} can't be downloaded ({error}). Without network, load them "
            f"once where there is one, by {offer.location}, and copy Keras' folder of models "
            "(~/.keras/models) or save them with save_weights and give the path as weights; or "
            "use a backbone that works offline: backbone='mini', which ships with sktransfer "
            "and is for trying and testing"
        ) from None
    network = architecture.random(params)
    assert isinstance(network, KerasNetwork)
    keras_layers, convert = layers_by_key(model), module().ops.convert_to_numpy
    arrays = {
        (layer.name, index): torch.tensor(convert(weight), dtype=torch.float32)
        for layer in network.layers
        if layer.shapes
        for index, weight in enumerate(keras_layers[layer.key].weights)
    }
    load_strictly(network, state_from(network, arrays), (), title)
    return network


def _own_file(path: str, network: nn.Module, title: str) -> dict[str, torch.Tensor]:
    assert isinstance(network, KerasNetwork)
    return state_from(network, read_keras_file(path, network.layers, title))


def _is_downloaded(keras_name: str) -> bool:
    """Tell whether Keras' folder of models has the default weights, without importing Keras."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.isfile(os.path.join(home, "models", _NETWORKS[keras_name].file))
