"""The contract of every backbone, over all of torchvision's classifiers.

Shapes are computed for every name on the meta device, which holds no values.
Numbers are computed with every network under 30 million parameters, at small images.
"""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from sktransfer.backbones._catalogue import backbone_info
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._stages import Normalise, cut_into_stages
from sktransfer.backbones.sources import _torchvision
from sktransfer.backbones.sources._torchvision_families import FAMILIES, matches

ALL = models.list_models(module=models)

# name, backbone_params, image size: 64 pixels where the network takes them and rounding
# stays well below the bounds. EfficientNet's depth, and max poolings that leave GoogLeNet
# and Inception maps of nearly one value, want rows that average over more positions.
SMALL = [
    ("alexnet", {}, 64),
    ("convnext_tiny", {}, 64),
    ("densenet121", {}, 64),
    ("efficientnet_b0", {}, 128),
    ("googlenet", {}, 128),
    ("inception_v3", {}, 160),
    ("maxvit_t", {}, 224),
    ("mnasnet0_5", {}, 64),
    ("mobilenet_v2", {"width_mult": 0.35}, 64),
    ("mobilenet_v3_large", {}, 64),
    ("mobilenet_v3_small", {}, 64),
    ("regnet_x_400mf", {}, 64),
    ("regnet_y_400mf", {}, 64),
    ("resnet18", {}, 64),
    ("resnext50_32x4d", {}, 64),
    ("shufflenet_v2_x0_5", {}, 64),
    ("squeezenet1_0", {}, 64),
    ("squeezenet1_1", {}, 64),
    ("swin_t", {}, 64),
    ("swin_v2_t", {}, 64),
    ("vgg11_bn", {}, 64),
    ("vit_b_32", {"image_size": 64}, 64),
]


def _family_of(name):
    return next(f for f in FAMILIES if matches(f, name))


def _others_of_moderate_size():
    """Return the other names under 30 million parameters, at the size of their family."""
    sizes = {_family_of(name).names: size for name, _, size in SMALL}
    known = {name for name, *_ in SMALL}
    return [
        (name, {}, sizes[_family_of(name).names])
        for name in ALL
        if name not in known and _torchvision.architecture(name).published_params() < 30_000_000
    ]


# families with layers between the pooling and the last linear layer, and the width of a row
PRE_LOGITS = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "maxvit_t": 512,
    "mobilenet_v3_large": 1280,
    "mobilenet_v3_small": 1024,
    "vgg11_bn": 4096,
}


class Case:
    """A backbone whose batch norm knows its images, as that of trained weights does."""

    def __init__(self, name, params, size):
        self.name, self.params = name, params
        self.backbone = load_backbone(name, params, None).fresh()
        generator = torch.Generator().manual_seed(0)
        self.images, others = torch.randint(
            0, 256, (8, 3, size, size), dtype=torch.uint8, generator=generator
        ).split([3, 5])
        self.depths = range(len(self.backbone.stages) + 1)
        self.whole = self.backbone.frozen(self.depths[-1], "avg")
        settle_batch_norm(self.whole, torch.cat([self.images, others]))
        if self.backbone.pre_logits is not None:
            draw_norms(self.backbone.pre_logits)
        with torch.inference_mode():
            self.rows = self.whole(self.images)


def draw_norms(network):
    """Give layer norms a scale and shift by which a row without them is told."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.weight.uniform_(0.5, 2, generator=generator)
                norm.bias.uniform_(-1, 1, generator=generator)


def settle_batch_norm(network, images):
    """Give batch norm the statistics of the images, and a bias that keeps rounding small.

    Without statistics the signal of random weights dies or explodes over the layers. With
    them and without bias, every batch norm before a ReLU amplifies a small deviation by
    sqrt(pi / (pi - 1)) = 1.21 (Yang et al., "A mean field theory of batch normalization",
    ICLR 2019): two thousandfold in 40 layers, so rows would tell the last bits of a sum. A
    bias of one standard deviation leaves most units in ReLU's linear part.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.train().bias.fill_(1)
            norm.momentum = 1.0
        network(images)
    for norm in norms:
        norm.eval()


