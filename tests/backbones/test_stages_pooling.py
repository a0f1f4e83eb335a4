"""From an activation to one row per image."""

import pytest
import torch

from sktransfer.backbones._stages import (
    CLASS_TOKEN,
    FEATURE_MAPS,
    POOLINGS,
    Layout,
    Pool,
    resolve_pooling,
)


def test_maps_are_pooled_over_their_positions():
    maps = torch.rand(2, 5, 3, 4)
    torch.testing.assert_close(Pool("avg")(maps), maps.mean((2, 3)))
    torch.testing.assert_close(Pool("max")(maps), maps.amax((2, 3)))
    torch.testing.assert_close(Pool("flatten")(maps), maps.reshape(2, 60))


def test_generalised_mean_lies_between_average_and_maximum():
    maps = torch.rand(2, 5, 3, 4)
    gem = Pool("gem")(maps)
    torch.testing.assert_close(gem, maps.pow(3).mean((2, 3)).pow(1 / 3))
    assert (gem >= Pool("avg")(maps)).all()
    assert (gem <= Pool("max")(maps)).all()


def test_generalised_mean_of_negative_values_is_finite():
    assert Pool("gem")(-torch.ones(1, 2, 3, 3)).isfinite().all()


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_prefix_tokens_are_left_out_of_what_pools_patches(pooling):
    tokens = torch.rand(2, 9, 5)
    changed = tokens.clone()
    changed[:, :2] = 100.0
    pool = Pool(pooling, n_prefix_tokens=2)
    torch.testing.assert_close(pool(tokens), pool(changed))


def test_cls_is_the_first_token():
    tokens = torch.rand(2, 9, 5)
    torch.testing.assert_close(Pool("cls", n_prefix_tokens=1)(tokens), tokens[:, 0])


def test_cls_of_feature_maps_is_their_average():
    # at depth 0, the image itself: it has no tokens yet
    maps = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(Pool("cls", n_prefix_tokens=1)(maps), maps.mean((2, 3)))


def test_auto_is_what_the_head_reads():
    assert resolve_pooling("auto", FEATURE_MAPS, "resnet18") == "avg"
    assert resolve_pooling("auto", CLASS_TOKEN, "vit_b_16") == "cls"


def test_an_unknown_pooling_is_refused_with_those_allowed():
    with pytest.raises(ValueError, match="pooling must be one of") as caught:
        resolve_pooling("mean", FEATURE_MAPS, "resnet18")
    assert "'mean'" in str(caught.value)
    for pooling in POOLINGS:
        assert repr(pooling) in str(caught.value)


def test_cls_is_refused_where_there_is_no_class_token():
    with pytest.raises(ValueError, match="class token, and 'resnet18' has none"):
        resolve_pooling("cls", FEATURE_MAPS, "resnet18")


def test_tokens_that_are_no_class_token_do_not_serve_as_one():
    with pytest.raises(ValueError, match="needs a network with a class token"):
        resolve_pooling("cls", Layout(n_prefix_tokens=4), "registers")


@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_a_mean_of_bfloat16_is_not_rounded_to_it(pooling):
    x = torch.rand(2, 3, 5, 5).bfloat16()
    pooled = Pool(pooling)(x)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, Pool(pooling)(x.float()))
