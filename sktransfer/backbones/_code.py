"""A digest of what each stage of a network computes: its code, not its weights.

Every stage is run once, and each call of a function of torch is recorded: its name, its
constants, and which tensors it is given. The batch holds no images, so nothing is
computed. The calls depend on attributes, default arguments, helper functions and settings of
the process, but not on comments, files and addresses.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from ._bytecode import (
    OF_MODULES,
    UnreadableCodeError,
    describe_code,
    describe_constant,
    describe_module,
    plain,
)

_DIGEST_BYTES = 8  # a stage
# They make numbers of values, on which a network may decide what it computes.
_READ_VALUES = {
    *("item", "tolist", "numpy", "is_nonzero", "equal", "allclose", "__array__", "__contains__"),
    *("__bool__", "__int__", "__float__", "__index__", "__complex__"),
}
_COMPUTE_NOTHING = {
    *("shape", "size", "dim", "ndim", "stride", "numel", "nelement", "__len__", "layout"),
    *("dtype", "device", "requires_grad", "is_floating_point", "is_contiguous", "is_cuda"),
    *("is_meta", "is_sparse", "is_quantized", "_assert"),
}
_RESHAPE = ("view", "reshape")


class _Untraceable(Exception):
    """Raised for a stage whose operations can't all be recorded."""


def code_digest(
    model: nn.Module,
    stages: Mapping[str, nn.Module],
    size: int,
    *,
    other_sizes: bool = True,
    version: str | int | None = None,
) -> str:
    """Return 16 hexadecimal digits a stage, joined by commas, in the order of the stages.

    They depend on the operations of the stage, on the constants and the names of the
    weights that each operation is given, and on where the stage ends. They don't depend
    on values of weights, the device, the process, or the files that hold the code.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; its state dict names the weights.
    stages : dict of str to nn.Module
        Each stage gets the output of the one before it.
    size : int
        Pixels of a square image that the network takes.
    other_sizes : bool
        Whether it takes images of other sizes. A second one is then traced too, for code
        that depends on the size.
    version : str, int or None
        Appended as one more digest.

    Raises
    ------
    UnreadableCodeError
        When a stage can neither be traced nor read as Python code, and there is no version.
    """
    traces: list[Sequence[list | None]] = [_trace(model, stages, size)]
    if other_sizes:
        traces.append(_trace_at_no_cost(model, stages, size + 32) or [[]] * len(stages))
    digests = []
    for stage, *operations in zip(stages.values(), *traces, strict=True):
        if operations[0] is not None:
            digests.append(_digest(operations))
            continue
        try:
            digests.append(_digest(["code", describe_module(stage)]))
        except UnreadableCodeError:
            if version is None:
                raise
            digests.append(_digest("the version says it"))
    if version is not None:
        digests.append(_digest(["version", str(version)]))
    return ",".join(digests)


@contextmanager
def left_as_it_is(*modules: nn.Module) -> Iterator[None]:
    """Undo what a ``with`` block sets in modules, such as a cached table of positions.

    A forward pass fills such a cache, and the next one would call other operations.
    """
    held = [vars(part) for part in {part for module in modules for part in module.modules()}]
    before = [attributes.copy() for attributes in held]
    containers = [
        (value, copy.copy(value))
        for attributes in held
        for name, value in attributes.items()
        if isinstance(value, (dict, list, set)) and (name == "_buffers" or name not in OF_MODULES)
    ]
    try:
        yield
    finally:
        for attributes, values in zip(held, before, strict=True):
            attributes.clear()
            attributes.update(values)
        for container, content in containers:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)


def first_difference(one: str, other: str, stages: Iterable[str]) -> str:
    """Return the name of the first stage in which two digests differ."""
    names = [f"the code of stage {name!r}" for name in stages]
    ours, theirs = one.split(","), other.split(",")
    for name, mine, yours in zip(names, ours, theirs, strict=False):
        if mine != yours:
            return name
    return "the version= of register_backbone"


