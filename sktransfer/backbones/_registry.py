"""From the parameters of the user to a backbone: architecture, weights, metadata."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from .._locking import ForkSafeLock
from .._spec import BackboneSpec, InputSpec
from ..exceptions import WeightsError, WeightsNotFoundError
from ._architecture import Architecture
from ._backbone import Backbone
from ._bytecode import UnreadableCodeError
from ._code import code_digest, first_difference
from ._forward_check import check_forward
from ._weights import (
    digest_of,
    load_strictly,
    read_metadata,
    read_state_dict,
    read_tensors,
    tensors_of,
)
from .sources import _registered, find_architecture, named_architecture

_REMEDY = "load it with the code and the versions that it was saved with, or fit again"
WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_ALL_ENDINGS = (*WEIGHTS_ENDINGS, ".keras", ".h5")

# Loaded networks. Two, so that a union of two backbones or a grid over two names does not
# load them repeatedly; not more, because a network may take a gigabyte.
_N_KEPT = 2
_PRE_LOGITS = "(pre-logits)"  # in the digest of the code, behind the stages
_kept: OrderedDict[tuple, Backbone] = OrderedDict()
_lock = ForkSafeLock()

# Where weights were at a fit, and where they were found since: each prediction would else try to
# download again what can't be downloaded.
_moved: set[tuple] = set()

# The parameters backbone, backbone_params and weights of an estimator.
Chosen = tuple[str | os.PathLike, Mapping[str, Any] | None, str | os.PathLike | None]


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
        When the type or value of a parameter is not allowed; the message names it.
    WeightsError
        When the weights don't fit, are damaged or can't be loaded.
    """
    backbone = checked_path_or_name(backbone, "backbone")
    if weights is not None:
        weights = checked_path_or_name(weights, "weights")
    params = checked_params(params)
    key = (
        backbone,
        repr(sorted(params.items())),
        weights,
        state_of_file(backbone),
        state_of_file(weights),
    )
    with _lock:
        if key not in _kept:
            _kept[key] = _load(backbone, params, weights)
            while len(_kept) > _N_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]


def reload_backbone(spec: BackboneSpec, moved_to: Chosen | None = None) -> Backbone:
    """Return the backbone of a fitted estimator.

    Parameters
    ----------
    spec : BackboneSpec
        What the estimator was fitted with.
    moved_to : tuple of (backbone, backbone_params, weights), default=None
        What these parameters of the estimator are now: where the weights are looked for that
        can't be loaded as they were at `fit`. They must be the same weights.

    Raises
    ------
    WeightsNotFoundError
        When there is no such backbone here, or its weights can't be loaded.
    WeightsError
        When its weights, its stages, what a stage computes, or the mean and deviation of
        its input have changed since; the message names which.
    """
    _fitted_architecture(spec)
    backbone = _found_again(spec, moved_to)
    title = _title(backbone.spec)
    _check_stages(title, spec, backbone.spec.stages)
    if backbone.spec.digest != spec.digest:
        cause = "; this version of torch draws others" if spec.weights is None else ""
        raise WeightsError(
            f"the weights of {title} are not those that this estimator was fitted "
            f"with{cause}; restore them, or fit again"
        )
    _check_code(title, spec, backbone.spec.code)
    ours, theirs = spec.input, backbone.spec.input
    if (ours.mean, ours.std) != (theirs.mean, theirs.std):
        raise WeightsError(
            f"{title} normalises images by mean={theirs.mean} and std={theirs.std}, and "
            f"this estimator was fitted with mean={ours.mean} and std={ours.std}; {_REMEDY}"
        )
    return backbone


def _found_again(spec: BackboneSpec, moved_to: Chosen | None) -> Backbone:
    """Return the backbone from where it was at `fit`, or else from where it is now."""
    name, params, weights = moved_to or (spec.name, dict(spec.params), spec.weights)
    now = (str(os.fspath(name)), None if weights is None else str(os.fspath(weights)))
    at_fit = (spec.name, spec.weights)
    if (at_fit, now) in _moved:
        return load_backbone(name, params, weights)
    try:
        return load_backbone(spec.name, dict(spec.params), spec.weights)
    except WeightsNotFoundError as error:
        cause = str(error)
    if now != at_fit and any(_is_path(place) for place in now):
        backbone = load_backbone(name, params, weights)
        _moved.add((at_fit, now))
        return backbone
    is_in_backbone = spec.name.endswith(".safetensors") and spec.weights == "default"
    where = "backbone" if is_in_backbone else "weights"
    raise WeightsNotFoundError(
        f"this estimator was fitted with {_title(spec)} and saved without the weights, which "
        f"can't be loaded here: {cause}. Where they are in a file elsewhere, name it: "
        f"set_params({where}='path of the file')"
    )


