"""The page on few labels runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sktransfer import count_forward_passes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "few_labels.md"
N = 22  # of each class


def draw(kind, rng):
    """Draw a shape in a place of its own on a noisy ground."""
    image = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    left, top = (int(value) for value in rng.integers(2, 16, 2))
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    pen = ImageDraw.Draw(image)
    if kind == "triangle":
        pen.polygon([(left, top + 24), (left + 24, top + 24), (left + 12, top)], fill=colour)
    else:
        box = [left, top, left + 24, top + 24]
        (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=colour)
    return image


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Work in a folder with photographs of three kinds, and a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKTRANSFER_CACHE", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    for kind in ("disc", "square", "triangle"):
        Path("photographs", kind).mkdir(parents=True)
        for i in range(N):
            draw(kind, rng).save(Path("photographs", kind, f"{i}.png"))


def test_the_blocks_of_the_page_run_one_after_the_other(photographs, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    names = {}
    with count_forward_passes() as counter:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert counter.computed == 3 * N
    mean, half, gain, interval = map(
        float, re.findall(r"[-+]?[01]\.\d{3}", capsys.readouterr().out)[:4]
    )
    assert mean == pytest.approx(names["scores"].mean(), abs=5e-4)
    assert mean > 0.6
    assert 0 < half < 0.1
    assert abs(gain) < 0.2
    assert 0 < interval < 0.1
    tried = names["search"].cv_results_["strategy"]
    assert tried[2] == "rows of mini, depth None, LDA of unit length"
