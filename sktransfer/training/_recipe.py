"""What "auto" means: the recipes, and the depth that a network is cut at.

A parameter that is "auto" takes its value from the recipe that the parameter `recipe` names;
any other value is used as it is. The values were chosen by benchmarks/bench_recipe.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
MIRROR = "mirror"  # of `tta`: an image and its mirror image

# Random views of an image that a head starts from; where stages are frozen, their activations
# are stored, for one forward pass each.
N_VIEWS = 8
# Augmentations whose views are mirrored in half of the cases.
_MIRRORING = ("light", "medium", "trivial")


@dataclass(frozen=True)
class Recipe:
    """The values of one recipe.

    Attributes
    ----------
    trained_share : float
        The stages that train are the last ones that take at most this share of the
        multiplications of a forward pass; at least the last stage trains.
    is_augmented : bool
        Whether training images are changed at random where stages train.
    dropout, label_smoothing, max_grad_norm, probe_weight : float
        Values of the parameters of these names.
    n_steps : int
        Steps of a fit where `max_epochs` is None; few images are seen `most_epochs` times.
    most_epochs : int
    """

    trained_share: float
    is_augmented: bool
    dropout: float
    label_smoothing: float
    max_grad_norm: float
    probe_weight: float
    n_steps: int
    most_epochs: int


RECIPES: Mapping[str, Recipe] = {
    "fast": Recipe(0.5, False, 0.3, 0.1, 2.0, 0.0, 200, 100),
    "default": Recipe(0.6, True, 0.3, 0.1, 2.0, 0.3, 400, 200),
    "thorough": Recipe(1.0, True, 0.3, 0.1, 2.0, 0.3, 800, 200),
}


def auto_depth(costs: Sequence[int], trained_share: float) -> int:
    """Return the number of frozen stages.

    Parameters
    ----------
    costs : sequence of int
        Multiplications of each stage in a forward pass, at the network's own image size:
        so the depth is the same for all sizes.
    trained_share : float
        Largest share of their sum in the stages that train.
    """
    depth = len(costs) - 1
    while depth and sum(costs[depth - 1 :]) <= trained_share * sum(costs):
        depth -= 1
    return depth


def is_augmented(recipe: Recipe, depth: int, n_stages: int) -> bool:
    """Return whether training images are changed at random where `augment` is "auto"."""
    return recipe.is_augmented and depth < n_stages


def filled_in(
    given: Mapping[str, Any], recipe: Recipe, depth: int, n_stages: int, augment: Any
) -> dict[str, Any]:
    """Return the parameters `given`, with a value in the place of each "auto".

    A linear head alone is fitted without dropout and label smoothing, and its gradients are
    not scaled down: its optimum is that of scikit-learn's own models.

    Parameters
    ----------
    given : mapping
        Of "augment_views", "dropout", "max_grad_norm", "probe_weight", "tta", and
        "label_smoothing" where there is one.
    recipe : Recipe
    depth, n_stages : int
        The number of frozen stages, and of all.
    augment : str, callable or None
        How images are changed, "auto" resolved.
    """
    trains_stages = depth < n_stages
    values = {
        "dropout": recipe.dropout if trains_stages else 0.0,
        "label_smoothing": recipe.label_smoothing if trains_stages else 0.0,
        "max_grad_norm": recipe.max_grad_norm if trains_stages else None,
        "probe_weight": recipe.probe_weight if trains_stages else 0.0,
        "tta": MIRROR if augment in _MIRRORING else 1,
        # where nothing is frozen, a new view in each epoch costs no further pass
        "augment_views": N_VIEWS if augment is not None and depth > 0 else None,
    }
    return {name: values[name] if is_auto(value) else value for name, value in given.items()}


def is_auto(value: Any) -> bool:
    """Return whether the value of a parameter is left to the recipe."""
    return isinstance(value, str) and value == AUTO
