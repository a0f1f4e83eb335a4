"""The table that `rank_backbones` returns."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, clone

from .._text_table import Table, count, table

_HEADER = ("backbone", "depth", "score", "±", "top-1", "seconds", "passes", "width", "parameters",
           "download", "licence", "outcome")  # fmt: skip
# Characters that are printed; the records hold all
_BACKBONE_SHOWN, _LICENCE_SHOWN, _OUTCOME_SHOWN = 40, 20, 60
# Grey borders and inherited colours stand on light and dark pages alike.
_STYLE = """<style>
.sktransfer-ranking table {border-collapse: collapse; margin: 0.5em 0;}
.sktransfer-ranking caption {caption-side: bottom; text-align: left; padding: 0.4em 0;}
.sktransfer-ranking :is(th, td) {
  border-bottom: 1px solid rgba(128, 128, 128, 0.4); padding: 0.2em 0.8em 0.2em 0.3em;
  text-align: left !important;}
.sktransfer-ranking .dropped {opacity: 0.6;}
</style>"""


@dataclass(frozen=True, slots=True)
class RankedBackbone:
    """A backbone, its score at its best depth, and what it costs.

    Attributes
    ----------
    backbone : str
        Its name or path, and the parameters by which it was asked for, such as
        ``weights=None``.
    depth : int or None
        Its best depth of `depths`; None is all stages. None as well without a score.
    score : float or None
        Mean over the folds of the last round that it was in. None where it was left out.
    error : float or None
        Standard error of the differences, fold by fold, to the best score of that round;
        0 for the best itself.
    n_images : int
        Images that the score was computed on.
    round : int or None
        The last round that it was in, from 1. None where it was left out.
    outcome : str
        "best", "within noise of the best", "worse", or the round in which it was dropped
        and why, or the reason why it was left out.
    top1 : float or None
        ImageNet-1k accuracy of its weights in percent, where their source publishes it.
    seconds : float
        What its forward passes and its fits took here. Reading of stored rows takes next
        to nothing.
    forward_passes : int
        Images that passed the network.
    width : int or None
        Values in a row at that depth.
    n_params : int or None
        Parameters of the whole network with its head.
    n_bytes : int or None
        Size of the download; 0 where nothing is downloaded, None where it is not known.
    licence : str
        Of the weights, as their source states it; empty where none is stated.
    """

    backbone: str
    depth: int | None
    score: float | None
    error: float | None
    n_images: int
    round: int | None
    outcome: str
    top1: float | None
    seconds: float
    forward_passes: int
    width: int | None
    n_params: int | None
    n_bytes: int | None
    licence: str


class BackboneRanking(Table[RankedBackbone]):
    """Backbones, the best first; it prints as a table, in notebooks as well.

    Those that reached the last round come first, by score. Of those within noise of the
    best, the ones whose ImageNet accuracy is known stand in its order. Then come the ones
    that were dropped, the last round first, and then those that were left out.

    Attributes
    ----------
    scoring : str
        What the score is.
    n_images : int
        Images that were drawn and could be read.
    rounds : tuple of int
        Images that were scored on in each round.
    positions : ndarray of shape (n_images,), dtype int64
        Positions of these images in `X`, in the order in which the rounds add them.
    groups : ndarray of shape (n_images,), dtype int64
        A number for each of them, the same for duplicates and for images of one group.
    """

    _record = RankedBackbone

    def __init__(
        self,
        records: Sequence[RankedBackbone],
        estimators: Sequence[BaseEstimator | None],
        *,
        scoring: str,
        rounds: tuple[int, ...],
        positions: np.ndarray,
        groups: np.ndarray,
    ):
        super().__init__(records)
        self._estimators = tuple(estimators)
        self.scoring = scoring
        self.n_images = len(positions)
        self.rounds = rounds
        self.positions = positions
        self.groups = groups

    def best(self) -> BaseEstimator:
        """Return the estimator of the first backbone, to be fitted.

        Returns
        -------
        estimator : Pipeline
            A :class:`~sktransfer.PretrainedFeatureTransformer` at the best depth,
            standardisation, and the linear model of the last round.
        """
        return self.estimator(0)

    def estimator(self, index: int) -> BaseEstimator:
        """Return the estimator of the record at `index`, to be fitted.

        Raises
        ------
        ValueError
            When that backbone was left out.
        """
        estimator = self._estimators[index]
        if estimator is None:
            record = self[index]
            raise ValueError(f"index={index} is {record.backbone}, left out: {record.outcome}")
        return clone(estimator)

    def __repr__(self) -> str:
        return f"{self._headline()}\n{table(_HEADER, [_cells(record) for record in self])}"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _HEADER)
        rows = "".join(
            f'<tr class="{"kept" if record.round == len(self.rounds) else "dropped"}">'
            + "".join(f"<td>{html.escape(str(_shown(cell)))}</td>" for cell in _cells(record))
            + "</tr>"
            for record in self
        )
        return (
            f'{_STYLE}<div class="sktransfer-ranking"><table>'
            f"<caption>{html.escape(self._headline())}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _headline(self) -> str:
        scored = [record for record in self if record.score is not None]
        left_out = len(self) - len(scored)
        return (
            f"{len(scored)} backbone{'s' * (len(scored) != 1)} by {self.scoring} on "
            f"{self.n_images} images, in rounds of {', '.join(map(str, self.rounds))}"
            + (f"; {left_out} left out" if left_out else "")
        )


def _cells(record: RankedBackbone) -> tuple[object, ...]:
    has_score = record.score is not None
    name = record.backbone
    return (
        name if len(name) <= _BACKBONE_SHOWN else "..." + name[3 - _BACKBONE_SHOWN :],
        str(record.depth) if has_score else None,
        _number(record.score),
        _number(record.error),
        None if record.top1 is None else f"{record.top1:.1f}",
        f"{record.seconds:.1f}",
        record.forward_passes,
        record.width,
        count(record.n_params),
        "none" if record.n_bytes == 0 else count(record.n_bytes, "B"),
        _shortened(record.licence, _LICENCE_SHOWN) or None,
        _shortened(record.outcome, _OUTCOME_SHOWN),
    )


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _shown(cell: object) -> object:
    return "-" if cell is None else cell


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
