"""What is released: versions and dependencies that are written in two places agree."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPE = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text()
NAMES_OF_CONDA = {"lmdb": "python-lmdb", "torch": "pytorch"}


def test_the_recipe_for_conda_has_the_version_of_the_project():
    assert f'version: "{PROJECT["version"]}"' in RECIPE


def test_the_recipe_for_conda_has_the_dependencies_of_the_project():
    _, run = RECIPE.split("  run:\n")
    run, _ = run.split("\n\n", 1)
    listed = dict(line.removeprefix("    - ").split(" ") for line in run.splitlines())
    promised = [Requirement(line) for line in PROJECT["dependencies"]]
    wanted = {NAMES_OF_CONDA.get(r.name, r.name): str(r.specifier) for r in promised}
    assert listed == {"python": PROJECT["requires-python"], **wanted}


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name
)
def test_workflows_run_targets_that_the_makefile_has(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"run: make ([a-z-]+)", path.read_text()))
    assert used <= targets


def test_a_job_has_only_the_permissions_that_it_needs():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert "\npermissions:\n  contents: read\n" in path.read_text(), path.name


def test_an_action_is_pinned_to_a_commit_and_says_which_version_that_is():
    used = {
        line.split("uses: ")[1]
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses: " in line
    }
    assert len(used) > 5
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_the_tests_of_the_site_fail_where_there_is_no_browser(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(ROOT / "docs" / "tests")],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    # which of the two is missing first depends on whether the site was built
    assert re.search(r"Exit: .*(make docs|apt-get install chromium)", run.stdout)


def test_the_page_on_installation_lists_each_extra_but_those_of_developers():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert listed == set(PROJECT["optional-dependencies"]) - {"demo", "dev", "docs", "test"}


def test_each_example_has_its_place_in_the_order_of_the_gallery():
    hooks = (ROOT / "docs" / "_gallery_hooks.py").read_text(encoding="utf-8")
    (order,) = re.findall(r"LESSONS = \((.*?)\n\)", hooks, re.DOTALL)
    examples = [path.stem for path in (ROOT / "examples").glob("plot_*.py")]
    assert sorted(f"plot_{name}" for name in re.findall(r'"(\w+)"', order)) == sorted(examples)
