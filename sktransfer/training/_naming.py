"""Names of a user's choices: functions, classes and objects, as text.

A checkpoint is found by the name of its fit. Two choices that train differently must not
have one name, and the same choice must have the same name in another process. So a name
states everything that a choice computes with: a function's code, its defaults, the values
of its closure and of the globals that it reads; a class's functions and attributes; an
object's class and state. A ``repr`` states none of this, and often holds an address.

Code that is installed is named by where it is imported from.
"""

import builtins
import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_PROTOCOL = 4  # of pickle; later ones leave arrays out of what they return
_PLAIN = (type(None), bool, int, float, complex, str, type(Ellipsis), type(NotImplemented))
_LOADS_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_LOADS_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
# Attributes of a class that say nothing of what it computes.
_ABOUT_A_CLASS = {
    "__abstractmethods__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",  # defaults are attributes, or in the functions
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__orig_bases__",
    "__parameters__",
    "__qualname__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
}
_DESCRIPTORS_IN_C = (
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)


def name_of(value: Any, parameter: str) -> str:
    """Return what names the value of `parameter` in any process.

    Raises
    ------
    ValueError
        When something in it has no name: an open file, a lock, a generator.
    """
    try:
        return _Namer().name(value)
    except (_NoName, RecursionError) as error:
        raise ValueError(
            f"checkpoint_dir needs parameters that can be named, so that a fit never resumes "
            f"another one, and {parameter}={value!r} can't be: {error}. Let {parameter} hold "
            "plain values, functions of them, and objects that can be pickled; or set "
            "checkpoint_dir=None"
        ) from None


class _NoName(Exception):
    """Raised for something that no text distinguishes from everything else."""


