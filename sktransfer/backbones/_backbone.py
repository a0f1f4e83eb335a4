"""A backbone: the network, its stages, and its metadata."""

import copy

import torch
from torch import nn

from .._spec import BackboneSpec, InputSpec
from ._architecture import NetworkStructure
from ._stages import (
    HEAD,
    PRE_LOGITS,
    Normalise,
    Pool,
    PreLogits,
    count_macs,
    cut_into_stages,
    modules_of,
    resolve_depth,
    resolve_pooling,
)

# what networks say of an image that is too small, or no multiple of their patches
_BAD_SIZE = (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError)


class Backbone:
    """A network without its head, in evaluation mode, that can be cut at a depth.

    Parameters
    ----------
    spec : BackboneSpec
    model : nn.Module
        The network. Stages share its submodules.
    structure : NetworkStructure
        Its stages, and the layout of its activations.
    size_param : str or None
        The key of ``backbone_params`` by which a network for another image size is made.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        model: nn.Module,
        structure: NetworkStructure,
        size_param: str | None = None,
    ):
        self.spec = spec
        # The network is changed in place here only, before another thread may see it.
        model.eval().requires_grad_(False)
        # convolutions on CPUs and GPUs are faster with channels last
        self.model = model.to(memory_format=torch.channels_last)
        self.structure = structure
        self.size_param = size_param
        # in evaluation mode one by one: a stage may hold modules of its own
        self.stages = {
            name: stage.eval() for name, stage in cut_into_stages(model, structure.stages).items()
        }
        self.pre_logits = (
            PreLogits(*modules_of(model, structure.pre_logits)).eval().requires_grad_(False)
            if structure.pre_logits
            else None
        )
        self._widths: dict[tuple[int, int, str], int] = {}
        self._channels: dict[str, int] = {}  # by stage
        self._costs: dict[int, tuple[int, ...]] = {}  # by image size

    def fresh(self, n_frozen: int = 0) -> "Backbone":
        """Return a copy whose stages from `n_frozen` on may be trained.

        The frozen stages are shared with this backbone, which stays as it is.
        """
        # widths and costs depend on no weights, and another thread may be adding one
        kept = (self._widths, self._channels, self._costs)
        shared: dict[int, object] = {id(values): values for values in kept}
        for part in self._parts()[:n_frozen]:
            shared.update({id(module): module for module in part.modules()})
            shared.update({id(parameter): parameter for parameter in part.parameters()})
        copied = copy.deepcopy(self, shared)
        for part in copied._parts()[n_frozen:]:
            part.requires_grad_(True)
        return copied

    def depth(self, depth: int | None, parameter: str) -> int:
        """Return the number of stages in ``stages[:depth]``, or an error in its terms."""
        return resolve_depth(depth, self.spec.stages, parameter)

    def pooling(self, pooling: str) -> str:
        """Return the pooling that a parameter's value stands for.

        "auto" is "head" where the network has layers of its own between its pooling and
        its last linear layer.
        """
        resolved = resolve_pooling(pooling, self.structure.layout, self.spec.name)
        return HEAD if pooling == "auto" and self.pre_logits is not None else resolved

    def frozen(self, n_stages: int, pooling: str | None) -> nn.Module:
        """Return the first stages: 8-bit images to activations, or to rows when pooled.

        No stages and no pooling is the image itself, still in 8 bits.
        """
        parts: list[nn.Module] = []
        if n_stages or pooling is not None:
            parts.append(self.normalise())
        parts += list(self.stages.values())[:n_stages]
        if pooling is not None:
            parts.append(self.pool(pooling, n_stages))
        return _evaluated(parts)

    def rest(self, n_stages: int, pooling: str) -> nn.Sequential:
        """Return what follows `frozen`: its activations to rows."""
        parts: list[nn.Module] = [] if n_stages else [self.normalise()]
        parts += list(self.stages.values())[n_stages:]
        pool = self.pool(pooling, len(self.stages))
        if pool is self.pre_logits and n_stages < len(self.stages):
            # one stage to train, with one learning rate: a norm alone is none
            parts[-1] = nn.Sequential(parts[-1], pool)
        else:
            parts.append(pool)
        return nn.Sequential(*parts)

    @torch.inference_mode()
    def width(self, n_stages: int, pooling: str, input_spec: InputSpec) -> int:
        """Return the number of values in a pooled row, from a forward pass of a grey image.

        Raises
        ------
        ValueError
            When the network does not take images of that size; the message names
            the sizes that it takes.
        """
        size, only = input_spec.size, self.structure.image_size
        if only is not None and size != only:
            raise ValueError(
                f"image_size={size} does not fit backbone={self.spec.name!r}, which is built for "
                f"{only} pixels and takes no other size; use image_size={only} or None"
                f"{self._another_size()}"
            )
        try:
            return self._width_at(size, n_stages, pooling)
        except _BAD_SIZE as error:
            raise ValueError(
                f"image_size={size} does not fit backbone={self.spec.name!r}: "
                f"{self._sizes(size, n_stages, pooling)}{self._another_size()} "
                f"(the network says: {error or type(error).__name__})"
            ) from error

    def _width_at(self, size: int, n_stages: int, pooling: str) -> int:
        what = size, n_stages, pooling
        if what not in self._widths:  # every fit of a search asks
            x = self.normalise()(torch.full((1, 3, size, size), 128, dtype=torch.uint8))
            for name, stage in list(self.stages.items())[:n_stages]:
                x = stage(x)
                self._channels[name] = x.shape[2] if x.ndim == 3 else x.shape[1]
            pool = self.pool(pooling, n_stages)
            x = pool(x)
            if pool is self.pre_logits:
                self._channels[PRE_LOGITS] = x.shape[1]
            self._widths[what] = x.shape[1]
        return self._widths[what]

    @property
    def known_widths(self) -> dict[str, int]:
        """Widths of the activations that `width` has computed so far, by the names of stages."""
        return dict(self._channels)

    def _sizes(self, size: int, n_stages: int, pooling: str) -> str:
        """Return the message for an image size that the network does not take."""
        own = self.spec.input.size
        good = [n for n in (own - 1, own, own + 1) if self.takes(n, n_stages, pooling)]
        if own not in good:
            which = "that" if size == own else f"{own}, its weights' own size,"
            return f"{which} is a size that it should take, so the cause is another"
        if size >= own:
            return f"use image_size={own} or None"
        if len(good) == 1:
            return f"it takes multiples of a patch or window only; use image_size={own} or None"
        too_small, enough = size, own
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            if self.takes(middle, n_stages, pooling):
                enough = middle
            else:
                too_small = middle
        return f"it takes {enough} pixels or more, and its weights' own size is {own}"

    @torch.inference_mode()
    def costs(self, input_spec: InputSpec) -> tuple[int, ...]:
        """Return the multiplications of each stage, for one image of that size."""
        size = input_spec.size
        if size not in self._costs:
            x = self.normalise()(torch.full((1, 3, size, size), 128, dtype=torch.uint8))
            costs = []
            for stage in self.stages.values():
                x, n_macs = count_macs(stage, x)
                costs.append(n_macs)
            self._costs[size] = tuple(costs)
        return self._costs[size]

    @torch.inference_mode()
    def takes(self, size: int, n_stages: int, pooling: str) -> bool:
        """Return whether images of that size can pass the first `n_stages` stages."""
        try:
            self._width_at(size, n_stages, pooling)
        except _BAD_SIZE:
            return False
        return True

    def _another_size(self) -> str:
        if self.size_param is None:
            return ""
        return (
            f". Another size is another network: backbone_params={{{self.size_param!r}: ...}} with "
            "weights that fit it"
        )

    def pool(self, pooling: str, n_stages: int) -> nn.Module:
        """Return what turns the activation after `n_stages` stages into a row.

        "head" is the network's own way from its last activation; before that it is
        the pooling with which this begins.
        """
        if pooling == HEAD:
            if self.pre_logits is not None and n_stages == len(self.stages):
                return self.pre_logits
            pooling = self.structure.layout.head
        return Pool(pooling, self.structure.layout.n_prefix_tokens).eval()

    def _parts(self) -> list[nn.Module]:
        """Return the stages; the last with what the network computes from its activation."""
        *before, last = self.stages.values()
        return [
            *before,
            last if self.pre_logits is None else nn.ModuleList((last, self.pre_logits)),
        ]

    def normalise(self) -> Normalise:
        """Return what turns 8-bit images into what the first stage takes."""
        return Normalise(self.spec.input.mean, self.spec.input.std).eval()


def _evaluated(parts: list[nn.Module]) -> nn.Sequential:
    """Chain modules in evaluation mode without changing them: other threads use them."""
    network = nn.Sequential(*parts)
    network.training = False
    return network
