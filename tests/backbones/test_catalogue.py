"""Lists and records of backbones are right for every name, and cost no download."""

import dataclasses
import math

import pytest
import torch
from torchvision import models

from sktransfer.backbones._catalogue import backbone_info, list_backbones
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._weights import write_backbone_file
from sktransfer.backbones.sources import _torchvision

ALL = models.list_models(module=models)
# torchvision publishes it with its second head of training, which is not built here
TWO_HEADS = {"inception_v3"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.mark.parametrize("name", ALL)
def test_the_numbers_of_torchvision_are_those_it_publishes(name):
    info = backbone_info(name)
    meta = models.get_model_weights(name).DEFAULT.meta
    assert info.n_params == meta["num_params"]
    parts = (*info.stages, *([info.pre_logits] if info.pre_logits else []))
    in_parts = sum(part.n_params for part in parts)
    architecture = _torchvision.architecture(name)
    model = architecture.empty(dict(info.weights[0].params))
    head = architecture.structure(model).head
    of_head = sum(p.numel() for n, p in model.named_parameters() if n.startswith(head))
    if name not in TWO_HEADS:
        assert in_parts + of_head == info.n_params
    # one multiplication a parameter, but SqueezeNet's head is a convolution
    if name.startswith("squeezenet"):
        of_head *= math.prod(info.stages[-1].activation[1:])
    # torchvision counts the head's operations too, in units of 10**9
    assert info.n_macs <= meta["_ops"] * 1e9 * 1.01
    assert info.n_macs + 1.01 * of_head >= meta["_ops"] * 1e9 * 0.97
    assert info.input.size == models.get_model_weights(name).DEFAULT.transforms().crop_size[0]


def test_layers_between_pooling_and_last_linear_layer_are_a_line_of_their_own():
    info = backbone_info("mobilenet_v3_small")
    assert (info.stages[-1].width, info.pre_logits.width, info.widths[-1]) == (576, 1024, 1024)
    assert info.pre_logits.activation == (1024,)
    assert info.pre_logits.n_params == 576 * 1024 + 1024
    assert info.pre_logits.n_macs == 576 * 1024
    lines = repr(info).splitlines()
    (line,) = [line for line in lines if "(pre-logits)" in line]
    assert line.split() == ["-", "(pre-logits)", "1024", "1024", "591", "k", "590", "k"]
    assert lines.index(line) > next(i for i, line in enumerate(lines) if " last " in line)
    assert backbone_info("resnet18").pre_logits is None


@pytest.mark.parametrize("name", ALL)
def test_weights_on_offer_are_those_of_torchvision_with_the_default_first(name):
    table = models.get_model_weights(name)
    offers = backbone_info(name).weights
    assert {offer.name for offer in offers} == {entry.name for entry in table}
    assert offers[0].name == table.DEFAULT.name
    for offer in offers:
        assert offer.location == table[offer.name].url
        assert offer.n_bytes > 10**6
        assert offer.top1 is None or 50 < offer.top1 < 90


def test_swag_weights_may_not_be_used_commercially_and_the_record_says_so():
    licences = {
        (name, offer.name): offer.licence
        for name in ALL
        for offer in _torchvision.architecture(name).offers().values()
    }
    swag = [key for key in licences if "SWAG" in key[1]]
    assert len(swag) == 12
    for key, licence in licences.items():
        assert (licence == "CC-BY-NC-4.0") == (key in swag)
        assert licence


def test_a_feature_extractor_without_classifier_has_no_accuracy():
    offers = {offer.name: offer for offer in backbone_info("vgg16").weights}
    assert offers["IMAGENET1K_FEATURES"].top1 is None
    assert offers["IMAGENET1K_V1"].top1 == pytest.approx(71.592)


def test_a_record_prints_as_a_table():
    text = str(backbone_info("resnet50"))
    for part in ("resnet50 (torchvision)", "25.6 M", "layer4", "2048 x 7 x 7", "IMAGENET1K_V2"):
        assert part in text
    assert repr(backbone_info("resnet50")) == text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_a_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        backbone_info("resnet18").n_params = 3


def test_a_network_of_one_size_says_so():
    assert backbone_info("vit_b_16").image_size == 224
    assert backbone_info("vit_b_16", {"image_size": 64}).image_size == 64
    assert backbone_info("vit_h_14").image_size == 518
    assert backbone_info("resnet18").image_size is None
    assert "224 pixels and no other" in str(backbone_info("maxvit_t"))


def test_params_make_another_network():
    info = backbone_info("mobilenet_v2", {"width_mult": 0.35})
    assert info.widths[1] == 8
    assert info.n_params < 2_000_000 < backbone_info("mobilenet_v2").n_params


def test_a_backbone_file_has_a_record(tmp_path):
    backbone = load_backbone("mobilenet_v2", {"width_mult": 0.1}, None)
    metadata = {
        "architecture": "mobilenet_v2",
        "params": {"width_mult": 0.1},
        "input": dataclasses.asdict(backbone.spec.input.at(64)),
        "head": False,
        "source": "a test",
        "licence": "CC0-1.0",
    }
    path = tmp_path / "mine.safetensors"
    write_backbone_file(path, backbone.model.state_dict(), metadata)
    info = backbone_info(path)
    assert info.source == "file"
    assert info.architecture == "mobilenet_v2"
    assert info.input.size == 64
    assert info.weights[0].licence == "CC0-1.0"
    assert [stage.name for stage in info.stages] == list(backbone.stages)


def test_the_record_of_the_embedded_backbone_is_complete():
    info = backbone_info("mini")
    assert info.source == "embedded"
    assert info.widths == (3, 32, 32, 64, 128, 256)
    assert info.n_params < 3_000_000


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="backbone='resnet19' is unknown"):
        backbone_info("resnet19")


