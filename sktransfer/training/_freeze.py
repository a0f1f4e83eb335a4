"""Which of the stages after the cut train, and when."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class TrainablePart(nn.Module):
    """The stages after the cut, then the head: activations to outputs.

    Frozen stages are no part of this module, so nothing that happens to it can change
    them.

    Parameters
    ----------
    stages : nn.Module
    head : nn.Module
    batch_norm : {"frozen", "train"}
        "frozen" keeps the statistics that the backbone was trained with: those of a
        batch of a few dozen images from one task are worse. Scale and shift train
        either way.
    """

    def __init__(self, stages: nn.Module, head: nn.Module, batch_norm: str = "frozen"):
        super().__init__()
        self.stages = stages
        self.head = head
        self.batch_norm = batch_norm

    def forward(self, activations):
        return self.head(self.stages(activations))

    def train(self, mode: bool = True):
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.stages.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def trained_stages(self) -> list[nn.Module]:
        """Return the stages that have parameters, from the cut to the head."""
        return [stage for stage in self.stages.children() if any(True for _ in stage.parameters())]

    def let_train(self, n_stages: int | None) -> None:
        """Let the head and the last `n_stages` train; None is all of them."""
        stages = self.trained_stages()
        n_fixed = 0 if n_stages is None else max(0, len(stages) - n_stages)
        for position, stage in enumerate(stages):
            stage.requires_grad_(position >= n_fixed)