CASES = [*SMALL, *_others_of_moderate_size()]


@pytest.fixture(scope="module", params=CASES, ids=[name for name, *_ in CASES])
def case(request):
    return Case(*request.param)


def assert_near(rows, expected, tolerance):
    """Compare row by row, each in units of its largest value."""
    for row, wanted in zip(rows, expected, strict=True):
        scale = wanted.abs().max()
        assert scale > 0
        assert (row - wanted).abs().max() <= tolerance * scale


def assert_rows_stand_alone(network, images):
    """Compare the rows of three images with those of other batches of them."""
    with torch.inference_mode():
        rows = network(images)
        for i in range(3):
            assert_near(network(images[[i]]), rows[[i]], 1e-5)
        assert_near(network(images[[2, 0]]), rows[[2, 0]], 1e-5)


def test_every_classifier_of_the_installed_torchvision_has_one_family():
    for name in ALL:
        families = [f.names for f in FAMILIES if matches(f, name)]
        assert len(families) == 1, name
    assert list(_torchvision.names()) == ALL
    assert len(ALL) >= 80


def test_every_family_has_a_small_member_here():
    for family in FAMILIES:
        assert any(matches(family, name) for name, *_ in SMALL), family.names


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_of_the_trunk_is_in_one_of_a_few_stages(name):
    architecture = _torchvision.architecture(name)
    model = architecture.empty({}).to("meta")
    structure = architecture.structure(model)
    assert 3 <= len(structure.stages) <= 8
    table = {**structure.stages, "pre_logits": structure.pre_logits}
    stages = cut_into_stages(model, table)
    in_stages = [id(p) for stage in stages.values() for p in stage.parameters()]
    of_trunk = [id(p) for n, p in model.named_parameters() if not n.startswith(structure.head)]
    assert sorted(in_stages) == sorted(of_trunk)


@pytest.mark.parametrize("name", ALL)
def test_a_row_has_the_width_that_the_last_linear_layer_reads(name):
    architecture = _torchvision.architecture(name)
    default = next(iter(architecture.offers().values()))
    model = architecture.empty(dict(default.params)).to("meta").eval()
    head = model.get_submodule(architecture.structure(model).head[0].removesuffix("."))
    last = [module for module in head.modules() if isinstance(module, nn.Linear)]
    width = backbone_info(name).widths[-1]
    if name.startswith("squeezenet"):  # a convolution, then the pooling
        assert not last
        assert head[1].in_channels == width
    else:
        assert [module.in_features for module in last] == [width]


def test_the_frozen_part_and_the_rest_are_the_whole_at_every_depth(case):
    with torch.inference_mode():
        for depth in case.depths:
            activation = case.backbone.frozen(depth, None)(case.images)
            before = activation.clone()
            rows = case.backbone.rest(depth, "avg")(activation)
            assert_near(rows, case.rows, 1e-5)
            # nothing in the rest writes into the activation, which is kept
            torch.testing.assert_close(activation, before, rtol=0, atol=0)


def test_the_rest_takes_activations_from_contiguous_memory(case):
    # as they come back from a file
    with torch.inference_mode():
        for depth in case.depths:
            activation = case.backbone.frozen(depth, None)(case.images)
            kept = torch.from_numpy(activation.numpy().copy())
            # other kernels than for channels-last memory, so another rounding: 7e-6 at most
            assert_near(case.backbone.rest(depth, "avg")(kept), case.rows, 2e-5)


def test_pooled_rows_have_the_width_that_is_announced(case):
    spec = case.backbone.spec.input.at(case.images.shape[-1])
    widths = backbone_info(case.name, case.params).widths
    pooling = case.backbone.pooling("auto")
    with torch.inference_mode():
        for depth in case.depths:
            rows = case.backbone.frozen(depth, pooling)(case.images)
            assert rows.shape == (3, widths[depth])
            assert case.backbone.width(depth, pooling, spec) == widths[depth]


