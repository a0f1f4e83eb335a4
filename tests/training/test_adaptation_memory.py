"""Images of a target where they train: their copies, and batches that do not fit in memory."""

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.training._adaptation import (
    SOURCE,
    Adaptation,
    StandardiseDomains,
    class_confusion,
    set_domain,
)
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._config import TrainingConfig
from sktransfer.training._head import TrainablePart
from sktransfer.training._net import make_net
from sktransfer.training._optim import WeightedLoss
from sktransfer.training._resident import ViewsOnDevice

from .conftest import Copies, assert_same, training_set

CPU = torch.device("cpu")
N_TARGET, BATCH = 30, 16


class Scarce(nn.Module):
    """A stage with memory for `most` images, which may drop values; it notes what is left."""

    def __init__(self, most=10**6, dropout=0.0):
        super().__init__()
        self.most, self.layers = most, nn.Sequential(nn.Linear(6, 5), nn.Dropout(dropout))
        self.scale = nn.Parameter(torch.ones(5))
        self.passed = []

    def forward(self, x):
        self.passed.append((len(x), torch.is_grad_enabled(), None))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        values = self.layers(x)
        self.passed[-1] = (*self.passed[-1][:2], values.detach().clone())
        return values * self.scale  # a second pass ends here: the backward pass needs no more

    @property
    def sizes(self):
        return [n for n, *_ in self.passed]


def target_rows(n=N_TARGET):
    return np.random.default_rng(2).normal(1, 2, (n, 6)).astype(np.float32)


def adapted(stage, n_sources=40, weight=1.0, follows=True, head_alone=False, **config):
    torch.manual_seed(0)
    width = 6 if head_alone else 5
    of_source, of_target = (np.zeros(width), np.ones(width)), (np.ones(width), np.full(width, 2.0))
    standardise = StandardiseDomains(of_source, of_target, follows=follows)
    head = nn.Sequential(standardise, nn.Sequential(nn.Dropout(0.0), nn.Linear(5, 2)))
    # a stage without parameters is none that trains
    stages = nn.Sequential(nn.Identity() if head_alone else stage)
    if head_alone:
        head[1][0] = stage
    for module in (stage, head[1][-1]):
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0, 0.5)
    part = TrainablePart(stages, head)
    set_domain(part, SOURCE)
    views = AugmentedActivations.fixed(target_rows())
    adaptation = Adaptation("mcc", weight, views, BATCH, seed=0)
    net = make_net(
        part,
        WeightedLoss("softmax"),
        TrainingConfig(lr=0.05, optimizer="sgd", adapt="mcc", **config),
        n_epochs=2,
        batch_size=BATCH,
        validation=training_set(20, seed=1),
        adaptation=adaptation,
        seed=0,
        device=CPU,
        verbose=-1,
    )
    return net.fit(training_set(n_sources)), adaptation


def assert_close(net, expected):
    pairs = zip(net.module_.parameters(), expected.module_.parameters(), strict=True)
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted)
    for name in ("train_loss", "adapt_loss", "valid_loss"):
        assert net.history[:, name] == pytest.approx(expected.history[:, name], rel=1e-4)


# copies


def test_images_of_the_target_cross_once_in_a_fit(monkeypatch):
    expected, _ = adapted(Scarce())
    copies = Copies(monkeypatch)
    net, _ = adapted(Scarce())
    assert copies.shapes.count((N_TARGET, 6)) == 1
    assert (BATCH, 6) not in copies.shapes
    assert_same(net, expected)


def test_batches_of_the_target_that_do_not_live_there_are_pinned_and_not_waited_for(monkeypatch):
    expected, _ = adapted(Scarce())
    copies = Copies(monkeypatch, free=100)
    net, _ = adapted(Scarce())
    # in each of two epochs three of the target, and two of that size of the source
    assert copies.shapes.count((BATCH, 6)) == 2 * (3 + 2)
    assert_same(net, expected)


