"""Image towers of open_clip as backbones: small ones of different kinds, with random weights."""

import io
import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sktransfer import FineTunedClassifier, InputSpec, PretrainedFeatureTransformer
from sktransfer.backbones import _registry
from sktransfer.backbones._catalogue import backbone_info, list_backbones
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._text_tower import class_vectors
from sktransfer.backbones.sources import _open_clip, find_architecture
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

open_clip = pytest.importorskip("open_clip")

TEXT = {"context_length": 16, "width": 16, "heads": 2, "layers": 1}
VIT = {"layers": 5, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64}


def timm_tower(name, **others):
    return {"timm_model_name": name, "image_size": 160, **others}


# name, the tower's configuration, pooling, stages
TOWERS = {
    "ViT": ("ViT-B-32", VIT, "head", 5),
    "ViT, a mean of tokens": ("ViT-B-32", {**VIT, "pool_type": "avg"}, "head", 5),
    "ViT, a norm after the pooling": ("ViT-B-32", {**VIT, "final_ln_after_pool": True}, "head", 5),
    "CoCa": ("coca_ViT-B-32", {**VIT, "attn_pooler_heads": 2}, "head", 5),
    "ResNet": ("RN50", RESNET, "head", 5),
    "timm, attention": ("ViT-B-16-SigLIP", timm_tower("test_vit3"), "head", 5),
    "timm, a layer after the pooling": ("convnext_base", timm_tower("test_convnext"), "head", 4),
    "timm, its own last layer": ("MobileCLIP-S1", timm_tower("test_byobnet"), "head", 5),
    "timm, class token": ("EVA02-B-16", timm_tower("test_vit"), "head", 5),
    "timm, maps pooled by open_clip": (
        "convnext_base",
        {**timm_tower("resnet10t", timm_pool="rot_attn", timm_proj=""), "image_size": 64},
        "avg",
        1,
    ),
}


def params_of(name, vision):
    embed_dim = 64 if name == "ViT-B-16-SigLIP" else 24
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": TEXT}


@pytest.fixture(scope="module", params=TOWERS)
def case(request):
    name, vision, pooling, n_stages = TOWERS[request.param]
    params = params_of(name, vision)
    backbone = load_backbone(f"openclip:{name}", params, None).fresh()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # norms that are drawn, not the identity
        for parameter in backbone.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    size = backbone.spec.input.size
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=generator)
    return name, params, backbone, images, pooling, n_stages


@pytest.fixture
def nothing_kept(monkeypatch):
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())


def test_rows_are_what_the_tower_returns(case):
    _, _, backbone, images, pooling, n_stages = case
    assert backbone.pooling("auto") == pooling
    assert len(backbone.stages) == n_stages
    with torch.inference_mode():
        rows = backbone.frozen(n_stages, pooling)(images)
        expected = backbone.model(backbone.normalise()(images))
    expected = expected[0] if isinstance(expected, tuple) else expected  # CoCa's has tokens too
    assert expected.abs().max() > 0
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


