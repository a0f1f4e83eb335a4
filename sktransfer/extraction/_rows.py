"""Rows of images in the store: one for each depth, in 16 bits for bfloat16 networks."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..store._base import ActivationStore
from ..store._key import row_key
from ._feature_extractor import ExtractionPlan


class Rows:
    """Looks up the rows of a plan, and makes them from activations.

    One forward pass gives the rows of all stage ends, and all of them are stored. The rows
    of the wanted depths are returned side by side.

    Parameters
    ----------
    plan : ExtractionPlan
    store : ActivationStore or None
    """

    def __init__(self, plan: ExtractionPlan, store: ActivationStore | None):
        self._plan = plan
        self._store = store
        self._wanted = plan.fitted.depths
        self.stored_depths = plan.all_depths if store is not None else ()
        # what one forward pass computes, in order
        self.computed_depths = self.stored_depths or tuple(sorted(set(self._wanted)))
        self._common_keys: dict[int, bytes] = {}  # by depth
        self._is_bfloat16 = plan.fitted.precision == "bfloat16"

    def lock_key(self, digest: bytes) -> bytes:
        """Return the key that stands for one forward pass of an image, whatever the depth."""
        return row_key(self._common(self.computed_depths[-1]), digest)

    def _common(self, depth: int) -> bytes:
        if depth not in self._common_keys:
            self._common_keys[depth] = self._plan.common_key(depth)
        return self._common_keys[depth]

    def get(self, digests: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return the row of each image, or None where the store lacks one of its depths."""
        if self._store is None:
            return [None] * len(digests)
        columns = [self._get_at(self._store, depth, digests) for depth in self._wanted]
        if len(columns) == 1:  # nearly always, so that a warm pass has no loop over images here
            return columns[0]
        return [
            None if any(part is None for part in parts) else self._side_by_side(parts)
            for parts in zip(*columns, strict=True)
        ]

    def _get_at(
        self, store: ActivationStore, depth: int, digests: Sequence[bytes]
    ) -> list[np.ndarray | None]:
        common = self._common(depth)
        return store.get_many([row_key(common, digest) for digest in digests])

    def from_activations(self, digests: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return rows pooled from the activations that a fine-tuned estimator stored."""
        depth = self._wanted[0]
        is_possible = (
            self._plan.is_pooled
            and len(self._wanted) == 1
            and 0 < depth < len(self._plan.backbone.stages)
        )
        if self._store is None or not is_possible:
            return [None] * len(digests)
        common = self._plan.common_key(depth, is_pooled=False)
        stored = self._store.get_many([row_key(common, digest) for digest in digests])
        rows: list[np.ndarray | None] = [None] * len(digests)
        there = {i: activation for i, activation in enumerate(stored) if activation is not None}
        if there:
            activations = np.stack(list(there.values()))
            pooled = self._rounded(self._plan.pool(activations, depth))
            self._store.put_many(
                {
                    row_key(self._common(depth), digests[i]): row
                    for i, row in zip(there, pooled, strict=True)
                }
            )
            for i, row in zip(there, pooled, strict=True):
                rows[i] = row
        return rows

    def made(
        self, digests: Sequence[bytes], activations: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], Mapping[bytes, np.ndarray]]:
        """Return the rows of images that passed the network, and the items to store.

        `activations` has an array (n, ...) for each of the computed depths.
        """
        at = dict(zip(self.computed_depths, activations, strict=True))
        to_put = {
            row_key(self._common(depth), digest): row
            for depth in self.stored_depths
            for digest, row in zip(digests, at[depth], strict=True)
        }
        rows = [
            self._side_by_side([at[depth][i] for depth in self._wanted])
            for i in range(len(digests))
        ]
        return rows, to_put

    def _side_by_side(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Return rows with the bits that those of a forward pass have."""
        if not self._is_bfloat16:
            return values
        return torch.from_numpy(values).bfloat16().float().numpy()
