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


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("values", [(0.5,), (0.5,) * 4, 0.5])
def test_an_input_that_is_not_of_three_channels_is_an_error(name, values):
    with pytest.raises(ValueError, match=rf"input\['{name}'\] must hold three numbers"):
        register_backbone("tiny", tiny, STAGES, {**INPUT, name: values})


@pytest.mark.parametrize("version", [1.5, True, ("1",)])
def test_a_version_is_a_str_or_an_int(version):
    with pytest.raises(TypeError, match="version must be a str, an int or None, got"):
        register_backbone("tiny", tiny, STAGES, INPUT, version=version)


def test_a_version_changes_the_code_of_the_network():
    codes = set()
    for version in (None, 1, "2"):
        _registered.registered.clear()
        _registry._kept.clear()
        register_backbone("tiny", tiny, STAGES, INPUT, version=version)
        codes.add(load_backbone("tiny").spec.code)
    assert len(codes) == 3


def test_another_version_of_a_registered_name_is_refused():
    register_backbone("tiny", tiny, STAGES, INPUT, version=1)
    with pytest.raises(ValueError, match="name='tiny' is registered for another backbone"):
        register_backbone("tiny", tiny, STAGES, INPUT, version=2)


class Opaque(nn.Conv2d):
    forward = len  # stands for a compiled extension, and is no forward that could be compared


def test_a_network_whose_code_can_t_be_read_needs_a_version(monkeypatch):
    monkeypatch.setattr(_registry, "check_forward", lambda *args: None)
    register_backbone("opaque", lambda: nn.Sequential(Opaque(3, 4, 3)), {"a": ("0",)}, INPUT)
    with pytest.raises(ValueError, match=r"backbone='opaque' .*register_backbone\(version=...\)"):
        load_backbone("opaque")
    _registered.registered.clear()
    builder = lambda: nn.Sequential(Opaque(3, 4, 3))  # noqa: E731
    register_backbone("opaque", builder, {"a": ("0",)}, INPUT, version=3)
    assert load_backbone("opaque").spec.code


