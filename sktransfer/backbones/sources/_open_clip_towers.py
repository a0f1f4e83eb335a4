"""How the image towers of open_clip's models are cut into stages.

A row of all stages is what the model's ``encode_image`` returns, before it is normalised to
unit length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from .._architecture import NetworkStructure
from .._stages import CLASS_TOKEN, FEATURE_MAPS, Layout, Pool, StageTable, Step, outside
from .._trace import trace_stages
from .._trace_head import trace_pre_logits
from ._timm import layout_of, only_size_of

_N_GROUPS = 4  # of equal blocks


def structure_of(visual: Any) -> NetworkStructure:
    """Return the stages of an image tower, and its way from the last activation to a row."""
    visual.eval()
    if hasattr(visual, "trunk"):
        return _of_timm(visual)
    if hasattr(visual, "transformer"):
        return _of_vit(visual)
    if hasattr(visual, "attnpool"):
        return _of_resnet(visual)
    return _in_one_stage(visual, square(visual.image_size))


def _of_vit(visual: Any) -> NetworkStructure:
    names = [f"transformer.resblocks.{i}" for i in range(len(visual.transformer.resblocks))]
    table: dict[str, tuple[Step, ...]] = {"embedding": (_Tokens,)}
    n_groups = min(_N_GROUPS, len(names))
    for group in range(n_groups):
        start, stop = (len(names) * g // n_groups for g in (group, group + 1))
        table[f"blocks{group + 1}"] = tuple(names[start:stop])
    reads_class_token = visual.attn_pool is None and visual.pool_type == "tok"
    layout = CLASS_TOKEN if reads_class_token else Layout(1, class_token=True, head="avg")
    return _structure(visual, table, layout, square(visual.image_size), (_Embedding,))


def _of_resnet(visual: Any) -> NetworkStructure:
    parts = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3", "avgpool")
    layers = ("layer1", "layer2", "layer3", "layer4")
    table = {"stem": parts, **{name: (name,) for name in layers}}
    return _structure(visual, table, FEATURE_MAPS, square(visual.image_size), ("attnpool",))


def _of_timm(visual: Any) -> NetworkStructure:
    """Cut the network of timm in a tower; the tower's own layers follow its head."""
    trunk = visual.trunk
    only_size = only_size_of(trunk)
    size = only_size or square(visual.image_size)
    layout = layout_of(trunk)
    if hasattr(visual.head, "pool"):  # a pooling of open_clip's own, of maps that are not pooled
        return _in_one_stage(visual, size)
    try:
        stages, traced_size = trace_stages(trunk, "forward_features", size, layout.n_prefix_tokens)
    except ValueError:
        return _in_one_stage(visual, size)
    # of an encoder without a head it is the plain pooling
    in_head = trace_pre_logits(trunk, size, layout, channels_first=True, last_layer=True)
    pooled: tuple[Step, ...] = tuple(_OfTrunk(step) for step in in_head)
    if not pooled and len(visual.head):
        pooled = (partial(_pool, layout),)
    table = {f"{name}": tuple(_OfTrunk(step) for step in steps) for name, steps in stages.items()}
    steps = (*pooled, "head") if len(visual.head) else pooled
    return _structure(visual, table, layout, only_size or traced_size, steps)


def _in_one_stage(visual: nn.Module, size: int) -> NetworkStructure:
    return _structure(visual, {"network": (_Whole,)}, FEATURE_MAPS, size, ())


def _structure(
    visual: Any,
    table: StageTable,
    layout: Layout,
    image_size: int | None,
    pre_logits: tuple[Step, ...],
) -> NetworkStructure:
    head = outside(visual, {**table, "pre_logits": pre_logits})
    default_size = square(visual.image_size)
    return NetworkStructure(table, head, layout, image_size, pre_logits, default_size)


def square(image_size: int | tuple[int, int]) -> int:
    """Return the side of square images; other shapes are refused."""
    if isinstance(image_size, int):
        return image_size
    height, width = image_size
    if height != width:
        raise ValueError(f"image_size={image_size}: networks for images that are no squares")
    return height


def _pool(layout: Layout, visual: nn.Module) -> nn.Module:
    return Pool(layout.head, layout.n_prefix_tokens)


@dataclass(frozen=True)
class _OfTrunk:
    """A step over the network of timm in a tower."""

    step: Callable[[nn.Module], nn.Module]

    def __call__(self, visual: Any) -> nn.Module:
        return self.step(visual.trunk)


class _Tokens(nn.Module):
    """Images to tokens, the class token first, with positions added."""

    def __init__(self, visual: Any):
        super().__init__()
        self.conv1 = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.patch_dropout = visual.patch_dropout
        self.ln_pre = visual.ln_pre

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positional_embedding
        return self.ln_pre(self.patch_dropout(tokens))


class _Embedding(nn.Module):
    """The last tokens to the embedding that the text is compared with."""

    def __init__(self, visual: Any):
        super().__init__()
        if getattr(visual, "attn_pool_contrastive", None) is not None or visual.pool_type == "none":
            raise ValueError("an image tower whose tokens are pooled twice, or not at all")
        self.attn_pool = visual.attn_pool
        self.ln_post = visual.ln_post
        self.proj = visual.proj
        self.mean = visual.pool_type == "avg"
        self.norm_last = visual.final_ln_after_pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.attn_pool is not None:
            x = self._pooled(self.ln_post(self.attn_pool(x)))
        elif self.norm_last:
            x = self.ln_post(self._pooled(x))
        else:
            x = self._pooled(self.ln_post(x))
        return x @ self.proj

    def _pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 1:].mean(1) if self.mean else tokens[:, 0]


class _Whole(nn.Module):
    """All stages in one, of a tower that can't be cut: images to embeddings."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.visual(x)
        if not isinstance(rows, torch.Tensor):
            raise ValueError("an image tower that gives several activations")
        return rows
