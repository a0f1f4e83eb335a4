"""Weights that Keras saved, read without Keras: ``.weights.h5``, ``.keras`` and ``.h5``.

A ``.keras`` file describes a network, which Keras would build, and that may run code. Here the
network is built from its name, and of the file nothing but arrays is read.
"""

import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...exceptions import WeightsError, WeightsNotFoundError
from ._keras_graph import KerasLayer

ENDINGS = (".keras", ".h5")
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"  # in a .keras file
_HEAD = re.compile(r"dense(_\d+)?|seed_generator.*|optimizer|metrics?")
_NUMBERED = re.compile(
    r"(conv2d|batch_normalization|separable_conv2d|depthwise_conv2d|dense|normalization|"
    r"layer_normalization|layer_scale)(_\d+)?"
)
Arrays = dict[tuple[str, int], torch.Tensor]  # by layer and index


def read_keras_file(path: str, layers: Sequence[KerasLayer], title: str) -> Arrays:
    """Return the weights of layers from a file that Keras saved; `title` is for messages.

    A head of dense layers in the file is left out, and so is what a network is nested in.

    Raises
    ------
    WeightsError
        When the file can't be read, runs code, or has other layers or other shapes.
    """
    h5py = _h5py()
    if not os.path.isfile(path):
        raise WeightsNotFoundError(f"no such file of weights: {path}")
    source = _h5_of_archive(path) if path.endswith(".keras") else path
    try:
        with h5py.File(source, "r") as file:
            group = _member(h5py, file, "model_weights") or file
            if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                return _by_names(h5py, group, layers, title)
            return _by_classes(h5py, file, layers, title)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} can't be read as HDF5 ({reason}); is it truncated?") from None


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "weights that Keras saved need h5py, of an extra: pip install sktransfer[keras]"
        ) from error
    return h5py


def _h5_of_archive(path: str) -> io.BytesIO:
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_code(path, json.loads(archive.read(_CONFIG)))
            return io.BytesIO(archive.read(_WEIGHTS))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is no .keras file, a zip file with {_CONFIG} and {_WEIGHTS}: {error}"
        ) from None


def _refuse_code(path: str, config: Any) -> None:
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            _refuse_code(path, value)
    if isinstance(config, dict) and (
        config.get("class_name") in ("Lambda", "__lambda__")
        or (config.get("registered_name") or "").endswith(">Lambda")
    ):
        raise WeightsError(
            f"{path} is refused: it holds a Lambda layer, which is code. Save the network of "
            "keras.applications in it alone: model.get_layer(name).save_weights('x.weights.h5')"
        )


def _by_classes(h5py: ModuleType, file: Any, layers: Sequence[KerasLayer], title: str) -> Arrays:
    """Read the format of Keras 3: layers are numbered by class."""
    root, place = _root(h5py, file, layers, title)
    known = {layer.key: layer for layer in layers}
    present = dict(_groups(h5py, root, "layers"))
    _check_rescalings(layers, [key.rpartition("/")[2] for key in present], title)
    extra = [
        key
        for key, group in present.items()
        if key not in known and not _HEAD.fullmatch(key.rpartition("/")[2]) and _arrays(h5py, group)
    ]
    arrays: Arrays = {}
    missing = []
    for layer in layers:
        if not layer.shapes:
            continue
        if layer.key not in present:
            missing.append(f"{layer.name} ({place}{layer.key})")
            continue
        group = present[layer.key]
        name = str(group.attrs.get("name", layer.name))
        if not _is_numbered(layer.name) and _plain(name) != layer.name:
            raise WeightsError(
                f"{title} does not fit: {place}{layer.key} is the layer {name!r}, expected "
                f"{layer.name!r}. Is backbone the network that the weights were made with?"
            )
        _take(arrays, layer, _arrays(h5py, group), title)
    _check_names(missing, extra, title)
    return arrays


def _root(h5py: ModuleType, file: Any, layers: Sequence[KerasLayer], title: str) -> tuple[Any, str]:
    """Return the group of the network: the whole file, or a network nested in another."""
    wanted = {layer.key for layer in layers if layer.shapes}
    places = [("", file)]
    outer = _member(h5py, file, "layers")
    for name in outer if outer is not None else ():
        inner = _member(h5py, outer, name)
        if inner is not None and _member(h5py, inner, "layers") is not None:
            places.append((f"layers/{name}/", inner))
    counts = [len(wanted & dict(_groups(h5py, group, "layers")).keys()) for _, group in places]
    best = max(range(len(places)), key=counts.__getitem__)
    if counts[best] == 0:
        raise WeightsError(
            f"{title} does not fit: the file has none of the {len(wanted)} groups of layers, "
            f"such as {min(wanted)!r}"
        )
    return places[best][1], places[best][0]


