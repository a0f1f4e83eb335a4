"""Make frozen stages faster: fold batch norms into convolutions, cast weights once.

In evaluation mode a batch norm multiplies and adds constants per channel, and the
convolution before it can do both. That saves reading and writing the activation once more.
Nothing is traced or compiled.
"""

import copy
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .._locking import ForkSafeLock
from ..backbones._backbone import Backbone

# Of the largest value. Rounding in float32 differs by 1e-6 from layer to layer; a
# convolution folded wrongly gives another activation.
_TOLERANCE = 1e-3


# Folded stages by their first batch norm and the image size; None where none can be folded.
# A batch norm lives as long as its backbone. Without this every call would fold once more.
_folded: WeakKeyDictionary[nn.Module, dict[int, nn.Module | None]] = WeakKeyDictionary()
# Stages in bfloat16 by the first layer that was cast.
_cast: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
_CAST = (nn.Conv2d, nn.Linear)  # not their subclasses, which may compute with their weights
_lock = ForkSafeLock()


class _Output(NamedTuple):
    conv: nn.Conv2d
    value: torch.Tensor  # held, so that its id is not given to another
    version: int


def folded_stages(backbone: Backbone, n_stages: int, size: int) -> list[nn.Module]:
    """Return the first stages of a backbone, their batch norms folded in copies.

    Each stage is folded by itself, so that the activation after any of them is what it was.
    """
    if n_stages == 0:
        return []
    # not in inference mode, whatever the caller's is: there tensors have no versions
    with torch.inference_mode(False), torch.no_grad():
        x: torch.Tensor | None = None
        folded: list[nn.Module] = []
        for stage in list(backbone.stages.values())[:n_stages]:
            norm = next((part for part in stage.modules() if _is_foldable(part)), None)
            if norm is None:
                folded.append(stage)
                continue
            with _lock:
                known = _folded.setdefault(norm, {})
                if size not in known:
                    if x is None:
                        x = backbone.normalise()(_drawn_image(size))
                        for earlier in folded:
                            x = earlier(x)
                    made = _fold(stage, x)
                    # the stage itself would keep its own key alive
                    known[size] = None if made is stage else made
                copied = known[size]
            folded.append(stage if copied is None else copied)
            if x is not None:
                x = folded[-1](x)
        return folded


def in_bfloat16(stages: Sequence[nn.Module]) -> list[nn.Module]:
    """Return copies of stages whose convolutions and linear layers hold bfloat16 weights.

    These are the weights that autocast would make for each batch, to the last bit. The
    copies share all else, and are made once for each stage.
    """
    return [_in_bfloat16(stage) for stage in stages]


def _in_bfloat16(stage: nn.Module) -> nn.Module:
    layer = next((part for part in stage.modules() if _can_cast(part)), None)
    if layer is None:
        return stage
    with _lock:
        if layer not in _cast:
            copied = _copy_sharing(stage)
            for part in copied.modules():
                if _can_cast(part):
                    for name, value in part._parameters.items():
                        if value is not None:
                            cast = nn.Parameter(value.detach().bfloat16(), requires_grad=False)
                            setattr(part, name, cast)
            _cast[layer] = copied
        return _cast[layer]


def _can_cast(part: nn.Module) -> bool:
    """Tell whether a layer multiplies by its weight as it is, and by nothing made of it."""
    return (
        type(part) in _CAST
        and part._parameters.keys() <= {"weight", "bias"}
        and not part._forward_pre_hooks
    )


def _copy_sharing(network: nn.Module) -> nn.Module:
    """Return a copy whose modules may be changed; its tensors are those of `network`."""
    shared = {id(value): value for value in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, dict(shared))


def fold_batch_norms(network: nn.Module, size: int) -> nn.Module:
    """Return a copy of a whole network with batch norms folded; itself where none can be."""
    with torch.inference_mode(False), torch.no_grad():
        return _fold(network, _drawn_image(size))


def _drawn_image(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=generator)


def _fold(network: nn.Module, probe: torch.Tensor) -> nn.Module:
    """Return a copy that shares all that is not folded; `network` stays as it is.

    A forward pass of `probe` shows which batch norm follows which convolution, whatever the
    network's code. It runs on the copy, because hooks on the network itself would also see
    the forward passes of other threads.
    """
    copied = _copy_sharing(network)
    pairs = convolutions_before_norms(copied, probe.clone())
    if not pairs:
        return network
    _fold_pairs(copied, pairs)
    # what can't be seen: a convolution whose output is used a second time
    return copied if agree(network(probe.clone()), copied(probe.clone())) else network


def convolutions_before_norms(
    network: nn.Module, probe: torch.Tensor
) -> list[tuple[nn.Conv2d, Any]]:
    """Return the convolutions whose output goes to a batch norm as it is."""
    outputs: dict[int, _Output] = {}
    calls: Counter[nn.Module] = Counter()
    pairs = []

    def after_conv(module: nn.Conv2d, args: tuple, output: torch.Tensor) -> None:
        calls[module] += 1
        outputs[id(output)] = _Output(module, output, output._version)

    def before_norm(module: nn.Module, args: tuple) -> None:
        calls[module] += 1
        made = outputs.get(id(args[0]))
        # a new version is another operation, done in place
        if made is not None and made.version == args[0]._version:
            pairs.append((made.conv, module))

    hooks = []
    for module in network.modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_conv))
        elif _is_foldable(module):
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        network(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def _is_foldable(module: nn.Module) -> bool:
    # timm's batch norm with an activation is recognised by its name: timm may be absent
    is_norm = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
    return is_norm and not module.training and module.running_mean is not None


def _fold_pairs(network: nn.Module, pairs: list[tuple[nn.Conv2d, Any]]) -> None:
    names = {module: name for name, module in network.named_modules()}
    for conv, norm in pairs:
        weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        rest: nn.Module = nn.Identity()
        if type(norm) is not nn.BatchNorm2d:
            rest = nn.Sequential(norm.drop, norm.act)
        network.set_submodule(names[norm], rest)
    network.requires_grad_(False)
    network.eval()


def agree(expected: torch.Tensor, actual: torch.Tensor) -> bool:
    """Return whether two activations differ by rounding at most."""
    largest = float(expected.abs().max())
    return math.isfinite(largest) and bool((expected - actual).abs().max() <= _TOLERANCE * largest)
