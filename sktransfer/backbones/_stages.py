"""Cut a network at a depth, and pool the activation of a stage to one row per image.

A network is a chain of stages. ``stages[:depth]`` is the frozen part, a pure function of the
image; ``stages[depth:]`` is the rest. A stage is an ``nn.Sequential`` over the network's own
submodules: nothing is copied, so what is trained in a stage is trained in the network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

POOLINGS = ("auto", "avg", "max", "gem", "cls", "flatten")
HEAD = "head"  # the value of "auto" where the last linear layer reads more than a pooling
PRE_LOGITS = "(pre-logits)"  # in tables of stages; in brackets, because it is none

_GEM_POWER = 3.0  # as Radenovic et al. fix it without training, arXiv 1711.02512
_GEM_FLOOR = 1e-6


@dataclass(frozen=True)
class Layout:
    """The layout of a network's activations.

    Attributes
    ----------
    n_prefix_tokens : int
        Tokens before those of the image's patches; 0 for feature maps.
    class_token : bool
        Whether the first token is a class token.
    head : str
        The pooling by which the network's own head reads the last activation.
    """

    n_prefix_tokens: int = 0
    class_token: bool = False
    head: str = "avg"


FEATURE_MAPS = Layout()
CLASS_TOKEN = Layout(n_prefix_tokens=1, class_token=True, head="cls")


class Pool(nn.Module):
    """Pool feature maps (n, C, H, W) or tokens (n, L, C) to rows (n, width).

    Parameters
    ----------
    pooling : one of POOLINGS but "auto"
    n_prefix_tokens : int
        Tokens before those of the image's patches. The first is the class token;
        "avg", "max" and "gem" leave all of them out.
    """

    def __init__(self, pooling: str, n_prefix_tokens: int = 0):
        super().__init__()
        self.pooling = pooling
        self.n_prefix_tokens = n_prefix_tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.bfloat16:
            x = x.float()  # a mean of many rounded values need not be rounded itself
        if self.pooling == "flatten" or x.ndim == 2:
            return x.flatten(1)
        if x.ndim == 3:
            if self.pooling == "cls":
                return x[:, 0]
            x = x[:, self.n_prefix_tokens :].transpose(1, 2)
        else:
            x = x.flatten(2)
        if self.pooling in ("avg", "cls"):  # no class token among feature maps
            return x.mean(2)
        if self.pooling == "max":
            return x.amax(2)
        x = x.float().clamp(min=_GEM_FLOOR)
        return x.pow(_GEM_POWER).mean(2).pow(1 / _GEM_POWER)

    def extra_repr(self) -> str:
        return repr(self.pooling)


class PreLogits(nn.Sequential):
    """What a network computes between its last activation and its last linear layer.

    Its own pooling, which reads float32 as `Pool` does, and the norms and hidden layers
    after it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.bfloat16:
            x = x.float()
        return super().forward(x)


def resolve_pooling(pooling: str, layout: Layout, backbone: str) -> str:
    """Return the pooling that "auto" stands for; raise for one that the network lacks.

    "auto" is what the network's own head reads, often the class token where there
    is one, and the average elsewhere.
    """
    if pooling not in POOLINGS:
        allowed = ", ".join(repr(name) for name in POOLINGS)
        raise ValueError(f"pooling must be one of {allowed}, got {pooling!r}")
    if pooling == "auto":
        return layout.head
    if pooling == "cls" and not layout.class_token:
        raise ValueError(
            f"pooling='cls' needs a network with a class token, and {backbone!r} has none; "
            "use pooling='auto', 'avg', 'max', 'gem' or 'flatten'"
        )
    return pooling


# A step of a stage: the dotted name of a submodule, or what makes a module from
# the network where its forward does more than call submodules one by one.
Step = str | Callable[[nn.Module], nn.Module]
StageTable = Mapping[str, Sequence[Step]]


class Normalise(nn.Module):
    """8-bit images (n, 3, H, W) to the normalised floats that a network expects."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        # (x / 255 - mean) / std as one multiplication and one addition
        means, stds = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", (1 / (255 * stds)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-means / stds).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)


def cut_into_stages(model: nn.Module, table: StageTable) -> dict[str, nn.Sequential]:
    """Return the named stages of `model`, in the order of the table."""
    return {name: nn.Sequential(*modules_of(model, steps)) for name, steps in table.items()}


def modules_of(model: nn.Module, steps: Sequence[Step]) -> list[nn.Module]:
    """Return the modules that steps stand for; submodules of `model` are shared, not copied."""
    return [model.get_submodule(step) if isinstance(step, str) else step(model) for step in steps]


def resolve_depth(depth: int | None, stages: Sequence[str], parameter: str) -> int:
    """Return how many stages ``stages[:depth]`` are; `parameter` is named in errors."""
    n_stages = len(stages)
    if depth is None:
        return n_stages
    if isinstance(depth, bool) or not isinstance(depth, Integral):
        allowed = "an int, None or 'auto'" if parameter == "freeze_depth" else "an int or None"
        hint = f"an int is a number of the stages {', '.join(stages)}"
        if depth in stages:
            n = stages.index(depth) + 1
            hint += f". {parameter}={n} is up to {depth!r} and with it, {n - 1} without it"
        raise InvalidParameterError(f"{parameter} must be {allowed}, got {depth!r}; {hint}")
    if not -n_stages <= depth <= n_stages:
        raise ValueError(
            f"{parameter}={depth} is out of range: this backbone has {n_stages} stages "
            f"({', '.join(stages)}), so {parameter} is None or an int from {-n_stages} to "
            f"{n_stages}, read as stages[:{parameter}]"
        )
    return int(depth) % n_stages if depth < 0 else int(depth)


def outside(model: nn.Module, table: StageTable) -> tuple[str, ...]:
    """Return the prefixes of the names of parameters in no stage: the head."""
    inside = {
        id(value)
        for stage in cut_into_stages(model, table).values()
        for value in (*stage.parameters(), *stage.buffers())
    }
    return tuple(_prefixes_outside(model, "", inside))


def _prefixes_outside(module: nn.Module, prefix: str, inside: set[int]) -> Iterator[str]:
    for name, child in module.named_children():
        used = {id(value) in inside for value in (*child.parameters(), *child.buffers())}
        if used == {False}:
            yield f"{prefix}{name}."
        elif False in used:
            yield from _prefixes_outside(child, f"{prefix}{name}.", inside)
        # else a child of a stage, or one without parameters, such as a ReLU: it is let be
    for name, value in (
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ):
        if id(value) not in inside:
            yield f"{prefix}{name}"


class _MacCounter(TorchDispatchMode):
    """Counts the multiplications of convolutions and matrix products in this thread.

    torch's own ``FlopCounterMode`` also hooks the modules of all other threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        counted = flop_registry.get(func._overloadpacket)
        if counted is None and func.has_kernel_for_dispatch_key(_COMPOSITE):
            with self:  # its parts are counted
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        value = func(*args, **kwargs)
        if counted is not None:  # a multiplication and an addition are two operations
            self.n_macs += counted(*args, **kwargs, out_val=value) // 2
        return value


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def count_macs(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return what a module makes of `x`, and the multiplications that it takes."""
    with _MacCounter() as counter:
        return module(x), counter.n_macs
