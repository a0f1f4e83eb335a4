"""timm's image models as ``"timm:NAME"``, an extra: ``pip install sktransfer[timm]``.

Names are timm's own, with or without a tag (``"timm:vit_small_patch14_dinov2"``,
``"timm:resnet50.a1_in1k"``), or a source that timm's loader knows
(``"timm:hf-hub:timm/resnet18.a1_in1k"``, ``"timm:local-dir:path"``). Weights are
loaded and adapted by timm; stages are found by tracing `forward_features`.
"""

import importlib.util
import math
import os
from functools import partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from ..._spec import InputSpec, WeightsOffer
from ...exceptions import WeightsError, WeightsNotFoundError
from .._architecture import Architecture, NetworkStructure
from .._stages import Layout, StageTable, outside
from .._trace import trace_stages
from .._trace_head import trace_pre_logits
from ._hugging_face import cached_file, connection_error

PREFIX = "timm:"
_FOLDER = "models--timm--"  # how the Hugging Face cache names those of timm's own pages
_FILES = ("model.safetensors", "pytorch_model.bin")
_POOLINGS = {"token": "cls", "max": "max"}  # timm's names; all others average


def names() -> tuple[str, ...]:
    """Return the names of timm's architectures, without tags."""
    return tuple(PREFIX + name for name in _timm().list_models())


def downloaded_names() -> list[str]:
    """Return the names, with tags, of timm's own weights in the Hugging Face cache.

    timm is imported only where there are some. Weights that it loads from other pages than its
    own are not found.
    """
    if importlib.util.find_spec("timm") is None:
        return []
    from huggingface_hub import constants

    if not os.path.isdir(constants.HF_HUB_CACHE):
        return []
    folders = [f for f in os.listdir(constants.HF_HUB_CACHE) if f.startswith(_FOLDER)]
    found = [folder.removeprefix(_FOLDER) for folder in folders]
    return sorted(PREFIX + name for name in found if _known(name))


def names_like(name: str) -> list[str]:
    """Return the name with timm's prefix where timm, if it is installed, has it."""
    if ":" in name or importlib.util.find_spec("timm") is None:
        return []
    return [PREFIX + name] if _known(name) else []


def architecture(name: str) -> Architecture | None:
    """Return timm's architecture of that name, None where it has none."""
    if not name.startswith(PREFIX):
        return None
    timm_name = name.removeprefix(PREFIX)
    if not _known(timm_name):
        return None
    return Architecture(
        name=name,
        source="timm",
        build=partial(_build, timm_name),
        structure=_structure,
        input=lambda: _input(_config(timm_name)),
        offers=lambda: _offers(timm_name),
        pretrained=_pretrained,
        size_param="img_size",
        # some of its layers compute what they hold, and no file of weights has it
        builds_empty=False,
        is_downloaded=_is_downloaded,
    )


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "backbones 'timm:...' need timm, an extra: pip install sktransfer[timm]"
        ) from error
    return timm


def _hosted(timm_name: str) -> bool:
    """Tell a source like hf-hub:user/model from a name of timm's own."""
    return ":" in timm_name


def _known(timm_name: str) -> bool:
    timm = _timm()
    if _hosted(timm_name):
        return True
    name, _, tag = timm_name.partition(".")
    return timm.is_model(name) and (not tag or timm_name in _configs(timm_name))


def _configs(timm_name: str) -> dict[str, Any]:
    """Return timm's configurations of weights by "name.tag", its default first."""
    from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg

    configs = get_arch_pretrained_cfgs(timm_name)
    name, _, tag = timm_name.partition(".")
    if not tag:
        default = get_pretrained_cfg(name)
        tag = (default.tag or "") if default is not None else ""
    first = f"{name}.{tag}" if tag else name
    return {key: configs[key] for key in sorted(configs, key=lambda key: key != first)}


def _config(timm_name: str) -> dict[str, Any]:
    """Return the configuration of the default weights."""
    if _hosted(timm_name):
        return _build(timm_name).pretrained_cfg
    configs = list(_configs(timm_name).values())
    return configs[0].to_dict() if configs else {}


