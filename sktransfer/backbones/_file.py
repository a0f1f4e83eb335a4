"""The self-describing backbone file: safetensors with a passport in its metadata.

The metadata key ``sktransfer`` holds a JSON object: ``format`` (1),
``architecture``, ``params``, ``input`` (``size``, ``resize``, ``mean``, ``std``,
``interpolation``), ``head`` (is there a classification head), ``source`` and
``licence``; a key ``card`` may hold more about where the weights come from.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..exceptions import WeightsError, WeightsNotFoundError

METADATA_KEY = "sktransfer"
FORMAT = 1
_REQUIRED = ("format", "architecture", "params", "input", "head", "source", "licence")


def read_passport(path: str) -> dict[str, Any] | None:
    """Return the passport of a safetensors file, None where it has none."""
    with _open(path) as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        return None
    try:
        passport = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path}: its metadata {METADATA_KEY!r} is no JSON ({error})") from None
    if not isinstance(passport, dict):
        raise WeightsError(f"{path}: its metadata {METADATA_KEY!r} is no JSON object")
    missing = [key for key in _REQUIRED if key not in passport]
    if missing:
        raise WeightsError(f"{path}: its passport lacks {', '.join(missing)}")
    if passport["format"] != FORMAT:
        raise WeightsError(
            f"{path} has format {passport['format']!r}, and this version of sktransfer reads "
            f"format {FORMAT}; a newer version of sktransfer may read it"
        )
    return passport


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Return all tensors of a safetensors file."""
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write_backbone_file(
    path: str | os.PathLike, state: Mapping[str, torch.Tensor], passport: Mapping[str, Any]
) -> None:
    """Write weights with their passport; a reader never sees half a file."""
    passport = {"format": FORMAT, **passport}
    missing = [key for key in _REQUIRED if key not in passport]
    if missing:
        raise ValueError(f"the passport lacks {', '.join(missing)}")
    # cloned, because safetensors takes no two tensors that share memory
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    path = os.fspath(path)
    unfinished = f"{path}.{os.getpid()}.tmp"
    try:
        # not save_file, whose files nobody else may read, whatever the umask
        with open(unfinished, "wb") as file:
            file.write(save(tensors, metadata={METADATA_KEY: json.dumps(passport)}))
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def _open(path: str) -> safe_open:
    if not os.path.isfile(path):
        raise WeightsNotFoundError(f"no such file of weights: {path}")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} can't be read as safetensors ({error}); it may be truncated, or of "
            "another format"
        ) from None
