"""Which backbone: rankings, searches and folds made for images."""

from ..hygiene import DuplicateGroups
from ._rank_backbones import rank_backbones
from ._ranking_table import BackboneRanking, RankedBackbone

__all__ = [
    "BackboneRanking",
    "DuplicateGroups",
    "RankedBackbone",
    "rank_backbones",
]
