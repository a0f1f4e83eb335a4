"""Which parameter learns how fast, and which decays."""

from typing import Any

from ._freeze import TrainablePart


def parameter_groups(
    module: TrainablePart, *, lr: float, backbone_lr_scale: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return the optimizer's groups: the head at `lr`, the stages at a share of it.

    Weights of layers decay; biases and the scales of normalisation, which have one
    dimension, don't.
    """
    groups = []
    for part, part_lr in ((module.stages, lr * backbone_lr_scale), (module.head, lr)):
        parameters = [p for p in part.parameters() if p.requires_grad]
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            if chosen:
                decay = weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": part_lr, "weight_decay": decay})
    return groups
