"""What is written of images by URL that failed: only what is wrong with themselves.

A shard is written once. An image whose server was down for a moment must not stay without a row,
and a server that is down is no fault of its images. Nor are credentials that have ended, or that
one of the workers has not.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from .._object_store import OBJECT_SCHEMES
from .._remote_options import remote_options
from ..exceptions import DecodeError
from ..extraction._extract import Extraction
from ..images._colour import PixelRange
from ..images._image_ref import RemoteImage
from ..images._remote import RefusedError, UnreachableError, current_tag
from ..images._url import is_url, scheme_of, server_of

_ATTEMPTS = 3


def confirmed(
    paths: Sequence[str | None],
    extract: Callable[[], Extraction],
    pixel_range: PixelRange | None = None,
) -> Extraction:
    """Return what `extract` returns, once all images by URL that failed fail again.

    Raises
    ------
    OSError
        When a server does not answer, images fail at times, or an object store refuses all.
    """
    for _ in range(_ATTEMPTS):
        extraction = extract()
        urls = [
            url
            for failure in extraction.failures
            if (url := paths[failure.position]) is not None and is_url(url)
        ]
        if not urls:
            return extraction
        with ThreadPoolExecutor(remote_options().connections) as pool:
            errors = list(pool.map(lambda url: _error(RemoteImage(url, pixel_range)), urls))
        if None not in errors:
            refused = {u for u, e in zip(urls, errors, strict=True) if isinstance(e, RefusedError)}
            _check_credentials(paths, set(urls), refused)
            return extraction
    raise OSError(
        f"images fail at times, such as {RemoteImage(urls[0]).describe()}; the shard is not "
        "written: run it again when their server is well"
    )


def _error(image: RemoteImage) -> DecodeError | None:
    """Return why an image can't be read; None where it can."""
    try:
        image.read()
    except UnreachableError as error:
        raise OSError(
            f"{image.describe()}: {error}; the shard is not written: run it again when the "
            "server answers"
        ) from None
    except DecodeError as error:
        return error
    return None


def _check_credentials(
    paths: Sequence[str | None], failed: Collection[str], refused: Collection[str]
) -> None:
    """Raise OSError where an object store refuses what it gave before, or all of a bucket.

    One object that is refused may be one that is missing: who may not list a bucket is told no
    other. So an image of the same bucket that was read decides.
    """
    for url in {server_of(url): url for url in refused}.values():
        if scheme_of(url) not in OBJECT_SCHEMES:
            continue
        server = server_of(url)
        read = [p for p in paths if p and is_url(p) and p not in failed and server_of(p) == server]
        try:
            if read:
                current_tag(read[0])
                continue
        except DecodeError:
            pass
        raise OSError(
            f"access is denied to {RemoteImage(url).describe()} and to the other images of "
            f"{server}; the shard is not written: run it again with credentials that may read "
            "them, or make a job without these images"
        )
