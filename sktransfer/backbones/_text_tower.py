"""Vectors of classes from the text tower of an image-text model.

The image tower is a backbone like any other; the text tower is loaded for the length of a
call, and dropped.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._locking import ForkSafeLock, own_random_state
from ._architecture import Architecture
from ._registry import WEIGHTS_ENDINGS, checked_params, checked_path_or_name, state_of_file
from ._weights import read_metadata
from .sources import _open_clip, named_architecture

_BATCH = 64  # prompts that pass the text tower at once
_END = 2  # tokens that begin and end a text

# Vectors of classes, by what they were computed from: every fold of a search asks for the same.
_N_KEPT = 32
_kept: OrderedDict[tuple, "ClassVectors"] = OrderedDict()
_lock = ForkSafeLock()


@dataclass(frozen=True)
class ClassVectors:
    """What is left of a text tower.

    Attributes
    ----------
    vectors : ndarray of shape (n_classes, width), float32
        A unit vector for each class.
    scale : float
        The learned scale of the model: it multiplies cosines.
    bias : float or None
        The learned bias of models that were trained with a sigmoid; None for others.
    """

    vectors: np.ndarray
    scale: float
    bias: float | None


def templates_of(name: str) -> tuple[Callable[[str], str], ...]:
    """Return open_clip's templates "simple" or "imagenet"."""
    open_clip = _open_clip.module()
    lists = {
        "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES,
        "imagenet": open_clip.OPENAI_IMAGENET_TEMPLATES,
    }
    return tuple(lists[name])


def class_vectors(
    backbone: str | os.PathLike,
    params: Mapping[str, Any] | None,
    weights: str | os.PathLike | None,
    prompts: Sequence[Sequence[str]],
    device: torch.device,
    use_of_device: AbstractContextManager[object] | None = None,
) -> ClassVectors:
    """Return a unit vector for the prompts of each class: their mean, normalised.

    Parameters
    ----------
    backbone, params, weights : as for a backbone
    prompts : sequence of sequence of str
        The texts of each class.
    device : torch.device
        Where the text tower computes.
    use_of_device : context manager, default=None
        Entered while it does, and not while the tower is loaded, which waits for the random state
        that a fit in another thread has until it ends.

    Raises
    ------
    ValueError
        When the backbone has no text tower.
    WeightsError
        When the weights hold none, don't fit, are damaged or can't be loaded.
    """
    name = checked_path_or_name(backbone, "backbone")
    if weights is not None:
        weights = checked_path_or_name(weights, "weights")
    params = checked_params(params)
    texts = tuple(tuple(of_class) for of_class in prompts)
    files = state_of_file(name), state_of_file(weights)
    key = (name, repr(sorted(params.items())), weights, *files, device.type, texts)
    with _lock:
        if key not in _kept:
            use = nullcontext() if use_of_device is None else use_of_device
            _kept[key] = _computed(name, params, weights, texts, device, use)
            while len(_kept) > _N_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]


def _computed(
    name: str,
    params: dict[str, Any],
    weights: str | None,
    texts: tuple[tuple[str, ...], ...],
    device: torch.device,
    use_of_device: AbstractContextManager[object],
) -> ClassVectors:
    metadata = read_metadata(name) if name.endswith(".safetensors") else None
    architecture = named_architecture(name, metadata)
    if architecture.source != "openclip":
        raise ValueError(
            f"backbone={name!r} has no text tower; use a model of open_clip, such as "
            "backbone='openclip:ViT-B-32', or a self-describing file of one"
        )
    if metadata:
        params = {**metadata["params"], **params}
    model, params = _loaded(architecture, params, weights, name, bool(metadata))
    tokenizer = _open_clip.tokenizer_of(architecture, params)
    _warn_of_long_texts(tokenizer, texts)
    flat = [text for of_class in texts for text in of_class]
    unique = list(dict.fromkeys(flat))
    with use_of_device:
        model.to(device)
        with torch.inference_mode():
            batches = [
                _encoded(model, tokenizer(unique[start : start + _BATCH]).to(device))
                for start in range(0, len(unique), _BATCH)
            ]
        bias = getattr(model, "logit_bias", None)
        scale, bias = model.logit_scale.detach().exp().item(), None if bias is None else bias.item()
        del model  # others find its memory free
    vector_of = dict(zip(unique, torch.cat(batches), strict=True))
    means = [torch.stack([vector_of[text] for text in of_class]).mean(0) for of_class in texts]
    vectors = torch.stack([mean / mean.norm() for mean in means])
    return ClassVectors(vectors=vectors.numpy(), scale=scale, bias=bias)


def _encoded(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return model.encode_text(tokens, normalize=True).float().cpu()


def _loaded(
    architecture: Architecture,
    params: dict[str, Any],
    weights: str | None,
    name: str,
    is_file: bool,
) -> tuple[Any, dict[str, Any]]:
    """Return the model of both towers, and the parameters that it was built with."""
    title = f"backbone={name!r}, weights={weights!r}"
    path = None
    if weights is not None and weights.endswith(WEIGHTS_ENDINGS):
        path = weights
    elif is_file and weights == "default":
        path = name
    elif weights is not None:
        offer = architecture.offer(weights)
        params = {**dict(offer.params), **params}
        path = _open_clip.weights_file(offer, title)
    try:
        with own_random_state(0):
            model = _open_clip.image_text_model(architecture, params)
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"backbone_params={params!r} is not what {architecture.name!r} takes: {error}"
        ) from error
    if path is not None:
        _open_clip.load_weights(model, path, title, params)
    return model, params


def _warn_of_long_texts(tokenizer: Any, texts: tuple[tuple[str, ...], ...]) -> None:
    """Warn of texts whose end is cut off; tokenizers of Hugging Face don't say it."""
    if not hasattr(tokenizer, "encode"):
        return
    most = tokenizer.context_length - _END
    for of_class in texts:
        for text in of_class:
            n_tokens = len(tokenizer.encode(text))
            if n_tokens > most:
                warnings.warn(
                    f"the prompt {text!r} has {n_tokens} tokens, and the text tower reads "
                    f"{most}: its end is cut off",
                    UserWarning,
                    stacklevel=6,
                )