def test_the_target_gives_its_memory_back_after_a_fit(monkeypatch):
    Copies(monkeypatch)
    held = []
    of = ViewsOnDevice.of
    monkeypatch.setattr(ViewsOnDevice, "of", lambda *args: held.append(of(*args)) or held[-1])
    _, adaptation = adapted(Scarce())
    assert adaptation is not None  # and what it draws batches from
    assert len({id(source) for source in held}) == 3
    assert all(source._data is None for source in held)


# batches that do not fit


@pytest.mark.parametrize("n_sources", [40, 10])  # 10: only batches of the target are too large
def test_a_batch_that_does_not_fit_has_the_loss_and_the_gradients_of_a_whole_one(n_sources):
    expected, _ = adapted(Scarce(), n_sources)
    stage = Scarce(most=11)
    net, _ = adapted(stage, n_sources)
    assert stage.sizes[0] == min(n_sources, BATCH)
    assert max(stage.sizes[stage.sizes.index(BATCH) + 1 :]) <= 10
    assert_close(net, expected)
    for name, value in net.module_.state_dict().items():  # running statistics as well
        torch.testing.assert_close(value, expected.module_.state_dict()[name])


def test_the_loss_of_parts_is_another_one():
    logits = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    parts = [class_confusion(part) for part in logits.split(8)]
    whole = class_confusion(logits).item()
    assert torch.stack(parts).mean().item() != pytest.approx(whole, rel=1e-3)


def test_one_image_at_a_time_is_standardised_by_its_whole_batch():
    expected, _ = adapted(Scarce())
    net, _ = adapted(Scarce(most=1))
    assert_close(net, expected)
    assert net.module_._images_at_once is None  # a later fit starts with whole batches


def test_images_pass_twice_with_the_same_random_numbers():
    stage = Scarce(most=8, dropout=0.5)
    adapted(stage, n_sources=8)
    first = [values for _, _, values in stage.passed if values is not None]
    of_source, *passes = first[1:6]  # the source was tried, and the target did not fit
    one, other, again, again_too = passes
    assert len(of_source) == len(one) == len(other) == 8
    assert not torch.equal(one, other)
    # the backward pass begins with the images that passed last
    assert torch.equal(other, again)
    assert torch.equal(one, again_too)


def test_a_head_alone_passes_in_parts_too_with_the_statistics_of_its_domain():
    expected, _ = adapted(Scarce(), follows=False, head_alone=True)
    stage = Scarce(most=8)
    net, _ = adapted(stage, follows=False, head_alone=True)
    assert stage.sizes[:3] == [16, 8, 8]
    assert_close(net, expected)


def test_memory_that_ends_on_one_image_names_a_smaller_batch_too():
    with pytest.raises(torch.OutOfMemoryError, match=r"on 1 of 16 images.*batch_size.*Tried to"):
        adapted(Scarce(most=0))


# a weight of 0


def test_without_a_weight_nothing_passes_backwards_and_random_numbers_are_the_same():
    states, passed = [], []
    for weight in (0.0, 1.0):
        stage = Scarce(dropout=0.5)
        part = TrainablePart(
            nn.Sequential(stage),
            nn.Sequential(StandardiseDomains((np.zeros(5), np.ones(5)), (np.zeros(5), np.ones(5)))),
        )
        adaptation = Adaptation(
            "mcc", weight, AugmentedActivations.fixed(target_rows()), BATCH, seed=0
        )
        adaptation.start_epoch(0, ViewsOnDevice(CPU))
        torch.manual_seed(1)
        adaptation.add_gradients(part.train(), part, adaptation.next_batch())
        states.append(torch.get_rng_state())
        passed.append([needs_gradients for _, needs_gradients, _ in stage.passed])
        assert all((parameter.grad is None) == (weight == 0) for parameter in part.parameters())
        assert adaptation.mean_loss() > 0
    assert passed == [[False], [True]]
    assert torch.equal(*states)