def rebuild_backbone(spec: BackboneSpec, arrays: Mapping[str, np.ndarray]) -> Backbone:
    """Return a saved backbone from its metadata and its weights; no other file is read.

    It is not shared and may be trained. `arrays` are what `arrays_of` returned for its
    model.
    """
    architecture = _fitted_architecture(spec)
    title = f"the network of this estimator, {_title(spec)}"
    model = _with_state(architecture, dict(spec.params), tensors_of(arrays), title)
    structure = architecture.structure(model)
    _check_stages(title, spec, tuple(structure.stages))
    _drop_head(model, structure.head)
    backbone = Backbone(spec, model, structure, architecture.size_param)
    _check_code(title, spec, _code(backbone))
    return backbone


def _check_stages(title: str, spec: BackboneSpec, stages: tuple[str, ...]) -> None:
    if stages != spec.stages:
        raise WeightsError(
            f"{title} was cut into the stages {', '.join(spec.stages)}, and here it is cut into "
            f"{', '.join(stages)}; {_REMEDY}"
        )


def _check_code(title: str, spec: BackboneSpec, code: str) -> None:
    # an estimator of an earlier version was saved without
    if getattr(spec, "code", "") not in ("", code):
        is_registered = spec.architecture in _registered.registered
        parts = spec.stages if is_registered else (*spec.stages, _PRE_LOGITS)
        raise WeightsError(
            f"{title} computes other than it did when this estimator was fitted: "
            f"{first_difference(spec.code, code, parts)} has changed; {_REMEDY}"
        )


def _code(backbone: Backbone) -> str:
    """Return the digest of the code of a backbone that is not shared with threads yet."""
    registration = _registered.registered.get(backbone.spec.architecture)
    stages: dict[str, nn.Module] = dict(backbone.stages)
    if backbone.pre_logits is not None:
        stages[_PRE_LOGITS] = backbone.pre_logits
    try:
        return code_digest(
            backbone.model,
            stages,
            backbone.spec.input.size,
            other_sizes=backbone.structure.image_size is None,
            version=registration.version if registration else None,
        )
    except UnreadableCodeError as error:
        raise ValueError(
            f"what backbone={backbone.spec.name!r} computes can't be read, and a stored row could "
            f"not be told from one of other code: {error}. Give register_backbone(version=...), "
            "and another version whenever the network changes"
        ) from error


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
    metadata = _metadata_of_backbone(name) if name.endswith(".safetensors") else None
    architecture = named_architecture(name, metadata)
    if metadata:
        params = {**metadata["params"], **params}
    input_spec, title = None, f"weights={weights!r} of backbone={name!r}"
    if weights is None and architecture.source == "registered":
        raise ValueError(
            f"weights=None (random) is not offered for backbone={name!r}: whatever its registered "
            "builder returns is weights='default'"
        )
    if weights is None:
        model, source, licence = architecture.random(params), "random", ""
    elif architecture.own_file is not None and weights.endswith(architecture.own_endings):
        model = architecture.random(params)
        state = architecture.own_file(weights, model, title)
        load_strictly(model, state, architecture.structure(model).head, title)
        source, licence = weights, ""
    elif weights.endswith(WEIGHTS_ENDINGS):
        found = _metadata_of_weights(weights, name, architecture)
        model = _with_state(architecture, params, read_state_dict(weights), title)
        source, licence = (found["source"], found["licence"]) if found else (weights, "")
        metadata = found or metadata
    elif metadata:
        if weights != "default":
            raise ValueError(
                f"weights={weights!r} is unknown for backbone={name!r}; allowed are 'default' "
                "(those of the file), None (random) and the path of a state dict"
            )
        model = _with_state(architecture, params, read_tensors(name), title)
        source, licence = metadata["source"], metadata["licence"]
    else:
        offer = architecture.offer(weights)
        params = {**dict(offer.params), **params}
        model = architecture.pretrained(architecture, offer, params)
        input_spec, source, licence = offer.input, offer.location, offer.licence

    structure = architecture.structure(model)
    if metadata:
        input_spec = InputSpec.from_mapping(metadata["input"])
    else:
        input_spec = (input_spec or architecture.input()).at(structure.default_size)
    input_spec = input_spec.at(structure.image_size)
    if architecture.source == "registered":
        check_forward(name, model.eval(), structure.stages, input_spec.size)
    digest = _digest(architecture.name, params, model, structure.head)
    _drop_head(model, structure.head)
    spec = BackboneSpec(
        name=name,
        architecture=architecture.name,
        params=tuple(sorted(params.items())),
        weights=weights,
        digest=digest,
        input=input_spec,
        stages=tuple(structure.stages),
        source=source,
        licence=licence,
    )
    backbone = Backbone(spec, model, structure, architecture.size_param)
    backbone.spec = replace(spec, code=_code(backbone))
    return backbone


