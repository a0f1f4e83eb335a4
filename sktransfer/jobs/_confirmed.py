"""What is written of images by URL that failed: only what is wrong with themselves.

A shard is written once. An image whose server was down for a moment must not stay without a row,
and a server that is down is no fault of its images.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .._remote_options import remote_options
from ..exceptions import DecodeError
from ..extraction._extract import Extraction
from ..images._colour import PixelRange
from ..images._image_ref import RemoteImage
from ..images._remote import UnreachableError
from ..images._url import is_url

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
        When a server does not answer, or images fail at times.
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
            if all(pool.map(lambda url: _fails(RemoteImage(url, pixel_range)), urls)):
                return extraction
    raise OSError(
        f"images fail at times, such as {RemoteImage(urls[0]).describe()}; the shard is not "
        "written: run it again when their server is well"
    )


def _fails(image: RemoteImage) -> bool:
    try:
        image.read()
    except UnreachableError as error:
        raise OSError(
            f"{image.describe()}: {error}; the shard is not written: run it again when the "
            "server answers"
        ) from None
    except DecodeError:
        return True
    return False
