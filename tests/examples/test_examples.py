"""What can be said of the examples without running them: the build of the site runs them all."""

import ast
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def source(request):
    return request.param.read_text(encoding="utf-8")


def names_called(source):
    return {
        node.func.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


def names_imported(source):
    """Return each imported module, and module.name for each name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_at_least_twelve():
    assert len(EXAMPLES) >= 12


def test_each_compiles_without_a_warning(source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(source, "example", "exec")


def test_each_has_a_title_and_says_what_it_teaches(source):
    _, title, line, blank, *lesson = ast.get_docstring(ast.parse(source), clean=False).split("\n")
    assert title.strip()
    assert line == "=" * len(title)
    assert not blank
    assert 100 < len(" ".join(lesson)) < 500


def test_titles_differ():
    titles = [path.read_text(encoding="utf-8").splitlines()[1] for path in EXAMPLES]
    assert len(set(titles)) == len(titles)


def test_headings_of_cells_are_underlined_in_full(source):
    headings = re.findall(r"^# %%\n# (.*)\n# (-+)\n", source, re.MULTILINE)
    assert headings
    for heading, line in headings:
        assert len(heading) == len(line)


def test_each_shows_a_figure(source):
    assert "show" in names_called(source)
    assert names_called(source) & {"subplots", "figure", "plot"}


def test_each_imports_what_there_is(source):
    """Names of the package and of the helper; a misspelt one would fail in the site's build."""
    import sktransfer

    helper = ast.parse((ROOT / "examples" / "_drawn_images.py").read_text(encoding="utf-8"))
    drawn = {node.name for node in helper.body if isinstance(node, ast.FunctionDef)}
    for name in names_imported(source):
        top, *parts = name.split(".")
        if top == "_drawn_images":
            assert set(parts) <= drawn
        elif top == "sktransfer":
            value = sktransfer
            for part in parts:
                assert not part.startswith("_")
                value = getattr(value, part)


def test_no_path_is_absolute_and_nothing_is_written_beside_the_example(source):
    tree = ast.parse(source)
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert not [t for t in texts if isinstance(t, str) and re.match(r"(/|~|[A-Za-z]:\\)\w", t)]
    assert not names_called(source) & {"savefig", "save", "write_text", "to_csv", "dump"}
    assert "open" not in {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }


def test_each_says_its_random_state_where_it_draws_images(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "cells",
            "leaves",
            "plates",
            "train_test_split",
            "FineTunedClassifier",
            "FineTunedRegressor",
            "FineTunedTransformer",
            "TransferSearchCV",
        ):
            assert "random_state" in {keyword.arg for keyword in node.keywords}


def test_the_header_of_the_gallery_has_a_title():
    title, line, *_ = (ROOT / "examples" / "GALLERY_HEADER.rst").read_text().split("\n")
    assert line == "=" * len(title)


def test_pictures_of_the_docs_come_from_examples_that_exist():
    source = (ROOT / "tools" / "save_pictures.py").read_text(encoding="utf-8")
    assignments = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    (pictures,) = (n.value for n in assignments if n.targets[0].id == "PICTURES")
    for example, files in ast.literal_eval(pictures).items():
        assert (ROOT / "examples" / f"{example}.py").is_file()
        for file in files:
            assert (ROOT / "docs" / file).is_file()
