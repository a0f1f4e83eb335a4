"""Rows that are pooled from activations which another estimator kept, or will ask for.

A transformer at a depth and a classifier that freezes as many stages pass each image
through the same stages. The one keeps rows, the other activations; here rows come from
kept activations, and the activations that rows were made of are kept as well.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from ._frozen_part import FrozenPart
from ._image_keys import digest_in
from ._store import ActivationStore

# Activations are kept beside rows while the store stays this empty, of its limit. With
# more of them the rows of many images would be evicted for activations of a few.
_SHARE_OF_THE_STORE = 0.5


class KeptActivations:
    """What lies before the pooling of `frozen`, in the store; nothing if it has no `before`.

    Parameters
    ----------
    frozen : FrozenPart
    store : ActivationStore or None
    n_images : int
        How many are to be computed.
    """

    def __init__(self, frozen: FrozenPart, store: ActivationStore | None, n_images: int):
        has_before = frozen.before is not None and store is not None
        self.part = frozen.before if has_before else frozen  # what is to be computed
        self._pool = frozen.pool if has_before else None
        self._store = store
        self._n_images = n_images
        self._has_room: bool | None = None  # known from the first batch
        self._common = self.part.key_of_all()

    def key(self, key: bytes) -> bytes:
        """Return the key of the activation that a row is pooled from."""
        return key if self._pool is None else self._common + digest_in(key)

    def rows(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return rows of kept activations, by the keys of the rows."""
        keys = list(keys)
        if self._pool is None or not keys:
            return {}
        activations = self._store.get_many([self.key(key) for key in keys])
        there = [
            (k, value) for k, value in zip(keys, activations, strict=True) if value is not None
        ]
        if not there:
            return {}
        pooled = self.pooled(np.stack([value for _, value in there]))
        return dict(zip((key for key, _ in there), pooled, strict=True))

    @torch.inference_mode()
    def pooled(self, activations: np.ndarray) -> np.ndarray:
        """Return rows of activations (n, ...)."""
        if self._pool is None or not len(activations):
            return activations
        return self._pool(torch.from_numpy(activations)).numpy()

    def worth_keeping(
        self, rows: Mapping[bytes, np.ndarray], activations: np.ndarray
    ) -> dict[bytes, np.ndarray]:
        """Return the activations of rows, by their own keys, if the call's have room."""
        if self._pool is None or not rows:
            return {}
        if self._has_room is None:
            all_of_them = activations[0].nbytes * self._n_images
            room = _SHARE_OF_THE_STORE * self._store.limit
            self._has_room = self._store.size_bytes + all_of_them <= room
        if not self._has_room:
            return {}
        return dict(zip(map(self.key, rows), activations, strict=True))
