"""Locate weights, read them without running code, and load them strictly.

The self-describing backbone file is safetensors whose metadata key ``sktransfer`` holds a JSON
object: ``format`` (1), ``architecture``, ``params``, ``input`` (``size``, ``resize``, ``mean``,
``std``, ``interpolation``), ``head`` (is there a classification head), ``source`` and
``licence``; a key ``card`` may hold more about where the weights come from.
"""

import hashlib
import json
import os
import pickle
import re
import urllib.error
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .._files import atomic_write
from ..exceptions import WeightsError, WeightsNotFoundError

METADATA_KEY = "sktransfer"
FORMAT = 1
_REQUIRED = ("format", "architecture", "params", "input", "head", "source", "licence")


def read_metadata(path: str) -> dict[str, Any] | None:
    """Return the metadata of a safetensors file, None where it has none."""
    with _open(path) as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        return None
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path}: its metadata {METADATA_KEY!r} is no JSON ({error})") from None
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: its metadata {METADATA_KEY!r} is no JSON object")
    missing = [key for key in _REQUIRED if key not in metadata]
    if missing:
        raise WeightsError(f"{path}: its metadata lacks {', '.join(missing)}")
    if metadata["format"] != FORMAT:
        raise WeightsError(
            f"{path} has format {metadata['format']!r}, and this version of sktransfer reads "
            f"format {FORMAT}; a newer version of sktransfer may read it"
        )
    return metadata


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Return all tensors of a safetensors file."""
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def checked_file_to_write(path: str | os.PathLike) -> str:
    """Return the absolute path of a backbone file to write, or an error that says why not.

    Raises
    ------
    ValueError
        When the name does not end in ``.safetensors``.
    FileNotFoundError
        When there is no such folder.
    """
    path = os.path.abspath(path)
    if not path.endswith(".safetensors"):
        raise ValueError(
            "path must end in '.safetensors', so that backbone= takes the file, got "
            f"{os.path.basename(path)!r}"
        )
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no folder {folder}")
    return path


def write_backbone_file(
    path: str | os.PathLike, state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write weights with their metadata; a reader never sees half a file."""
    metadata = {"format": FORMAT, **metadata}
    missing = [key for key in _REQUIRED if key not in metadata]
    if missing:
        raise ValueError(f"the metadata lacks {', '.join(missing)}")
    # cloned, because safetensors takes no two tensors that share memory
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={METADATA_KEY: json.dumps(metadata)}))


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


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters and buffers that a state dict has, by name."""
    return {
        name: value.detach().cpu().contiguous().numpy().copy()
        for name, value in module.state_dict().items()
    }


def tensors_of(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return tensors with memory of their own: arrays may be mapped from a read-only file."""
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def load_arrays(module: nn.Module, arrays: Mapping[str, np.ndarray], title: str) -> None:
    """Set all arrays of `arrays_of`, in their precision; `title` is the name in errors."""
    try:
        module.load_state_dict(tensors_of(arrays), strict=True, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"what was saved of {title} does not fit it: {error}") from None


# torchvision's convention: resnet18-f37072fd.pth has a SHA-256 that starts so
_HASH_IN_NAME = re.compile(r"-([a-f0-9]{8,})\.")


def downloaded_path(url: str) -> str:
    """Return the path of the downloaded file of `url`, in torch's own folder."""
    return os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))