def _groups(h5py: ModuleType, root: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the variables of each layer below a group, by the layer's path."""
    group = _member(h5py, root, name)
    for child in group if group is not None else ():
        inner = _member(h5py, group, child)
        if inner is None:
            continue
        variables = _member(h5py, inner, "vars")
        if variables is not None:
            yield f"{name}/{child}", variables
        if _member(h5py, inner, "layers") is not None:
            yield from _groups(h5py, root, f"{name}/{child}/layers")


def _by_names(h5py: ModuleType, group: Any, layers: Sequence[KerasLayer], title: str) -> Arrays:
    """Read the format of Keras 1 and 2, whose layers have names."""
    if any(layer.kind == "Normalization" and layer.shapes for layer in layers):
        raise WeightsError(
            f"{title}: an .h5 file of EfficientNet does not say whether the network divides by "
            "ImageNet's deviation. Load it in Keras, and save it there as .weights.h5"
        )
    numbers: Counter[str] = Counter()
    present: dict[str, list[Any]] = {}
    for name in _listed(group, "layer_names"):
        inner = _member(h5py, group, name)
        names = [] if inner is None else _listed(inner, "weight_names")
        own = _plain(name)
        if _is_numbered(own):
            kind = re.sub(r"_\d+$", "", own)
            own = f"{kind}_{numbers[kind]}" if numbers[kind] else kind
            numbers[kind] += 1
        if names:
            found = [_member(h5py, inner, weight) for weight in names]
            present[own] = [value for value in found if value is not None]
    arrays: Arrays = {}
    for layer in layers:
        if layer.shapes and layer.name in present:
            _take(arrays, layer, present[layer.name], title)
    wanted = [layer.name for layer in layers if layer.shapes]
    extra = [name for name in present if name not in wanted and not _is_head(name)]
    _check_names([name for name in wanted if name not in present], extra, title)
    return arrays


def _is_head(name: str) -> bool:
    return bool(_HEAD.fullmatch(name)) or name in ("predictions", "fc1", "fc2", "fc1000")


def _listed(group: Any, name: str) -> list[str]:
    """Return a list of names, which may be in several attributes because one holds 64 KB."""
    if name in group.attrs:
        values = list(group.attrs[name])
    else:
        values, n = [], 0
        while f"{name}{n}" in group.attrs:
            values += list(group.attrs[f"{name}{n}"])
            n += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _member(h5py: ModuleType, group: Any, path: str) -> Any | None:
    """Return what a group holds under a path; links to elsewhere are refused."""
    for name in path.split("/"):
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"the file of weights is refused: {path!r} is a link to elsewhere")
        group = group[name]
    return group


def _arrays(h5py: ModuleType, group: Any) -> list[Any]:
    """Return the datasets of the group of a layer, in the order of their numbers."""
    names = sorted((name for name in group if name.isdigit()), key=int)
    return [_member(h5py, group, name) for name in names]


def _take(arrays: Arrays, layer: KerasLayer, found: Sequence[Any], title: str) -> None:
    shapes = tuple(tuple(value.shape) for value in found)
    if shapes != layer.shapes:
        raise WeightsError(
            f"{title} does not fit: the weights of the layer {layer.name!r} have the shapes "
            f"{_text(shapes)}, expected {_text(layer.shapes)}. Are backbone and backbone_params "
            "those that the weights were made with?"
        )
    for index, value in enumerate(found):
        if value.external or value.is_virtual:
            raise WeightsError(f"the file of weights is refused: {layer.name!r} lies elsewhere")
        if value.dtype.kind == "f":  # others are counters
            array = np.asarray(value, dtype=np.float32)
            arrays[layer.name, index] = torch.from_numpy(array)
        elif value.dtype.kind not in "iu":
            raise WeightsError(
                f"{title}: the weights of {layer.name!r} are {value.dtype}, expected float32"
            )


def _check_names(missing: Sequence[str], extra: Sequence[str], title: str) -> None:
    if missing or extra:
        parts = [
            f"{word} {len(names)} layers ({', '.join(names[:6])}{', ...' if names[6:] else ''})"
            for word, names in (("missing", missing), ("unexpected", extra))
            if names
        ]
        raise WeightsError(
            f"{title} does not fit: {'; '.join(parts)}. Are backbone and backbone_params those "
            "that the weights were made with? A network with include_top=True may have a head of "
            "convolutions: save it without"
        )


def _check_rescalings(layers: Sequence[KerasLayer], present: Sequence[str], title: str) -> None:
    n_ours = sum(layer.kind == "Rescaling" for layer in layers)
    n_theirs = sum(name.startswith("rescaling") for name in present)
    if n_ours != n_theirs:
        raise WeightsError(
            f"{title} does not fit: the network has {n_ours} Rescaling layers, and the file "
            f"{n_theirs}. EfficientNetB0 to B7 that were built with weights='imagenet' have one "
            "more: give backbone_params={'imagenet_rescaling': True}, or False for others"
        )


def _is_numbered(name: str) -> bool:
    """Tell a layer that Keras numbered from one that its network names."""
    return bool(_NUMBERED.fullmatch(name))


def _plain(name: str) -> str:
    return re.sub(r"[./]", "_", name)


def _text(shapes: Sequence[Mapping | Sequence[int]]) -> str:
    return ", ".join(str(shape) for shape in shapes) or "none"
