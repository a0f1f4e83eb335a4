"""What a search may try: pixels, rows with a head, fine-tuning at a depth with a recipe."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.utils.metadata_routing import get_routing_for_object

from .._feature_transformer import PretrainedFeatureTransformer
from ..backbones._registry import load_backbone
from ..training._config import TrainingConfig
from ..training._recipe import N_VIEWS, RECIPES, auto_depth, is_auto
from ._heads import Heads
from ._pixel_rows import PixelRows
from ._row_scaler import RowScaler

PIXELS, ROWS, FINE_TUNING = "pixels", "rows", "fine-tuning"

# How a backward pass and the step after it compare with a forward pass, for estimates
_TRAINING_COST = 3

# Parameters that a transformer has in common with the fine-tuned estimators
_SHARED = (
    "image_size",
    "image_shape",
    "pixel_range",
    "device",
    "precision",
    "n_jobs",
    "feature_cache",
    "verbose",
)


@dataclass(frozen=True, eq=False)
class Strategy:
    """One way to predict images, which is a candidate of the search.

    Attributes
    ----------
    name : str
    kind : str
        "pixels", "rows" or "fine-tuning".
    steps : list of (name, estimator)
        Of the pipeline; the last step is named "model".
    backbone : str or None
    work : float
        Training of a fit, in forward passes through the whole network.
    passes : float
        Images that a fit reads and passes through frozen stages, as a share of the network.
    """

    name: str
    kind: str
    steps: list[tuple[str, BaseEstimator]]
    backbone: str | None = None
    work: float = 0.0
    passes: float = 0.0

    @property
    def cost(self) -> float:
        return self.work + self.passes


@dataclass(frozen=True, eq=False)
class RowsAtDepth:
    """The strategies with the rows of one depth: two quick heads, then the others."""

    quick: list[Strategy]
    others: list[Strategy]


@dataclass(frozen=True, eq=False)
class OfBackbone:
    """The strategies with one backbone.

    Attributes
    ----------
    transformer : PretrainedFeatureTransformer
        Its forward pass gives the rows of all depths.
    at_depths : list of RowsAtDepth
    tuned : dict of (recipe, cut) to Strategy
        Positions among the recipes and the cuts; two may hold the same strategy.
    """

    name: str
    transformer: PretrainedFeatureTransformer
    at_depths: list[RowsAtDepth] = field(default_factory=list)
    tuned: dict[tuple[int, int], Strategy] = field(default_factory=dict)

    @property
    def rows(self) -> list[Strategy]:
        return [strategy for at in self.at_depths for strategy in (*at.quick, *at.others)]


class Strategies:
    """Makes the strategies of a search from its parameters.

    Parameters
    ----------
    template : FineTunedClassifier or FineTunedRegressor
        Its parameters say how images are read, and how networks are trained.
    heads : Heads
    n_images : int
        Images of a fit.
    is_weighted : bool
        Whether the images have weights.
    """

    def __init__(self, template: Any, heads: Heads, n_images: int, is_weighted: bool):
        self._template = template
        self._heads = heads
        self._n_images = n_images
        self._is_weighted = is_weighted

    def pixels(self) -> Strategy | None:
        """Return the first head on raw pixels; None where there is no head."""
        if not self._heads:
            return None
        params = {name: getattr(self._template, name) for name in ("image_shape", "pixel_range")}
        name, head = next(iter(self._heads.items()))
        rows = PixelRows(**params, n_jobs=self._template.n_jobs)
        steps = [("pixels", rows), *self._scaled_head(name, head)]
        return Strategy(f"pixels, {name}", PIXELS, steps)

    def of_backbone(
        self,
        backbone: Any,
        name: str,
        depths: Sequence[int | None] | None,
        recipes: Sequence[str],
        freeze_depths: Sequence[Any],
    ) -> OfBackbone:
        """Return the strategies with one backbone, by that name; `depths` None is every stage."""
        network = {"backbone": backbone}
        if backbone == self._template.backbone:
            network |= {n: getattr(self._template, n) for n in ("backbone_params", "weights")}
        else:
            network |= {"backbone_params": None, "weights": "default"}
        loaded = load_backbone(*network.values())
        n_stages = len(loaded.stages)
        shared = {param: getattr(self._template, param) for param in _SHARED}
        transformer = PretrainedFeatureTransformer(**network, **shared)
        of = OfBackbone(name, transformer)
        if depths is None:
            depths = [None, *range(-1, -n_stages, -1)]
        for depth in depths:
            rows = clone(transformer).set_params(depth=depth)
            tried = [
                Strategy(
                    f"rows of {name}, depth {depth}, {head_name}",
                    ROWS,
                    [("rows", rows), *self._scaled_head(head_name, head)],
                    name,
                )
                for head_name, head in self._heads.items()
            ]
            of.at_depths.append(RowsAtDepth(tried[:2], tried[2:]))
        costs = loaded.costs(loaded.spec.input) if recipes else ()
        for i, recipe in enumerate(recipes):
            known: dict[int, Strategy] = {}
            for j, freeze_depth in enumerate(freeze_depths):
                if is_auto(freeze_depth):
                    cut = auto_depth(costs, RECIPES[recipe].trained_share)
                else:
                    cut = loaded.depth(freeze_depth, "freeze_depths")
                if cut not in known:
                    as_given = is_auto(freeze_depth) or freeze_depth is None
                    shown = freeze_depth if as_given else cut - n_stages
                    tuned = clone(self._template).set_params(
                        **network, recipe=recipe, freeze_depth=freeze_depth
                    )
                    known[cut] = Strategy(
                        f"fine-tuned {name}, depth {shown if cut else 0}, {recipe}",
                        FINE_TUNING,
                        [("model", tuned)],
                        name,
                        *self._work(recipe, cut, costs),
                    )
                of.tuned[i, j] = known[cut]
        return of

    def _scaled_head(self, name: str, head: BaseEstimator) -> list[tuple[str, BaseEstimator]]:
        head = clone(head)
        if self._is_weighted and get_config()["enable_metadata_routing"]:
            asked = get_routing_for_object(self._template)  # the head asks for the same
            head.set_fit_request(sample_weight=asked.fit.requests["sample_weight"])
            head.set_score_request(sample_weight=asked.score.requests["sample_weight"])
        model: tuple[str, BaseEstimator] = ("model", head)
        return [("scale", RowScaler()), model] if self._heads.is_scaled(name) else [model]

    def _work(self, recipe: str, cut: int, costs: Sequence[int]) -> tuple[float, float]:
        """Return the training and the passes of a fit."""
        template, values = self._template, RECIPES[recipe]
        config = TrainingConfig(
            max_epochs=template.max_epochs,
            batch_size=template.batch_size,
            n_steps=values.n_steps,
            most_epochs=values.most_epochs,
        )
        n_seen = self._n_images * config.epochs_of(self._n_images, cut == len(costs))
        trained = sum(costs[cut:]) / sum(costs)
        if values.is_augmented and not cut:  # a new view of each image in each epoch
            passes: float = n_seen
        else:
            n_views = N_VIEWS if values.is_augmented else 1
            passes = self._n_images * (1 - trained) * n_views
        return n_seen * trained * _TRAINING_COST, passes


def short_names(backbones: Sequence[Any]) -> list[str]:
    """Return the names of backbones: of files without folder and ending, where they differ."""
    texts = [os.fspath(backbone) for backbone in backbones]
    short = [
        os.path.basename(text).removesuffix(".safetensors") if os.sep in text else text
        for text in texts
    ]
    return [
        name if short.count(name) == 1 else text for name, text in zip(short, texts, strict=True)
    ]
