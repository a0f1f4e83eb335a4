"""Rows of known weights stay what they were; `make_golden_rows.py` writes them."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from sktransfer.backbones._registry import load_backbone

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "weights"
GOLDEN = HERE / "golden_rows.json"

_spec = importlib.util.spec_from_file_location("make_golden_rows", HERE / "make_golden_rows.py")
make_golden_rows = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_golden_rows)


@pytest.mark.parametrize("name", ["mini", "mobilenet_v2_0.35_imagenet.safetensors"])
def test_rows_are_those_of_the_golden_file(name):
    path = SHARED / name
    if name != "mini" and not path.exists():
        pytest.skip(f"{name} is not here")
    backbone = load_backbone(name if name == "mini" else str(path))
    golden = json.loads(GOLDEN.read_text())[name]
    assert backbone.spec.digest == golden["digest"], "other weights than the golden rows are of"
    found = make_golden_rows.rows(backbone)
    assert found.keys() == golden["rows"].keys()
    for depth, expected in golden["rows"].items():
        torch.testing.assert_close(
            torch.tensor(found[depth]), torch.tensor(expected), rtol=1e-3, atol=1e-3
        )


def test_the_drawn_images_differ():
    images = make_golden_rows.drawn_images(64)
    assert images.dtype == torch.uint8
    assert len({tuple(image.flatten().tolist()) for image in images}) == 3