class Own(nn.Module):
    """Two convolutions and a head; `forward` is that of the test."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2)
        self.b = nn.Conv2d(4, 8, 3, stride=2)
        self.act = nn.ReLU()
        self.fc = nn.Linear(8, 2)


def own(forward):
    return type("OwnNetwork", (Own,), {"forward": forward})


def head(self, x):
    return self.fc(x.mean((2, 3)))


def registered_own(forward, stages=None):
    register_backbone("own", own(forward), stages or {"one": ("a",), "two": ("b",)}, INPUT)
    return load_backbone("own")


BETWEEN = {
    "relu": lambda self, x: head(self, self.b(torch.relu(self.a(x)))),
    "relu in place": lambda self, x: head(self, self.b(torch.relu_(self.a(x)))),
    "a bounded activation": lambda self, x: head(self, self.b(self.a(x).clamp(-20, 20))),
    "a submodule in no stage": lambda self, x: head(self, self.b(self.act(self.a(x)))),
    "an addition": lambda self, x: head(self, self.b((y := self.a(x)) + y.mean())),
}


@pytest.mark.parametrize("kind", BETWEEN)
def test_what_forward_does_between_two_stages_is_an_error_that_names_them(kind):
    with pytest.raises(ValueError, match="backbone='own': the stages are not what") as caught:
        registered_own(BETWEEN[kind])
    message = str(caught.value)
    assert "between 'a' of stage 'one' and 'b' of stage 'two' forward does something" in message
    assert "the input of 'b' differs from the output of 'a' by up to " in message
    assert "put into a submodule" in message


def test_what_forward_does_within_a_stage_is_an_error_too():
    with pytest.raises(ValueError, match="between 'a' of stage 'all' and 'b' of stage 'all'"):
        registered_own(BETWEEN["relu"], {"all": ("a", "b")})


def test_what_forward_does_to_the_image_is_an_error():
    with pytest.raises(ValueError, match="between the image and 'a' of stage 'one'"):
        registered_own(lambda self, x: head(self, self.b(self.a(2 * x - 1))))


def test_a_change_of_shape_between_two_stages_is_an_error():
    def forward(self, x):
        return head(self, self.b(self.a(x).transpose(2, 3)[:, :, :9]))

    with pytest.raises(ValueError, match=r"by its shape, which is \(3, 4, 9, 15\) and not"):
        registered_own(forward)


def test_the_order_of_stages_is_that_of_the_calls():
    def forward(self, x):
        return head(self, self.b(self.a(x)))

    with pytest.raises(ValueError, match="calls 'a' of stage 'two' where the stages call 'b'"):
        registered_own(forward, {"one": ("b",), "two": ("a",)})


def test_a_submodule_that_forward_never_calls_is_an_error():
    def forward(self, x):
        return head(self, nn.functional.conv2d(self.a(x), self.b.weight, self.b.bias, 2))

    with pytest.raises(ValueError, match="forward never calls 'b' of stage 'two'"):
        registered_own(forward)


def test_a_submodule_that_is_called_with_more_than_an_activation_is_an_error():
    class Scaled(nn.Conv2d):
        def forward(self, x, scale=1.0):
            return super().forward(x) * scale

    def build(scale):
        network = own(lambda self, x: head(self, self.b(self.a(x), scale=scale)))()
        network.b = Scaled(4, 8, 3, stride=2)
        return network

    stages = {"one": ("a",), "two": ("b",)}
    register_backbone("scaled", lambda: build(2.0), stages, INPUT)
    with pytest.raises(ValueError, match="'b' of stage 'two' with more than an activation: scale"):
        load_backbone("scaled")
    register_backbone("not scaled", lambda: build(1.0), stages, INPUT)
    assert load_backbone("not scaled").spec.stages == ("one", "two")


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: head(self, self.b(self.a(x))),
        lambda self, x: head(
            self, torch.relu(self.b(nn.functional.dropout(self.a(x), 0.5, False)))
        ),
        lambda self, x: head(self, self.b(self.a(x).contiguous())),
        lambda self, x: self.fc(self.b(self.a(x))),  # of no width that fits
    ],
    ids=["the same", "dropout that is off", "another layout", "a head that fails"],
)
def test_a_forward_that_calls_the_stages_is_what_they_are(forward):
    assert list(registered_own(forward).stages) == ["one", "two"]


def test_a_module_that_is_called_twice_is_named_twice():
    def forward(self, x):
        return head(self, self.act(self.b(self.act(self.a(x)))))

    stages = {"one": ("a", "act"), "two": ("b", "act")}
    assert list(registered_own(forward, stages).stages) == ["one", "two"]


def test_a_forward_may_go_through_the_modules_of_a_sequence_itself():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x.mean((2, 3))

    register_backbone("loop", Loop, {"all": ("layers",)}, INPUT)
    assert list(load_backbone("loop").stages) == ["all"]


def test_a_network_without_a_forward_of_its_own_is_not_compared():
    register_backbone("own", Own, {"one": ("a",), "two": ("b",)}, INPUT)
    assert list(load_backbone("own").stages) == ["one", "two"]


def test_a_forward_that_fails_for_the_input_s_size_says_so():
    def forward(self, x):
        raise RuntimeError("only 64 pixels")

    with pytest.raises(ValueError, match=r"forward of backbone='own' fails .*only 64 pixels"):
        registered_own(forward)


def test_a_last_submodule_that_fails_is_no_head():
    def forward(self, x):
        return self.b(self.a(x)[:, :2])

    with pytest.raises(ValueError, match="between 'a' of stage 'one' and 'b' of stage 'two'"):
        registered_own(forward)


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such operation")


def test_a_submodule_of_a_stage_that_fails_says_so():
    def build():
        network = own(lambda self, x: self.b(self.a(x)))()
        network.b = Failing()
        return network

    register_backbone("failing", build, {"one": ("a",), "two": ("b",)}, INPUT)
    with pytest.raises(
        ValueError, match=r"forward of backbone='failing' fails .*no such operation"
    ):
        load_backbone("failing")


def test_weights_from_a_file_are_compared_as_well(tmp_path):
    path = str(tmp_path / "own.pth")
    torch.save(Own().state_dict(), path)
    register_backbone("own", own(BETWEEN["relu"]), {"one": ("a",), "two": ("b",)}, INPUT)
    with pytest.raises(ValueError, match="between 'a' of stage 'one'"):
        load_backbone("own", None, path)


def test_comparing_leaves_the_random_state_of_torch_as_it_was():
    register_backbone("tiny", tiny, STAGES, INPUT)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    load_backbone("tiny")
    assert torch.equal(torch.rand(2), expected)