def test_a_row_depends_neither_on_its_neighbours_nor_on_the_batch_size(case):
    assert_rows_stand_alone(case.whole, case.images)


class Leak(nn.Module):
    """Mixes a thousandth of the batch into every image."""

    def forward(self, x):
        return x + 1e-3 * x.mean(0, keepdim=True)


@pytest.fixture
def efficientnet():
    """Return what passes the bound above, to be broken."""
    return Case("efficientnet_b0", {}, 128)


def test_one_batch_norm_in_training_mode_breaks_the_bound_on_neighbours(efficientnet):
    norms = [m for m in efficientnet.whole.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[-1].train()
    with pytest.raises(AssertionError):
        assert_rows_stand_alone(efficientnet.whole, efficientnet.images)


def test_dropped_branches_break_the_bound_on_neighbours(efficientnet):
    torch.manual_seed(0)
    for module in efficientnet.whole.modules():
        if isinstance(module, StochasticDepth):
            module.train()
    with pytest.raises(AssertionError):
        assert_rows_stand_alone(efficientnet.whole, efficientnet.images)


@pytest.mark.parametrize("stage", range(7))
def test_a_small_leak_between_images_breaks_the_bound_on_neighbours(efficientnet, stage):
    parts = list(efficientnet.whole)
    parts.insert(1 + stage, Leak())
    with pytest.raises(AssertionError):
        assert_rows_stand_alone(nn.Sequential(*parts), efficientnet.images)


def test_different_images_have_different_rows(case):
    assert (case.rows[0] - case.rows[1]).abs().max() > 1e-4 * case.rows.abs().max()


def test_frozen_parts_do_not_change_while_the_rest_trains(case):
    for depth in (1, case.depths[-1] - 1):
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
        assert not any(module.training for module in frozen.modules())


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_rows_are_what_torchvision_feeds_its_last_linear_layer(case):
    params = {**_torchvision.architecture(case.name).params, **case.params}
    theirs = models.get_model(case.name, weights=None, **params).eval()
    loaded = theirs.load_state_dict(case.backbone.model.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith(case.backbone.structure.head) for key in loaded.missing_keys)
    fed = []
    linear = [module for module in theirs.modules() if isinstance(module, nn.Linear)]
    # SqueezeNet's classifier is a convolution, and a row is the average of what it reads
    last = linear[-1] if linear else theirs.classifier[1]
    last.register_forward_pre_hook(lambda module, inputs: fed.append(inputs[0]))
    spec = case.backbone.spec.input
    with torch.inference_mode():
        theirs(Normalise(spec.mean, spec.std)(case.images))
        ours = case.backbone.frozen(case.depths[-1], case.backbone.pooling("auto"))
        expected = fed[0] if linear else fed[0].mean((2, 3))
        assert_near(ours(case.images), expected, 1e-4)


def test_networks_with_layers_after_their_pooling_are_these(case):
    pooling = case.backbone.pooling("auto")
    assert (pooling == "head") == (case.name in PRE_LOGITS)
    if pooling == "head":
        rows = case.backbone.frozen(case.depths[-1], "head")(case.images)
        assert rows.shape == (3, PRE_LOGITS[case.name])


@pytest.mark.parametrize("representation_size", [None, 24])
def test_a_hidden_layer_of_vit_is_part_of_a_row(representation_size):
    params = {"image_size": 64, "representation_size": representation_size}
    backbone = load_backbone("vit_b_32", params, None)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        tokens = backbone.frozen(5, None)(images)
        rows = backbone.frozen(5, backbone.pooling("auto"))(images)
        expected = tokens[:, 0]
        if representation_size:
            expected = backbone.model.heads.pre_logits(expected).tanh()
    torch.testing.assert_close(rows, expected)
