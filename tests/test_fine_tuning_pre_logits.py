"""Layers between a network's pooling and its last linear layer, in fine-tuning."""

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer.backbones._registry import load_backbone
from sktransfer.training._head import TrainablePart
from sktransfer.training._optim import parameter_groups

NAME = "mobilenet_v3_small"
SMALL = {"weights": None, "image_size": 32, "feature_cache": None}


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(NAME, None, None)


def trainable(backbone, depth):
    return TrainablePart(backbone.fresh(depth).rest(depth, "head"), nn.Linear(1024, 2))


def test_they_are_trained_with_the_last_stage_and_are_none_of_their_own(backbone):
    n_stages = len(backbone.stages)
    for n_trained in (1, 2, 3):
        part = trainable(backbone, n_stages - n_trained)
        stages = part.trained_stages()
        assert len(stages) == n_trained
        shapes = [tuple(parameter.shape) for parameter in stages[-1].parameters()]
        assert (1024, 576) in shapes


def test_they_learn_at_the_rate_of_the_last_stage(backbone):
    part = trainable(backbone, len(backbone.stages) - 2)
    groups = parameter_groups(
        part, lr=1.0, backbone_lr_scale=0.1, layer_decay=0.5, weight_decay=0.0
    )
    rates = {tuple(p.shape): group["lr"] for group in groups for p in group["params"]}
    assert rates[1024, 576] == 0.1
    assert {group["lr"] for group in groups} == {1.0, 0.1, 0.05}


def test_gradual_unfreezing_begins_with_them_and_the_last_stage(backbone):
    part = trainable(backbone, len(backbone.stages) - 2)
    part.set_trainable(1)
    first, last = part.trained_stages()
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert all(parameter.requires_grad for parameter in last.parameters())


def hidden_layer(network):
    return network.model.classifier[0].weight.detach().numpy().copy()


@pytest.mark.parametrize("freeze_depth", [None, -1])
def test_they_train_if_a_stage_does_and_are_saved(freeze_depth, backbone, shapes, tmp_path):
    X, y = shapes
    classifier = FineTunedClassifier(
        NAME, recipe="fast", freeze_depth=freeze_depth, max_epochs=1, random_state=0, **SMALL
    ).fit(X, y)
    path = tmp_path / "tuned.safetensors"
    classifier.save_backbone(path)
    tuned = load_backbone(str(path))
    is_changed = not np.array_equal(hidden_layer(tuned), hidden_layer(backbone))
    assert is_changed == (freeze_depth is not None)
    role = dict(row[:2] for row in classifier.stages_)["(pre-logits)"]
    assert role == ("trained" if is_changed else "frozen")
    in_net = sum(p.numel() for p in classifier.net_.module_.parameters())
    assert classifier.stages_.total("trained") == in_net

    rows = PretrainedFeatureTransformer(path, image_size=32, feature_cache=None).fit_transform(X)
    head = classifier.net_.module_.head.eval()
    with torch.inference_mode():
        probabilities = head(torch.from_numpy(rows)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=2e-3)


def test_a_transformer_gives_what_the_last_linear_layer_reads(backbone, shapes):
    X, _ = shapes
    transformer = PretrainedFeatureTransformer(NAME, **SMALL).fit(X)
    assert transformer.pooling_ == "head"
    assert transformer.n_features_out_ == 1024
    plain = PretrainedFeatureTransformer(NAME, pooling="avg", **SMALL).fit(X)
    assert plain.n_features_out_ == 576
    rows = transformer.set_params(precision="float32").fit_transform(X)
    pooled = plain.set_params(precision="float32").fit_transform(X)
    with torch.inference_mode():
        expected = backbone.model.classifier[:2](torch.from_numpy(pooled)).numpy()
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