def test_the_frozen_part_and_the_rest_are_the_whole_at_every_depth(case):
    _, _, backbone, images, pooling, n_stages = case
    with torch.inference_mode():
        rows = backbone.frozen(n_stages, pooling)(images)
        for depth in range(n_stages + 1):
            activation = backbone.frozen(depth, None)(images)
            before = activation.clone()
            rest = backbone.rest(depth, pooling)(activation)
            torch.testing.assert_close(rest, rows, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(activation, before, rtol=0, atol=0)


def test_pooled_rows_have_the_width_that_is_announced(case):
    name, params, backbone, images, _, n_stages = case
    info = backbone_info(f"openclip:{name}", params)
    assert info.source == "openclip"
    assert info.input.size == images.shape[-1]
    pooling = backbone.pooling("auto")
    with torch.inference_mode():
        for depth in range(n_stages + 1):
            assert backbone.frozen(depth, pooling)(images).shape == (3, info.widths[depth])


def test_no_parameter_is_left_out(case):
    _, _, backbone, *_ = case
    parts = [*backbone.stages.values(), *([backbone.pre_logits] if backbone.pre_logits else [])]
    inside = {id(p) for part in parts for p in part.parameters()}
    # CoCa's second pooling is for captions
    assert inside == {id(p) for p in backbone.model.parameters()}
    assert backbone.structure.head == ()


def test_frozen_stages_do_not_train_with_the_last(case):
    name, params, _, _, _, n_stages = case
    fresh = load_backbone(f"openclip:{name}", params, None).fresh(n_stages - 1)
    trained = {id(p) for p in fresh.model.parameters() if p.requires_grad}
    first = next(iter(fresh.stages.values()))
    assert trained
    assert n_stages == 1 or not trained & {id(p) for p in first.parameters()}


def saved_model(name, params, path):
    """Write a model with weights that are drawn, and return it."""
    architecture = find_architecture(f"openclip:{name}")
    torch.manual_seed(1)
    model = _open_clip.image_text_model(architecture, params)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model


def write_folder(folder, params, preprocess=None, **config):
    folder.mkdir()
    config = {"model_cfg": {**params, **config}, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"openclip:local-dir:{folder}"


@pytest.mark.parametrize("of_tower", [False, True])
def test_a_checkpoint_of_the_model_or_of_the_tower_is_read(of_tower, tmp_path):
    path, params = str(tmp_path / "model.safetensors"), params_of("ViT-B-32", VIT)
    model = saved_model("ViT-B-32", params, path)
    if of_tower:
        save_file({k: v.contiguous() for k, v in model.visual.state_dict().items()}, path)
    backbone = load_backbone("openclip:ViT-B-32", params, path)
    assert backbone.spec.source == path
    for name, value in model.visual.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value)


def test_a_folder_of_open_clip_is_read_as_open_clip_reads_it(tmp_path):
    preprocess = {
        **{"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]},
        **{"interpolation": "bilinear", "resize_mode": "squash"},
    }
    params = params_of("ViT-B-32", VIT)
    name = write_folder(tmp_path / "model", params, preprocess)
    saved_model("ViT-B-32", params, tmp_path / "model" / "open_clip_model.safetensors")
    spec = load_backbone(name).spec
    expected = InputSpec(32, 32, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "bilinear", "squash")
    assert spec.input == expected
    assert spec.licence == "unknown"
    theirs = open_clip.create_model(name.removeprefix("openclip:"))
    transform = open_clip.image_transform(32, is_train=False, **preprocess)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]
    exact = {"precision": "float32", "feature_cache": None}
    rows = PretrainedFeatureTransformer(name, **exact).fit_transform(images)
    with torch.inference_mode():
        expected = theirs.eval().encode_image(torch.stack([transform(image) for image in images]))
    np.testing.assert_allclose(rows, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_folder_whose_weights_change_is_loaded_again(tmp_path):
    params = params_of("ViT-B-32", VIT)
    name = write_folder(tmp_path / "model", params)
    path = tmp_path / "model" / "open_clip_model.safetensors"
    model = saved_model("ViT-B-32", params, path)
    before = load_backbone(name)
    prompts, device = [["a"], ["b"]], torch.device("cpu")
    vectors = class_vectors(name, None, "default", prompts, device).vectors
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.01)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    assert load_backbone(name).spec.digest != before.spec.digest
    assert not np.allclose(class_vectors(name, None, "default", prompts, device).vectors, vectors)


def test_a_folder_without_weights_offers_none(tmp_path):
    name = write_folder(tmp_path / "model", params_of("ViT-B-32", VIT))
    assert backbone_info(name).weights == ()
    with pytest.raises(ValueError, match="weights='default' is unknown"):
        load_backbone(name)
    assert load_backbone(name, None, None).spec.source == "random"


@pytest.mark.parametrize("content", ["no json", "{}", "[]"])
def test_a_folder_with_another_configuration_is_refused(content, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(WeightsError, match="no JSON object with the key 'model_cfg'"):
        load_backbone(f"openclip:local-dir:{tmp_path}")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"there is no .*open_clip_config"):
        load_backbone(f"openclip:local-dir:{tmp_path / 'missing'}")


class RunsCode:
    def __reduce__(self):
        return (print, ("code in a file of weights has run",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    name = write_folder(tmp_path / "model", params_of("ViT-B-32", VIT))
    buffer = io.BytesIO()
    torch.save({"state_dict": RunsCode()}, buffer)
    (tmp_path / "model" / "open_clip_pytorch_model.bin").write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="reading it would run code"):
        load_backbone(name)
    (tmp_path / "model" / "open_clip_pytorch_model.bin").write_bytes(
        pickle.dumps(RunsCode(), protocol=2)
    )
    with pytest.raises(WeightsError, match=r"run code|no checkpoint"):
        load_backbone(name)
    assert "has run" not in capsys.readouterr().out


def test_a_tokenizer_that_brings_code_is_refused(tmp_path):
    text = {**TEXT, "hf_tokenizer_name": "a", "tokenizer_kwargs": {"trust_remote_code": True}}
    params = {**params_of("ViT-B-32", VIT), "text_cfg": text}
    name = write_folder(tmp_path / "model", params)
    with pytest.raises(WeightsError, match="trust_remote_code"):
        _open_clip.tokenizer_of(find_architecture(name), {})


def test_a_tokenizer_is_loaded_as_it_was_checked(tmp_path, monkeypatch):
    text = {**TEXT, "hf_tokenizer_name": "a", "tokenizer_kwargs": {"trust_remote_code": True}}
    name = write_folder(tmp_path / "model", {**params_of("ViT-B-32", VIT), "text_cfg": text})
    loaded = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(source, cache_dir=None, **others):
            loaded.append((source, others))

    transformers = types.ModuleType("transformers")
    transformers.AutoTokenizer = AutoTokenizer
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    # as a file could have it in its metadata: what the folder asks for is hidden
    hidden = {"text_cfg": {"tokenizer_kwargs": {"use_fast": False}, "context_length": 9}}
    tokenizer = _open_clip.tokenizer_of(find_architecture(name), hidden)
    no_code = {"trust_remote_code": False}
    assert loaded == [(str(tmp_path / "model"), {"use_fast": False, **no_code})]
    assert tokenizer.context_length == 9
    other = {"text_cfg": {"hf_tokenizer_name": "someone/else"}}
    _open_clip.tokenizer_of(find_architecture("openclip:ViT-B-32"), other)
    assert loaded[1:] == [("someone/else", no_code)]


def test_a_tokenizer_of_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers sentencepiece"):
        _open_clip.tokenizer_of(find_architecture("openclip:ViT-B-16-SigLIP"), {})


@pytest.mark.parametrize("damage", ["truncated", "other network"])
def test_a_checkpoint_that_does_not_fit_is_an_error(damage, tmp_path):
    name = write_folder(tmp_path / "model", params_of("ViT-B-32", VIT))
    path = tmp_path / "model" / "open_clip_model.safetensors"
    saved_model("ViT-B-32", params_of("ViT-B-32", {**VIT, "layers": 2}), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is no checkpoint of"):
        load_backbone(name)


def test_a_tuned_tower_is_a_backbone_file(tmp_path):
    rng, params = np.random.default_rng(0), params_of("ViT-B-32", VIT)
    X, y = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), np.arange(8) % 2
    exact = {"precision": "float32", "feature_cache": None, "device": "cpu"}
    random = {"backbone_params": params, "weights": None, **exact}
    short = {"recipe": "fast", "freeze_depth": -1, "max_epochs": 1, "random_state": 0}
    tuned = FineTunedClassifier("openclip:ViT-B-32", **random, **short)
    path = tmp_path / "tuned.safetensors"
    tuned.fit(X, y).save_backbone(path)
    rows = PretrainedFeatureTransformer(path, **exact).fit_transform(X)
    before = PretrainedFeatureTransformer("openclip:ViT-B-32", **random).fit_transform(X)
    assert rows.shape == before.shape == (8, 24)
    assert np.abs(rows - before).max() > 0
    again = pickle.loads(pickle.dumps(tuned))
    assert np.array_equal(again.predict_proba(X), tuned.predict_proba(X))


def test_preprocessing_is_that_of_the_default_weights():
    siglip = load_backbone(
        "openclip:ViT-B-16-SigLIP", params_of("ViT-B-16-SigLIP", timm_tower("test_vit3")), None
    )
    half = (0.5, 0.5, 0.5)
    assert siglip.spec.input == InputSpec(160, 160, half, half, "bicubic", "squash")
    clip = load_backbone("openclip:ViT-B-32", params_of("ViT-B-32", VIT), None).spec.input
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN
    assert (clip.crop, clip.interpolation) == ("center", "bicubic")


def test_another_image_size_is_another_network():
    params = {**params_of("ViT-B-32", VIT), "image_size": 48}
    assert load_backbone("openclip:ViT-B-32", params, None).spec.input.size == 48
    backbone = load_backbone("openclip:ViT-B-32", params_of("ViT-B-32", VIT), None)
    with pytest.raises(ValueError, match="image_size=48 does not fit") as caught:
        backbone.width(5, "head", backbone.spec.input.at(48))
    assert "backbone_params={'image_size': ...}" in str(caught.value)


def test_unknown_parameters_are_an_error():
    with pytest.raises(ValueError, match=r"backbone_params=.*patch is unknown; allowed are image"):
        load_backbone("openclip:ViT-B-32", {"patch": 3}, None)


def test_weights_are_listed_with_what_is_known_of_their_licence():
    info = backbone_info("openclip:ViT-B-32", params_of("ViT-B-32", VIT))
    assert [offer.name for offer in info.weights[:2]] == ["openai", "laion400m_e31"]
    by_name = {offer.name: offer for offer in info.weights}
    licence = by_name["laion2b_s34b_b79k"].licence
    assert licence == "unknown, see huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    mobile = find_architecture("openclip:MobileCLIP-S1").offers()["datacompdr"]
    assert mobile.licence == "apple-amlr: for research only"
    assert mobile.location == "hf-hub:apple/MobileCLIP-S1-OpenCLIP/"


def test_weights_say_the_activation_that_they_were_trained_with():
    offers = find_architecture("openclip:ViT-B-32").offers()
    assert dict(offers["openai"].params) == {"quick_gelu": True}
    assert offers["laion2b_s34b_b79k"].params == ()
    quick = find_architecture("openclip:ViT-B-32-quickgelu").offers()
    assert quick["openai"].params == ()


def test_names_are_those_of_open_clip_and_listed_on_demand_only():
    names = list_backbones(source="openclip")
    assert set(names) == {f"openclip:{name}" for name in open_clip.list_models()}
    assert not any(name.startswith("openclip:") for name in list_backbones())
    with pytest.raises(ValueError, match=r"'ViT-B-32' is unknown; allowed .*openclip:ViT-B-32"):
        load_backbone("ViT-B-32")
    with pytest.raises(ValueError, match=r"'openclip:ViT-B-33' is unknown; .*openclip:ViT-B-32"):
        load_backbone("openclip:ViT-B-33")
    with pytest.raises(ValueError, match="'openclip:elsewhere:a' is unknown"):
        load_backbone("openclip:elsewhere:a")


def test_without_open_clip_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for call in (lambda: load_backbone("openclip:RN50"), lambda: list_backbones("openclip")):
        with pytest.raises(ImportError, match=r"pip install sktransfer\[clip\]"):
            call()


def test_weights_in_the_cache_of_hugging_face_work_offline(tmp_path, monkeypatch, nothing_kept):
    def no_network(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    params = {**params_of("ViT-B-32", VIT), "quick_gelu": True}
    assert "openclip:ViT-B-32" not in list_backbones(offline=True)
    folder = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    model = saved_model(
        "ViT-B-32", params, folder / "snapshots" / "1" / "open_clip_model.safetensors"
    )
    assert "openclip:ViT-B-32" in list_backbones(offline=True)
    backbone = load_backbone("openclip:ViT-B-32", params)
    for name, value in model.visual.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value)


def test_without_network_the_error_comes_at_once_and_says_what_works(monkeypatch, nothing_kept):
    def no_network(*args, **kwargs):
        raise ConnectionError("no route to host")

    def tries_again(*args, **kwargs):
        raise AssertionError("the loader that tries for a minute was called")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", tries_again)
    with pytest.raises(WeightsNotFoundError) as caught:
        load_backbone("openclip:ViT-B-32", params_of("ViT-B-32", VIT))
    parts = ("openclip:ViT-B-32", "no route to host", "clip_224.openai", "HF_HOME", "local-dir:")
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(WeightsNotFoundError, match="hf-hub:user/model"):
        load_backbone("openclip:hf-hub:user/model")


def test_a_download_that_breaks_off_is_such_an_error_too(monkeypatch, nothing_kept):
    def breaks_off(*args, **kwargs):
        raise OSError("connection reset")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *args, **kwargs: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", breaks_off)
    with pytest.raises(WeightsNotFoundError, match="connection reset"):
        load_backbone("openclip:ViT-B-32", params_of("ViT-B-32", VIT))
