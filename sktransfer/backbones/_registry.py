"""From what the user names to a backbone: architecture, weights, passport."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from .._locking import ForkSafeLock
from .._spec import BackboneSpec, InputSpec
from ..exceptions import WeightsError, WeightsNotFoundError
from ._architecture import Architecture
from ._backbone import Backbone
from ._weights import (
    digest_of,
    load_strictly,
    read_passport,
    read_state_dict,
    read_tensors,
    tensors_of,
)
from .sources import find_architecture, named_architecture

_WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")

# Networks in use, ready to be cut. Two, so that a union of two backbones or a
# grid over two names does not load them again and again; not more, because a
# network may be a gigabyte.
_N_KEPT = 2
_kept: OrderedDict[tuple, Backbone] = OrderedDict()
_lock = ForkSafeLock()


def load_backbone(
    backbone: str | os.PathLike,
    params: Mapping[str, Any] | None = None,
    weights: str | os.PathLike | None = "default",
) -> Backbone:
    """Return the backbone that three parameters of an estimator name.

    It is shared within the process and must not be changed: train a `fresh()` copy.

    Raises
    ------
    TypeError, ValueError
        When a parameter is not what it can be; the message names it.
    WeightsError
        When the weights don't fit, are damaged or can't be had.
    """
    backbone = _checked_path_or_name(backbone, "backbone")
    if weights is not None:
        weights = _checked_path_or_name(weights, "weights")
    params = _checked_params(params)
    key = (backbone, repr(sorted(params.items())), weights, _state(backbone), _state(weights))
    with _lock:
        if key not in _kept:
            _kept[key] = _load(backbone, params, weights)
            while len(_kept) > _N_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]


def reload_backbone(spec: BackboneSpec) -> Backbone:
    """Return the backbone of a fitted estimator; an error if its weights have changed."""
    _fitted_architecture(spec)
    try:
        backbone = load_backbone(spec.name, dict(spec.params), spec.weights)
    except WeightsNotFoundError as error:
        raise WeightsNotFoundError(
            f"this estimator was fitted with {_title(spec)} and saved without the weights, which "
            f"are not to be had here: {error}"
        ) from error
    if backbone.spec.digest != spec.digest:
        cause = "; this version of torch draws others" if spec.weights is None else ""
        raise WeightsError(
            f"the weights of {_title(spec)} are not those that this estimator was fitted "
            f"with{cause}; restore them, or fit again"
        )
    return backbone


def rebuild_backbone(spec: BackboneSpec, arrays: Mapping[str, np.ndarray]) -> Backbone:
    """Return a saved backbone from its passport and its weights; no other file is read.

    It is the caller's own and may be trained. `arrays` are what `arrays_of` returned for
    its model.
    """
    architecture = _fitted_architecture(spec)
    title = f"the network of this estimator, {_title(spec)}"
    model = _with_state(architecture, dict(spec.params), tensors_of(arrays), title)
    anatomy = architecture.anatomy(model)
    if tuple(anatomy.stages) != spec.stages:
        raise WeightsError(
            f"{title} was cut into the stages {', '.join(spec.stages)}, and this version has "
            f"{', '.join(anatomy.stages)}; load it with the versions that it was saved with, or "
            "fit again"
        )
    _drop_head(model, anatomy.head)
    return Backbone(spec, model, anatomy, architecture.size_param)


def _fitted_architecture(spec: BackboneSpec) -> Architecture:
    """Return the architecture of a fitted estimator, which another process may not know."""
    architecture = find_architecture(spec.architecture)
    if architecture is None:
        raise WeightsNotFoundError(
            f"this estimator was fitted with {_title(spec)}, and the architecture "
            f"{spec.architecture!r} is unknown here; where it is your own, call register_backbone "
            "as it was called there, before the estimator is loaded"
        )
    return architecture


def _title(spec: BackboneSpec) -> str:
    return f"backbone={spec.name!r}, weights={spec.weights!r}"


def _load(name: str, params: dict[str, Any], weights: str | None) -> Backbone:
    passport = _passport_of_backbone(name) if name.endswith(".safetensors") else None
    architecture = named_architecture(name, passport)
    if passport:
        params = {**passport["params"], **params}
    input_spec, title = None, f"weights={weights!r} of backbone={name!r}"
    if weights is None and architecture.source == "registered":
        raise ValueError(
            f"weights=None (random) is not offered for backbone={name!r}: whatever its registered "
            "builder returns is weights='default'"
        )
    if weights is None:
        model, source, licence = architecture.random(params), "random", ""
    elif weights.endswith(_WEIGHTS_ENDINGS):
        found = _passport_of_weights(weights, name, architecture)
        model = _with_state(architecture, params, read_state_dict(weights), title)
        source, licence = (found["source"], found["licence"]) if found else (weights, "")
        passport = found or passport
    elif passport:
        if weights != "default":
            raise ValueError(
                f"weights={weights!r} is unknown for backbone={name!r}; allowed are 'default' "
                "(those of the file), None (random) and the path of a state dict"
            )
        model = _with_state(architecture, params, read_tensors(name), title)
        source, licence = passport["source"], passport["licence"]
    else:
        offer = architecture.offer(weights)
        params = {**dict(offer.params), **params}
        model = architecture.pretrained(architecture, offer, params)
        input_spec, source, licence = offer.input, offer.location, offer.licence
    if passport:
        input_spec = InputSpec.from_mapping(passport["input"])

    anatomy = architecture.anatomy(model)
    digest = _digest(architecture.name, params, model, anatomy.head)
    _drop_head(model, anatomy.head)
    spec = BackboneSpec(
        name=name,
        architecture=architecture.name,
        params=tuple(sorted(params.items())),
        weights=weights,
        digest=digest,
        input=(input_spec or architecture.input()).at(anatomy.image_size),
        stages=tuple(anatomy.stages),
        source=source,
        licence=licence,
    )
    return Backbone(spec, model, anatomy, architecture.size_param)


def _passport_of_backbone(path: str) -> dict[str, Any]:
    passport = read_passport(path)
    if passport is None:
        raise WeightsError(
            f"backbone={path!r} has no passport (metadata 'sktransfer'), so what network it "
            "belongs to is unknown; name the architecture as backbone, the file as weights"
        )
    return passport


def _passport_of_weights(
    path: str, backbone: str, architecture: Architecture
) -> dict[str, Any] | None:
    """Return the passport of a file of weights, which must be of that architecture."""
    passport = read_passport(path) if path.endswith(".safetensors") else None
    if passport and passport["architecture"] != architecture.name:
        raise WeightsError(
            f"weights={path!r} are of the architecture {passport['architecture']!r}, and "
            f"backbone={backbone!r} is {architecture.name!r}"
        )
    return passport


def _with_state(
    architecture: Architecture, params: dict[str, Any], state: Mapping[str, Any], title: str
) -> nn.Module:
    model = architecture.empty(params) if architecture.builds_empty else architecture.random(params)
    head = architecture.anatomy(model).head
    load_strictly(model, state, head, title)
    return model


def _digest(name: str, params: dict[str, Any], model: nn.Module, head: tuple[str, ...]) -> str:
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(head)}
    return digest_of(f"{name}|{sorted(params.items())!r}", kept)


def _drop_head(model: nn.Module, head: tuple[str, ...]) -> None:
    for prefix in head:
        name = prefix.removesuffix(".")
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, nn.Identity())


def _checked_path_or_name(value: Any, parameter: str) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise TypeError(f"{parameter} must be a name or a path, got {value!r}")


def _checked_params(params: Any) -> dict[str, Any]:
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise TypeError(f"backbone_params must be a dict or None, got {params!r}")
    return dict(params)


def _state(path: str | None) -> tuple[int, int] | None:
    """Return size and mtime of a file, so that a changed one is loaded again."""
    if path is None or not path.endswith(_WEIGHTS_ENDINGS) or not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
