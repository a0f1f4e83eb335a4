"""Rows that are too many to be copied: standardised block by block."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ._resident import moved

# Values of a block of rows and of their outputs together: 16 MiB in float32, which the caches of a
# CPU nearly hold, and which is enough work for a GPU at once.
_VALUES_OF_A_BLOCK = 2**22


@dataclass(frozen=True)
class ScaledRows:
    """Rows (n, width) in the caller's array, and what standardises a block of them."""

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def slices(self, n_outputs: int, n: int | None = None) -> Iterator[slice]:
        """Yield the blocks of `n` rows, all by default."""
        size = max(1, _VALUES_OF_A_BLOCK // (self.rows.shape[1] + n_outputs))
        n = len(self) if n is None else n
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def block(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Return standardised rows, float64."""
        return (self.rows[chosen] - self.mean) / self.scale

    def tensor(
        self, chosen: slice | np.ndarray, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Return standardised rows on a device."""
        block = moved(torch.from_numpy(np.array(self.rows[chosen])), device).to(dtype)
        mean, scale = (
            torch.from_numpy(values).to(dtype).to(device) for values in (self.mean, self.scale)
        )
        return block.sub_(mean).div_(scale)
