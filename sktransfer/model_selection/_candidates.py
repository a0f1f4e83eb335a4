"""The backbones to rank: what is known of each before an image passes it, and its rows."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone

from .._feature_transformer import PretrainedFeatureTransformer
from ..backbones._catalogue import list_backbones, n_params
from ..backbones._weights import read_metadata
from ..backbones.sources import named_architecture
from ..exceptions import ImageFailure, WeightsError
from ..extraction._extract import Extraction
from ..runtime._progress import count_forward_passes

# One of each family, of moderate size, from torchvision. The user's own are added.
_DEFAULT = (
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenet_v3_large",
    "regnet_y_800mf",
    "resnet50",
    "swin_t",
)
# Parameters of a transformer that tell two backbones apart, and what they are by default.
_NAMED_BY = {
    name: PretrainedFeatureTransformer().get_params()[name]
    for name in ("backbone_params", "weights", "pooling", "image_size")
}
# What a backbone that is not there, does not fit or can't be cut at a depth raises.
_UNUSABLE = (WeightsError, ImportError, OSError, ValueError)


@dataclass
class Candidate:
    """A backbone in a ranking.

    Attributes
    ----------
    label : str
    transformer : PretrainedFeatureTransformer
        With all depths at once.
    top1, n_params, n_bytes, licence
        As in `RankedBackbone`.
    reason : str or None
        Why it is left out.
    rows : ndarray of shape (n_images, sum of widths)
        Those of the images so far, in the order of the draw; of all depths, side by side.
    scores : ndarray of shape (n_folds,)
        Of the last round that it was in, at its best depth.
    depth : int
        The position of that depth.
    difference, error : float
        How far it is below the best of that round, and its standard error over the folds.
    n_images, round, outcome
        As in `RankedBackbone`.
    """

    label: str
    transformer: PretrainedFeatureTransformer
    top1: float | None = None
    n_params: int | None = None
    n_bytes: int | None = None
    licence: str = ""
    reason: str | None = None
    seconds: float = 0.0
    forward_passes: int = 0
    widths: tuple[int, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32), repr=False)
    scores: np.ndarray = field(default_factory=lambda: np.empty(0))
    depth: int = 0
    difference: float = 0.0
    error: float = 0.0
    n_images: int = 0
    round: int = 0
    outcome: str = ""
    _images: Any = field(default=None, repr=False)

    @property
    def mean(self) -> float:
        """The mean score."""
        return float(self.scores.mean())

    def extend(self, X: Any, start: int, end: int) -> list[ImageFailure]:
        """Add the rows of the images from `start` to `end`; return those that can't be read.

        At first the network is loaded. Where that fails, the reason is told and nothing added.
        """
        if self._images is None:
            try:
                self.transformer.fit(X)
            except _UNUSABLE as error:
                self.reason = f"can't be used: {error}"
                return []
            self.widths = self.transformer._widths
            self.licence = self.licence or self.transformer.backbone_spec_.licence
            self._images = self.transformer._validate_images(X, reset=False)
        extraction = self._extract(range(start, end))
        new = extraction.values
        if len(extraction.failures) == len(new):  # no image told the width
            new = np.zeros((len(new), sum(self.widths)), dtype=np.float32)
        self.rows = np.concatenate([self.rows, new]) if len(self.rows) else np.array(new)
        return [f._replace(position=start + f.position) for f in extraction.failures]

    def _extract(self, positions: Sequence[int]) -> Extraction:
        transformer = self.transformer
        backbone = transformer._reloaded_backbone()
        batch_size = transformer.batch_size
        started = time.perf_counter()
        with count_forward_passes() as counter:
            extraction = transformer._extract(
                self._images.take(positions),
                backbone,
                transformer._plan,
                None if batch_size == "auto" else batch_size,
            )
        self.seconds += time.perf_counter() - started
        self.forward_passes += counter.computed
        return extraction

    def rows_at(self, depth: int, positions: np.ndarray) -> np.ndarray:
        """Return the rows of some images at one of the depths."""
        ends = np.cumsum(self.widths)
        return self.rows[positions, ends[depth] - self.widths[depth] : ends[depth]]


def candidates_of(
    backbones: Sequence[Any] | None,
    depths: Sequence[int | None],
    offline: bool,
    parameters: dict[str, Any],
) -> list[Candidate]:
    """Return a candidate for each backbone, and for each that can't be described the reason.

    Raises
    ------
    TypeError, ValueError
        When `backbones` holds none, one twice, or what is no backbone.
    """
    if backbones is None:
        backbones = (
            list_backbones(offline=True)
            if offline
            else [*_DEFAULT, *list_backbones(source="registered")]
        )
    elif isinstance(backbones, (str, os.PathLike)):
        raise TypeError(f"backbones must be a list of backbones, got {backbones!r}; pass a list")
    if not len(backbones):
        raise ValueError("backbones must not be empty; None is a short list of them")
    found = [_candidate(backbone, depths, parameters) for backbone in backbones]
    labels = [candidate.label for candidate in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"backbones holds some more than once: {', '.join(twice)}")
    for candidate in found:
        _describe(candidate, offline)
    return found


def _candidate(
    backbone: Any, depths: Sequence[int | None], parameters: dict[str, Any]
) -> Candidate:
    if isinstance(backbone, PretrainedFeatureTransformer):
        transformer, given = clone(backbone), _NAMED_BY
    elif isinstance(backbone, (str, os.PathLike)):
        transformer, given = PretrainedFeatureTransformer(backbone, **parameters), {}
    else:
        raise TypeError(
            "backbones must hold names, paths of backbone files or PretrainedFeatureTransformers, "
            f"got {backbone!r}"
        )
    values = transformer.get_params()
    changed = [f"{n}={values[n]!r}" for n, default in given.items() if values[n] != default]
    label = ", ".join([str(transformer.backbone), *changed])
    return Candidate(label, transformer.set_params(depth=tuple(depths)))


def _describe(candidate: Candidate, offline: bool) -> None:
    """Find what is known of a backbone before it is loaded, or the reason to leave it out."""
    transformer = candidate.transformer
    name, weights = os.fspath(transformer.backbone), transformer.weights
    metadata = None
    try:
        if name.endswith(".safetensors"):
            metadata = read_metadata(name)
        architecture = named_architecture(name, metadata)
        offers = {} if metadata else architecture.offers()
        params = {**(metadata or {}).get("params", {}), **(transformer.backbone_params or {})}
        candidate.n_params = n_params(architecture, params)
    except (WeightsError, ImportError, OSError) as error:
        candidate.reason = f"can't be used: {error}"
        return
    except ValueError as error:
        raise ValueError(f"backbones: {error}") from error
    offer = next(iter(offers.values()), None) if weights == "default" else offers.get(weights)
    if offer is None:
        candidate.n_bytes = 0
        candidate.licence = _licence_of_file(name if weights == "default" else weights)
        return
    candidate.top1, candidate.n_bytes, candidate.licence = offer.top1, offer.n_bytes, offer.licence
    if offline and not architecture.is_downloaded(offer):
        candidate.reason = "its weights are not on this machine, and offline=True"


def _licence_of_file(path: Any) -> str:
    """Return the licence in the metadata of a file; empty for random weights."""
    if path is None or not os.fspath(path).endswith(".safetensors") or not os.path.exists(path):
        return ""
    return (read_metadata(os.fspath(path)) or {}).get("licence", "")