def test_a_list_is_a_list_of_str_that_prints_as_a_table():
    names = list_backbones()
    assert isinstance(names, list)
    assert names == sorted(names)
    assert all(type(name) is str for name in names)
    assert {"mini", *ALL} <= set(names)
    lines = str(names).splitlines()
    assert lines[0].split() == [
        "name", "source", "parameters", "pixels", "top-1", "download", "licence",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:]] == names


@pytest.mark.parametrize("source", ["embedded", "torchvision"])
def test_a_list_is_filtered_by_source(source):
    names = list_backbones(source=source)
    assert names
    assert all(backbone_info(name).source == source for name in names[:3])


def test_sources_are_disjoint():
    assert not set(list_backbones(source="embedded")) & set(list_backbones(source="torchvision"))


def test_a_list_is_filtered_by_size():
    limit = 6_000_000
    small = set(list_backbones(source="torchvision", max_params=limit))
    for name in ALL:
        published = models.get_model_weights(name).DEFAULT.meta["num_params"]
        assert (name in small) == (published <= limit)
    assert list_backbones(max_params=0) == []


def test_a_list_is_filtered_by_what_works_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "resnet18" not in list_backbones(offline=True)
    assert "resnet18" in list_backbones(offline=False)
    assert "mini" in list_backbones(offline=True)
    assert "mini" not in list_backbones(offline=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"")
    assert "resnet18" in list_backbones(offline=True)


def test_weights_of_timm_in_the_cache_of_hugging_face_work_offline(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "timm" not in {name.partition(":")[0] for name in list_backbones(offline=True)}
    for name in ("test_resnet.r160_in1k", "test_vit.r160_in1k", "of_a_later_timm.in1k"):
        folder = tmp_path / "hub" / f"models--timm--{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("1a2b")
        (folder / "snapshots" / "1a2b").mkdir(parents=True)
        if "vit" not in name:  # whose download was broken off
            (folder / "snapshots" / "1a2b" / "model.safetensors").write_bytes(b"")
    offline = list_backbones(offline=True)
    assert [name for name in offline if name.startswith("timm:")] == ["timm:test_resnet.r160_in1k"]
    assert "mini" in offline
    assert "timm:test_resnet.r160_in1k" in repr(offline)
    assert not any(name.startswith("timm:") for name in list_backbones(offline=False))


def test_an_unknown_source_lists_those_there_are():
    with pytest.raises(ValueError, match="one of 'embedded', 'keras', 'openclip'"):
        list_backbones(source="paddle")


def test_lists_and_descriptions_are_tables_in_notebooks():
    names = list_backbones(source="embedded")
    assert names._repr_html_().count("<tr>") == 1 + len(names)
    assert "<td>mini</td>" in names._repr_html_()
    info = backbone_info("mini")
    shown = info._repr_html_()
    assert all(f"<td>{stage.name}</td>" in shown for stage in info.stages)
    assert f"<td>{info.weights[0].licence}</td>" in shown
