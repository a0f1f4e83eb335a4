"""The loss on images without labels, and rows that are standardised by domain."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.training._adaptation import (
    SOURCE,
    TARGET,
    Adaptation,
    StandardiseDomains,
    class_confusion,
    for_source,
    outputs_by_domain,
)
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._head import TrainablePart
from sktransfer.training._inference import outputs
from sktransfer.training._resident import ViewsOnDevice

CPU = torch.device("cpu")


def standardise(**options):
    source = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    target = np.array([-1.0, 0.0, 5.0]), np.array([2.0, 1.0, 1.0])
    return StandardiseDomains(source, target, **options)


def adapted_part(with_probe=False):
    torch.manual_seed(0)
    part = TrainablePart(nn.Linear(5, 3), nn.Sequential(standardise(), nn.Linear(3, 2)))
    if with_probe:
        part.add_probe(0.3)
    return part.eval()


def test_confusion_is_that_of_the_paper():
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 3
    probabilities = torch.softmax(logits / 2.5, 1).numpy().astype(np.float64)
    entropy = -(probabilities * np.log(probabilities)).sum(1)
    weights = 1 + np.exp(-entropy)
    weights *= 7 / weights.sum()
    confusion = np.zeros((4, 4))
    for i in range(7):
        confusion += weights[i] * np.outer(probabilities[i], probabilities[i])
    confusion /= confusion.sum(1, keepdims=True)
    expected = (confusion.sum() - np.trace(confusion)) / 4
    assert class_confusion(logits).item() == pytest.approx(expected, rel=1e-5)


def test_confusion_is_none_where_the_network_is_sure_of_different_classes():
    sure = 200 * torch.eye(3).repeat(2, 1)
    assert class_confusion(sure).item() == pytest.approx(0, abs=1e-6)
    assert class_confusion(torch.zeros(6, 3)).item() == pytest.approx(2 / 3)
    sure.requires_grad_()
    class_confusion(sure).backward()
    assert torch.isfinite(sure.grad).all()


def test_confusion_is_finite_where_a_class_has_no_probability():
    logits = torch.tensor([[500.0, 0.0, 0.0], [500.0, 0.0, 0.0]], requires_grad=True)
    loss = class_confusion(logits)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_rows_are_standardised_by_their_own_domain():
    rows = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 7.0]])
    module = standardise().eval()
    module.domain = SOURCE
    torch.testing.assert_close(module(rows), torch.tensor([[0.0, 0, 0], [1, 1, 1]]))
    module.domain = TARGET
    torch.testing.assert_close(module(rows), torch.tensor([[1.0, 2, -2], [1.5, 4, 2]]))


@pytest.mark.parametrize("domain", [SOURCE, TARGET])
def test_in_training_rows_are_standardised_by_their_batch_where_stages_train(domain):
    module = standardise(follows=True).train()
    module.domain = domain
    before = copy.deepcopy(module.state_dict())
    rows = 5 + 3 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    values = module(rows)
    torch.testing.assert_close(values.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(3))
    changed = {name for name, value in module.state_dict().items() if not value.equal(before[name])}
    own = {"mean", "scale"} if domain == SOURCE else {"target_mean", "target_scale"}
    assert changed == own
    fixed = standardise().train()
    fixed.domain = domain
    assert not torch.equal(fixed(rows), values)


def test_a_column_that_hardly_varies_in_a_batch_is_not_blown_up():
    module = standardise(follows=True).train()
    rows = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    rows[:, 1] *= 1e-6
    assert module(rows)[:, 1].abs().max() < 1e-4


@pytest.mark.parametrize("domain", [SOURCE, TARGET])
def test_scales_of_columns_that_are_constant_in_all_batches_do_not_vanish(domain):
    module = standardise(follows=True).train()
    module.domain = domain
    scale = module.scale if domain == SOURCE else module.target_scale
    before = scale.clone()
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        rows = torch.randn(16, 3, generator=generator)
        rows[:, :2] = 0  # two of three
        assert torch.isfinite(module(rows)).all()
    assert (scale[:2] >= 0.09 * before.median()).all()
    assert scale[2] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("with_probe", [False, True])
def test_sources_are_predicted_by_the_statistics_of_the_source(with_probe):
    part = adapted_part(with_probe)
    activations = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    domain = np.array([1, -1, -1, 2, 1, -3])
    of_target = outputs(part, activations, CPU)
    of_source = outputs(for_source(part), activations, CPU)
    assert np.abs(of_source - of_target).min() > 0
    mixed = outputs_by_domain(part, activations, CPU, domain)
    np.testing.assert_array_equal(mixed, np.where(domain[:, None] > 0, of_source, of_target))
    np.testing.assert_array_equal(outputs_by_domain(part, activations, CPU), of_target)
    # nothing of the part has changed, and the other one shares its parameters
    np.testing.assert_array_equal(outputs(part, activations, CPU), of_target)
    pairs = zip(for_source(part).parameters(), part.parameters(), strict=True)
    assert all(one is other for one, other in pairs)


def test_domains_make_no_difference_to_a_part_that_is_not_adapted():
    part = TrainablePart(nn.Identity(), nn.Sequential(nn.Identity(), nn.Linear(5, 2))).eval()
    activations = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(
        outputs_by_domain(part, activations, CPU, np.array([1, -1, 1, -1])),
        outputs(part, activations, CPU),
    )


def batches_of(adaptation, epoch, n):
    adaptation.start_epoch(epoch, ViewsOnDevice(CPU))
    return [adaptation.next_batch() for _ in range(n)]


def test_batches_are_a_function_of_seed_and_epoch_and_see_all_images():
    rows = np.arange(10, dtype=np.float32).reshape(-1, 1)

    def of(seed):
        return Adaptation("mcc", 1.0, AugmentedActivations.fixed(rows), 4, seed)

    first, again = batches_of(of(0), 3, 5), batches_of(of(0), 3, 5)
    assert all(one.equal(other) for one, other in zip(first, again, strict=True))
    assert {len(batch) for batch in first} == {4}
    assert not torch.equal(first[0], batches_of(of(0), 4, 1)[0])
    assert not torch.equal(first[0], batches_of(of(1), 3, 1)[0])
    assert len(np.unique(torch.cat(batches_of(of(0), 0, 20)).numpy())) == 10
    assert len(np.unique(torch.cat(first[:2]).numpy())) == 8  # none twice in a round


def test_fewer_images_than_a_batch_are_one_batch():
    rows = np.arange(3, dtype=np.float32).reshape(-1, 1)
    adaptation = Adaptation("mcc", 1.0, AugmentedActivations.fixed(rows), 8, 0)
    assert [len(batch) for batch in batches_of(adaptation, 0, 3)] == [3, 3, 3]


def test_gradients_are_added_with_the_weight_and_the_domain_is_set_back():
    activations = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    views = AugmentedActivations.fixed(activations)
    grads = []
    for weight in (0.0, 1.0, 2.0):
        part = adapted_part()
        part.head[0].domain = SOURCE
        seen = []

        def infer(batch, part=part, seen=seen):
            seen.append(part.head[0].domain)
            return part(batch)

        adaptation = Adaptation("mcc", weight, views, 8, 0)
        adaptation.start_epoch(0, ViewsOnDevice(CPU))
        adaptation.add_gradients(part, infer, adaptation.next_batch())
        assert seen == [TARGET]
        assert part.head[0].domain == SOURCE
        grads.append(part.head[1].weight.grad)
        expected = class_confusion(torch.from_numpy(outputs(_of_target(part), activations, CPU)))
        assert adaptation.mean_loss() == pytest.approx(expected.item(), rel=1e-5)
    assert grads[0] is None  # nothing passed backwards
    assert grads[1].any()
    torch.testing.assert_close(grads[2], 2 * grads[1])


def _of_target(part):
    part.head[0].domain = TARGET
    return part
