"""A network of the user's own, by name."""

import pytest
import torch
from torch import nn

from sktransfer.backbones import _registry
from sktransfer.backbones._catalogue import backbone_info, list_backbones
from sktransfer.backbones._registration import register_backbone
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones.sources import _registered

STAGES = {"first": ("0", "1"), "second": ("2",)}
INPUT = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def tiny(width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2),
        nn.Linear(7, 7),  # in no stage: the head
    )


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(_registered, "registered", {})
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())


def test_a_registered_network_is_a_backbone():
    register_backbone("tiny", tiny, STAGES, INPUT)
    backbone = load_backbone("tiny", {"width": 6})
    assert list(backbone.stages) == ["first", "second"]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    rows = backbone.frozen(2, "avg")(images)
    assert rows.shape == (2, 12)
    torch.testing.assert_close(backbone.rest(1, "avg")(backbone.frozen(1, None)(images)), rows)
    assert backbone.spec.input.resize == 32
    assert not any(name.startswith("3.") for name in backbone.model.state_dict())


def test_a_registered_network_is_listed_and_described():
    register_backbone("tiny", tiny, STAGES, INPUT)
    assert "tiny" in list_backbones()
    assert list_backbones(source="registered") == ["tiny"]
    assert "tiny" in list_backbones(offline=True)
    assert backbone_info("tiny").widths == (3, 4, 8)
    assert "tiny" in str(list_backbones(source="registered"))


def test_its_random_weights_are_the_same_every_time():
    register_backbone("tiny", tiny, STAGES, INPUT)
    first = load_backbone("tiny").spec.digest
    _registry._kept.clear()
    torch.manual_seed(7)
    assert load_backbone("tiny").spec.digest == first


def test_weights_that_the_builder_loads_are_the_default():
    def ones():
        network = tiny()
        nn.init.ones_(network[0].weight)
        return network

    register_backbone("ones", ones, STAGES, INPUT)
    assert (load_backbone("ones").stages["first"][0].weight == 1).all()
    with pytest.raises(ValueError, match=r"weights=None \(random\) is not offered"):
        load_backbone("ones", None, None)


def test_its_state_dict_is_loaded_from_a_file(tmp_path):
    register_backbone("tiny", tiny, STAGES, INPUT)
    network = tiny()
    path = str(tmp_path / "tiny.pth")
    torch.save(network.state_dict(), path)
    loaded = load_backbone("tiny", None, path)
    torch.testing.assert_close(loaded.stages["first"][0].weight, network[0].weight)


def test_an_unknown_weights_name_is_refused():
    register_backbone("tiny", tiny, STAGES, INPUT)
    with pytest.raises(ValueError, match="weights='IMAGENET1K_V1' is unknown for backbone='tiny'"):
        load_backbone("tiny", None, "IMAGENET1K_V1")


def test_the_same_registration_twice_is_one():
    register_backbone("tiny", tiny, STAGES, INPUT)
    register_backbone("tiny", tiny, dict(STAGES), dict(INPUT))
    assert list_backbones(source="registered") == ["tiny"]


def test_a_name_that_stands_for_another_network_is_refused():
    register_backbone("tiny", tiny, STAGES, INPUT)
    with pytest.raises(ValueError, match="name='tiny' is registered for another backbone"):
        register_backbone("tiny", tiny, {"all": ("0", "1", "2")}, INPUT)


@pytest.mark.parametrize("name", ["resnet18", "mini"])
def test_a_name_of_sktransfer_is_refused(name):
    with pytest.raises(ValueError, match=f"name='{name}' is a backbone of sktransfer's own"):
        register_backbone(name, tiny, STAGES, INPUT)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth", "timm:mine"])
def test_a_name_that_reads_as_a_file_or_a_source_is_refused(name):
    with pytest.raises(ValueError, match="would be read as a file or a source"):
        register_backbone(name, tiny, STAGES, INPUT)


def test_a_stage_of_unknown_submodules_names_them():
    register_backbone("tiny", tiny, {"first": ("0", "conv9")}, INPUT)
    with pytest.raises(ValueError, match=r"stage 'first' of .* 'tiny' names the submodule 'conv9'"):
        load_backbone("tiny")


def test_a_builder_of_something_else_is_named():
    register_backbone("tiny", lambda: 3, STAGES, INPUT)
    with pytest.raises(TypeError, match="builder registered as 'tiny' returned 3"):
        load_backbone("tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name must be a str"),
        ({"builder": "tiny"}, "builder must be callable"),
        ({"stages": {}}, "stages must be a dict"),
        ({"stages": {"first": "0"}}, r"stages\['first'\] must be a sequence"),
        ({"input": 32}, "input must be an InputSpec or a dict"),
    ],
)
def test_an_argument_of_the_wrong_type_names_itself(change, message):
    arguments = {"name": "tiny", "builder": tiny, "stages": STAGES, "input": INPUT, **change}
    with pytest.raises(TypeError, match=message):
        register_backbone(**arguments)


def test_input_numbers_that_are_missing_are_named():
    with pytest.raises(ValueError, match="input lacks mean, std"):
        register_backbone("tiny", tiny, STAGES, {"size": 32})
