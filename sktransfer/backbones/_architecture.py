"""An architecture: how a network is built, where it is cut, which weights it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .._locking import own_random_state
from .._spec import InputSpec, WeightsOffer
from ._stages import FEATURE_MAPS, Layout, StageTable, Step, modules_of


@dataclass(frozen=True)
class NetworkStructure:
    """What a built network is made of.

    Attributes
    ----------
    stages : dict
        Stage names to steps.
    head : tuple of str
        Prefixes of the names of parameters that are in no stage and not in `pre_logits`.
    layout : Layout
        The layout of its activations.
    image_size : int or None
        The only image size that it takes, in pixels; None where it takes several.
    pre_logits : sequence of steps
        From the last activation to what the network feeds its last linear layer. Empty
        where that is the pooling which `layout` names, and nothing else.
    default_size : int or None
        The image size that it was built for, where its parameters say one.
    """

    stages: StageTable
    head: tuple[str, ...]
    layout: Layout = FEATURE_MAPS
    image_size: int | None = None
    pre_logits: Sequence[Step] = ()
    default_size: int | None = None

    def pre_logits_names(self, model: nn.Module) -> set[str]:
        """Return the names of the parameters and buffers of `pre_logits`."""
        modules = modules_of(model, self.pre_logits)
        inside = {id(v) for module in modules for v in (*module.parameters(), *module.buffers())}
        named = (*model.named_parameters(), *model.named_buffers())
        return {name for name, value in named if id(value) in inside}


@dataclass(frozen=True)
class Architecture:
    """How a network is built, and its properties that are known before.

    Attributes
    ----------
    name : str
    source : str
        "embedded", "keras", "openclip", "registered", "timm" or "torchvision".
    build : callable
        Returns the network with random weights; takes the user's ``backbone_params``.
    structure : callable
        Reads the `NetworkStructure` off a built network.
    input : callable
        Returns the preprocessing for weights without one of their own.
    offers : callable
        Returns the weights on offer by name, the default first.
    pretrained : callable
        Takes this architecture, one of its offers and parameters for `build`;
        returns the network with these weights.
    params : dict
        Given to `build` before the user's, whatever the weights.
    size_param : str or None
        The parameter of `build` by which a network for another image size is made.
    builds_empty : bool
        Whether a network built while parameters have no memory can be used once
        weights are loaded.
    own_state : callable
        Takes the weights of a file; returns those of this network, by its own names.
    own_endings : tuple of str
        Of files of weights in a format of its source's.
    own_file : callable or None
        Takes the path of such a file, a network of this architecture and a title for
        messages; returns the weights by the network's own names.
    published_params : callable
        Returns the number of parameters with the head, None where none is published.
    is_downloaded : callable
        Tells whether weights on offer are on this machine.
    """

    name: str
    source: str
    build: Callable[..., nn.Module]
    structure: Callable[[nn.Module], NetworkStructure]
    input: Callable[[], InputSpec]
    offers: Callable[[], Mapping[str, WeightsOffer]]
    pretrained: Callable[["Architecture", WeightsOffer, dict[str, Any]], nn.Module]
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    size_param: str | None = None
    builds_empty: bool = True
    own_state: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] = lambda s: s
    own_endings: tuple[str, ...] = ()
    own_file: Callable[[str, nn.Module, str], Mapping[str, torch.Tensor]] | None = None
    published_params: Callable[[], int | None] = lambda: None
    is_downloaded: Callable[[WeightsOffer], bool] = lambda offer: True

    def offer(self, weights: str) -> WeightsOffer:
        """Return one of the offers, or an error that lists them."""
        offers = self.offers()
        if weights == "default" and offers:
            return next(iter(offers.values()))
        if weights in offers:
            return offers[weights]
        listed = "".join(f"{name!r}, " for name in offers)
        default = "'default', " if offers else ""
        endings = (".safetensors", ".pth", *self.own_endings)
        raise ValueError(
            f"weights={weights!r} is unknown for backbone={self.name!r}; allowed are {default}"
            f"{listed}None (random) and the path of a state dict ({', '.join(endings)})"
        )

    def random(self, params: Mapping[str, Any]) -> nn.Module:
        """Return the network with random weights, the same every time."""
        with own_random_state(0):
            return self._built(params)

    def empty(self, params: Mapping[str, Any]) -> nn.Module:
        """Return the network with parameters that hold no values and take no memory."""
        with own_random_state(), _EmptyOnMeta():
            return self._built(params)

    def _built(self, params: Mapping[str, Any]) -> nn.Module:
        try:
            return self.build(**{**self.params, **params})
        except (TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"backbone_params={dict(params)!r} is not what {self.name!r} takes: {error}"
            ) from error


class _EmptyOnMeta(TorchFunctionMode):
    """Put on the meta device what a layer allocates for its parameters, and nothing else.

    Everything on the meta device, as ``torch.device("meta")`` does it, breaks
    builders that compute with tensors (torchvision's RegNet its widths), and
    buffers that no file of weights holds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
