"""Compare a chain of stages with the network's own forward.

Stages call submodules one after the other. An operation of the forward between two of them
would be missing from every row without an error.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._locking import own_random_state
from ._code import left_as_it_is
from ._stages import StageTable

# Noise of both signs, weak and strong: an activation function between two submodules may
# leave values of a certain range unchanged.
_SCALES = (1.0, -1.0, 100.0)


@dataclass(frozen=True)
class _Call:
    stage: str
    step: str
    module: nn.Module

    def __str__(self) -> str:
        return f"{self.step!r} of stage {self.stage!r}"


def check_forward(name: str, model: nn.Module, stages: StageTable, size: int) -> None:
    """Check that `model` calls the submodules of the stages, one after the other.

    What follows the last one is its head and may be anything. A network without a
    forward of its own is not checked.

    Parameters
    ----------
    name : str
        Of the registered backbone; for messages.
    model : nn.Module
        In evaluation mode.
    stages : dict of str to sequence of str
        Names of stages, and of the submodules of each.
    size : int
        Pixels of a square image.

    Raises
    ------
    ValueError
        Where the forward does anything else; the message says between which submodules.
    """
    if type(model).forward is nn.Module.forward:
        return
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = torch.cat([noise * scale for scale in _SCALES]).to(like.device, like.dtype)
    watch = _Watch(f"backbone={name!r}", list(_calls(model, stages)), images)
    try:
        with left_as_it_is(model), own_random_state(0), torch.no_grad(), watch:
            model(images)
    except Exception as error:  # of whatever kind the network raises
        # the head of a network may lack what it needs; it is not used
        if not watch.found and not watch.is_complete:
            raise ValueError(
                f"the forward of backbone={name!r} fails for normalised float images (n, 3, "
                f"{size}, {size}), so its stages can't be compared with it: {error}. Register a "
                "network whose forward takes such images, with the size that it takes as "
                "input['size']"
            ) from error
    watch.check()


def _calls(model: nn.Module, stages: StageTable) -> Iterator[_Call]:
    """Return what the chain calls; a sequence of modules is what is in it.

    A forward may call a sequence, or its modules one by one.
    """
    for stage, steps in stages.items():
        for step in steps:
            name = str(step)  # registered stages name submodules
            yield from _calls_of(stage, name, model.get_submodule(name))


def _calls_of(stage: str, step: str, module: nn.Module) -> Iterator[_Call]:
    hooks = module._forward_hooks or module._forward_pre_hooks
    if (
        type(module).forward is nn.Sequential.forward
        and next(module.children(), None) is not None
        and not hooks
    ):
        for name, child in module.named_children():
            yield from _calls_of(stage, f"{step}.{name}", child)
    else:
        yield _Call(stage, step, module)


class _Watch:
    """Hooks on submodules while a ``with`` block runs the network's own forward."""

    def __init__(self, title: str, calls: list[_Call], images: torch.Tensor):
        self.title = title
        self.found = ""
        self._calls = calls
        self._next = 0
        self._inside = 0
        # copies, because the network may change its own in place
        self._passed: Any = images.clone()

    @property
    def is_complete(self) -> bool:
        return self._next == len(self._calls)

    def __enter__(self) -> None:
        self._hooks = []
        for module in {call.module for call in self._calls}:
            self._hooks += [
                # first, so that the effect of the user's hooks is included
                module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True),
                module.register_forward_hook(self._after, always_call=True),
            ]

    def __exit__(self, *exc_info: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def check(self) -> None:
        """Raise an error where the forward did anything else."""
        if not self.found and not self.is_complete:
            self.found = f"forward never calls {self._calls[self._next]}"
        if self.found:
            raise ValueError(
                f"{self.title}: the stages are not what the network's own forward does: "
                f"{self.found}. Name in stages, in the order of the calls, every submodule that "
                "forward calls before the head; what else it does, such as torch.relu or an "
                "addition, put into a submodule and name that"
            )

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._inside += 1
        if self._inside > 1 or self.found or self.is_complete:
            return
        call = self._calls[self._next]
        if module is not call.module:
            called = next(each for each in self._calls if each.module is module)
            self.found = f"forward calls {called} where the stages call {call}"
        elif extra := _extra_arguments(module, args, kwargs):
            self.found = f"forward calls {call} with more than an activation: {extra}"
        else:
            difference = _difference(self._passed, [*args, *kwargs.values(), None][0])
            before = self._calls[self._next - 1] if self._next else None
            if difference:
                self.found = (
                    f"between {before or 'the image'} and {call} forward does something that no "
                    f"stage does: the input of {call.step!r} differs from "
                    f"{f'the output of {before.step!r}' if before else 'the image'} by {difference}"
                )

    def _after(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._inside -= 1
        failed = output is None  # an error is on its way
        if self._inside or self.found or self.is_complete or failed:
            return
        self._next += 1
        self._passed = output.clone() if isinstance(output, torch.Tensor) else output


def _extra_arguments(module: nn.Module, args: tuple, kwargs: dict) -> str:
    """Return the names of the arguments after the first that are not their defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    names += [f"argument {n + 1}" for n in range(len(names), len(args))]
    defaults = {parameter.name: parameter.default for parameter in parameters}
    given = list({**dict(zip(names, args, strict=False)), **kwargs}.items())
    return ", ".join(name for name, value in given[1:] if not _same(value, defaults.get(name)))


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, (bool, int, float, str)):
        return type(value) is type(default) and value == default
    return value is default


def _difference(passed: Any, given: Any) -> str:
    """Return how an activation differs from the output of the module before it, or ""."""
    if not isinstance(passed, torch.Tensor) or not isinstance(given, torch.Tensor):
        return f"its type, which is {type(given).__name__} and not {type(passed).__name__}"
    if passed.shape != given.shape:
        return f"its shape, which is {tuple(given.shape)} and not {tuple(passed.shape)}"
    if torch.equal(passed.nan_to_num(), given.nan_to_num()):
        return ""
    return f"up to {(passed - given).abs().nan_to_num().max().item():.2g}"
