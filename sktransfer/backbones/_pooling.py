"""From the activation of a stage to one row per image."""

from dataclasses import dataclass

import torch
from torch import nn

POOLINGS = ("auto", "avg", "max", "gem", "cls", "flatten")

_GEM_POWER = 3.0  # as Radenovic et al. fix it without training, arXiv 1711.02512
_GEM_FLOOR = 1e-6


@dataclass(frozen=True)
class Layout:
    """What a network's activations are made of.

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


def resolve_pooling(pooling: str, layout: Layout, backbone: str) -> str:
    """Return the pooling that "auto" stands for; refuse what the network can't give.

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
