"""Which parameter learns how fast, and which decays."""

from typing import Any

from ._freeze import TrainablePart


def parameter_groups(
    module: TrainablePart,
    *,
    lr: float,
    backbone_lr_scale: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return the optimizer's groups: the head at `lr`, each stage at a share of it.

    The last stage learns at ``lr * backbone_lr_scale``, each one before it at
    `layer_decay` times the rate of the next (layer-wise decay, arXiv 1801.06146). Weights
    of layers decay; biases and the scales of normalisation, which have one dimension,
    don't. "initial_lr" stays what it is while a schedule changes "lr".
    """
    stage_lr = lr * backbone_lr_scale
    parts = [(module.head, lr)]
    for stage in reversed(module.trained_stages()):
        parts.append((stage, stage_lr))
        stage_lr *= layer_decay
    groups = []
    for part, part_lr in parts:
        parameters = list(part.parameters())
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            if chosen:
                decay = weight_decay if decays else 0.0
                rates = {"lr": part_lr, "initial_lr": part_lr, "weight_decay": decay}
                groups.append({"params": chosen, **rates})
    return groups
