"""What a job computes: a transformer with everything fixed that its workers could decide apart.

It travels as plain values: the parameters of the transformer, and the ingredients of the keys
of its rows. A worker builds the transformer from the parameters, and compares its own
ingredients with those of the job before it computes a row.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._feature_transformer import PretrainedFeatureTransformer
from ..backbones._registry import reload_backbone, state_of_file
from ..extraction._extract import Extraction, extract
from ..extraction._feature_extractor import ExtractionPlan
from ..images._collection import PixelRange, as_images
from ..runtime._device import resolve_device
from ..runtime._threads import torch_threads_within_cores
from ..store._base import ActivationStore
from ..store._key import FORMAT, RowIngredients, common_key
from ._folder import JobFolder

# those that change a row, or how rows share a batch
_PARAMETERS = (
    "backbone", "backbone_params", "weights", "depth", "pooling", "image_size", "pixel_range",
    "batch_size", "device", "precision",
)  # fmt: skip
_FILES = "files/"  # of weights, in the folder of the job


class RowPlan:
    """A transformer of fixed device and precision, and what its rows depend on.

    Parameters
    ----------
    transformer : PretrainedFeatureTransformer
        Not changed. Where its device or precision is "auto", that is decided here.
    """

    def __init__(self, transformer: Any):
        if not isinstance(transformer, PretrainedFeatureTransformer):
            raise TypeError(
                "transformer must be a PretrainedFeatureTransformer, got "
                f"{type(transformer).__name__}; a fine-tuned network writes its own as a file by "
                "save_backbone, which is a backbone of PretrainedFeatureTransformer"
            )
        if transformer.pixel_range == "fit":
            raise ValueError(
                "pixel_range='fit' is the range of arrays in memory; name it as (low, high), or "
                "leave None: the images of a job are files"
            )
        self.params = {name: _plain(name, getattr(transformer, name)) for name in _PARAMETERS}
        if self.params["precision"] == "auto":
            self.params["precision"] = self._fitted(self.params["device"]).precision_
        if self.params["device"] == "auto":
            self.params["device"] = resolve_device("auto").type
        kind = self.params["device"] = torch.device(self.params["device"]).type
        # The device is not used before rows are computed: whoever makes the job may have none.
        self._transformer = self._fitted("cpu")
        self.widths = tuple(self._transformer._widths)
        self.fitted = self._transformer._plan
        backbone = reload_backbone(self.fitted.backbone)
        plan = ExtractionPlan(backbone, self.fitted, torch.device(kind))
        self.ingredients = [_as_json(plan.ingredients(depth)) for depth in self.fitted.depths]

    def _fitted(self, device: str) -> PretrainedFeatureTransformer:
        values = {**self.params, "device": device}
        # no image is read, and none passes the network
        return PretrainedFeatureTransformer(**values, feature_cache=None).fit(["a path"])

    @property
    def width(self) -> int:
        """Return the values of a row, over all depths."""
        return sum(self.widths)

    @property
    def pixel_range(self) -> PixelRange | None:
        """Return the values that mean black and white in files of more than 8 bits."""
        return self._transformer._pixel_range

    @property
    def row_values(self) -> dict[str, Any]:
        """Return what makes a row, as plain values: what another process has to agree with."""
        return {
            "key_format": FORMAT,
            "depths": list(self.fitted.depths),
            "widths": list(self.widths),
            "ingredients": self.ingredients,
        }

    def make_transformer(self, **params: Any) -> PretrainedFeatureTransformer:
        """Return an unfitted transformer that asks a store for the rows of this plan."""
        return PretrainedFeatureTransformer(**{**self.params, **params})

    def extract(
        self,
        paths: list[str | None],
        *,
        store: ActivationStore | None = None,
        n_jobs: int | None = None,
        verbose: int = -1,
    ) -> Extraction:
        """Return the rows of files, the same bytes whatever the number of threads.

        Torch uses one thread for a batch, and batches are divided between threads.
        """
        device = resolve_device(self.params["device"])
        backbone = reload_backbone(self.fitted.backbone)
        batch_size = self.params["batch_size"]
        with torch_threads_within_cores(1):
            return extract(
                as_images(paths, pixel_range=self.pixel_range),
                ExtractionPlan(backbone, self.fitted, device),
                store,
                batch_size=None if batch_size == "auto" else batch_size,
                n_jobs=n_jobs,
                verbose=verbose,
                keep_versions=True,
            )


def common_keys(row_values: Mapping[str, Any]) -> list[bytes]:
    """Return the first half of the keys of rows, for each depth, from a job's plain values."""
    return [common_key(RowIngredients(**values)) for values in row_values["ingredients"]]


def _as_json(ingredients: RowIngredients) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(ingredients)))


def _plain(name: str, value: Any) -> Any:
    """Return a parameter as JSON holds it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    try:
        plain = json.loads(json.dumps(value, default=_as_number))
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}={value!r} can't be written to job.json, which holds texts, numbers, lists "
            "and dicts of these"
        ) from None
    return plain


def _as_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)


# weights that are a file: a copy travels with the job


def with_files(params: Mapping[str, Any], folder: JobFolder | None) -> dict[str, Any]:
    """Return the parameters with files of weights as copies in `folder`; None copies nothing."""
    values = dict(params)
    for name in ("backbone", "weights"):
        path = values[name]
        if not isinstance(path, str) or state_of_file(path) is None or not os.path.isfile(path):
            continue
        content = Path(path).read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        copy = f"{_FILES}{digest}{Path(path).suffix}"
        if folder is not None and folder.facts(copy) is None:
            with folder.new_file(copy) as aside:
                aside.write_bytes(content)
        values[name] = {"file": copy}
    return values


def without_files(params: Mapping[str, Any], folder: JobFolder) -> dict[str, Any]:
    """Return the parameters with paths of this machine in the place of a job's files."""
    missing = [name for name in _PARAMETERS if name not in params]
    if missing:
        raise ValueError(f"job.json of {folder.name} has no parameter {missing[0]!r}")
    values = {name: params[name] for name in _PARAMETERS}
    for name in ("backbone", "weights"):
        if isinstance(values[name], Mapping):
            values[name] = _local_copy(str(values[name].get("file")), folder)
    return values


def _local_copy(name: str, folder: JobFolder) -> str:
    """Return the path of a copy of a job's file, whose name is the digest of its content."""
    stem, suffix = os.path.splitext(name.removeprefix(_FILES))
    if name != f"{_FILES}{stem}{suffix}" or not stem.isalnum():
        raise ValueError(f"job.json names the file {name!r}, which is none of a job's folder")
    where = Path(tempfile.gettempdir()) / f"sktransfer-jobs-{_user()}"
    where.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and where.stat().st_uid != os.getuid():
        raise PermissionError(f"{where} belongs to another user; set TMPDIR to a folder of yours")
    path = where / f"{stem}{suffix}"
    if not path.exists() or _digest(path.read_bytes()) != stem:
        content = folder.read(name)
        if _digest(content) != stem:
            raise ValueError(f"{folder.name}/{name} is damaged: its name is not its digest")
        from .._files import atomic_write

        with atomic_write(path) as file:
            file.write(content)
    return str(path)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
