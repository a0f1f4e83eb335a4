"""open_clip's image-text models as ``"openclip:NAME"``, an extra: ``sktransfer[clip]``.

Names are open_clip's own (``"openclip:ViT-B-32"``), or a source that its loader knows:
``"openclip:hf-hub:USER/MODEL"``, and ``"openclip:local-dir:PATH"``, a folder with an
``open_clip_config.json`` and weights. A backbone is the image tower; `image_text_model` returns
both towers. Weights are read as safetensors, or as ``.pt`` and ``.bin`` without running code.
"""

import importlib.util
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ..._spec import InputSpec, WeightsOffer
from ...exceptions import WeightsError, WeightsNotFoundError
from .._architecture import Architecture
from ._hugging_face import cached_file, connection_error
from ._open_clip_towers import square, structure_of

PREFIX = "openclip:"
_HUB, _FOLDER = "hf-hub:", "local-dir:"
_CONFIG = "open_clip_config.json"
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TOWER = "visual."  # of the names of the image tower's weights in a model's
_PARAMS = (
    *("image_size", "embed_dim", "vision_cfg", "text_cfg", "quick_gelu"),
    *("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "multimodal_cfg"),
)
# Of a text tower that is built and dropped: no parameter of it matters.
_NO_TEXT = {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}

# open_clip states no licences. Apple's are known: github.com/apple/ml-mobileclip, its
# LICENSE_MODELS, and the model cards.
_RESEARCH_ONLY = "apple-amlr: for research only"


# what open_clip raises for a file that is damaged, or of another network
_UNFIT = (
    *(RuntimeError, KeyError, ValueError, TypeError, AssertionError, StopIteration, EOFError),
    *(AttributeError, SafetensorError),
)


@dataclass(frozen=True)
class _Settings:
    """What open_clip knows of a model: its configuration, preprocessing and weights."""

    model: dict[str, Any]
    preprocess: dict[str, Any]


def names() -> tuple[str, ...]:
    """Return the names of open_clip's own models."""
    return tuple(PREFIX + name for name in module().list_models())


def downloaded_names() -> list[str]:
    """Return the names of open_clip's models whose default weights are on this machine.

    open_clip is imported only where there is a cache of Hugging Face.
    """
    if importlib.util.find_spec("open_clip") is None:
        return []
    from huggingface_hub import constants

    if not os.path.isdir(constants.HF_HUB_CACHE):
        return []
    found = []
    for name in {name for name, _ in module().list_pretrained()}:
        offers = _offers(name)
        if offers and is_downloaded(next(iter(offers.values()))):
            found.append(PREFIX + name)
    return sorted(found)


def names_like(name: str) -> list[str]:
    """Return the name with the prefix where open_clip, if it is installed, has it."""
    if ":" in name or importlib.util.find_spec("open_clip") is None:
        return []
    return [PREFIX + name] if name in module().list_models() else []


def architecture(name: str) -> Architecture | None:
    """Return open_clip's architecture of that name, None where it has none."""
    if not name.startswith(PREFIX):
        return None
    clip_name = name.removeprefix(PREFIX)
    if ":" not in clip_name and clip_name not in module().list_models():
        return None
    return Architecture(
        name=name,
        source="openclip",
        build=partial(_image_tower, clip_name),
        structure=structure_of,
        input=lambda: _default_input(clip_name),
        offers=lambda: _offers(clip_name),
        pretrained=_pretrained,
        size_param="image_size",
        builds_empty=False,  # as with timm's, of which some are
        own_state=image_tower_state,
        is_downloaded=is_downloaded,
    )


def image_tower_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the image tower, of a model's or of the tower's alone."""
    own = {key.removeprefix(_TOWER): v for key, v in state.items() if key.startswith(_TOWER)}
    return own or dict(state)


def image_text_model(architecture: Architecture, params: Mapping[str, Any]) -> Any:
    """Return a model of both towers with random weights."""
    open_clip = module()
    config = _config(architecture.name.removeprefix(PREFIX), params)
    is_hosted = bool(config["text_cfg"].get("hf_model_name"))
    is_custom = config.pop("custom_text", False) or is_hosted
    if is_hosted:
        config["text_cfg"]["hf_model_pretrained"] = False
    kind = open_clip.CustomTextCLIP if is_custom else open_clip.CLIP
    return (open_clip.CoCa if "multimodal_cfg" in config else kind)(**config).eval()


def load_weights(model: Any, path: str, title: str, params: Mapping[str, Any]) -> None:
    """Load the weights of both towers, adapted by open_clip; no code in the file runs."""
    try:
        module().load_checkpoint(model, path, weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: reading it would run code, or it is damaged "
            f"({str(error).splitlines()[0]}). Use weights as safetensors"
        ) from error
    except OSError as error:
        raise WeightsNotFoundError(f"the weights of {title} can't be read: {error}") from error
    except _UNFIT as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} is no checkpoint of {title}, an image tower and a text tower: {reason}"
        ) from error
    size = params.get("image_size")
    if size is not None and hasattr(model.visual, "set_input_size"):
        model.visual.set_input_size(size)


def tokenizer_of(architecture: Architecture, params: Mapping[str, Any]) -> Any:
    """Return the tokenizer of a model; some are loaded by transformers."""
    open_clip = module()
    clip_name = architecture.name.removeprefix(PREFIX)
    text = _config(clip_name, params)["text_cfg"]
    if (text.get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise WeightsError(
            f"backbone={architecture.name!r} is refused: its tokenizer asks for "
            "trust_remote_code, which runs code that comes with it"
        )
    length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(
            context_length=length, **(text.get("tokenizer_kwargs") or {})
        )
    # Not open_clip.get_tokenizer: it reads the configuration again, without `params`, and what
    # was checked here would not be what it loads.
    is_folder = clip_name.startswith(_FOLDER)
    try:
        return open_clip.tokenizer.HFTokenizer(
            clip_name.removeprefix(_FOLDER) if is_folder else text["hf_tokenizer_name"],
            context_length=length,
            tokenizer_mode=text.get("tokenizer_mode"),
            # without it, transformers asks on a terminal whether code may run
            **{**(text.get("tokenizer_kwargs") or {}), "trust_remote_code": False},
        )
    except ImportError as error:
        raise ImportError(
            f"the texts of backbone={architecture.name!r} are read by a tokenizer of Hugging "
            "Face, which needs transformers: pip install transformers sentencepiece"
        ) from error
    except OSError as error:
        raise WeightsNotFoundError(
            f"the tokenizer of backbone={architecture.name!r}, {text['hf_tokenizer_name']!r}, "
            f"can't be had ({str(error).splitlines()[0]}). Without network, load it once where "
            "there is one and copy its Hugging Face cache folder (HF_HOME)"
        ) from error


def weights_file(offer: WeightsOffer, title: str) -> str:
    """Return the local file of weights on offer, downloaded where it is missing."""
    if not offer.location.startswith(_HUB):
        return offer.location
    repository, files = _on_hub(offer.location)
    if path := cached_file(repository, files):
        return path
    return _download(repository, files, offer, title)


def is_downloaded(offer: WeightsOffer) -> bool:
    """Tell whether weights on offer are on this machine."""
    if not offer.location.startswith(_HUB):
        return os.path.exists(offer.location)
    return cached_file(*_on_hub(offer.location)) is not None


def module() -> ModuleType:
    """Return open_clip, or the error that names the extra."""
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            "backbones 'openclip:...' need open_clip, an extra: pip install sktransfer[clip]"
        ) from error
    return open_clip


def _settings(clip_name: str) -> _Settings:
    if clip_name.startswith(_FOLDER):
        return _read_settings(Path(clip_name.removeprefix(_FOLDER)) / _CONFIG, clip_name)
    if clip_name.startswith(_HUB):
        repository = clip_name.removeprefix(_HUB)
        offer = WeightsOffer("default", clip_name, _input({}, {}), "")
        path = cached_file(repository, (_CONFIG,))
        if path is None:
            path = _download(repository, (_CONFIG,), offer, f"backbone={PREFIX + clip_name!r}")
        return _read_settings(Path(path), clip_name)
    if ":" in clip_name:
        raise ValueError(
            f"backbone={PREFIX + clip_name!r} is unknown; allowed are 'openclip:NAME', "
            "'openclip:hf-hub:USER/MODEL' and 'openclip:local-dir:PATH'"
        )
    return _Settings(module().get_model_config(clip_name), {})


def _read_settings(path: Path, clip_name: str) -> _Settings:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _Settings(content["model_cfg"], content.get("preprocess_cfg") or {})
    except FileNotFoundError:
        raise WeightsNotFoundError(
            f"backbone={PREFIX + clip_name!r}: there is no {path}, the JSON file with open_clip's "
            "'model_cfg' and 'preprocess_cfg'"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is no JSON object with the key 'model_cfg' ({error!r})"
        ) from error


def _config(clip_name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model, changed by the user's parameters."""
    unknown = sorted(params.keys() - set(_PARAMS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is unknown; allowed are {', '.join(_PARAMS)}")
    config = dict(_settings(clip_name).model)
    given = dict(params)
    size = given.pop("image_size", None)
    for key, value in given.items():
        is_part = isinstance(value, Mapping) and isinstance(config.get(key), Mapping)
        config[key] = {**config[key], **value} if is_part else value
    config["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
    config["text_cfg"] = dict(config["text_cfg"])
    if size is not None:
        config["vision_cfg"]["image_size"] = size
    return config


def _image_tower(clip_name: str, **params: Any) -> nn.Module:
    """Return the image tower alone, with random weights."""
    config = _config(clip_name, params)
    model = module().CLIP(
        config["embed_dim"],
        vision_cfg=config["vision_cfg"],
        text_cfg=_NO_TEXT,
        quick_gelu=config.get("quick_gelu", False),
    )
    if params.get("image_size") is not None and hasattr(model.visual, "set_input_size"):
        model.visual.set_input_size(params["image_size"])
    visual: nn.Module = model.visual
    return visual


def _pretrained(
    architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]
) -> nn.Module:
    title = f"backbone={architecture.name!r}, weights={offer.name!r}"
    model = image_text_model(architecture, params)
    load_weights(model, weights_file(offer, title), title, params)
    visual: nn.Module = model.visual
    return visual


def _offers(clip_name: str) -> dict[str, WeightsOffer]:
    settings = _settings(clip_name)
    if clip_name.startswith(_HUB):
        return {"default": _offer("default", clip_name, settings, {})}
    if clip_name.startswith(_FOLDER):
        path = _weights_in(Path(clip_name.removeprefix(_FOLDER)))
        return {} if path is None else {"default": _offer("default", path, settings, {})}
    open_clip = module()
    found = {}
    for tag in open_clip.list_pretrained_tags_by_model(clip_name):
        config = open_clip.get_pretrained_cfg(clip_name, tag)
        if config.get("hf_hub"):  # all of open_clip 3.3
            found[tag] = _offer(tag, _HUB + config["hf_hub"], settings, config)
    return found


def _offer(tag: str, location: str, settings: _Settings, config: Mapping[str, Any]) -> WeightsOffer:
    quick = bool(config.get("quick_gelu", False))
    differs = bool(config) and quick != bool(settings.model.get("quick_gelu", False))
    return WeightsOffer(
        name=tag,
        location=location,
        input=_input(settings.model, {**settings.preprocess, **config}),
        licence=_licence(location),
        # the activation that the weights were trained with
        params=(("quick_gelu", quick),) if differs else (),
    )


def _licence(location: str) -> str:
    if "mobileclip" in location.lower():
        return _RESEARCH_ONLY
    if location.startswith(_HUB):
        return f"unknown, see huggingface.co/{_on_hub(location)[0]}"
    return "unknown"


def _default_input(clip_name: str) -> InputSpec:
    """Return the preprocessing of the default weights, for random ones and for files."""
    offers = _offers(clip_name)
    if offers:
        return next(iter(offers.values())).input
    settings = _settings(clip_name)
    return _input(settings.model, settings.preprocess)


def _input(model: Mapping[str, Any], preprocess: Mapping[str, Any]) -> InputSpec:
    """Return the preprocessing as open_clip's own transform for inference has it."""
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    values = merge_preprocess_dict(PreprocessCfg(), dict(preprocess))
    size = square(model.get("vision_cfg", {}).get("image_size", values["size"]))
    if values["resize_mode"] not in ("shortest", "squash"):
        raise ValueError(
            f"resize_mode={values['resize_mode']!r} of open_clip is not supported; its modes "
            "'shortest' and 'squash' are"
        )
    return InputSpec(
        size=size,
        resize=size,
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        interpolation=values["interpolation"],
        crop="squash" if values["resize_mode"] == "squash" else "center",
    )


def _weights_in(folder: Path) -> str | None:
    """Return the path of the weights in a folder: under open_clip's names, or the only ones."""
    named = [folder / name for name in _FILES]
    others = sorted(folder.glob("*.safetensors"))
    found = [path for path in named if path.is_file()] or (others if len(others) == 1 else [])
    return str(found[0]) if found else None


def _on_hub(location: str) -> tuple[str, tuple[str, ...]]:
    """Return the repository that an address names, and the files that it may have."""
    address = location.removeprefix(_HUB)
    if address.count("/") == 1:  # a repository alone
        return address, _FILES
    repository, file = os.path.split(address)
    return repository, (os.path.splitext(file)[0] + ".safetensors", file) if file else _FILES


def _download(repository: str, files: tuple[str, ...], offer: WeightsOffer, title: str) -> str:
    """Return the local path of the first of these files that Hugging Face has."""
    from huggingface_hub import hf_hub_download

    error = connection_error(repository, files[0])
    for file in files if error is None else ():
        try:
            return hf_hub_download(repository, file)
        except OSError as failure:  # no such file or repository, or no connection
            error = failure
    raise WeightsNotFoundError(
        f"the weights of {title} can't be had ({error}). Wanted: {offer.location}. Without "
        "network, load them once where there is one and copy its Hugging Face cache folder "
        "(HF_HOME), or give a local checkpoint: the path of a file as weights, or "
        "'openclip:local-dir:PATH', a folder with open_clip_config.json and weights, as backbone"
    ) from None
