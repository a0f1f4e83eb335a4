"""The page on zero-shot classification runs as it stands, with tiny models under the real names."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from sktransfer.backbones import _registry
from sktransfer.backbones.sources import _open_clip, find_architecture

open_clip = pytest.importorskip("open_clip")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "zero_shot.md"
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
TINY = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
CONFIGS = {
    "ViT-B-32": TINY,
    "ViT-B-16-SigLIP": {**TINY, "init_logit_bias": -10, "custom_text": True},
}
REPOSITORIES = {
    "ViT-B-32": "timm--vit_base_patch32_clip_224.openai",
    "ViT-B-16-SigLIP": "timm--ViT-B-16-SigLIP",
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Put tiny models into a cache of Hugging Face, under the names of large ones."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())
    for name, config in CONFIGS.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        folder = tmp_path / "hub" / f"models--{REPOSITORIES[name]}"
        (folder / "snapshots" / "1").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("1")
        torch.manual_seed(0)
        model = _open_clip.image_text_model(find_architecture(f"openclip:{name}"), {})
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / "snapshots" / "1" / "open_clip_model.safetensors")


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Work in a folder with 20 photographs of each class."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("disc", "square", "triangle"):
        Path("photographs", kind).mkdir(parents=True)
        for i in range(20):
            image = Image.fromarray(rng.integers(0, 90, (40, 40, 3), dtype=np.uint8))
            left, top = (int(value) for value in rng.integers(2, 16, 2))
            pen, box = ImageDraw.Draw(image), [left, top, left + 20, top + 20]
            if kind == "triangle":
                pen.polygon([(left, top + 20), (left + 20, top + 20), (left + 10, top)], "white")
            else:
                (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill="white")
            image.save(Path("photographs", kind, f"{i:02d}.png"))


def test_the_blocks_of_the_page_run_one_after_the_other(models, photographs):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["labelled"].label_weight_ > 0
    assert np.unique(names["y"][names["few"]], return_counts=True)[1].tolist() == [3, 3, 3]
    assert len(names["content"]) < 50_000
    probabilities = names["siglip"].predict_proba(names["X"][:5])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert len(names["search"].cv_results_["params"]) == 3
