import importlib.util
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "examples" / "_drawn_images.py"


@pytest.fixture(scope="module")
def drawn():
    spec = importlib.util.spec_from_file_location("_drawn_images", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_kind_is_drawn_as_often_as_asked_for(drawn):
    X, y = drawn.plates({"good": 3, "scratch": 1, "pits": 1, "crack": 2})
    assert X.shape == (7, drawn.SIZE, drawn.SIZE, 3)
    assert X.dtype == np.uint8
    assert dict(zip(*np.unique(y, return_counts=True), strict=True)) == {
        "crack": 2,
        "good": 3,
        "pits": 1,
        "scratch": 1,
    }
    X, y = drawn.leaves(1)
    assert sorted(y) == ["blight", "healthy", "mildew", "rust"]
    assert len(X) == 4


def test_the_markers_of_cells_are_in_their_colours(drawn):
    X, counts, markers = drawn.cells(12)
    assert len(X) == len(counts) == len(markers) == 12
    assert counts.min() >= 3
    red, green = X[..., 0].mean((1, 2)) / counts, X[..., 1].mean((1, 2)) / counts
    assert red[markers[:, 1] == 1].mean() > 1.5 * red[markers[:, 1] == 0].mean()
    assert green[markers[:, 0] == 1].mean() > 1.5 * green[markers[:, 0] == 0].mean()


@pytest.mark.parametrize("function", ["leaves", "cells"])
def test_the_same_seed_draws_the_same_images(drawn, function):
    draw = getattr(drawn, function)
    assert np.array_equal(draw(1, random_state=1)[0], draw(1, random_state=1)[0])
    assert not np.array_equal(draw(1, random_state=1)[0], draw(1, random_state=2)[0])
