"""From what the user names to a backbone: architecture, weights, passport."""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
from torch import nn

from .._spec import BackboneSpec, InputSpec
from ..exceptions import WeightsError
from . import _torchvision
from ._backbone import Backbone
from ._file import read_passport, read_tensors
from ._torchvision import Architecture
from ._weights import digest_of, download, load_strictly, read_state_dict
from .embedded._mini import MiniNet

EMBEDDED = {"mini": files(__package__).joinpath("embedded", "mini.safetensors")}
ARCHITECTURES: dict[str, Architecture] = {
    **_torchvision.ARCHITECTURES,
    "mini": Architecture(
        MiniNet,
        {name: (name,) for name in ("stem", "stage1", "stage2", "stage3", "stage4")},
        ("fc.",),
    ),
}
_WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")

# Networks in use, ready to be cut. Two, so that a union of two backbones or a
# grid over two names does not load them again and again; not more, because a
# network may be a gigabyte.
_N_KEPT = 2
_kept: OrderedDict[tuple, Backbone] = OrderedDict()
_lock = threading.Lock()


def list_backbones():
    """List the names that ``backbone=`` takes, beside paths of backbone files.

    Returns
    -------
    names : list of str
        In alphabetical order. ``"mini"`` ships with the package; the others are
        torchvision's architectures, whose weights are downloaded at first use.

    Examples
    --------
    >>> from sktransfer import list_backbones
    >>> "resnet18" in list_backbones()
    True
    """
    return sorted(ARCHITECTURES)


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
    backbone = load_backbone(spec.name, dict(spec.params), spec.weights)
    if backbone.spec.digest != spec.digest:
        raise WeightsError(
            f"the weights of backbone={spec.name!r}, weights={spec.weights!r} are not those that "
            "this estimator was fitted with; restore them, or fit again"
        )
    return backbone


def _load(name: str, params: dict[str, Any], weights: str | None) -> Backbone:
    passport, own_file = None, None
    if name in EMBEDDED:
        own_file = os.fspath(EMBEDDED[name])
    elif name.endswith(".safetensors"):
        own_file = name
    elif name not in ARCHITECTURES:
        raise ValueError(
            f"backbone={name!r} is unknown; allowed are the path of a self-describing "
            f".safetensors file and {', '.join(list_backbones())}"
        )
    if own_file is not None:
        passport = read_passport(own_file)
        if passport is None:
            raise WeightsError(
                f"backbone={name!r} has no passport (metadata 'sktransfer'), so what network it "
                "belongs to is unknown; name the architecture as backbone, the file as weights"
            )
    architecture_name = passport["architecture"] if passport else name
    if architecture_name not in ARCHITECTURES:
        raise WeightsError(
            f"backbone={name!r} asks for the architecture {architecture_name!r}, which this "
            f"version does not have; it has {', '.join(list_backbones())}"
        )
    architecture = ARCHITECTURES[architecture_name]
    if passport:
        params = {**passport["params"], **params}

    if weights is None:
        model = _build(architecture, architecture_name, params, "cpu")
        input_spec, source, licence = _input_of(architecture_name, passport), "random", ""
    else:
        state, passport = _find(name, architecture_name, weights, own_file, passport)
        model = _build(architecture, architecture_name, params, "meta")
        load_strictly(model, state, architecture.head, f"weights={weights!r} of backbone={name!r}")
        input_spec = _input_of(architecture_name, passport, weights)
        source, licence = passport["source"], passport["licence"]

    table = architecture.stage_table(model)
    kept = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith(architecture.head)
    }
    _drop_head(model, architecture.head)
    spec = BackboneSpec(
        name=name,
        architecture=architecture_name,
        params=tuple(sorted(params.items())),
        weights=weights,
        digest=digest_of(f"{architecture_name}|{sorted(params.items())!r}", kept),
        input=input_spec,
        stages=tuple(table),
        source=source,
        licence=licence,
    )
    return Backbone(spec, model, table, architecture.n_prefix_tokens)


def _find(
    name: str, architecture: str, weights: str, own_file: str | None, passport: dict | None
) -> tuple[dict[str, torch.Tensor], dict]:
    """Return a state dict and where it is from."""
    if weights.endswith(_WEIGHTS_ENDINGS):
        found = read_passport(weights) if weights.endswith(".safetensors") else None
        if found and found["architecture"] != architecture:
            raise WeightsError(
                f"weights={weights!r} are of the architecture {found['architecture']!r}, and "
                f"backbone={name!r} is {architecture!r}"
            )
        return read_state_dict(weights), found or {"source": weights, "licence": ""}
    if own_file is not None:
        if weights != "default":
            raise ValueError(
                f"weights={weights!r} is unknown for backbone={name!r}; allowed are 'default' "
                "(those of the file), None (random) and the path of a state dict"
            )
        return read_tensors(own_file), passport
    entry = _torchvision_entry(architecture, weights)
    state = read_state_dict(download(entry.url, f"backbone={name!r}, weights={entry.name!r}"))
    licence = entry.meta.get("license", "BSD-3-Clause")
    return state, {"source": entry.url, "licence": licence}


def _torchvision_entry(architecture: str, weights: str | None) -> Any:
    table = _torchvision.weights_enum(architecture)
    if weights in (None, "default") or weights.endswith(_WEIGHTS_ENDINGS):
        return table.DEFAULT
    try:
        return table[weights]
    except KeyError:
        names = ", ".join(repr(name) for name in table.__members__)
        raise ValueError(
            f"weights={weights!r} is unknown for backbone={architecture!r}; allowed are 'default', "
            f"{names}, None (random) and the path of a state dict (.safetensors, .pth)"
        ) from None


def _input_of(architecture: str, passport: dict | None, weights: str | None = None) -> InputSpec:
    if passport and "input" in passport:
        return InputSpec.from_mapping(passport["input"])
    if architecture in EMBEDDED:
        return InputSpec.from_mapping(read_passport(os.fspath(EMBEDDED[architecture]))["input"])
    preset = _torchvision_entry(architecture, weights).transforms()
    return InputSpec(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _build(architecture: Architecture, name: str, params: dict[str, Any], device: str) -> nn.Module:
    try:
        # the same random weights every time, and the user's random state as it was
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(0)
            return architecture.build(**{**architecture.params, **params})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"backbone_params={params!r} is not what {name!r} takes: {error}"
        ) from error


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
