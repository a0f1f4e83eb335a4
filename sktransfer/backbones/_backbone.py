"""A backbone: the network, its stages, and its passport."""

import copy

import torch
from torch import nn

from .._spec import BackboneSpec, InputSpec
from ._pooling import Pool, resolve_pooling
from ._stages import Normalise, StageTable, cut_into_stages, resolve_depth


class Backbone:
    """A network without its head, in evaluation mode, that can be cut at a depth.

    Parameters
    ----------
    spec : BackboneSpec
    model : nn.Module
        The network. Stages share its submodules.
    table : dict
        Stage names to steps.
    n_prefix_tokens : int
        Tokens before those of the patches; 0 for a network of feature maps.
    """

    def __init__(
        self, spec: BackboneSpec, model: nn.Module, table: StageTable, n_prefix_tokens: int
    ):
        self.spec = spec
        self.model = model.eval().requires_grad_(False)
        self.n_prefix_tokens = n_prefix_tokens
        self.stages = cut_into_stages(model, table)

    def fresh(self, n_frozen: int = 0) -> "Backbone":
        """Return a copy whose stages from `n_frozen` on may be trained.

        The frozen stages are shared with this backbone, which stays as it is.
        """
        shared: dict[int, object] = {}
        for stage in list(self.stages.values())[:n_frozen]:
            shared.update({id(module): module for module in stage.modules()})
            shared.update({id(parameter): parameter for parameter in stage.parameters()})
        copied = copy.deepcopy(self, shared)
        for stage in list(copied.stages.values())[n_frozen:]:
            stage.requires_grad_(True)
        return copied

    def depth(self, depth: int | None, parameter: str) -> int:
        """Return the number of stages in ``stages[:depth]``, or an error in its terms."""
        return resolve_depth(depth, self.spec.stages, parameter)

    def pooling(self, pooling: str) -> str:
        """Return the pooling that a parameter's value stands for."""
        return resolve_pooling(pooling, self.n_prefix_tokens, self.spec.name)

    def frozen(self, n_stages: int, pooling: str | None) -> nn.Module:
        """Return the first stages: 8-bit images to activations, or to rows when pooled.

        No stages and no pooling is the image itself, still in 8 bits.
        """
        parts: list[nn.Module] = []
        if n_stages or pooling is not None:
            parts.append(self._normalise())
        parts += list(self.stages.values())[:n_stages]
        if pooling is not None:
            parts.append(Pool(pooling, self.n_prefix_tokens))
        return nn.Sequential(*parts)

    def rest(self, n_stages: int, pooling: str) -> nn.Sequential:
        """Return what follows `frozen`: its activations to rows."""
        parts: list[nn.Module] = [] if n_stages else [self._normalise()]
        parts += list(self.stages.values())[n_stages:]
        parts.append(Pool(pooling, self.n_prefix_tokens))
        return nn.Sequential(*parts)

    @torch.inference_mode()
    def width(self, n_stages: int, pooling: str, input_spec: InputSpec) -> int:
        """Return the number of values in a pooled row, from one pass of a grey image."""
        grey = torch.full((1, 3, input_spec.size, input_spec.size), 128, dtype=torch.uint8)
        try:
            return self.frozen(n_stages, pooling)(grey).shape[1]
        except RuntimeError as error:
            raise ValueError(
                f"image_size={input_spec.size} is too small for backbone={self.spec.name!r} "
                f"({error}); use a larger image_size, or None for the weights' own "
                f"{self.spec.input.size}"
            ) from None

    def _normalise(self) -> Normalise:
        return Normalise(self.spec.input.mean, self.spec.input.std)
