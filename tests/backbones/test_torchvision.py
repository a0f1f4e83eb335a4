"""The contract of every backbone, over all of torchvision's classifiers.

Shapes are computed for every name on the meta device, which holds no values.
Numbers are computed with small members of each family at small images.
"""

import pytest
import torch
from torch import nn
from torchvision import models

from sktransfer.backbones import _torchvision
from sktransfer.backbones._catalogue import backbone_info
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones._stages import Normalise, cut_into_stages

ALL = models.list_models(module=models)

# name, backbone_params, image size: 64 pixels where the network takes them
SMALL = [
    ("alexnet", {}, 64),
    ("convnext_tiny", {}, 64),
    ("densenet121", {}, 64),
    ("efficientnet_b0", {}, 128),
    ("googlenet", {}, 64),
    ("inception_v3", {}, 80),
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
    return next(f for f in _torchvision.FAMILIES if _torchvision.matches(f, name))


def _others_of_moderate_size():
    """Return the other names under 30 million parameters, at the size of their family."""
    sizes = {_family_of(name).names: size for name, _, size in SMALL}
    known = {name for name, *_ in SMALL}
    return [
        (name, {}, sizes[_family_of(name).names])
        for name in ALL
        if name not in known and _torchvision.architecture(name).published_params() < 30_000_000
    ]


# heads that are pooling and one linear layer
POOLING_AND_LINEAR = {
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "swin_t",
    "swin_v2_t",
    "vit_b_32",
}


class Case:
    """A small backbone whose batch norm has statistics, and a few images."""

    def __init__(self, name, params, size):
        self.name, self.params = name, params
        self.backbone = load_backbone(name, params, None).fresh()
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(
            0, 256, (3, 3, size, size), dtype=torch.uint8, generator=generator
        )
        # without statistics of its own, batch norm lets the signal of random weights die
        norms = [m for m in self.backbone.model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = 1.0
        with torch.no_grad():
            others = torch.randint(
                0, 256, (8, 3, size, size), dtype=torch.uint8, generator=generator
            )
            x = Normalise([0.5] * 3, [0.25] * 3)(others)
            for stage in self.backbone.stages.values():
                x = stage(x)
        for norm in norms:
            norm.eval().running_var.clamp_(min=0.1 * norm.running_var.mean())
        self.depths = range(len(self.backbone.stages) + 1)
        with torch.inference_mode():
            self.rows = self.backbone.frozen(len(self.backbone.stages), "avg")(self.images)


CASES = [*SMALL, *_others_of_moderate_size()]


@pytest.fixture(scope="module", params=CASES, ids=[name for name, *_ in CASES])
def any_case(request):
    return Case(*request.param)


# with random weights the deeper members of a family amplify rounding beyond the bounds
@pytest.fixture(scope="module", params=SMALL, ids=[name for name, *_ in SMALL])
def case(request):
    return Case(*request.param)


def assert_near(one, two, tolerance):
    scale = two.abs().max()
    assert scale > 0
    assert (one - two).abs().max() <= tolerance * scale


def test_every_classifier_of_the_installed_torchvision_has_one_family():
    for name in ALL:
        families = [f.names for f in _torchvision.FAMILIES if _torchvision.matches(f, name)]
        assert len(families) == 1, name
    assert list(_torchvision.names()) == ALL
    assert len(ALL) >= 80


def test_every_family_has_a_small_member_here():
    for family in _torchvision.FAMILIES:
        assert any(_torchvision.matches(family, name) for name, *_ in SMALL), family.names


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_of_the_trunk_is_in_one_of_a_few_stages(name):
    architecture = _torchvision.architecture(name)
    model = architecture.empty({}).to("meta")
    anatomy = architecture.anatomy(model)
    assert 3 <= len(anatomy.stages) <= 8
    stages = cut_into_stages(model, anatomy.stages)
    in_stages = [id(p) for stage in stages.values() for p in stage.parameters()]
    of_trunk = [id(p) for n, p in model.named_parameters() if not n.startswith(anatomy.head)]
    assert sorted(in_stages) == sorted(of_trunk)


@pytest.mark.parametrize("name", ALL)
def test_the_head_reads_what_the_last_stage_gives(name):
    architecture = _torchvision.architecture(name)
    default = next(iter(architecture.offers().values()))
    model = architecture.empty(dict(default.params)).to("meta").eval()
    anatomy = architecture.anatomy(model)
    fed = []
    head = model.get_submodule(anatomy.head[0].removesuffix("."))
    head.register_forward_pre_hook(lambda module, inputs: fed.append(inputs[0].shape[1:]))
    info = backbone_info(name)
    model(torch.empty(1, 3, info.input.size, info.input.size, device="meta"))
    activation, width = info.stages[-1].activation, info.widths[-1]
    # one row for a linear layer, the maps for a head with layers of its own, or maps
    # pooled to a fixed grid and flattened: 6 x 6 of AlexNet, 7 x 7 of VGG
    assert tuple(fed[0]) in (
        (width,),
        activation,
        (width, 1, 1),
        (width * 36,),
        (width * 49,),
    )


def test_the_frozen_part_and_the_rest_are_the_whole_at_every_depth(any_case):
    with torch.inference_mode():
        for depth in any_case.depths:
            activation = any_case.backbone.frozen(depth, None)(any_case.images)
            before = activation.clone()
            rows = any_case.backbone.rest(depth, "avg")(activation)
            assert_near(rows, any_case.rows, 1e-5)
            # nothing in the rest writes into the activation, which is kept
            torch.testing.assert_close(activation, before, rtol=0, atol=0)


def test_the_rest_takes_activations_from_contiguous_memory(case):
    # as they come back from a file
    with torch.inference_mode():
        for depth in case.depths:
            activation = case.backbone.frozen(depth, None)(case.images)
            kept = torch.from_numpy(activation.numpy().copy())
            # other kernels than for channels-last memory, so another rounding
            assert_near(case.backbone.rest(depth, "avg")(kept), case.rows, 1e-4)


def test_pooled_rows_have_the_width_that_is_announced(any_case):
    spec = any_case.backbone.spec.input.at(any_case.images.shape[-1])
    widths = backbone_info(any_case.name, any_case.params).widths
    with torch.inference_mode():
        for depth in any_case.depths:
            rows = any_case.backbone.frozen(depth, "avg")(any_case.images)
            assert rows.shape == (3, widths[depth])
            assert any_case.backbone.width(depth, "avg", spec) == widths[depth]


def test_a_row_depends_neither_on_its_neighbours_nor_on_the_batch_size(case):
    frozen = case.backbone.frozen(len(case.backbone.stages), "avg")
    with torch.inference_mode():
        for i in range(3):
            assert_near(frozen(case.images[i : i + 1])[0], case.rows[i], 1e-5)
        assert_near(frozen(case.images[[2, 0]]), case.rows[[2, 0]], 1e-5)


def test_different_images_have_different_rows(case):
    assert (case.rows[0] - case.rows[1]).abs().max() > 1e-4 * case.rows.abs().max()


def test_frozen_parts_do_not_change_while_the_rest_trains(any_case):
    for depth in (1, any_case.depths[-1] - 1):
        backbone = any_case.backbone.fresh()
        frozen, rest = backbone.frozen(depth, None), backbone.rest(depth, "avg").train()
        before = {name: value.clone() for name, value in frozen.state_dict().items()}
        trained = {name: value.clone() for name, value in rest.state_dict().items()}
        optimizer = torch.optim.SGD(rest.parameters(), lr=0.1)
        with torch.no_grad():
            activation = frozen(any_case.images)
        rest(activation).square().mean().backward()
        optimizer.step()
        for name, value in frozen.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert any(not torch.equal(v, trained[n]) for n, v in rest.state_dict().items())
        assert not any(module.training for module in frozen.modules())


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_rows_are_what_torchvision_feeds_its_last_linear_layer(case):
    if case.name not in POOLING_AND_LINEAR:
        head = models.get_model(case.name, weights=None, **case.params)
        linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
        # it has more layers than pooling and one linear layer after its maps
        assert len(linear) != 1 or case.name in {"convnext_tiny"}
        return
    params = {**_torchvision.architecture(case.name).params, **case.params}
    theirs = models.get_model(case.name, weights=None, **params).eval()
    loaded = theirs.load_state_dict(case.backbone.model.state_dict(), strict=False)
    anatomy = case.backbone.anatomy
    assert not loaded.unexpected_keys
    assert all(key.startswith(anatomy.head) for key in loaded.missing_keys)
    fed = []
    last = [module for module in theirs.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda module, inputs: fed.append(inputs[0]))
    spec = case.backbone.spec.input
    normalised = Normalise(spec.mean, spec.std)(case.images)
    with torch.inference_mode():
        theirs(normalised)
        ours = case.backbone.frozen(len(case.backbone.stages), case.backbone.pooling("auto"))
        assert_near(ours(case.images), fed[0], 1e-4)
