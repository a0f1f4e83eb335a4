"""The contract of every backbone, over small models of timm from different families."""

import sys

import pytest
import torch
from torch import nn

from sktransfer.backbones import _registry
from sktransfer.backbones._catalogue import backbone_info, list_backbones
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._stages import Normalise
from sktransfer.backbones._weights import write_backbone_file
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

timm = pytest.importorskip("timm")

# name, backbone_params, image size
SMALL = [
    ("test_resnet", {}, 64),
    ("test_efficientnet", {}, 64),
    ("test_convnext", {}, 64),
    ("test_nfnet", {}, 64),
    ("test_byobnet", {}, 64),
    ("test_mambaout", {}, 64),
    ("test_vit", {"img_size": 64}, 64),  # class token
    ("test_vit3", {"img_size": 64}, 64),  # a register token, attention pooling
    ("vit_small_patch16_dinov3", {"img_size": 64, "depth": 4}, 64),  # rotary positions
    ("beit_base_patch16_224", {"img_size": 64, "depth": 4, "embed_dim": 48, "num_heads": 4}, 64),
    ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "embed_dim": 24}, 64),
]


# name, backbone_params, image size, pooling: other ways from the last activation to a row
HEADS = [
    ("test_resnet", {}, 64, "avg"),
    ("test_efficientnet", {}, 64, "avg"),
    ("test_nfnet", {}, 64, "avg"),
    ("test_maxvit", {"img_size": 64}, 64, "avg"),
    ("test_vit", {"img_size": 64}, 64, "cls"),
    ("test_convnext", {}, 64, "head"),  # a norm after the pooling
    ("test_mambaout", {}, 64, "head"),  # a norm and a hidden layer, channels last
    ("test_vit2", {"img_size": 64}, 64, "head"),  # an average, then a norm
    ("test_vit3", {"img_size": 64}, 64, "head"),  # attention
    ("mobilenetv3_small_050", {}, 64, "head"),  # a hidden layer as a convolution
    ("edgenext_xx_small", {}, 64, "head"),
    ("inception_next_atto", {}, 64, "head"),
    (
        "deit_tiny_distilled_patch16_224",
        {"img_size": 64, "depth": 2, "embed_dim": 48},
        64,
        "head",  # the mean of two tokens
    ),
    ("beit_base_patch16_224", {"img_size": 64, "depth": 4, "embed_dim": 48}, 64, "head"),
    ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 4}, 56, "head"),
    (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 2, "embed_dim": 24},
        64,
        "avg",
    ),
    ("hrnet_w18_small", {}, 64, "avg"),  # not cut
]


class Case:
    def __init__(self, name, params, size):
        self.name, self.params = name, params
        self.backbone = load_backbone(f"timm:{name}", params, None).fresh()
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(
            0, 256, (3, 3, size, size), dtype=torch.uint8, generator=generator
        )
        self.n_stages = len(self.backbone.stages)
        with torch.inference_mode():
            self.rows = self.backbone.frozen(self.n_stages, "avg")(self.images)


@pytest.fixture(scope="module", params=SMALL, ids=[name for name, *_ in SMALL])
def case(request):
    return Case(*request.param)


@pytest.fixture
def nothing_kept(monkeypatch):
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())


def assert_near(one, two, tolerance):
    scale = two.abs().max()
    assert scale > 0
    assert (one - two).abs().max() <= tolerance * scale


def test_the_last_activation_is_that_of_forward_features(case):
    theirs = timm.create_model(case.name, **case.params).eval()
    loaded = theirs.load_state_dict(case.backbone.model.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith(case.backbone.structure.head) for key in loaded.missing_keys)
    spec = case.backbone.spec.input
    with torch.inference_mode():
        expected = theirs.forward_features(Normalise(spec.mean, spec.std)(case.images))
        activation = case.backbone.frozen(case.n_stages, None)(case.images)
    if expected.shape != activation.shape:  # theirs is channels-last
        expected = expected.permute(0, 3, 1, 2)
    assert_near(activation, expected, 1e-5)


def test_stages_are_few(case):
    assert 3 <= case.n_stages <= 8
    assert case.backbone.spec.stages == tuple(case.backbone.stages)


def test_the_frozen_part_and_the_rest_are_the_whole_at_every_depth(case):
    with torch.inference_mode():
        for depth in range(case.n_stages + 1):
            activation = case.backbone.frozen(depth, None)(case.images)
            before = activation.clone()
            assert_near(case.backbone.rest(depth, "avg")(activation), case.rows, 1e-5)
            torch.testing.assert_close(activation, before, rtol=0, atol=0)


def test_pooled_rows_have_the_width_that_is_announced(case):
    info = backbone_info(f"timm:{case.name}", case.params)
    spec = case.backbone.spec.input.at(64)
    pooling = case.backbone.pooling("auto")
    with torch.inference_mode():
        for depth in range(case.n_stages + 1):
            rows = case.backbone.frozen(depth, pooling)(case.images)
            assert rows.shape == (3, info.widths[depth])
            assert case.backbone.width(depth, pooling, spec) == info.widths[depth]


