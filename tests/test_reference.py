"""The reference lists every public name, once, and no other."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import sktransfer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
MODULES = [name for name in sktransfer.__all__ if inspect.ismodule(getattr(sktransfer, name))] + [
    "exceptions"
]


def listed():
    """Return the names of the page, each with the module that its section says."""
    names, module = [], None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            names.append(f"{module}.{line.strip()}")
    return names


def public(module):
    """Return the public objects of a module by name, without modules."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
        ]
    objects = {name: getattr(module, name) for name in names}
    return {name: value for name, value in objects.items() if not inspect.ismodule(value)}


@pytest.mark.parametrize("name", ["", *MODULES])
def test_no_public_name_is_missing(name):
    module = import_module(f"sktransfer.{name}" if name else "sktransfer")
    assert public(module)
    there = {id(resolve(entry)) for entry in listed()}
    missing = [name for name, value in public(module).items() if id(value) not in there]
    assert not missing, f"docs/reference.md lacks {missing} of {module.__name__}"


def test_each_name_of_the_page_is_public_and_listed_once():
    names = listed()
    assert len(names) == len(set(names)) > 40
    for entry in names:
        module, name = entry.rsplit(".", 1)
        assert name in public(import_module(module)), entry
    objects = [id(resolve(entry)) for entry in names]
    assert len(objects) == len(set(objects))


def resolve(entry):
    module, name = entry.rsplit(".", 1)
    return getattr(import_module(module), name)
