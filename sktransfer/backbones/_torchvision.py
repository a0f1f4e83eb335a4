"""torchvision's classifiers, cut into stages: one row an architecture."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torchvision import models

from ._stages import StageTable


@dataclass(frozen=True)
class Architecture:
    """How a network is built and where it is cut.

    Attributes
    ----------
    build : callable
        Returns the network; takes the user's ``backbone_params``.
    stages : dict or callable
        Stage names to steps, or a function of the network that returns that.
    head : tuple of str
        Prefixes of the parameter names that are not part of any stage.
    n_prefix_tokens : int
        1 for a network of tokens with a class token.
    params : dict
        Given to `build` before the user's.
    """

    build: Callable[..., nn.Module]
    stages: StageTable | Callable[[nn.Module], StageTable]
    head: tuple[str, ...]
    n_prefix_tokens: int = 0
    params: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))

    def stage_table(self, model: nn.Module) -> StageTable:
        return self.stages(model) if callable(self.stages) else self.stages


def _blocks(prefix: str, **groups: tuple[int, int]) -> StageTable:
    """Name groups of consecutive children of a Sequential: stem=(0, 2) is 0 and 1."""
    return {name: tuple(f"{prefix}.{i}" for i in range(*bounds)) for name, bounds in groups.items()}


def _split_after(kind: type[nn.Module], prefix: str) -> Callable[[nn.Module], StageTable]:
    """Return a stage table that ends a stage after each child of one kind."""

    def stages(model: nn.Module) -> StageTable:
        table: dict[str, tuple[str, ...]] = {}
        steps: list[str] = []
        for name, child in model.get_submodule(prefix).named_children():
            steps.append(f"{prefix}.{name}")
            if isinstance(child, kind):
                table[f"stage{len(table) + 1}"] = tuple(steps)
                steps = []
        return table

    return stages


class _TransformInput(nn.Module):
    """Inception's change from ImageNet's mean and deviation to its own."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.enabled = model.transform_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.enabled:
            return x
        # the network was trained on values in [-1, 1]; numbers as torchvision has them
        scale = x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1) / 0.5
        shift = (x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1) - 0.5) / 0.5
        return x * scale + shift


class _VitTokens(nn.Module):
    """Patches to tokens, with the class token first and positions added."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.pos_embedding = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout
        self.image_size = model.image_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"image_size={x.shape[2]} does not fit this vision transformer, whose positions "
                f"were learned at {self.image_size} pixels; use image_size={self.image_size}, "
                f"or None"
            )
        tokens = self.conv_proj(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(tokens), -1, -1)
        return self.dropout(torch.cat([first, tokens], dim=1) + self.pos_embedding)


def _vit_stages(model: nn.Module) -> StageTable:
    """Embedding, then a quarter of the blocks a stage; the last ends with the norm."""
    names = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
    table: dict[str, tuple] = {"embedding": (_VitTokens,)}
    for quarter in range(4):
        start, stop = (len(names) * q // 4 for q in (quarter, quarter + 1))
        table[f"blocks{quarter + 1}"] = tuple(names[start:stop])
    table["blocks4"] += ("encoder.ln",)
    return table


_RESNET_STAGES = {
    "stem": ("conv1", "bn1", "relu", "maxpool"),
    "layer1": ("layer1",),
    "layer2": ("layer2",),
    "layer3": ("layer3",),
    "layer4": ("layer4",),
}

_INCEPTION_STAGES = {
    "stem": (_TransformInput, "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    "stem2": ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    "mixed5": ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    "mixed6": ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    "mixed7": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}

_MOBILENET_V2_STAGES = _blocks(
    "features",
    stem=(0, 2),
    blocks1=(2, 4),
    blocks2=(4, 7),
    blocks3=(7, 11),
    blocks4=(11, 14),
    blocks5=(14, 18),
    last=(18, 19),
)

_MOBILENET_V3_SMALL_STAGES = _blocks(
    "features",
    stem=(0, 1),
    blocks1=(1, 2),
    blocks2=(2, 4),
    blocks3=(4, 7),
    blocks4=(7, 9),
    blocks5=(9, 12),
    last=(12, 13),
)

_EFFICIENTNET_B0_STAGES = _blocks(
    "features",
    stem=(0, 2),
    blocks2=(2, 3),
    blocks3=(3, 4),
    blocks4=(4, 5),
    blocks5=(5, 6),
    blocks6=(6, 7),
    blocks7=(7, 8),
    last=(8, 9),
)


def _row(name: str, stages: Any, head: tuple[str, ...], **options: Any) -> Architecture:
    return Architecture(getattr(models, name), stages, head, **options)


ARCHITECTURES = {
    "efficientnet_b0": _row("efficientnet_b0", _EFFICIENTNET_B0_STAGES, ("classifier.",)),
    "inception_v3": _row(
        "inception_v3",
        _INCEPTION_STAGES,
        ("fc.", "AuxLogits."),
        # transform_input belongs to torchvision's weights
        params=MappingProxyType({"transform_input": True, "init_weights": True}),
    ),
    "mobilenet_v2": _row("mobilenet_v2", _MOBILENET_V2_STAGES, ("classifier.",)),
    "mobilenet_v3_small": _row("mobilenet_v3_small", _MOBILENET_V3_SMALL_STAGES, ("classifier.",)),
    "resnet18": _row("resnet18", _RESNET_STAGES, ("fc.",)),
    "resnet50": _row("resnet50", _RESNET_STAGES, ("fc.",)),
    "vgg16": _row("vgg16", _split_after(nn.MaxPool2d, "features"), ("classifier.",)),
    "vit_b_16": _row("vit_b_16", _vit_stages, ("heads.",), n_prefix_tokens=1),
}


def weights_enum(name: str) -> type[models.WeightsEnum]:
    """Return torchvision's table of the weights on offer for an architecture."""
    return models.get_model_weights(name)