def _digest(description: Any) -> str:
    text = json.dumps(description, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _trace(model: nn.Module, stages: Mapping[str, nn.Module], size: int) -> Sequence[list | None]:
    """Return the operations of each stage; None from the first on that can't be traced."""
    if traced := _trace_at_no_cost(model, stages, size):
        return traced
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    images = mode.from_tensor(_images(model, 2, size))
    found: list[list | None] = []
    try:
        with left_as_it_is(model, *stages.values()):
            found.extend(_traced_stages(model, stages, images, mode))
    except Exception:  # a network may raise anything: its code is read instead
        found += [None] * (len(stages) - len(found))
    return found


def _trace_at_no_cost(
    model: nn.Module, stages: Mapping[str, nn.Module], size: int
) -> list[list] | None:
    """Return the operations of all stages for an empty batch; None where a stage fails on it."""
    images = _images(model, 0, size)
    try:
        with left_as_it_is(model, *stages.values()):
            return list(_traced_stages(model, stages, images, nullcontext()))
    except Exception:  # of whatever kind a network raises
        return None


def _images(model: nn.Module, n_images: int, size: int) -> torch.Tensor:
    """Return images of arbitrary values, with the dtype and device of the weights."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.empty(n_images, 3, size, size, dtype=like.dtype, device=like.device)


def _traced_stages(
    model: nn.Module,
    stages: Mapping[str, nn.Module],
    x: torch.Tensor,
    mode: AbstractContextManager,
) -> Iterator[list]:
    names: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        names.setdefault(id(value), name)  # the first of shared weights
    for stage in stages.values():
        constants = {id(value): value for value in _tensors_held(stage)}
        for known in constants.keys() & names.keys():
            del constants[known]
        # described here, where tensors have values
        described = {key: describe_constant(value) for key, value in constants.items()}
        recorder = _Recorder(names, described, x)
        with torch.no_grad(), mode, recorder:
            x = stage(x)
        yield recorder.finished(x)


def _tensors_held(stage: nn.Module) -> list[torch.Tensor]:
    """Return the buffers, and all tensors in other attributes of the modules."""
    found: list[torch.Tensor] = []
    waiting: list[Any] = []
    for module in stage.modules():
        waiting += [*module._buffers.values(), *vars(module).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif type(value) in (list, tuple):
            waiting += value
        elif type(value) is dict:
            waiting += value.values()
    return found


class _Recorder(TorchFunctionMode):
    """Records every call of torch in this thread while one stage runs.

    Parameters
    ----------
    names : dict of int to str
        The names of weights, by their ids.
    constants : dict of int to list
        Descriptions of the other tensors that the stage holds, by their ids.
    x : torch.Tensor
        What it is given.
    """

    def __init__(self, names: Mapping[int, str], constants: Mapping[int, list], x: torch.Tensor):
        super().__init__()
        self._names = names
        self._constants = constants
        self._operations: list = []
        self._numbers: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # an id must not be given twice
        self._failed = False
        self._unknown = False
        self._number(x)

    def finished(self, x: Any) -> list:
        """Return the operations of a stage that returned `x`."""
        result = self._plain(x)
        if self._failed or self._unknown or not isinstance(x, torch.Tensor):
            raise _Untraceable
        return [self._operations, result]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if name in _COMPUTE_NOTHING:
            return func(*args, **kwargs)
        if name in _READ_VALUES:
            self._fail()
        given = list(_tensors((args, kwargs)))
        versions = [value._version for value in given]
        self._unknown = False
        described = self._plain([args, kwargs])
        unknown, self._unknown = self._unknown, False
        if name in _RESHAPE:
            args, kwargs = _without_minus_one(args, kwargs)
        result = func(*args, **kwargs)
        made = list(_tensors(result))
        if not made and result is not None:
            return result  # about a tensor, and not of its values
        changed = [value._version for value in given] != versions
        if made and not changed and all(any(new is old for old in given) for new in made):
            return result  # as dropout does in evaluation mode
        if unknown:
            self._fail()
        for value in made:
            self._number(value)
        operation = [name, described, [self._numbers[id(value)] for value in made]]
        device = given[0].device.type if given else "cpu"
        if torch.is_autocast_enabled(device):  # it changes the result, and is not a call itself
            operation.append(str(torch.get_autocast_dtype(device)))
        self._operations.append(operation)
        return result

    def _fail(self) -> None:
        self._failed = True  # also where the network catches the error
        raise _Untraceable

    def _number(self, value: torch.Tensor) -> None:
        self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)

    def _plain(self, value: Any) -> Any:
        described = plain(value)
        if described is not NotImplemented:
            return described
        if isinstance(value, torch.Tensor):
            if id(value) in self._numbers:
                return ["made", self._numbers[id(value)]]
            if id(value) in self._names:
                return ["weights", self._names[id(value)]]
            if id(value) in self._constants:
                return self._constants[id(value)]
            self._unknown = True  # made by something that did not call torch's functions
            return None
        if isinstance(value, (tuple, list)):
            return [self._plain(element) for element in value]
        if isinstance(value, dict):
            return sorted([str(key), self._plain(each)] for key, each in value.items())
        if callable(value):
            return describe_code(value)
        self._unknown = True
        return None


def _name(func: Any) -> str:
    """Return the name of a function of torch, of its method, or of a tensor's attribute."""
    name = getattr(func, "__name__", type(func).__name__)
    return func.__self__.__name__ if name == "__get__" else name


def _without_minus_one(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Return the arguments of a reshape, with -1 replaced by its value for one image."""
    x, *shape = args
    packed = len(shape) == 1 and isinstance(shape[0], (tuple, list))
    shape = list(shape[0]) if packed else shape
    if kwargs or x.numel() or -1 not in shape or 0 not in shape:
        return args, kwargs
    known = math.prod(n for n in x.shape if n)
    wanted = math.prod(n for n in shape if n not in (0, -1))
    shape[shape.index(-1)] = known // wanted
    return (x, *shape), kwargs


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from _tensors(element)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
