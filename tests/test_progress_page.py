"""The page on progress: its code runs, and says what it says."""

import re
from pathlib import Path

import pytest

from sktransfer.runtime._display import Display

PAGE = Path(__file__).resolve().parents[1] / "docs" / "progress.md"


def test_the_examples_of_the_page_run_one_after_the_other(shapes, monkeypatch, capsys):
    monkeypatch.delenv("SKTRANSFER_PROGRESS", raising=False)
    names = dict(zip(("X", "y"), shapes, strict=True))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        if "sklearn.callback" in block:
            pytest.importorskip("sklearn.callback")
        exec(compile(block, str(PAGE), "exec"), names)
    assert "search: 12 of 12 fits in" in capsys.readouterr().err
    assert names["n_scores"] == 3 + 1
    # three folds and the refit read rows that the first search stored
    assert names["n_passes"] == 0
    assert names["n_hits"] > 0


def test_the_line_in_the_page_is_one_that_is_written(capsys, monkeypatch):
    monkeypatch.delenv("SKTRANSFER_PROGRESS", raising=False)
    display = Display("backbone", 12000, "images", initial=96, note="96 cache hits")
    display._steps = display._steps._replace(done=480, seconds=10.0)
    assert f"sktransfer: {display._text()}\n" in PAGE.read_text()
