"""The frozen stages of a backbone as a function of images, and the keys of its rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn

from .._spec import FittedPlan, InputSpec
from ..backbones._backbone import Backbone
from ..backbones._stages import HEAD
from ..images._decode import DECODING_VERSION, decoder_versions
from ..images._preprocess import PREPROCESSING_VERSION, preprocess
from ..runtime._device_copies import copy_on, is_on, kept_copy
from ..runtime._memory import BatchLimit, in_fitting_parts
from ..runtime._transfers import transfers_to
from ..store._key import RowIngredients, common_key
from ._fold import folded_stages, in_bfloat16
from ._precision import arithmetic

# What memory has room for, by backbone, depth, precision, size and device, so that a batch that
# was too large is not tried again in each call.
_limits: dict[tuple, BatchLimit] = {}


class AugmentedView(Protocol):
    """One way to change images, such as one of several random views of each."""

    def key(self) -> str | None:
        """Return a name of everything that changes the view; None if it has none."""

    def pixels(self, pixels: np.ndarray, spec: InputSpec, digest: bytes) -> torch.Tensor:
        """Return uint8 (3, size, size) from an image's uint8 pixels and its digest."""


@dataclass(frozen=True)
class ExtractionPlan:
    """Which rows of images are wanted: the fitted plan, on a device, of a view.

    Parameters
    ----------
    backbone : Backbone
    fitted : FittedPlan
        What was decided at `fit`.
    device : torch.device
    view : AugmentedView or None
        The random view of the image, if it is augmented.
    """

    backbone: Backbone
    fitted: FittedPlan
    device: torch.device
    view: AugmentedView | None = None

    @property
    def is_pooled(self) -> bool:
        return self.fitted.pooling is not None

    @property
    def passes_network(self) -> bool:
        return max(self.fitted.depths) > 0

    @property
    def takes_padded(self) -> bool:
        """Whether `prepare` takes pixels of four values, of which the last has no meaning."""
        return self.view is None

    @property
    def is_storable(self) -> bool:
        """Whether the rows can have a key."""
        return self.view is None or self.view.key() is not None

    @cached_property
    def all_depths(self) -> tuple[int, ...]:
        """Return the depths whose rows one forward pass gives.

        Pooled rows are a few kB, and a search over depths needs those of other depths too:
        images pass the whole network, and the rows of all stage ends are stored. An
        activation may be a megabyte: only the wanted one is stored.
        """
        pooling = self.fitted.pooling
        if pooling is None or pooling == "flatten" or not self.passes_network:
            return tuple(sorted(set(self.fitted.depths)))
        first = 0 if 0 in self.fitted.depths else 1  # pixels need no pass, and are not kept
        last = len(self.backbone.stages)
        if not self.backbone.takes(self.fitted.input.size, last, pooling):
            last = max(self.fitted.depths)  # small images may pass the first stages only
        return tuple(range(first, last + 1))

    def common_key(self, n_stages: int, *, is_pooled: bool | None = None) -> bytes:
        """Return what the keys of all images have in common, for one depth."""
        return common_key(self.ingredients(n_stages, is_pooled=is_pooled))

    def ingredients(self, n_stages: int, *, is_pooled: bool | None = None) -> RowIngredients:
        """Return everything that a row depends on beside the image, for one depth."""
        pooling = self.fitted.pooling if is_pooled in (None, True) else None
        spec = self.fitted.backbone
        # Depth 0 passes no network: its pixels are the same for all backbones with the same
        # input numbers.
        has_network = n_stages > 0
        layout = asdict(self.backbone.structure.layout)
        if not has_network:  # but for the pooling that "head" stands for
            layout = {"head": layout["head"]} if pooling == HEAD else {}
        return RowIngredients(
            weights=spec.digest if has_network else "",
            code=spec.code if has_network else "",
            stages=spec.stages if has_network else (),
            n_stages=n_stages,
            layout=layout,
            pooling=pooling,
            input=asdict(self.fitted.input),
            view=None if self.view is None else self.view.key(),
            image_code={"decoding": DECODING_VERSION, "preprocessing": PREPROCESSING_VERSION},
            arithmetic=arithmetic(self.fitted.precision if has_network else "float32", self.device),
            libraries=library_versions(),
        )

    def prepare(self, pixels: np.ndarray, digest: bytes) -> torch.Tensor:
        """Return what the network reads of one image, uint8 (H, W, 3): uint8 (3, size, size)."""
        if self.view is None:
            return preprocess(pixels, self.fitted.input)
        return self.view.pixels(pixels, self.fitted.input, digest)

    def pool(self, activations: np.ndarray, n_stages: int) -> np.ndarray:
        """Return the rows (n, width) of activations after `n_stages` stages."""
        assert self.fitted.pooling is not None
        with torch.inference_mode():
            pool = self.backbone.pool(self.fitted.pooling, n_stages)
            return pool(torch.from_numpy(activations)).numpy()


def library_versions() -> dict[str, str]:
    """Return the versions that a row depends on by more than 1e-5.

    torch computes the network and resizes; Pillow and its decoders make the pixels. Patch
    releases are left out: they fix defects and change no kernel.
    """
    return {"torch": ".".join(torch.__version__.split(".")[:2]), **decoder_versions()}


