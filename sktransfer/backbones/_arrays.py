"""A module's weights as numpy arrays, which every way of saving an estimator takes."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..exceptions import WeightsError


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
    """Set all that `arrays_of` saved, in its precision; `title` names the module in errors."""
    try:
        module.load_state_dict(tensors_of(arrays), strict=True, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"what was saved of {title} does not fit it: {error}") from None
