"""The first stages of a backbone, as a function of an image, and the key of its values."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from .._spec import BackboneSpec, InputSpec
from ..images._preprocess import preprocess

# Part of every key: raise it when the same key would give another row.
# 2: batch norms are folded, which changes the last digits.
FORMAT_VERSION = 2


class View(Protocol):
    """One way to change images, such as one of several random views of each."""

    def key(self) -> str | None:
        """Return what names all that changes the view; None if it can't be named."""

    def pixels(self, pixels: np.ndarray, spec: InputSpec, digest: bytes) -> torch.Tensor:
        """Return uint8 (3, size, size) from an image's uint8 pixels and its digest."""


@dataclass(frozen=True)
class FrozenPart:
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
    view: View | None = None
    before: "FrozenPart | None" = None
    pool: nn.Module | None = None

    def key_of_all(self) -> bytes:
        """Return what the keys of all images have in common."""
        # Without a stage there is no network: the pixels are those of any backbone
        # with the same input numbers.
        digest = self.spec.digest if self.n_stages else ""
        what = (FORMAT_VERSION, digest, self.n_stages, self.pooling, self.input, self.precision)
        if self.view is not None:
            what = (*what, self.view.key())
        return hashlib.blake2b(repr(what).encode(), digest_size=16).digest()

    @property
    def has_name(self) -> bool:
        """Whether the key names the values for good, so that they can be kept by it."""
        return self.view is None or self.view.key() is not None

    def prepare(self, pixels: np.ndarray, digest: bytes) -> torch.Tensor:
        """Return what `module` reads of one image: uint8 (3, size, size)."""
        if self.view is None:
            return preprocess(pixels, self.input)
        return self.view.pixels(pixels, self.input, digest)