def download(url: str, title: str, progress: bool = False) -> str:
    """Return the local file of `url`, downloaded to torch's own folder when missing.

    The file's hash is checked whether it was downloaded now or before.
    """
    path = downloaded_path(url)
    match = _HASH_IN_NAME.search(os.path.basename(path))
    wanted = match.group(1) if match else None
    if not os.path.exists(path):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(url, path, hash_prefix=wanted, progress=progress)
        except (urllib.error.URLError, OSError) as error:
            raise WeightsNotFoundError(
                f"the weights of {title} can't be downloaded ({error}). Wanted: {url}. Without "
                f"network, put the file at {path}, or use a backbone that works offline: "
                "backbone='mini', which ships with sktransfer and is for trying and testing, or "
                "the path of a self-describing .safetensors file"
            ) from None  # its traceback is long, and says no more
        except RuntimeError as error:  # torch's own word for a wrong hash
            raise WeightsError(f"the download of {title} from {url} is damaged: {error}") from error
    elif wanted is not None and not _sha256(path).startswith(wanted):
        raise WeightsError(
            f"{path} is not what it should be: its SHA-256 does not start with {wanted}. It may "
            "be a download that broke off; delete it, and it is fetched again"
        )
    return path


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` or ``.pth`` file; no code in it runs."""
    if path.endswith(".safetensors"):
        return read_tensors(path)
    if not os.path.isfile(path):
        raise WeightsNotFoundError(f"no such file of weights: {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path} is refused: reading it would run code, or it is damaged ({reason}). Where "
            "you trust its source, convert it once: safetensors.torch.save_file("
            "torch.load(path, weights_only=False).state_dict(), 'weights.safetensors')"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} can't be read ({reason}); it may be truncated") from error
    for wrapper in ("state_dict", "model"):  # common in training checkpoints
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise WeightsError(f"{path} holds no state dict: a mapping from names to tensors")
    return dict(state)


def load_strictly(
    model: nn.Module,
    state: Mapping[str, torch.Tensor],
    head: Iterable[str],
    source: str,
    pre_logits: Collection[str] = (),
) -> None:
    """Load all but the head; any other mismatch is an error that lists it.

    `model` may lie on the meta device: tensors are assigned, not copied. The head
    of `state` is left out, since the head of `model` is never used. `pre_logits` are
    the names of what older backbone files lack, for the message.
    """
    head = tuple(head)
    expected = {
        name: value for name, value in model.state_dict().items() if not name.startswith(head)
    }
    given = {name: value for name, value in state.items() if not name.startswith(head)}
    # a counter that evaluation never reads, which old files lack
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - given.keys() - optional)
    unexpected = sorted(given.keys() - expected.keys())
    if missing and not unexpected and set(missing) <= set(pre_logits):
        raise WeightsError(
            f"{source} lacks {_listed(missing)} of {type(model).__name__}: layers between its "
            "pooling and its last linear layer, which are part of a row. Files that "
            "save_backbone wrote before they were lack them: fit again and save with this "
            "version, or use weights of the whole network"
        )
    if missing or unexpected:
        raise WeightsError(
            f"{source} does not fit {type(model).__name__}: missing {_listed(missing)}; "
            f"unexpected {_listed(unexpected)}. Are backbone and backbone_params those that the "
            "weights were made with?"
        )
    for name, value in given.items():
        if value.shape != expected[name].shape:
            raise WeightsError(
                f"{source} does not fit {type(model).__name__}: {name} has shape "
                f"{tuple(value.shape)}, expected {tuple(expected[name].shape)}. Are backbone and "
                "backbone_params those that the weights were made with?"
            )
    for name in optional - given.keys():
        given[name] = torch.zeros((), dtype=torch.long)
    given = {
        name: value.to(expected[name].dtype, memory_format=torch.contiguous_format)
        for name, value in given.items()
    }
    model.load_state_dict(given, strict=False, assign=True)


def digest_of(title: str, state: Mapping[str, torch.Tensor]) -> str:
    """Return a digest over names, shapes and values of the weights, as hex."""
    hasher = hashlib.blake2b(title.encode(), digest_size=16)
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):  # changes no row
            value = state[name].detach().cpu().contiguous()
            hasher.update(f"|{name}|{value.dtype}|{tuple(value.shape)}|".encode())
            hasher.update(value.numpy().tobytes())
    return hasher.hexdigest()


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(names: list[str], most: int = 6) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(names[:most])
    return f"{len(names)} keys ({shown}{', ...' if len(names) > most else ''})"
