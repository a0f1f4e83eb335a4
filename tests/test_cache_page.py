"""The page on the feature cache: its code runs, and its table names every ingredient."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import numpy as np

from sktransfer.store._key import RowIngredients

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cache.md"


def test_the_examples_of_the_page_run_one_after_the_other(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = shapes[0]
    names = {"paths": paths}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    n = len(paths)
    assert capsys.readouterr().out.startswith(f"{n} {2 * n}\n")
    np.testing.assert_array_equal(names["again"], names["rows"])
    n_depths = len(names["transformer"].backbone_spec_.stages)
    assert names["prebuilt"].n_entries == n_depths * n
    assert names["prebuilt"].read_only
    assert (names["own"].n_entries, names["own"].read_only) == (0, False)
    subprocess.run(["chmod", "-R", "u+w", "prebuilt"], check=True)


def test_the_table_names_every_ingredient_of_a_key():
    section = PAGE.read_text().split("## How a row is named")[1].split("\n## ")[0]
    named = {
        name
        for row in section.splitlines()
        if row.startswith("|")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == {field.name for field in fields(RowIngredients)}
