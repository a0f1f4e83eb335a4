"""The first stages of a backbone as a function of an image: its key, and its batches."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from .._locking import ForkSafeLock
from .._spec import BackboneSpec, InputSpec
from ..images._preprocess import preprocess
from ._fold import fold_batch_norms

# Part of every key: raise it when the same key would give another row.
# 2: batch norms are folded, which changes the last digits.
FORMAT_VERSION = 2


class AugmentedView(Protocol):
    """One way to change images, such as one of several random views of each."""

    def key(self) -> str | None:
        """Return what names all that changes the view; None if it can't be named."""

    def pixels(self, pixels: np.ndarray, spec: InputSpec, digest: bytes) -> torch.Tensor:
        """Return uint8 (3, size, size) from an image's uint8 pixels and its digest."""


@dataclass(frozen=True)
class ExtractionPlan:
    """The first stages of a backbone, as a function of an image.

    `module` maps uint8 (n, 3, size, size) to activations; the other fields are
    all that its values depend on, beside the image. With a `view` the image is
    changed first.

    Rows that are pooled between two stages may name what they are pooled from:
    `before` is the same part without the pooling, `pool` what follows it. Who kept
    the one then need not compute the other.
    """

    module: nn.Module
    spec: BackboneSpec
    input: InputSpec
    n_stages: int
    pooling: str | None
    precision: str
    device: torch.device
    view: AugmentedView | None = None
    before: "ExtractionPlan | None" = None
    pool: nn.Module | None = None

    def common_key(self) -> bytes:
        """Return what the keys of all images have in common."""
        # Without a stage there is no network: the pixels are those of any backbone
        # with the same input numbers.
        digest = self.spec.digest if self.n_stages else ""
        what = (FORMAT_VERSION, digest, self.n_stages, self.pooling, self.input, self.precision)
        if self.view is not None:
            what = (*what, self.view.key())
        return hashlib.blake2b(repr(what).encode(), digest_size=16).digest()

    @property
    def is_storable(self) -> bool:
        """Whether the key names the values for good, so that they can be kept by it."""
        return self.view is None or self.view.key() is not None

    def prepare(self, pixels: np.ndarray, digest: bytes) -> torch.Tensor:
        """Return what `module` reads of one image: uint8 (3, size, size)."""
        if self.view is None:
            return preprocess(pixels, self.input)
        return self.view.pixels(pixels, self.input, digest)


# What says that memory ran out where torch has no class for it: the CPU, Apple's MPS.
_OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")

# The batch that memory is known to be too small for is not tried again: by backbone,
# depth, precision, size and device, the images that it had room for.
_largest: dict[tuple, int] = {}

# The folded network used last, or None where there was nothing to fold, by the first
# batch norm of the backbone, which lives as long as it does. Without it every call of a
# search would fold once more.
_folded: WeakKeyDictionary[nn.Module, tuple[tuple, nn.Module | None]] = WeakKeyDictionary()
_fold_lock = ForkSafeLock()


class FeatureExtractor:
    """Maps uint8 (n, 3, size, size) to activations: evaluation mode, no gradients.

    The network is not compiled: torch.compile takes minutes for the first batch, and
    what it brings here was not measured.
    """

    def __init__(self, frozen: ExtractionPlan):
        self._device = frozen.device
        self._is_cuda = frozen.device.type == "cuda"
        self._is_bfloat16 = frozen.precision == "bfloat16"
        self._kind = (
            frozen.spec.digest,
            frozen.n_stages,
            frozen.precision,
            frozen.input.size,
            str(frozen.device),
        )
        module = _fold(frozen)
        if frozen.device.type != "cpu":
            module = copy.deepcopy(module)  # the network itself stays where it is
        self._module = module.to(frozen.device, memory_format=torch.channels_last)

    def __call__(self, pixels: torch.Tensor) -> np.ndarray:
        """Return the activations of a batch."""
        return self.launch(pixels)()

    def launch(self, pixels: torch.Tensor) -> Callable[[], np.ndarray]:
        """Start a batch, and return what waits for its activations.

        On CUDA the computer goes on meanwhile; elsewhere the batch is done at once.
        """
        if self._is_cuda:
            # only from pinned memory does a copy run beside the computer's work
            pixels = pixels.pin_memory()
        parts, start = [], 0
        while start < len(pixels):
            n = min(_largest.get(self._kind, len(pixels)), len(pixels) - start)
            values = self._pass(pixels[start : start + n])
            if values is None:
                _largest[self._kind] = n // 2
            else:
                parts.append(values)
                start += n
        return self._copy_back(torch.cat(parts) if len(parts) > 1 else parts[0])

    @torch.inference_mode()
    def _pass(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Return the activations, on the device; None where memory ran out."""
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bfloat16):
                values = self._module(pixels.to(self._device, non_blocking=self._is_cuda))
            return values.float() if values.is_floating_point() else values
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if len(pixels) == 1 or not _says_out_of_memory(error):
                raise
        # after the error, whose traceback held what had filled the memory
        if self._is_cuda:
            torch.cuda.empty_cache()
        return None

    @torch.inference_mode()
    def _copy_back(self, values: torch.Tensor) -> Callable[[], np.ndarray]:
        if not self._is_cuda:
            return lambda: values.cpu().contiguous().numpy()
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        # of this batch alone: the next may be on its way when this one is waited for
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self._device))

        def wait() -> np.ndarray:
            done.synchronize()
            return host.numpy().copy()  # pinned memory is scarce

        return wait


def _says_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in _OUT_OF_MEMORY
    )


def _fold(frozen: ExtractionPlan) -> nn.Module:
    """Return the network with its batch norms folded, once for calls with one backbone."""
    module = frozen.module.eval()
    norm = next((part for part in module.modules() if isinstance(part, nn.BatchNorm2d)), None)
    if norm is None:
        return module
    what = (frozen.n_stages, frozen.pooling, frozen.input.size)
    with _fold_lock:
        known, folded = _folded.get(norm, (None, None))
        if known != what:
            folded = fold_batch_norms(module, frozen.input.size)
            if folded is module:  # which would keep its own key alive
                folded = None
            _folded[norm] = what, folded
    return module if folded is None else folded