def _input(config: dict[str, Any]) -> InputSpec:
    """Return the preprocessing as timm's own data config has it."""
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=config, args={} if config else {"img_size": 224})
    size = data["input_size"][-1]
    return InputSpec(
        size=size,
        # timm's center_crop resizes to this, rounded down
        resize=math.floor(size / data["crop_pct"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop="squash" if data["crop_mode"] == "squash" else "center",
    )


def _offers(timm_name: str) -> dict[str, WeightsOffer]:
    if _hosted(timm_name):
        offer = WeightsOffer("default", timm_name, _input(_config(timm_name)), "see its page")
        return {"default": offer}
    offers = {}
    for full_name, config in _configs(timm_name).items():
        if config.has_weights:
            tag = full_name.partition(".")[2] or "default"
            location = f"hf-hub:{config.hf_hub_id}" if config.hf_hub_id else config.url
            offers[tag] = WeightsOffer(
                name=tag,
                location=str(location),
                input=_input(config.to_dict()),
                licence=config.license or "not stated by timm",
                params=(("img_size", config.input_size[-1]),) if config.fixed_input_size else (),
            )
    return offers


def _is_downloaded(offer: WeightsOffer) -> bool:
    """Tell whether the Hugging Face cache holds the weights, in either of their formats."""
    _, _, repository = offer.location.partition("hf-hub:")
    return bool(repository) and cached_file(repository, _FILES) is not None


def _build(timm_name: str, **params: Any) -> Any:
    size = params.get("img_size")
    if size is not None:  # networks of one image size read it here
        params["pretrained_cfg_overlay"] = {"input_size": (3, size, size)}
    return _timm().create_model(timm_name, pretrained=False, **params)


def _pretrained(
    architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]
) -> nn.Module:
    timm_name = architecture.name.removeprefix(PREFIX)
    if not _hosted(timm_name):
        timm_name = timm_name.partition(".")[0]
        timm_name += "" if offer.name == "default" else f".{offer.name}"
    title = f"backbone={architecture.name!r}, weights={offer.name!r}"
    _, _, repository = offer.location.partition("hf-hub:")
    if repository and not _is_downloaded(offer):
        no_way = connection_error(repository, _FILES[0])
        if no_way is not None:
            raise _not_found(title, offer, no_way) from None
    try:
        return _timm().create_model(timm_name, pretrained=True, **params)
    except OSError as error:  # connections, and files that are not there
        raise _not_found(title, offer, error) from None  # its traceback is long, and no help
    except TypeError as error:
        raise ValueError(
            f"backbone_params={params!r} is not what {architecture.name!r} takes: {error}"
        ) from error
    except (RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(f"the weights of {title} don't fit: {error}") from error


def _not_found(title: str, offer: WeightsOffer, error: Exception) -> WeightsNotFoundError:
    return WeightsNotFoundError(
        f"the weights of {title} can't be had ({error}). Wanted: {offer.location}. Without "
        "network, load them once where there is one and copy its Hugging Face cache folder "
        "(HF_HOME), give the path of a state dict as weights, or use a backbone that works "
        "offline: backbone='mini', which ships with sktransfer and is for trying and testing"
    )


def _structure(model: Any) -> NetworkStructure:
    config = model.pretrained_cfg
    only_size = only_size_of(model)
    size = only_size or _input(config).size
    layout = layout_of(model)
    model.eval()
    stages: StageTable
    try:
        stages, traced_size = trace_stages(model, "forward_features", size, layout.n_prefix_tokens)
        is_cut = True
    except ValueError:
        stages, traced_size = {"network": (_Whole,)}, None
        is_cut = False
    pre_logits = trace_pre_logits(model, size, layout, channels_first=is_cut)
    if is_cut:
        head = outside(model, {**stages, "pre_logits": pre_logits})
    else:
        classifiers = config.get("classifier") or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        head = tuple(f"{name}." for name in classifiers)
    return NetworkStructure(stages, head, layout, only_size or traced_size, pre_logits)


def layout_of(model: nn.Module) -> Layout:
    """Return the layout of the activations of one of timm's networks."""
    n_prefix_tokens = getattr(model, "num_prefix_tokens", 0)
    class_token = bool(getattr(model, "has_class_token", n_prefix_tokens > 0))
    pooling = getattr(model, "global_pool", "avg")
    own = _POOLINGS.get(pooling, "avg") if isinstance(pooling, str) else "avg"
    return Layout(n_prefix_tokens, class_token, "avg" if own == "cls" and not class_token else own)


class _Whole(nn.Module):
    """All stages in one, of a network that can't be traced."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = cast(Any, self.model).forward_features(x)
        if not isinstance(x, torch.Tensor):
            raise ValueError(
                f"{type(self.model).__name__} gives several activations, which can't be pooled "
                "to one row"
            )
        return x


def only_size_of(model: Any) -> int | None:
    """Return the one image size that a network takes, None where it takes many."""
    patches = getattr(model, "patch_embed", None)
    image_size = getattr(patches, "img_size", None)
    if isinstance(image_size, tuple):
        return image_size[0] if getattr(patches, "strict_img_size", True) else None
    config = model.pretrained_cfg
    return config["input_size"][-1] if config.get("fixed_input_size") else None