class _Namer:
    """Names one value; what it holds is named once, and may refer to itself."""

    def __init__(self) -> None:
        self._in_progress: dict[int, int] = {}
        self._finished: dict[int, str] = {}
        self._named: list[Any] = []  # keeps ids from being used again

    def name(self, value: Any) -> str:
        if type(value) in _PLAIN:
            return repr(value)
        if type(value) is bytes:
            return f"bytes {_digest(value)}"
        identity = id(value)
        if identity in self._finished:
            return self._finished[identity]
        if identity in self._in_progress:
            return f"the one at level {self._in_progress[identity]}"
        self._in_progress[identity] = len(self._in_progress)
        self._named.append(value)
        text = self._finished[identity] = self._compound(value)
        del self._in_progress[identity]
        return text

    def _all(self, *values: Any) -> str:
        return ", ".join(self.name(value) for value in values)

    def _hashed(self, kind: str, *values: Any) -> str:
        return f"{kind} {_digest(self._all(*values).encode())}"

    def _compound(self, value: Any) -> str:
        if type(value) in (list, tuple):
            return f"{type(value).__name__}({self._all(*value)})"
        if type(value) is dict:
            return f"dict({', '.join(self._all(*item) for item in value.items())})"
        if type(value) in (set, frozenset):  # their order differs between processes
            return f"{type(value).__name__}({', '.join(sorted(map(self.name, value)))})"
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, (types.FunctionType, type)) and _is_imported(value):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, enum.Enum):
            return self._hashed("enum", type(value).__qualname__, value.name, value.value)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (staticmethod, classmethod)):
            return f"{type(value).__name__} {self.name(value.__func__)}"
        if isinstance(value, property):
            return f"property({self._all(value.fget, value.fset, value.fdel)})"
        if isinstance(value, functools.cached_property):
            return f"property({self.name(value.func)})"
        if isinstance(value, functools._lru_cache_wrapper):
            return self.name(value.__wrapped__)
        if isinstance(value, _DESCRIPTORS_IN_C):
            return f"{type(value).__name__} {value.__name__}"
        return self._instance(value)

    def _module(self, module: types.ModuleType) -> str:
        if not _is_installed(module.__name__):
            raise _NoName(f"it passes the module {module.__name__} on, of which any part may count")
        return f"module {module.__name__}"

    def _function(self, function: types.FunctionType) -> str:
        cells = [_content(cell) for cell in function.__closure__ or ()]
        return self._hashed(
            "function",
            function.__code__,
            function.__defaults__,
            function.__kwdefaults__,
            cells,
            vars(function),
            *self._globals(function),
        )

    def _globals(self, function: types.FunctionType) -> Iterator[Any]:
        """Yield the names and values of the globals that a function reads."""
        for name, *attributes in _global_names(function.__code__):
            if name in function.__globals__:
                value = function.__globals__[name]
            elif hasattr(builtins, name):
                value = getattr(builtins, name)
            else:  # calling the function would be an error, or it is defined later
                continue
            while (
                isinstance(value, types.ModuleType)
                and not _is_installed(value.__name__)
                and attributes
                and hasattr(value, attributes[0])
            ):
                name = attributes.pop(0)
                value = getattr(value, name)
            yield name
            yield value

    def _code(self, code: types.CodeType) -> str:
        return self._hashed(
            "code",
            code.co_code,
            code.co_exceptiontable,
            code.co_consts,
            code.co_names,
            code.co_varnames,
            code.co_cellvars,
            code.co_freevars,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
        )

    def _class(self, cls: type) -> str:
        own = {name: value for name, value in vars(cls).items() if name not in _ABOUT_A_CLASS}
        return self._hashed("class", cls.__qualname__, type(cls), cls.__bases__, own)

    def _tensor(self, tensor: torch.Tensor) -> str:
        if tensor.layout is not torch.strided:
            raise _NoName(f"it holds a tensor of layout {tensor.layout}")
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"tensor {tensor.dtype} {tuple(tensor.shape)} {_digest(values.tobytes())}"

    def _instance(self, value: Any) -> str:
        """Return what names an object: what `pickle` would make it again from."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        try:
            registered = copyreg.dispatch_table.get(type(value))
            reduced = registered(value) if registered else value.__reduce_ex__(_PROTOCOL)
        except Exception as error:  # a class may raise anything
            raise _NoName(f"it holds an object of {kind} ({error})") from None
        if isinstance(reduced, str):  # something that is imported
            module = pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]  # undocumented
            if not _is_installed(module):
                raise _NoName(f"it holds an object of {kind}, which has no state of its own")
            return f"{module}.{reduced}"
        make, args, *rest = reduced
        state, items, pairs = [*rest, None, None, None][:3]
        if type(state) is dict:
            state = _without_what_was_learned(value, state)
        return self._hashed(
            "object", make, args, state, list(items or ()), [list(pair) for pair in pairs or ()]
        )


def _without_what_was_learned(value: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return an object's state before it was used, as far as scikit-learn's convention tells.

    skorch's callbacks follow it: what they learn in a fit, which may have been interrupted,
    has a name that ends with an underscore.
    """
    if not hasattr(value, "get_params"):
        return state
    parameters = inspect.signature(type(value).__init__).parameters
    return {
        name: held
        for name, held in state.items()
        if name in parameters or not name.endswith("_") or name.endswith("__")
    }


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: a variable that is assigned later
        return Ellipsis


def _global_names(code: types.CodeType) -> Iterator[tuple[str, ...]]:
    """Yield each global that code reads, followed by the attributes that are taken from it."""
    instructions = list(dis.get_instructions(code))
    for position, instruction in enumerate(instructions):
        if instruction.opname in _LOADS_GLOBAL:
            attributes = []
            for following in instructions[position + 1 :]:
                if following.opname not in _LOADS_ATTRIBUTE:
                    break
                attributes.append(following.argval)
            yield instruction.argval, *attributes
        elif instruction.opname == "IMPORT_NAME":
            level = instructions[position - 2].argval
            if level or not _is_installed(instruction.argval):
                raise _NoName(
                    f"it imports {'.' * level}{instruction.argval} inside a function; import it "
                    "at the top of the module"
                )
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _is_imported(value: Any) -> bool:
    """Tell whether a function or class is found by its name in installed code."""
    if not _is_installed(value.__module__):
        return False
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_installed(module: str | None) -> bool:
    """Tell whether a module is part of Python, of a library, or of this package."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and any(
        Path(file).is_relative_to(folder) for folder in _installed_folders()
    )


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
