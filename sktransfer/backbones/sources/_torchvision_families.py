"""How torchvision's classifiers are cut into stages: one table row for each family."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from .._stages import CLASS_TOKEN, FEATURE_MAPS, Layout, StageTable, Step
from ._torchvision_steps import (
    ChannelsFirst,
    ChannelsLast,
    FinalReLU,
    FirstToken,
    Flatten,
    TransformInput,
    VitTokens,
)


@dataclass(frozen=True)
class FixedSize:
    """The image size of a network that takes only one, which is set when it is built.

    Attributes
    ----------
    param : str
        The builder's parameter for it.
    value : callable
        Pixels to the parameter's value.
    read : callable
        The built network to pixels.
    """

    param: str
    value: Callable[[int], Any]
    read: Callable[[Any], int]


@dataclass(frozen=True)
class Family:
    """Architectures that are cut in the same way.

    Attributes
    ----------
    names : str
        Regular expression of the whole name.
    stages : dict or callable
        Stage names to steps, or a function of the network that returns that.
    head : tuple of str
        Prefixes of the names of parameters that are in no stage and not in `pre_logits`.
    layout : Layout
    one_size : FixedSize or None
    params : dict
        Arguments that the builder always gets.
    pre_logits : sequence of steps or callable
        From the last activation to what the last linear layer reads, or a function of
        the network that returns that; empty where it is a pooling alone. A dropout just
        before that layer is no part of it: the estimators have their own.
    """

    names: str
    stages: StageTable | Callable[[nn.Module], StageTable]
    head: tuple[str, ...]
    layout: Layout = FEATURE_MAPS
    one_size: FixedSize | None = None
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    pre_logits: Sequence[Step] | Callable[[nn.Module], Sequence[Step]] = ()


def _after_pools(model: Any) -> StageTable:
    """End a stage after each max pooling; what is left over is the last."""
    groups: list[list[Step]] = [[]]
    for name, child in model.features.named_children():
        groups[-1].append(f"features.{name}")
        if isinstance(child, nn.MaxPool2d):
            groups.append([])
    groups = [group for group in groups if group]
    return {f"stage{number}": tuple(steps) for number, steps in enumerate(groups, start=1)}


def _by_resolution(model: nn.Module, container: str, n_last: int = 1) -> StageTable:
    """Start a stage wherever the maps get smaller; the `n_last` last children are ``last``."""
    children = list(model.get_submodule(container).named_children())
    groups: list[list[Step]] = [[]]
    for position, (name, child) in enumerate(children[:-n_last]):
        if position and _strides(child):
            groups.append([])
        groups[-1].append(f"{container}.{name}")
    names = ["stem", *(f"blocks{number}" for number in range(1, len(groups)))]
    table = {name: tuple(steps) for name, steps in zip(names, groups, strict=True)}
    table["last"] = tuple(f"{container}.{name}" for name, _ in children[-n_last:])
    return table


def _strides(module: nn.Module) -> bool:
    return any(part.stride[0] > 1 for part in module.modules() if isinstance(part, nn.Conv2d))


def _vit_blocks(model: Any) -> StageTable:
    """Embedding, then a quarter of the blocks a stage; the last ends with the norm."""
    names = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
    table: dict[str, tuple[Step, ...]] = {"embedding": (VitTokens,)}
    for quarter in range(4):
        start, stop = (len(names) * q // 4 for q in (quarter, quarter + 1))
        table[f"blocks{quarter + 1}"] = tuple(names[start:stop])
    table["blocks4"] += ("encoder.ln",)
    return table


def _vit_pre_logits(model: Any) -> tuple[Step, ...]:
    """The hidden layer that ``representation_size`` asks for; no weights on offer have one."""
    hidden = [name for name, _ in model.heads.named_children() if name != "head"]
    return (FirstToken, *_numbered("heads.", hidden)) if hidden else ()


def _numbered(prefix: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name in names)


FAMILIES = (
    Family(
        "alexnet",
        _after_pools,
        ("classifier.6.",),
        pre_logits=("avgpool", Flatten, *_numbered("classifier.", "012345")),
    ),
    Family(
        "convnext_(tiny|small|base|large)",
        {
            "stem": ("features.0",),
            "stage1": ("features.1",),
            "stage2": ("features.2", "features.3"),
            "stage3": ("features.4", "features.5"),
            "stage4": ("features.6", "features.7"),
        },
        ("classifier.2.",),
        pre_logits=("avgpool", *_numbered("classifier.", "01")),
    ),
    Family(
        r"densenet\d+",
        {
            "stem": _numbered("features.", ("conv0", "norm0", "relu0", "pool0")),
            "block1": ("features.denseblock1", "features.transition1"),
            "block2": ("features.denseblock2", "features.transition2"),
            "block3": ("features.denseblock3", "features.transition3"),
            "block4": ("features.denseblock4", "features.norm5", FinalReLU),
        },
        ("classifier.",),
    ),
    Family(
        r"efficientnet_(b\d|v2_[sml])",
        partial(_by_resolution, container="features"),
        ("classifier.",),
    ),
    Family(
        "googlenet",
        {
            "stem": (TransformInput, "conv1", "maxpool1", "conv2", "conv3", "maxpool2"),
            "inception3": ("inception3a", "inception3b", "maxpool3"),
            "inception4": (*_numbered("inception4", "abcde"), "maxpool4"),
            "inception5": ("inception5a", "inception5b"),
        },
        ("fc.", "aux1.", "aux2."),
        # transform_input belongs to torchvision's weights; aux_logits are heads of training
        params=MappingProxyType(
            {"transform_input": True, "aux_logits": False, "init_weights": True}
        ),
    ),
    Family(
        "inception_v3",
        {
            "stem": (TransformInput, *_numbered("Conv2d_", ("1a_3x3", "2a_3x3", "2b_3x3"))),
            "stem2": ("maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
            "mixed5": _numbered("Mixed_5", "bcd"),
            "mixed6": _numbered("Mixed_6", "abcde"),
            "mixed7": _numbered("Mixed_7", "abc"),
        },
        ("fc.", "AuxLogits."),
        params=MappingProxyType(
            {"transform_input": True, "aux_logits": False, "init_weights": True}
        ),
    ),
    Family(
        "maxvit_t",
        {"stem": ("stem",), **{f"block{i + 1}": (f"blocks.{i}",) for i in range(4)}},
        ("classifier.5.",),
        # the windows of the first block divide its maps, a quarter of the image's side
        one_size=FixedSize("input_size", lambda n: (n, n), lambda m: 4 * m.blocks[0].grid_size[0]),
        pre_logits=_numbered("classifier.", "01234"),
    ),
    Family(
        r"mnasnet\d_\d+", partial(_by_resolution, container="layers", n_last=3), ("classifier.",)
    ),
    Family("mobilenet_v2", partial(_by_resolution, container="features"), ("classifier.",)),
    Family(
        "mobilenet_v3_(large|small)",
        partial(_by_resolution, container="features"),
        ("classifier.3.",),
        pre_logits=("avgpool", Flatten, *_numbered("classifier.", "01")),
    ),
    Family(
        r"regnet_[xy]_\w+",
        {"stem": ("stem",), **{f"block{i}": (f"trunk_output.block{i}",) for i in range(1, 5)}},
        ("fc.",),
    ),
    Family(
        r"(resnet|resnext|wide_resnet)\d+\w*",
        {
            "stem": ("conv1", "bn1", "relu", "maxpool"),
            "layer1": ("layer1",),
            "layer2": ("layer2",),
            "layer3": ("layer3",),
            "layer4": ("layer4",),
        },
        ("fc.",),
    ),
    Family(
        r"shufflenet_v2_x\d_\d",
        {
            "stem": ("conv1", "maxpool"),
            "stage2": ("stage2",),
            "stage3": ("stage3",),
            "stage4": ("stage4",),
            "last": ("conv5",),
        },
        ("fc.",),
    ),
    # its classifier is a convolution before the pooling; there is no linear layer
    Family(r"squeezenet\d_\d", _after_pools, ("classifier.",)),
    Family(
        r"swin_(v2_)?[tsb]",
        {
            "embedding": ("features.0", ChannelsFirst),
            "stage1": (ChannelsLast, "features.1", ChannelsFirst),
            "stage2": (ChannelsLast, "features.2", "features.3", ChannelsFirst),
            "stage3": (ChannelsLast, "features.4", "features.5", ChannelsFirst),
            "stage4": (ChannelsLast, "features.6", "features.7", "norm", ChannelsFirst),
        },
        ("head.",),
    ),
    Family(
        r"vgg\d+(_bn)?",
        _after_pools,
        ("classifier.6.",),
        pre_logits=("avgpool", Flatten, *_numbered("classifier.", "01234")),
    ),
    Family(
        r"vit_[blh]_\d+",
        _vit_blocks,
        ("heads.head.",),
        layout=CLASS_TOKEN,
        # a position was learned for every patch
        one_size=FixedSize("image_size", int, lambda model: model.image_size),
        pre_logits=_vit_pre_logits,
    ),
)


def matches(family: Family, name: str) -> bool:
    return re.fullmatch(family.names, name) is not None


def family_of(name: str) -> Family | None:
    return next((family for family in FAMILIES if matches(family, name)), None)
