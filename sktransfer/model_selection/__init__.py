"""Which backbone and which strategy: rankings, searches, folds and episodes of images."""

from ..hygiene import DuplicateGroups
from ._few_shot import FewShotSplit
from ._rank_backbones import rank_backbones
from ._ranking_table import BackboneRanking, RankedBackbone
from ._strategy_table import StrategyResult, StrategyTable
from ._transfer_search import TransferSearchCV

__all__ = [
    "BackboneRanking",
    "DuplicateGroups",
    "FewShotSplit",
    "RankedBackbone",
    "StrategyResult",
    "StrategyTable",
    "TransferSearchCV",
    "rank_backbones",
]
