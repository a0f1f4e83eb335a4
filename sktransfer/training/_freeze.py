"""Keep batch normalisation as it was in stages that train."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class TrainablePart(nn.Module):
    """The stages after the cut, then the head: activations to logits.

    Batch normalisation keeps the statistics that the backbone was trained with:
    those of a batch of a few dozen images from one task are worse. Its scale and
    shift train. Frozen stages are no part of this module, so nothing that happens
    to it can change them.
    """

    def __init__(self, stages: nn.Module, head: nn.Module):
        super().__init__()
        self.stages = stages
        self.head = head

    def forward(self, activations):
        return self.head(self.stages(activations))

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.stages.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self
