"""Which backbone and which strategy: rankings, searches and folds made for images."""

from ..hygiene import DuplicateGroups
from ._rank_backbones import rank_backbones
from ._ranking_table import BackboneRanking, RankedBackbone
from ._strategy_table import StrategyResult, StrategyTable
from ._transfer_search import TransferSearchCV

__all__ = [
    "BackboneRanking",
    "DuplicateGroups",
    "RankedBackbone",
    "StrategyResult",
    "StrategyTable",
    "TransferSearchCV",
    "rank_backbones",
]
