"""The page on images: its recipe for a folder with damaged files works."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer, count_forward_passes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def model(shapes):
    return make_pipeline(PretrainedFeatureTransformer("mini"), LogisticRegression()).fit(*shapes)


def test_images_that_cannot_be_read_are_left_out(shapes):
    paths, labels = shapes
    names = {
        "X": np.insert(paths.astype(object), 2, b"no image"),
        "y": np.insert(labels, 2, "disc"),
    }
    exec(compile(BLOCKS[0], str(PAGE), "exec"), names)
    assert names["bad"] == [2]
    assert list(names["X"]) == list(paths)
    assert list(names["y"]) == list(labels)


def test_a_folder_with_a_damaged_file_becomes_a_table(model, shapes, tmp_path):
    for number, path in enumerate(shapes[0][:3]):
        with Image.open(path) as image:
            image.rotate(90).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    names = {"model": model, "folder": tmp_path}
    _, block = BLOCKS
    with count_forward_passes() as counter:
        exec(compile(block, str(PAGE), "exec"), names)
    assert counter.computed == 2  # the second call computes nothing again
    table = names["table"]
    assert [label is None for label in table["label"]] == [False, True, False]
    assert table["reason"][0] == table["reason"][2] == ""
    assert "format" in table["reason"][1] or "image" in table["reason"][1]
    good = names["predictions_of"](model, table["path"][[0, 2]])
    assert list(good["label"]) == list(table["label"][[0, 2]])
    assert set(good["reason"]) == {""}
