"""The new images that are most unlike the reference, with a small picture of each."""

import numpy as np

from ..images._decode import DecodeError
from ..images._thumbnail import Thumbnail, thumbnail
from ._drift_report import NovelImage
from ._sample import Sample

_SIDE = 160  # pixels of a picture: sharp on screens with two pixels to a dot


def most_novel(sample: Sample, scores: np.ndarray, offset: float, n_shown: int) -> list[NovelImage]:
    """Return the images with the lowest scores, the lowest first."""
    lowest = np.argsort(scores, kind="stable")[:n_shown]
    return [_novel_image(sample, int(i), float(scores[i]), offset) for i in lowest]


def _novel_image(sample: Sample, i: int, score: float, offset: float) -> NovelImage:
    position = int(sample.positions[i])
    source, picture = f"row {position}", None
    if sample.images is not None:
        source = sample.images[position].describe()
        picture = _picture(sample, position)
    return NovelImage(position, source, score, score < offset, picture)


def _picture(sample: Sample, position: int) -> Thumbnail | None:
    assert sample.images is not None
    try:
        return thumbnail(sample.images[position].read(), _SIDE)
    except DecodeError:  # its row was stored, or it has gone since it was read
        return None
