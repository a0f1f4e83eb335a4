"""Describe Python code by plain values, for networks whose operations can't be traced.

The compiled code is read, not the source file. A file may have been edited since it was
imported, and rows are computed by the imported code; compiled code has no comments, no
formatting and no file name in its instructions.
"""

import builtins
import functools
import hashlib
import sys
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

# Named, not described: their versions are their own.
_LIBRARIES = {"torch", "numpy", "builtins", *sys.stdlib_module_names} - {"__main__"}
# what torch itself gives to every module
OF_MODULES = {*vars(nn.Module()), "training"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_N_EXACT = 64  # values of a tensor


class UnreadableCodeError(Exception):
    """A module can neither be traced nor read as compiled Python code."""


def describe_module(module: nn.Module) -> list:
    """Return the code and the attributes of a module and of all modules in it.

    Raises
    ------
    UnreadableCodeError
        When the class of a module is not Python code; the message names it.
    """
    reader = _Reader()
    return [[name, reader.module(part)] for name, part in module.named_modules()]


def describe_code(code: Any) -> Any:
    """Return a description of a function or class, and of the user's code that it calls."""
    return _Reader().value(code)


def plain(value: Any) -> Any:
    """Return a value that JSON can hold for a plain value, else `NotImplemented`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.name if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device):
        return "device"  # a network computes the same on all of them
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, slice):
        return ["slice", plain(value.start), plain(value.stop), plain(value.step)]
    if isinstance(
        value,
        (complex, range, type(...), torch.dtype, torch.memory_format, torch.layout),
    ):
        return [type(value).__name__, str(value)]
    return NotImplemented


def describe_constant(value: torch.Tensor | np.ndarray) -> list:
    """Return type, shape and values of a tensor that is in no state dict.

    Many values are summed up to four digits. They were computed when the network was
    built, and sines or powers differ in their last digit between processors.
    """
    if isinstance(value, torch.Tensor):
        # NumPy lacks the small types
        small = value.is_floating_point() and value.itemsize < 4
        array = (value.float() if small else value).detach().cpu().numpy()
    else:
        array = value
    title = ["constant", str(value.dtype), list(value.shape)]
    if array.dtype.kind not in "fc":
        return [*title, hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()]
    parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
    flat = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
    if array.size <= _N_EXACT:
        return [*title, flat.tolist()]
    place = np.arange(1, flat.size + 1) / flat.size
    parts = (np.maximum(flat, 0), np.maximum(-flat, 0))
    sums = [float(np.mean(part * weight)) for part in parts for weight in (1.0, place)]
    return [*title, [f"{number:.3e}" for number in sums]]


class _Reader:
    """Describes each function, class and object once, so that recursion ends."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # a number must not be given twice

    def module(self, module: nn.Module) -> list:
        """Describe one module without its submodules."""
        cls = type(module)
        if isinstance(module, torch.jit.ScriptModule) or not _is_python(cls.forward):
            raise UnreadableCodeError(f"{cls.__qualname__} is no Python code")
        attributes = {name: value for name, value in vars(module).items() if name not in OF_MODULES}
        tensors = {
            name: None if value is None else [str(value.dtype), list(value.shape)]
            for name, value in (*module._parameters.items(), *module._buffers.items())
            if name not in module._non_persistent_buffers_set
        }
        constants = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        hooks = [list(getattr(module, name).values()) for name in _HOOKS]
        children = [[name, child is None] for name, child in module._modules.items()]
        return [
            self.value(cls),
            self.value(attributes),
            sorted(tensors.items()),
            self.value(constants),
            self.value(hooks),
            children,
        ]

    def value(self, value: Any) -> Any:
        described = plain(value)
        if described is not NotImplemented:
            return described
        if isinstance(value, (tuple, list)):
            return [self.value(element) for element in value]
        if isinstance(value, (torch.Tensor, np.ndarray)):
            return describe_constant(value)
        if id(value) in self._seen:
            return ["again", self._seen[id(value)]]
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        return self._new(value)

    def _new(self, value: Any) -> Any:
        if isinstance(value, dict):
            items = [[self._key(key), self.value(each)] for key, each in value.items()]
            return ["dict", sorted(items, key=lambda item: str(item[0]))]
        if isinstance(value, (set, frozenset)):
            return ["set", sorted((self.value(each) for each in value), key=str)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.value, (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            return ["method", self.value(value.__func__), self.value(value.__self__)]
        if isinstance(value, property):
            return ["property", self.value(value.fget)]
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.value(value.__func__)]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if callable(value) and hasattr(value, "__qualname__"):
            return [getattr(value, "__module__", None), value.__qualname__]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__ if _is_library(value.__name__) else None]
        if isinstance(value, nn.Module):
            return [[name, self.value(type(part))] for name, part in value.named_modules()]
        cls = type(value)
        hidden = _is_library(cls.__module__) and not _is_from_exec(cls)
        attributes = {} if hidden else getattr(value, "__dict__", {})
        return ["object", self.value(cls), self.value(attributes)]

    def _key(self, key: Any) -> Any:
        return self.value(key) if not isinstance(key, str) else key

    def _class(self, cls: type) -> list:
        if _is_library(cls.__module__) and not _is_from_exec(cls):
            return ["class", cls.__module__, cls.__qualname__]
        members = [
            [name, self.value(member)]
            for name, member in sorted(vars(cls).items())
            if not (name.startswith("__") and not isinstance(member, types.FunctionType))
        ]
        bases = [self.value(base) for base in cls.__bases__]
        return ["class", cls.__qualname__, bases, members]

    def _function(self, function: types.FunctionType) -> list:
        if _is_library(function.__module__) and not _is_from_exec(function):
            return ["function", function.__module__, function.__qualname__]
        used = [
            [name, self._global(function, function.__globals__[name])]
            for name in sorted(_names(function.__code__) & function.__globals__.keys())
        ]
        cells = [self._cell(cell) for cell in function.__closure__ or ()]
        defaults = [function.__defaults__, function.__kwdefaults__]
        return [
            "function",
            self._code(function.__code__, function.__doc__),
            self.value(defaults),
            cells,
            used,
            self.value(getattr(function, "__wrapped__", None)),
        ]

    def _global(self, function: types.FunctionType, value: Any) -> Any:
        """Describe a global name; of the user's modules, the attributes that are used."""
        if not isinstance(value, types.ModuleType) or _is_library(value.__name__):
            return self.value(value)
        names = sorted(_names(function.__code__) & vars(value).keys())
        return ["module", [[name, self.value(vars(value)[name])] for name in names]]

    def _cell(self, cell: types.CellType) -> Any:
        try:
            return self.value(cell.cell_contents)
        except ValueError:  # not filled yet
            return None

    def _code(self, code: types.CodeType, doc: str | None = None) -> list:
        constants = list(code.co_consts)
        if constants and doc is not None and constants[0] == doc:
            constants[0] = None
        return [
            "code",
            code.co_code.hex(),
            [self.value(constant) for constant in constants],
            list(code.co_names),
            list(code.co_freevars),
        ]


def _names(code: types.CodeType) -> set[str]:
    """Return all names that a function and the functions in it look up."""
    return set(code.co_names).union(*(_names(inner) for inner in _inner(code)))


def _inner(code: types.CodeType) -> Iterator[types.CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, types.CodeType))


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


def _is_from_exec(code: Any) -> bool:
    """Return whether `exec` made it without a module name, so that it looks like a builtin."""
    return code.__module__ == "builtins" and not hasattr(builtins, code.__qualname__)


def _is_python(forward: Any) -> bool:
    return isinstance(forward, (types.FunctionType, functools.partial))
