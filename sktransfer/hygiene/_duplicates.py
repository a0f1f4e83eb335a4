"""Which images of ``X`` are equal or nearly equal."""

import numbers
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._feature_transformer import PretrainedFeatureTransformer
from .._text_table import Table
from ..exceptions import UnreadableImageWarning
from ..images._collection import ImageReference
from ..images._decode import DecodeError
from ._hash import HASH_BITS, hash_image, near_pairs
from ._joining import in_order, join
from ._reading import for_each, images_of

# Pairs whose rows of features are multiplied at once: 64 MiB for 512 features.
_PAIRS_AT_ONCE = 2**15

CONSTRAINTS = {
    "max_distance": [Interval(numbers.Integral, 0, HASH_BITS // 2, closed="left")],
    "min_cosine": [Interval(numbers.Real, -1, 1, closed="both")],
    "backbone": [str, os.PathLike, None],
    "image_shape": ["array-like", None],
    "pixel_range": [StrOptions({"fit"}), tuple, list, None],
    "feature_cache": [str, os.PathLike, list, tuple, None],
    "n_jobs": [numbers.Integral, None],
}


@dataclass(frozen=True, slots=True)
class DuplicateSet:
    """Images that are duplicates of one another.

    Attributes
    ----------
    positions : tuple of int
        Their positions in `X`, in ascending order.
    sources : tuple of str
        Their paths, or descriptions of images without a path.
    equal : bool
        Whether their content (bytes of files, or pixels) is equal; else they look
        alike.
    cosine : float or None
        Lowest cosine of the features of the first image and another one; 1 for equal
        images. None without a backbone.
    """

    positions: tuple[int, ...]
    sources: tuple[str, ...]
    equal: bool
    cosine: float | None


class Duplicates(Table[DuplicateSet]):
    """The sets of duplicates, in the order of their first images.

    Attributes
    ----------
    labels : ndarray of shape (n_images,), dtype int64
        A number for each image, the same for duplicates: the ``groups`` of
        scikit-learn's splitters.
    n_images : int
        Images that were compared.
    """

    _record = DuplicateSet

    def __init__(self, records: Sequence[DuplicateSet], labels: np.ndarray):
        super().__init__(records)
        self.labels = labels
        self.n_images = len(labels)

    def _headline(self) -> str:
        more = sum(len(record.positions) - 1 for record in self)
        equal = sum(record.equal for record in self)
        return (
            f"{self.n_images} images: {len(self)} sets of duplicates ({equal} of equal content), "
            f"{more} images more than once"
        )


@validate_params(CONSTRAINTS, prefer_skip_nested_validation=True)
def near_duplicates(
    X,
    *,
    max_distance=12,
    min_cosine=0.95,
    backbone="mini",
    image_shape=None,
    pixel_range=None,
    feature_cache="auto",
    n_jobs=None,
):
    """Find images that are in `X` more than once, or nearly so.

    Images of equal content are found by their digests. Of the others, those whose
    perceptual hashes differ in few bits are candidates, and those candidates whose
    features have a large cosine are duplicates. Duplicates of duplicates are in one set.

    Parameters
    ----------
    X : sequence of images
        Any kind that the estimators take.
    max_distance : int, default=12
        Bits, of 64, in which the hashes of candidates may differ. With fewer bits there
        are fewer candidates, and fewer images pass the network.
    min_cosine : float, default=0.95
        Least cosine of the features of duplicates. The default is for ``"mini"``;
        another backbone needs another value.
    backbone : str, path-like or None, default="mini"
        The network whose features are compared, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`. Only candidates pass it, and
        those whose features are stored do not pass again. None compares hashes alone.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    feature_cache : str, path-like or None, default="auto"
        Where features are stored, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.

    Returns
    -------
    duplicates : Duplicates
        A sequence of :class:`DuplicateSet`; its ``labels`` are groups for scikit-learn.
        It prints as a table; ``to_frame()`` is a pandas DataFrame.

    Raises
    ------
    TypeError, ValueError
        When the type or value of a parameter is not allowed, or `X` holds no images.

    Warns
    -----
    UnreadableImageWarning
        When images can't be read. None of them has duplicates.

    See Also
    --------
    DuplicateGroups : Folds that no duplicate crosses.
    leakage_report : What duplicates do to a score.

    Notes
    -----
    Each hash is compared with all others, in blocks. This takes seconds for 60,000
    images on 2 cores, and four times as long for twice as many; memory grows with the
    number of images alone. Images that are mirrored, turned or cropped by much are not
    found.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> from PIL import Image
    >>> from sktransfer.hygiene import near_duplicates
    >>> coarse = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    >>> X = [Image.fromarray(image).resize((64, 64)) for image in coarse]
    >>> file = io.BytesIO()
    >>> X[1].save(file, "JPEG", quality=80)
    >>> duplicates = near_duplicates(X + [file.getvalue(), X[0]], feature_cache=None)
    >>> [(found.positions, found.equal) for found in duplicates]
    [((0, 4), True), ((1, 3), False)]
    >>> duplicates.labels
    array([0, 1, 2, 1, 0])
    """
    images = images_of(X, image_shape, pixel_range)
    digests, failed = [], {}
    for position, found in enumerate(for_each(images, range(len(images)), _digest, n_jobs)):
        if isinstance(found, DecodeError):
            failed[position] = str(found)
            found = position.to_bytes(8)  # shorter than a digest, so equal to none
        digests.append(found)
    same = _numbered(digests)
    firsts = np.sort(np.unique(same, return_index=True)[1])
    readable = [int(first) for first in firsts if first not in failed]

    hashes = {}
    for position, made in zip(readable, for_each(images, readable, _hash, n_jobs), strict=True):
        if isinstance(made, DecodeError):
            copies = np.flatnonzero(same == same[position])
            failed.update(dict.fromkeys(copies.tolist(), str(made)))
        else:
            hashes[position] = made
    if failed:
        _warn(images, failed)

    rows_at = None
    if backbone is not None:
        transformer = PretrainedFeatureTransformer(
            backbone,
            image_shape=image_shape,
            pixel_range=pixel_range,
            feature_cache=feature_cache,
            n_jobs=n_jobs,
        )
        rows_at = partial(_unit_rows, transformer, X)
    return duplicates_of(images, digests, hashes, sorted(failed), rows_at, max_distance, min_cosine)


def duplicates_of(
    images: Sequence[ImageReference],
    digests: Sequence[bytes],
    hashes: Mapping[int, np.ndarray],
    unread: Sequence[int],
    rows_at: Callable[[np.ndarray], np.ndarray] | None,
    max_distance: int,
    min_cosine: float,
) -> Duplicates:
    """Find duplicates, given the digests and the hashes of images.

    Parameters
    ----------
    images : sequence of ImageReference
    digests : sequence of bytes
        That of each image, equal where their content is.
    hashes : mapping of int to ndarray
        The hash of the first image of each content that can be read, by its position.
    unread : sequence of int
        Positions of images that can't be read, and have no duplicate.
    rows_at : callable, default=None
        Returns rows of length 1 of the images at given positions. None compares hashes
        alone.
    max_distance : int
    min_cosine : float
        As in `near_duplicates`.
    """
    same = _numbered(digests)
    positions = np.array(sorted(hashes), dtype=np.int64)
    of_these = np.array([hashes[i] for i in positions.tolist()], dtype=np.int8)
    of_these = of_these.reshape(-1, HASH_BITS)
    rows = None
    if rows_at is not None:
        near = np.zeros(len(positions), dtype=bool)
        for one, other in near_pairs(of_these, max_distance):
            near[one] = near[other] = True
        positions, of_these = positions[near], of_these[near]
        rows = rows_at(positions)
    labels = _connect(same, positions, of_these, rows, max_distance, min_cosine).copy()
    labels[list(unread)] = labels.max() + 1 + np.arange(len(unread))
    labels = in_order(labels)
    return Duplicates(_sets(images, same, labels, positions, rows), labels)


def _numbered(digests: Sequence[bytes]) -> np.ndarray:
    """Return a number for each image, the same where the digests are."""
    return np.unique(np.array(digests, dtype=object), return_inverse=True)[1]


def _digest(image: ImageReference) -> bytes:
    return image.digest()


def _hash(image: ImageReference) -> np.ndarray:
    return hash_image(image.read())


def _unit_rows(transformer: PretrainedFeatureTransformer, X, positions: np.ndarray) -> np.ndarray:
    """Return the features of some images, of length 1."""
    transformer.fit(X)
    if not len(positions):
        return np.empty((0, transformer.n_features_out_), dtype=np.float32)
    if hasattr(X, "to_pylist"):  # Arrow, which not every scikit-learn slices
        X = (X.column(0) if hasattr(X, "column_names") else X).to_pylist()
    rows = transformer.transform(_safe_indexing(X, positions))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo("f").tiny)


def _connect(
    labels: np.ndarray,
    positions: np.ndarray,
    hashes: np.ndarray,
    rows: np.ndarray | None,
    max_distance: int,
    min_cosine: float,
) -> np.ndarray:
    """Return labels joined for all pairs of near hashes whose features agree.

    Pairs are used up as they come, and those already joined are passed over: of ten
    thousand empty pages there are fifty million.
    """
    for first, second in near_pairs(hashes, max_distance):
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            pair = np.stack([first[some], second[some]])
            ends = labels[positions[pair]]
            pair = pair[:, ends[0] != ends[1]]
            if rows is not None:
                pair = pair[:, np.einsum("ij,ij->i", *rows[pair]) >= min_cosine]
            if pair.size:
                labels = join(labels, *labels[positions[pair]])
    return labels


def _sets(
    images: Sequence[ImageReference],
    same: np.ndarray,
    labels: np.ndarray,
    positions: np.ndarray,
    rows: np.ndarray | None,
) -> list[DuplicateSet]:
    row_of = {int(same[position]): i for i, position in enumerate(positions)}
    by_label = np.argsort(labels, kind="stable")
    sets = []
    for members in np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1):
        if len(members) < 2:
            continue
        kinds = list(dict.fromkeys(same[members].tolist()))
        cosine = 1.0 if len(kinds) == 1 else None
        if rows is not None and len(kinds) > 1:
            theirs = rows[[row_of[kind] for kind in kinds]]
            cosine = float((theirs[1:] @ theirs[0]).min())
        where = tuple(members.tolist())
        sources = tuple(images[position].describe() for position in where)
        sets.append(DuplicateSet(where, sources, len(kinds) == 1, cosine))
    return sets


def _warn(images: Sequence[ImageReference], failed: dict[int, str]) -> None:
    shown = [f"X[{i}] {images[i].describe()}: {failed[i]}" for i in sorted(failed)[:5]]
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    warnings.warn(
        f"{len(failed)} of {len(images)} images can't be read and have no duplicate: "
        f"{'; '.join(shown)}{more}. check_images lists all",
        UnreadableImageWarning,
        stacklevel=4,  # the caller of near_duplicates, past its checking of parameters
    )
