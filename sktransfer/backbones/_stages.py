"""Cut a network at a depth.

A network is a chain of stages. ``stages[:depth]`` is the frozen part, a pure
function of the image; ``stages[depth:]`` is the rest. A stage is an
``nn.Sequential`` over the network's own submodules: nothing is copied, so what
is trained in a stage is trained in the network.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral

import torch
from torch import nn

# A step of a stage: the dotted name of a submodule, or what makes a module from
# the network where its forward does more than call submodules one by one.
Step = str | Callable[[nn.Module], nn.Module]
StageTable = Mapping[str, Sequence[Step]]


class Normalise(nn.Module):
    """8-bit images (n, 3, H, W) to the normalised floats that a network expects."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        # (x / 255 - mean) / std as one multiplication and one addition
        mean, std = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)


def cut_into_stages(model: nn.Module, table: StageTable) -> dict[str, nn.Sequential]:
    """Return the named stages of `model`, in the order of the table."""
    stages = {}
    for name, steps in table.items():
        modules = [
            model.get_submodule(step) if isinstance(step, str) else step(model) for step in steps
        ]
        stages[name] = nn.Sequential(*modules)
    return stages


def resolve_depth(depth: int | None, stages: Sequence[str], parameter: str) -> int:
    """Return how many stages ``stages[:depth]`` are; `parameter` is named in errors."""
    n_stages = len(stages)
    if depth is None:
        return n_stages
    if isinstance(depth, bool) or not isinstance(depth, Integral):
        raise TypeError(f"{parameter} must be an int or None, got {depth!r}")
    if not -n_stages <= depth <= n_stages:
        raise ValueError(
            f"{parameter}={depth} is out of range: this backbone has {n_stages} stages "
            f"({', '.join(stages)}), so {parameter} is None or an int from {-n_stages} to "
            f"{n_stages}, read as stages[:{parameter}]"
        )
    return int(depth) % n_stages if depth < 0 else int(depth)


def outside(model: nn.Module, table: StageTable) -> tuple[str, ...]:
    """Return what belongs to no stage, as prefixes of parameter names: the head."""
    inside = {
        id(value)
        for stage in cut_into_stages(model, table).values()
        for value in (*stage.parameters(), *stage.buffers())
    }
    names = {
        name: id(value) in inside
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }
    children = [f"{child}." for child, _ in model.named_children()]
    # a child without parameters, such as a ReLU, may belong to a stage: it is let be
    outer = [
        child
        for child in children
        if {names[name] for name in names if name.startswith(child)} == {False}
    ]
    loose = [name for name, used in names.items() if not used and not name.startswith(tuple(outer))]
    return (*outer, *loose)