@pytest.mark.parametrize(("name", "params", "size", "pooling"), HEADS, ids=[n for n, *_ in HEADS])
def test_rows_are_what_timm_gives_without_its_classifier(name, params, size, pooling):
    backbone = load_backbone(f"timm:{name}", params, None).fresh()
    assert backbone.pooling("auto") == pooling
    if backbone.pre_logits is not None:  # a norm that is drawn, not the identity
        generator = torch.Generator().manual_seed(0)
        for parameter in backbone.pre_logits.parameters():
            nn.init.normal_(parameter, generator=generator)
    state = backbone.model.state_dict()
    headless = timm.create_model(name, num_classes=0, **params).eval()
    assert not headless.load_state_dict(state, strict=False).missing_keys
    whole = timm.create_model(name, **params).eval()
    assert not whole.load_state_dict(state, strict=False).unexpected_keys
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    spec = backbone.spec.input
    normalised = Normalise(spec.mean, spec.std)(images)
    with torch.inference_mode():
        rows = backbone.frozen(len(backbone.stages), backbone.pooling("auto"))(images)
        assert_near(rows, headless(normalised), 1e-4)
        activation = whole.forward_features(normalised)
        assert_near(rows, whole.forward_head(activation, pre_logits=True).flatten(1), 1e-4)


def test_a_network_without_a_head_is_pooled_plainly(monkeypatch):
    def forward_head(self, x, pre_logits=False):
        raise NotImplementedError("an encoder")

    monkeypatch.setattr(timm.models.resnet.ResNet, "forward_head", forward_head)
    backbone = load_backbone("timm:test_resnet", {"drop_rate": 0.0}, None)
    assert backbone.pooling("auto") == "avg"


def test_a_head_that_cannot_be_traced_is_an_error(monkeypatch):
    def forward_head(self, x, pre_logits=False):
        return x if x.sum() > 0 else -x

    monkeypatch.setattr(timm.models.resnet.ResNet, "forward_head", forward_head)
    with pytest.raises(ValueError, match=r"ResNet\.forward_head can't be traced"):
        load_backbone("timm:test_resnet", {"drop_rate": 0.1}, None)


def test_a_row_depends_neither_on_its_neighbours_nor_on_the_batch_size(case):
    frozen = case.backbone.frozen(case.n_stages, "avg")
    with torch.inference_mode():
        for i in range(3):
            assert_near(frozen(case.images[i : i + 1])[0], case.rows[i], 1e-5)


def test_frozen_parts_do_not_change_while_the_rest_trains(case):
    for depth in (1, case.n_stages - 1):
        backbone = case.backbone.fresh()
        frozen, rest = backbone.frozen(depth, None), backbone.rest(depth, "avg").train()
        before = {name: value.clone() for name, value in frozen.state_dict().items()}
        trained = {name: value.clone() for name, value in rest.state_dict().items()}
        optimizer = torch.optim.SGD(rest.parameters(), lr=0.1)
        with torch.no_grad():
            activation = frozen(case.images)
        rest(activation).square().mean().backward()
        optimizer.step()
        for name, value in frozen.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert any(not torch.equal(v, trained[n]) for n, v in rest.state_dict().items())


def test_a_fresh_copy_trains_its_own_network(case):
    fresh = case.backbone.fresh()
    of_model = {id(parameter) for parameter in fresh.model.parameters()}
    of_stages = [id(p) for stage in fresh.stages.values() for p in stage.parameters()]
    assert set(of_stages) <= of_model
    assert not {id(p) for p in case.backbone.model.parameters()} & of_model


def test_all_tensors_of_a_stage_move_with_it(case):
    frozen = case.backbone.fresh().frozen(case.n_stages, "avg").to("meta")
    images = case.images.to("meta")
    assert frozen(images).device.type == "meta"


def test_another_image_size_is_refused_or_works(case):
    spec = case.backbone.spec.input.at(96)
    if case.backbone.structure.image_size is None:
        assert case.backbone.width(case.n_stages, "avg", spec) == case.rows.shape[1]
    else:
        with pytest.raises(ValueError, match="image_size=96 does not fit") as caught:
            case.backbone.width(case.n_stages, "avg", spec)
        assert "use image_size=64 or None" in str(caught.value)
        assert "backbone_params={'img_size': ...}" in str(caught.value)


def test_preprocessing_is_that_of_timms_data_config():
    spec = load_backbone("timm:test_efficientnet", None, None).spec.input
    data = timm.data.resolve_data_config(model=timm.create_model("test_efficientnet"))
    assert (spec.size, spec.size) == data["input_size"][1:]
    assert (spec.mean, spec.std) == (data["mean"], data["std"])
    assert spec.interpolation == data["interpolation"]
    assert spec.resize == int(spec.size / data["crop_pct"])


def test_auto_pooling_is_what_the_head_of_the_model_reads():
    assert load_backbone("timm:test_vit", None, None).pooling("auto") == "cls"
    vit = load_backbone("timm:test_vit3", None, None)  # a register, no class token
    assert vit.pooling("auto") == "head"  # attention
    assert vit.pool("head", 1).pooling == "avg"
    with pytest.raises(ValueError, match="has none"):
        vit.pooling("cls")


