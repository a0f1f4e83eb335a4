"""The lowest versions that pyproject.toml promises are those that are tested."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOWEST = ROOT / "tests" / "lowest.txt"

LEFT_OUT = {"h5py", "keras", "pyspark", "skada"}  # the file says why
OF_OTHERS = {"pyparsing", "scipy"}
OF_DEVELOPERS = {"dev", "docs"}  # extras of pinned tools, which run with the newest of all else


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def promised():
    """Yield each dependency that runs with the package or in its tests."""
    extras = project()["optional-dependencies"]
    lists = [project()["dependencies"], *(extras[name] for name in extras.keys() - OF_DEVELOPERS)]
    for line in [line for lines in lists for line in lines]:
        yield Requirement(line)


def pins():
    """Return the pinned version of each package."""
    lines = [line for line in LOWEST.read_text().splitlines() if line and line[0] != "#"]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_each_promised_version_is_the_one_that_is_tested():
    pinned = pins()
    for requirement in promised():
        (lowest,) = requirement.specifier
        assert lowest.operator == ">=", requirement
        name = canonicalize_name(requirement.name)
        if name not in LEFT_OUT:
            assert pinned[name] == Version(lowest.version), requirement


def test_what_is_left_out_or_added_is_explained():
    names = {canonicalize_name(requirement.name) for requirement in promised()}
    assert names - pins().keys() == LEFT_OUT
    assert pins().keys() - names == OF_OTHERS
    for name in LEFT_OUT:
        assert f"# {name} is left out: " in LOWEST.read_text()


def test_they_are_tested_on_the_lowest_python():
    assert project()["requires-python"] == ">=3.11"
    assert "sys.version_info[:2] != (3, 11)" in (ROOT / "Makefile").read_text()
