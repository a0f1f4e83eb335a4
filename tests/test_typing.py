"""The package says that it is typed, and the tools that check it are pinned."""

import tomllib
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())


def test_the_marker_of_a_typed_package_is_there_and_is_shipped():
    assert files("sktransfer").joinpath("py.typed").is_file()
    shipped = PROJECT["tool"]["setuptools"]["package-data"]["sktransfer"]
    assert any(fnmatch("py.typed", pattern) for pattern in shipped)


@pytest.mark.parametrize("tool", ["mypy", "ruff"])
def test_one_version_of_each_lint_tool_is_named(tool):
    wanted = PROJECT["project"]["optional-dependencies"]["dev"]
    assert [name for name in wanted if name.startswith(f"{tool}==")]


@pytest.mark.parametrize(
    "folder", ["backbones", "extraction", "images", "runtime", "store", "training"]
)
def test_functions_of_the_inner_layers_must_be_annotated(folder):
    strict = [
        module
        for override in PROJECT["tool"]["mypy"]["overrides"]
        if override.get("disallow_untyped_defs")
        for module in override["module"]
    ]
    assert f"sktransfer.{folder}.*" in strict
