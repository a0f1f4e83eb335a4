"""The optimizer that a parameter's value asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import optim

from ._recipe import Recipe

OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], Mapping[str, Any]]] = {
    "adamw": (optim.AdamW, {}),
    "adam": (optim.Adam, {}),
    "sgd": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
}
# Where torch has one call for a step over all parameters; in small networks that is most
# of a step.
_FUSED_ON = {"cpu", "cuda"}


def make_optimizer(recipe: Recipe, groups: Sequence[Mapping[str, Any]]) -> optim.Optimizer:
    """Return the optimizer of a recipe over groups of parameters."""
    name, params = recipe.optimizer, {}
    if isinstance(name, str):
        optimizer, defaults = OPTIMIZERS[name]
        device = groups[0]["params"][0].device.type
        params.update(defaults, fused=device in _FUSED_ON)
    else:
        optimizer = name
    params.update(recipe.optimizer_params or {})
    try:
        return optimizer(list(groups), **params)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"optimizer={name!r} can't be made with optimizer_params={recipe.optimizer_params!r}: "
            f"{error}; the optimizer must take groups of parameters with their own lr and "
            "weight_decay, which sktransfer sets"
        ) from error
