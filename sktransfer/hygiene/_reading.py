"""Read every image of ``X`` once, in threads, and return a small result of each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .._feature_transformer import PretrainedFeatureTransformer
from ..images._collection import ImageCollection, ImageReference
from ..images._decode import DecodeError
from ..images._read_ahead import ReadAhead
from ..runtime._display import Display
from ..runtime._threads import CorePool

Result = TypeVar("Result")

_CHUNK = 32  # images a task: few enough to share the work evenly


def images_of(X: Any, image_shape: tuple[int, ...] | None, pixel_range: Any) -> ImageCollection:
    """Return the images of `X`, accepted and refused as the estimators do it."""
    reader = PretrainedFeatureTransformer(image_shape=image_shape, pixel_range=pixel_range)
    return reader._validate_images(X, reset=True)


def images_in(X: Any, column: Any) -> Any:
    """Return the images of `X`: of a table those of a column, where one is named."""
    if column is None:
        return X
    names = getattr(X, "columns", None)
    if names is None:
        raise TypeError(
            f"column={column!r} names a column of a table, got X of type {type(X).__name__}; "
            "pass a DataFrame, or leave column out"
        )
    if column not in list(names):
        raise ValueError(
            f"column={column!r} is no column of X, which has {', '.join(map(repr, names))}"
        )
    return X[column]


def for_each(
    images: Sequence[ImageReference],
    positions: Sequence[int],
    function: Callable[[ImageReference], Result],
    n_jobs: int | None,
) -> Iterator[Result | DecodeError]:
    """Yield what `function` returns of each image in order, or why it can't be read.

    As many images are in memory at once as there are threads. Those by URL are read ahead, and
    are given to `function` as encoded images.
    """

    def work(some: Sequence[int]) -> list[Result | DecodeError]:
        results: list[Result | DecodeError] = []
        for position in some:
            try:
                results.append(function(ahead[position]))
            except DecodeError as error:
                results.append(error)
        return results

    ahead = ReadAhead(images, positions)
    chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
    with ahead, CorePool(n_jobs) as pool, Display("reading", len(positions), "images") as display:
        try:
            for results in pool.map(work, chunks):
                yield from results
                display.update(len(results))
        except BaseException:  # Ctrl-C, or a caller who stops: drop what is waiting
            pool.shutdown(wait=True, cancel_futures=True)
            raise
