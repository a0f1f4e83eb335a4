"""The state of a fit on disk, from which an interrupted fit is resumed.

There is one file for each fit, and its name is a digest of everything that the fit
depends on: a fit with other parameters, other images or other labels never finds it. The
file is read with ``weights_only=True``: no code in it runs.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._files import atomic_write

# Part of each name. It is raised with every change of what a name or a state consists of.
_FORMAT = 4


class Checkpoint:
    """The file that holds the state of one fit after each epoch.

    Parameters
    ----------
    folder : str or path-like
    choices : str
        Names of all parameters that the fit depends on.
    arrays : iterable of ndarray
        Activations, targets and weights that it trains on and validates on.
    """

    def __init__(self, folder: str | os.PathLike, choices: str, arrays: Iterable[np.ndarray]):
        digest = hashlib.blake2b(f"{_FORMAT} {choices}".encode(), digest_size=16)
        for array in arrays:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        self.path = Path(folder) / f"{digest.hexdigest()}.sktransfer-checkpoint"

    def load(self) -> dict[str, Any] | None:
        """Return the saved state; None where there is none."""
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            # without torch's message, which advises to run the code in the file
            raise ValueError(
                f"the checkpoint {self.path} is damaged, or not one of sktransfer's "
                f"({type(error).__name__}); delete it to train from the start"
            ) from None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state by that of the epoch that has ended."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as file:
            torch.save(state, file)

    def delete(self) -> None:
        """Delete the file; the fit has ended."""
        self.path.unlink(missing_ok=True)
