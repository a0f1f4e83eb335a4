import torch
from torch import nn

from sktransfer.training._head import TrainablePart


def test_batch_norm_of_the_stages_keeps_its_statistics_in_training_mode():
    norm = nn.BatchNorm2d(3)
    part = TrainablePart(nn.Sequential(norm, nn.Flatten()), nn.Linear(12, 2)).train()
    before = norm.running_mean.clone()
    part(torch.rand(8, 3, 2, 2))
    assert part.training
    assert norm.running_mean.equal(before)


def test_dropout_of_the_stages_and_batch_norm_of_the_head_train():
    head = nn.BatchNorm1d(4)
    part = TrainablePart(nn.Dropout(0.5), head).train()
    assert part.stages.training
    assert head.training
    part.eval()
    assert not part.stages.training
    assert not head.training


def test_batch_norm_of_the_stages_learns_statistics_when_asked():
    norm = nn.BatchNorm2d(3)
    part = TrainablePart(nn.Sequential(norm, nn.Flatten()), nn.Linear(12, 2), "train").train()
    before = norm.running_mean.clone()
    part(torch.rand(8, 3, 2, 2))
    assert not norm.running_mean.equal(before)


def test_stages_are_let_train_from_the_head_down():
    stages = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Flatten())
    part = TrainablePart(stages, nn.Linear(2, 2))
    for n_stages, expected in [(0, 0), (1, 1), (2, 2), (5, 3), (None, 3)]:
        part.set_trainable(n_stages)
        training = [stage.weight.requires_grad for stage in stages[:3]]
        assert training == [False] * (3 - expected) + [True] * expected
        assert part.head.weight.requires_grad