class FeatureExtractor:
    """Maps uint8 (3, size, size) of images to activations, without gradients.

    The modules of the backbone are shared with other threads and are not changed: batch
    norms are folded in copies, and another device gets a copy, when its first batch comes. The
    network is not compiled, because torch.compile takes minutes for the first batch.

    Parameters
    ----------
    plan : ExtractionPlan
    depths : sequence of int
        The numbers of stages after which an activation is returned.
    device : torch.device, default=None
        Where to compute; None is that of the plan.
    """

    def __init__(
        self, plan: ExtractionPlan, depths: Sequence[int], device: torch.device | None = None
    ):
        self.device = plan.device if device is None else device
        self._transfers = transfers_to(self.device)
        self._plan, self._depths = plan, depths
        self._is_bfloat16 = plan.fitted.precision == "bfloat16"
        size = plan.fitted.input.size
        self._limit = _limits.setdefault(
            (
                plan.fitted.backbone.digest,
                max(depths),
                plan.fitted.precision,
                size,
                str(self.device),
            ),
            BatchLimit(),
        )
        stages = folded_stages(plan.backbone, max(depths), size)
        self._stages = in_bfloat16(stages) if self._is_bfloat16 else stages

    @cached_property
    def _module(self) -> "_Chain":
        return _Chain(self._plan, self._depths, self._stages, self.device)

    def current(self) -> AbstractContextManager[object]:
        """Return a context in which a thread works on the device."""
        return self._transfers.current()

    def __call__(self, images: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """Return the activations of a batch, one array for each depth."""
        return self.launch(images)()

    def launch(self, images: Sequence[torch.Tensor]) -> Callable[[], list[np.ndarray]]:
        """Start a batch, and return a function that waits for its activations.

        On CUDA the batch is computed asynchronously; elsewhere it is done on return. A batch
        that memory has no room for is divided.
        """
        module = self._module  # made outside of inference mode
        waits = in_fitting_parts(
            len(images), lambda part: self._pass(module, images[part]), self._limit, self.device
        )

        def wait() -> list[np.ndarray]:
            parts = [wait_for_part() for wait_for_part in waits]
            return [
                np.concatenate(same) if len(same) > 1 else same[0]
                for same in zip(*parts, strict=True)
            ]

        return wait

    @torch.inference_mode()
    def _pass(
        self, module: nn.Module, images: Sequence[torch.Tensor]
    ) -> Callable[[], list[np.ndarray]]:
        """Start images that are to fit in memory together."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_bfloat16):
            values = module(self._transfers.to_device(images))
        return self._transfers.to_host(
            [self._rounded(value, depth) for depth, value in zip(self._depths, values, strict=True)]
        )

    def _rounded(self, value: torch.Tensor, depth: int) -> torch.Tensor:
        """Return activations with the bits that their network has, which the store keeps.

        A network in bfloat16 gives 8 significant bits. What is returned the first time is
        what the store returns later, and half as many bytes go to the host. Pixels pass no
        network.
        """
        if not value.is_floating_point():
            return value
        return value.bfloat16() if self._is_bfloat16 and depth > 0 else value.float()


class _Chain(nn.Module):
    """The stages one after the other; returns the activations after the wanted ones."""

    rounded: range

    def __init__(
        self,
        plan: ExtractionPlan,
        depths: Sequence[int],
        stages: Sequence[nn.Module],
        device: torch.device,
    ):
        super().__init__()
        pooling = plan.fitted.pooling
        self.normalise = None
        if max(depths) or pooling is not None:
            normalise = plan.backbone.normalise()  # of its own, and of six numbers
            self.normalise = normalise if is_on(normalise, device) else copy_on(normalise, device)
        self.stages = nn.ModuleList(kept_copy(stage, device) for stage in stages)
        # Rows are pooled on the device: activations in the middle are a hundred times as large.
        self.pools = nn.ModuleDict(
            {
                str(depth): nn.Identity()
                if pooling is None
                else kept_copy(plan.backbone.pool(pooling, depth), device)
                for depth in depths
            }
        )
        # An activation in the middle is stored with the bits of bfloat16, and a row that is
        # pooled from it must be the row that is pooled here.
        is_bfloat16 = plan.fitted.precision == "bfloat16" and pooling is not None
        self.rounded = range(1, len(plan.backbone.stages)) if is_bfloat16 else range(0)
        # the other modules are shared, and already in evaluation mode
        self.training = self.stages.training = self.pools.training = False

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = images if self.normalise is None else self.normalise(images)
        given = []
        for depth in range(len(self.stages) + 1):
            if depth:
                x = self.stages[depth - 1](x)
            if str(depth) in self.pools:
                read = x.bfloat16() if depth in self.rounded else x
                given.append(self._given(self.pools[str(depth)](read), x, depth))
        return given

    def _given(self, row: torch.Tensor, x: torch.Tensor, depth: int) -> torch.Tensor:
        """Return a row that the next stage, which may work in place, can't change."""
        is_view = row.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        return row.clone() if is_view and depth < len(self.stages) else row