def _metadata_of_backbone(path: str) -> dict[str, Any]:
    metadata = read_metadata(path)
    if metadata is None:
        raise WeightsError(
            f"backbone={path!r} has no metadata key 'sktransfer', so what network it "
            "belongs to is unknown; name the architecture as backbone, the file as weights"
        )
    return metadata


def _metadata_of_weights(
    path: str, backbone: str, architecture: Architecture
) -> dict[str, Any] | None:
    """Return the metadata of a file of weights, which must be of that architecture."""
    metadata = read_metadata(path) if path.endswith(".safetensors") else None
    if metadata and metadata["architecture"] != architecture.name:
        raise WeightsError(
            f"weights={path!r} are of the architecture {metadata['architecture']!r}, and "
            f"backbone={backbone!r} is {architecture.name!r}"
        )
    return metadata


def _with_state(
    architecture: Architecture, params: dict[str, Any], state: Mapping[str, Any], title: str
) -> nn.Module:
    model = architecture.empty(params) if architecture.builds_empty else architecture.random(params)
    structure = architecture.structure(model)
    own = architecture.own_state(state)
    load_strictly(model, own, structure.head, title, structure.pre_logits_names(model))
    return model


def _digest(name: str, params: dict[str, Any], model: nn.Module, head: tuple[str, ...]) -> str:
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(head)}
    return digest_of(f"{name}|{sorted(params.items())!r}", kept)


def _drop_head(model: nn.Module, head: tuple[str, ...]) -> None:
    """Replace what has parameters in the head.

    Its other modules, such as the pooling, may be what a row passes before the head.
    """
    prefixes = tuple(prefix for prefix in head if prefix.endswith("."))
    dropped: list[str] = []
    for name, module in list(model.named_modules()):
        is_in_head = f"{name}.".startswith(prefixes)
        is_dropped = name.startswith(tuple(f"{parent}." for parent in dropped))
        if is_in_head and not is_dropped and (module._parameters or module._buffers):
            model.set_submodule(name, nn.Identity())
            dropped.append(name)


def checked_path_or_name(value: Any, parameter: str) -> str:
    """Return a name or a path as a str, or an error that names the parameter."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise TypeError(f"{parameter} must be a name or a path, got {value!r}")


def checked_params(params: Any) -> dict[str, Any]:
    """Return ``backbone_params`` as a dict, or an error."""
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise TypeError(f"backbone_params must be a dict or None, got {params!r}")
    return dict(params)


def _is_path(name: str | None) -> bool:
    return name is not None and (name.endswith(_ALL_ENDINGS) or ":local-dir:" in name)


def state_of_file(path: str | None) -> tuple[Any, ...] | None:
    """Return size and mtime of a file, so that a changed one is loaded again.

    Of a source's folder, such as ``timm:local-dir:PATH``, those of all files in it.
    """
    if path is None:
        return None
    _, is_folder, folder = path.partition(":local-dir:")
    if is_folder and os.path.isdir(folder):
        with os.scandir(folder) as files:
            return tuple(sorted((file.name, *_size_and_mtime(file.path)) for file in files))
    if not path.endswith(_ALL_ENDINGS) or not os.path.isfile(path):
        return None
    return _size_and_mtime(path)


def _size_and_mtime(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
