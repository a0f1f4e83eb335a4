"""The page on saving and deploying runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "deploy.md"


def test_the_examples_of_the_page_run_one_after_the_other(shapes, tmp_path, monkeypatch, capsys):
    for extra in ("onnxscript", "onnxruntime", "skops.io"):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    paths, labels = shapes
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    names = {"paths": paths, "labels": labels}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert all(name.startswith("sktransfer.") for name in names["types"])
    # bfloat16 rows of this network keep their direction, where there is hardware for it
    expected = names["classifier"].predict_proba(paths[:1])
    np.testing.assert_allclose(names["probabilities"], expected, atol=0.02)
    assert capsys.readouterr().out.strip() in labels
