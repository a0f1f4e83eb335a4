"""The layout of the package: which folder may import from which."""

import ast
from pathlib import Path

import pytest

import sktransfer

PACKAGE = Path(sktransfer.__file__).parent

# A layer may import from those before it in this list and from itself.
LAYERS = [
    ["exceptions", "_spec"],
    ["_remote_options"],
    [
        "_locking",
        "_files",
        "_object_store",
        "_text_table",
        "_html_page",
        "_stage_picture",
        "_documentation_link",
    ],
    ["images", "backbones"],
    ["store"],
    ["runtime"],
    ["extraction"],
    ["training"],
    ["_stage_table", "_stage_diagram", "_callbacks"],
    ["_base"],
    ["_onnx_export", "_fine_tuning_checks", "_fine_tuning_recipe", "_domains"],
    ["_fine_tuned_network"],
    ["_fine_tuned_outputs"],
    ["_zero_shot_prompts", "_zero_shot_labels"],
    ["_feature_transformer", "_fine_tuning", "_zero_shot_classifier"],
    ["_fine_tuned_classifier", "_fine_tuned_regressor"],
    ["_cross_fitting"],
    ["_fine_tuned_transformer"],
    # leaves: they use the estimators, and nothing uses them
    ["hygiene"],
    ["model_selection"],
    ["monitoring"],
    ["inspection"],
    ["domain_adaptation"],
    ["jobs"],
    ["__init__"],
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
LEAVES = {
    "hygiene",
    "model_selection",
    "monitoring",
    "inspection",
    "domain_adaptation",
    "jobs",
}
# leaves that others may use
USED_BY = {
    "hygiene": {"model_selection", "monitoring", "inspection"},
    "model_selection": {"inspection"},
}
# Folders of one layer that do not know each other, and code that others share no code with.
STRANGERS = {
    ("images", "backbones"),
    ("backbones", "images"),
    ("store", "images"),
    ("store", "backbones"),
    ("training", "images"),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    """Return the first part of a module's path in the package: a folder, or a module."""
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(module: Path):
    """Yield the parts of the package that a module imports from, relative imports resolved."""
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
                yield target[1]


def test_every_folder_and_module_has_its_layer():
    assert {part_of(module) for module in MODULES} <= set(LAYER_OF)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_page(module):
    here = part_of(module)
    for there in imported_parts(module):
        assert LAYER_OF[there] <= LAYER_OF[here], f"{here} imports {there}"
        assert (here, there) not in STRANGERS, f"{here} imports {there}"
        users = {there, "__init__", *USED_BY.get(there, ())}
        assert there not in LEAVES or here in users, f"{here} imports {there}"


def test_the_import_test_sees_imports():
    seen = set(imported_parts(PACKAGE / "extraction" / "_extract.py"))
    assert {"images", "exceptions", "runtime", "extraction"} <= seen


def test_no_modules_import_each_other_in_a_circle():
    imports = {}
    for module in MODULES:
        name = _dotted(module)
        imports[name] = {target for target in _imported_modules(module) if target != name}
    remaining = dict(imports)
    while remaining:
        free = [name for name, needs in remaining.items() if not needs & remaining.keys()]
        assert free, f"these import each other in a circle: {sorted(remaining)}"
        for name in free:
            del remaining[name]


def _dotted(module: Path) -> str:
    return ".".join(("sktransfer", *module.relative_to(PACKAGE).with_suffix("").parts))


def _imported_modules(module: Path) -> set[str]:
    """Return the modules of the package that a module imports, also inside functions."""
    names = {_dotted(path) for path in MODULES}
    package = ("sktransfer", *module.relative_to(PACKAGE).with_suffix("").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                for target in (".".join((*base, alias.name)), ".".join(base)):
                    if target in names:
                        found.add(target)
                        break
                else:
                    found.add(".".join((*base, "__init__")))
    return found & names


def _importers_of(library: str) -> list[str]:
    """Return the modules that import a library, also inside functions."""
    return [
        str(module.relative_to(PACKAGE))
        for module in MODULES
        if any(
            (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library)
            or (
                isinstance(node, ast.Import)
                and any(alias.name.split(".")[0] == library for alias in node.names)
            )
            for node in ast.walk(ast.parse(module.read_text()))
        )
    ]


def test_only_one_module_imports_skorch():
    assert _importers_of("skorch") == ["training/_net.py"]


def test_only_one_module_imports_lmdb():
    assert _importers_of("lmdb") == ["store/_lmdb.py"]


def test_only_one_module_imports_obstore():
    assert _importers_of("obstore") == ["_object_store.py"]


def test_only_what_reads_web_addresses_imports_urllib3():
    assert _importers_of("urllib3") == ["images/_connections.py", "images/_https.py"]


def test_no_module_is_a_junk_drawer():
    names = {module.stem.strip("_") for module in MODULES}
    assert not names & {"utils", "util", "helpers", "misc", "common"}