def test_a_model_and_its_weights_are_loaded_through_timm_from_a_folder(tmp_path, nothing_kept):
    model = timm.create_model("test_resnet")
    nn.init.constant_(model.conv1[0].weight, 0.5)
    timm.models.save_for_hf(model, tmp_path)
    backbone = load_backbone(f"timm:local-dir:{tmp_path}")
    assert (backbone.model.conv1[0].weight == 0.5).all()
    assert backbone.spec.input.size == 160


def test_a_state_dict_is_loaded_strictly(tmp_path, nothing_kept):
    state = timm.create_model("test_convnext").state_dict()
    path = str(tmp_path / "weights.pth")
    torch.save(state, path)
    backbone = load_backbone("timm:test_convnext", None, path)
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, state[name])
    torch.save({name: state[name] for name in list(state)[1:]}, path)
    with pytest.raises(WeightsError, match="missing 1 keys"):
        load_backbone("timm:test_convnext", None, path)


def test_a_tuned_timm_network_is_a_backbone_file(tmp_path, nothing_kept):
    backbone = load_backbone("timm:test_vit", {"img_size": 64}, None)
    spec = backbone.spec
    path = str(tmp_path / "tuned.safetensors")
    metadata = {
        "architecture": spec.architecture,
        "params": dict(spec.params),
        "input": vars(spec.input),
        "head": False,
        "source": "a test",
        "licence": "CC0-1.0",
    }
    write_backbone_file(path, backbone.model.state_dict(), metadata)
    again = load_backbone(path)
    assert again.spec.input == spec.input
    assert again.spec.digest == spec.digest


class ConnectError(Exception):
    """Named as that of httpx, which is no OSError."""


class ConnectTimeout(Exception):
    """Named as that of httpx, where a firewall drops what is sent."""


@pytest.mark.parametrize("kind", [ConnectionError, ConnectError, ConnectTimeout])
def test_without_network_the_error_comes_at_once_and_says_what_works(
    kind, monkeypatch, nothing_kept
):
    def no_network(*args, **kwargs):
        raise kind("no route to host")

    def tries_again(*args, **kwargs):
        raise AssertionError("the loader that tries five times was called")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", tries_again)
    with pytest.raises(WeightsNotFoundError) as caught:
        load_backbone("timm:test_vit")
    message = str(caught.value)
    for part in ("timm:test_vit", "no route to host", "hf-hub:timm/test_vit", "HF_HOME", "mini"):
        assert part in message
    assert caught.value.__suppress_context__


def test_a_download_that_breaks_off_is_such_an_error_too(monkeypatch, nothing_kept):
    def breaks_off(*args, **kwargs):
        raise OSError("connection reset")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *args, **kwargs: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", breaks_off)
    with pytest.raises(WeightsNotFoundError, match="connection reset"):
        load_backbone("timm:test_vit")


def test_an_unknown_model_or_tag_names_close_ones():
    with pytest.raises(ValueError, match="'timm:resnet181' is unknown") as caught:
        load_backbone("timm:resnet181")
    assert "timm:resnet18" in str(caught.value)
    with pytest.raises(ValueError, match="is unknown"):
        load_backbone("timm:resnet18.nobody")


def test_an_unknown_weights_name_lists_the_tags():
    with pytest.raises(ValueError, match="weights='IMAGENET1K_V1' is unknown") as caught:
        load_backbone("timm:test_vit", None, "IMAGENET1K_V1")
    assert "'r160_in1k'" in str(caught.value)


def test_a_network_that_cannot_be_traced_is_one_stage():
    backbone = load_backbone("timm:hrnet_w18_small", None, None)
    assert list(backbone.stages) == ["network"]
    spec = backbone.spec.input.at(64)
    assert backbone.width(1, "avg", spec) == backbone_info("timm:hrnet_w18_small").widths[1]
    assert not any(name.startswith("classifier.") for name in backbone.model.state_dict())


def test_a_network_of_several_activations_is_refused():
    with pytest.raises(ValueError, match="CrossVit gives several activations"):
        backbone_info("timm:crossvit_tiny_240")


def test_wrong_params_are_named():
    with pytest.raises(ValueError, match="is not what 'timm:test_vit' takes") as caught:
        load_backbone("timm:test_vit", {"wings": 2}, None)
    assert "backbone_params={'wings': 2}" in str(caught.value)


def test_records_and_lists_know_timm():
    info = backbone_info("timm:test_vit")
    assert info.source == "timm"
    assert info.weights[0].name == "r160_in1k"
    assert info.weights[0].licence
    assert info.n_params == sum(p.numel() for p in timm.create_model("test_vit").parameters())
    names = list_backbones(source="timm")
    assert "timm:test_vit" in names
    assert len(names) > 1000
    assert not any(name.startswith("timm:") for name in list_backbones())


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install sktransfer\[timm\]"):
        load_backbone("timm:resnet18", None, None)
    with pytest.raises(ImportError, match=r"pip install sktransfer\[timm\]"):
        list_backbones(source="timm")
    assert "resnet18" in list_backbones()
