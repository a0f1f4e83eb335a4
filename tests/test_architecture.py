"""The house: four folders, two faces, and imports that run one way."""

import ast
from pathlib import Path

import pytest

import sktransfer

PACKAGE = Path(sktransfer.__file__).parent

# A room may import from the rooms before it in this list and from itself.
ROOMS = ["exceptions", "_spec", "_fork", "images", "backbones", "runtime", "training", "faces"]
# Neighbours that share numbers, not code.
STRANGERS = {("images", "backbones"), ("backbones", "images"), ("training", "images")}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if parts[0] in ROOMS else "faces"


def imported_rooms(module: Path):
    """Yield the rooms that a module imports from, relative imports resolved."""
    package = ("sktransfer", *module.relative_to(PACKAGE).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = (*base, *(node.module or "").split(".")) if node.module else base
            targets = [(*prefix, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "sktransfer" and len(target) > 1:
                yield target[1] if target[1] in ROOMS else "faces"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_page(module):
    here = room_of(module)
    for there in imported_rooms(module):
        assert ROOMS.index(there) <= ROOMS.index(here), f"{here} imports {there}"
        assert (here, there) not in STRANGERS, f"{here} imports {there}"


def test_the_import_test_sees_imports():
    seen = set(imported_rooms(PACKAGE / "runtime" / "_extract.py"))
    assert {"images", "exceptions", "runtime"} <= seen


def test_only_one_file_imports_skorch():
    importers = [
        str(module.relative_to(PACKAGE))
        for module in MODULES
        if any(
            (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("skorch"))
            or (
                isinstance(node, ast.Import)
                and any(alias.name.startswith("skorch") for alias in node.names)
            )
            for node in ast.walk(ast.parse(module.read_text()))
        )
    ]
    assert importers == ["training/_net.py"]


def test_no_module_is_a_junk_drawer():
    names = {module.stem.strip("_") for module in MODULES}
    assert not names & {"utils", "util", "helpers", "misc", "common"}
