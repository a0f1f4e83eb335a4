"""The page on updates in production runs as it stands."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw

matplotlib.use("Agg")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "monitoring.md"


def draw(kind, rng, ink=255):
    """Draw a shape in a place of its own on a noisy ground."""
    image = Image.fromarray(rng.integers(0, 90, (48, 48, 3), dtype=np.uint8))
    left, top = (int(value) for value in rng.integers(2, 16, 2))
    colour = tuple(int(value) for value in rng.integers(ink // 2, ink, 3))
    pen = ImageDraw.Draw(image)
    if kind == "triangle":
        pen.polygon([(left, top + 24), (left + 24, top + 24), (left + 12, top)], fill=colour)
    else:
        box = [left, top, left + 24, top + 24]
        (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=colour)
    return image


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Work in a folder with photographs, and two weeks of new ones; the second has triangles."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("disc", "square"):
        Path("photographs", kind).mkdir(parents=True)
        for i in range(60):
            draw(kind, rng).save(Path("photographs", kind, f"{i}.png"))
    for week, kinds in (("week 1", ["disc", "square"]), ("week 2", ["disc", "triangle"])):
        Path("inbox", week).mkdir(parents=True)
        for i in range(40):
            draw(kinds[i % 2], rng).save(Path("inbox", week, f"{kinds[i % 2]}-{i}.png"))


def test_the_blocks_of_the_page_run_one_after_the_other(photographs, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "week 1 No drift" in printed
    assert "week 2 Drift" in printed
    assert Path("drift.html").exists()
    assert Path("drift.png").exists()
    assert len(set(names["to_label"])) == 12
    assert names["labels"].count("triangle") > 6
    # triangles were learned, and the reference not lost
    learned, before = names["classifier"], names["before"]
    triangles = [path for path in names["rest"] if "triangle" in path]
    assert np.mean(learned.predict(triangles) == "triangle") > 0.5
    assert not np.any(before.predict(triangles) == "triangle")
    assert learned is not before
    assert names["monitor"].n_trained_on_ == 0
    assert names["monitor"].history_ == []
    matplotlib.pyplot.close("all")
