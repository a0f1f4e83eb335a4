import torch
from torch import nn

from sktransfer.training._head import TrainablePart


def part_with_a_probe(weight=0.25):
    part = TrainablePart(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2))
    part.add_probe(weight)
    with torch.no_grad():
        part.head.bias.add_(8.0)
    return part


def test_outputs_are_means_of_the_trained_part_and_its_probe_in_evaluation_alone():
    part, x = part_with_a_probe(0.25), torch.randn(5, 3)
    part.eval()
    torch.testing.assert_close(part(x), part.probe(x) + 0.75 * 8)
    trained = part.head(part.stages(x))
    torch.testing.assert_close(part.train()(x), trained)


def test_a_probe_has_no_parameters_that_train_and_stays_in_evaluation_mode():
    part = part_with_a_probe()
    part.train()
    part.set_trainable(None)
    assert not any(parameter.requires_grad for parameter in part.probe.parameters())
    assert not any(module.training for module in part.probe.modules())
