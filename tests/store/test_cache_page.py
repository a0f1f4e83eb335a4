"""The page on the feature cache runs as it stands."""

import re
import subprocess
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cache.md"


def test_the_examples_of_the_page_run_one_after_the_other(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"paths": shapes[0]}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    n = len(shapes[0])
    assert capsys.readouterr().out.startswith(f"{n} {n}\n")
    np.testing.assert_array_equal(names["shared"], names["rows"])
    assert (names["prebuilt"].n_entries, names["prebuilt"].read_only) == (n, True)
    assert not names["own"].read_only
    subprocess.run(["chmod", "-R", "u+w", "prebuilt"], check=True)
