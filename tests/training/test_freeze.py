import torch
from torch import nn

from sktransfer.training._freeze import TrainablePart


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
