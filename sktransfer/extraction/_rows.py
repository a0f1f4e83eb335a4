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
        self._common = {depth: plan.common_key(depth) for depth in self.computed_depths}
        self._is_bfloat16 = plan.fitted.precision == "bfloat16"

    def lock_key(self, digest: bytes) -> bytes:
        """Return the key to lock for a forward pass of an image, the same for all depths."""
        return row_key(self._common[self.computed_depths[-1]], digest)

    def get(self, digests: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return the row of each image, or None where the store lacks one of its depths."""
        if self._store is None:
            return [None] * len(digests)
        columns = [self._get_at(depth, digests) for depth in self._wanted]
        return [
            None if any(part is None for part in parts) else self._side_by_side(parts)
            for parts in zip(*columns, strict=True)
        ]

    def _get_at(self, depth: int, digests: Sequence[bytes]) -> list[np.ndarray | None]:
        common = self._common[depth]
        rows = self._store.get_many([row_key(common, digest) for digest in digests])
        return [None if row is None else self._decoded(row, depth) for row in rows]

    def from_activations(self, digests: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return rows pooled from the activations that a fine-tuned estimator stored."""
        depth = self._wanted[0]
        is_possible = (
            self._store is not None
            and self._plan.is_pooled
            and len(self._wanted) == 1
            and 0 < depth < len(self._plan.backbone.stages)
        )
        if not is_possible:
            return [None] * len(digests)
        common = self._plan.common_key(depth, is_pooled=False)
        stored = self._store.get_many([row_key(common, digest) for digest in digests])
        rows: list[np.ndarray | None] = [None] * len(digests)
        there = [i for i, activation in enumerate(stored) if activation is not None]
        if there:
            activations = np.stack([self._decoded(stored[i], depth) for i in there])
            encoded = self._encoded(self._plan.pool(activations, depth), depth)
            self._store.put_many(
                {
                    row_key(self._common[depth], digests[i]): row
                    for i, row in zip(there, encoded, strict=True)
                }
            )
            for i, row in zip(there, encoded, strict=True):
                rows[i] = self._decoded(row, depth)
        return rows

    def made(
        self, digests: Sequence[bytes], activations: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], Mapping[bytes, np.ndarray]]:
        """Return the rows of images that passed the network, and the items to store.

        `activations` has an array (n, ...) for each of the computed depths.
        """
        encoded = {
            depth: self._encoded(values, depth)
            for depth, values in zip(self.computed_depths, activations, strict=True)
        }
        to_put = {
            row_key(self._common[depth], digest): row
            for depth in self.stored_depths
            for digest, row in zip(digests, encoded[depth], strict=True)
        }
        decoded = {depth: self._decoded(encoded[depth], depth) for depth in set(self._wanted)}
        rows = [
            self._side_by_side([decoded[depth][i] for depth in self._wanted])
            for i in range(len(digests))
        ]
        return rows, to_put

    def _side_by_side(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # Activations of a network in bfloat16 are rounded to its 8 significant bits. Rows that
    # were just computed are rounded too, so they equal those that the store returns later.
    # Pixels pass no network.
    def _encoded(self, values: np.ndarray, depth: int) -> np.ndarray:
        if not self._is_bfloat16 or depth == 0:
            return values
        return torch.from_numpy(values).bfloat16().view(torch.int16).numpy()

    def _decoded(self, values: np.ndarray, depth: int) -> np.ndarray:
        if not self._is_bfloat16 or depth == 0:
            return values
        return torch.from_numpy(values).view(torch.bfloat16).float().numpy()
