"""Images at web addresses: no other scheme, no address of the own network, a bounded size.

Whoever writes a URL makes this machine send a request. So a redirect is followed only within
its scheme, and no name may lead to an address that is not public. A proxy of the environment is
used, and then decides that itself.
"""

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from .._object_store import NoSuchObjectError, ObjectStoreError, TooLargeError, check_scheme
from .._remote_options import RemoteOptions, remote_options
from ._blob import FAR, Part, strong_tag
from ._connections import PrivateAddressError, connection_pools
from ._url import https_identity, scheme_of

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (429, 500, 502, 503, 504)
_CHUNK = 2**18


class WebBlob:
    """The content at one web address.

    Parameters
    ----------
    url : str
    """

    chunk = FAR

    def __init__(self, url: str):
        self._url = url
        try:
            self.identity = https_identity(url)
            urlsplit(url).port  # noqa: B018  # raises where it is no number
        except ValueError:  # whose message may hold a part of a password
            raise ObjectStoreError("no valid URL") from None

    def tag(self) -> str | None:
        """Return what changes with the content; None where the server does not say."""
        with self._response("HEAD") as response:
            if response.status in (404, 410):
                raise NoSuchObjectError(f"no such page ({response.status})")
            if response.status != 200:  # some take no HEAD, and a URL may be signed for GET alone
                return None
            return _tag(response.headers)

    def read(self, max_bytes: int, admit: Callable[[int], None] | None = None) -> Part:
        """Return the content, which has at most `max_bytes`."""
        return self._read({}, max_bytes, admit)

    def read_range(self, start: int, length: int) -> Part:
        """Return some bytes of the content, fewer where it ends before."""
        return self._read({"Range": f"bytes={start}-{start + length - 1}"}, length)

    def size(self) -> int:
        """Return the number of bytes."""
        # with a part of it: a URL may be signed for GET alone
        with self._response("GET", {"Range": "bytes=0-0"}) as response:
            _check_status(response.status, (206,))
            size = _size(response.headers, is_part=True)
        if size is None:
            raise ObjectStoreError("the server does not say how large the archive is")
        return size

    def _read(
        self,
        headers: dict[str, str],
        max_bytes: int,
        admit: Callable[[int], None] | None = None,
    ) -> Part:
        def attempt() -> Part:
            with self._response("GET", headers, n_retries=0) as response:
                _check_status(response.status, (206,) if headers else (200,))
                if response.headers.get("Content-Encoding", "identity").strip() != "identity":
                    raise ObjectStoreError("the server sends it compressed, unasked")
                n_admitted = _size(response.headers) or 0
                if n_admitted > max_bytes:
                    raise TooLargeError(n_admitted)
                if admit is not None:
                    admit(n_admitted)
                chunks, n_bytes = [], 0
                for chunk in response.stream(_CHUNK, decode_content=False):
                    chunks.append(chunk)
                    n_bytes += len(chunk)
                    if n_bytes > max_bytes:
                        raise TooLargeError(n_bytes)
                    if n_bytes > n_admitted and admit is not None:  # no size was told
                        admit(n_bytes)
                return Part(b"".join(chunks), _tag(response.headers, is_part=bool(headers)))

        return _again(attempt, remote_options().retries)

    @contextmanager
    def _response(
        self, method: str, headers: dict[str, str] | None = None, n_retries: int | None = None
    ) -> Iterator[Any]:
        """Yield the response, of which nothing but the headers has been read."""
        options = remote_options()
        retries = options.retries if n_retries is None else n_retries
        response = _again(lambda: self._follow(method, headers or {}, options), retries)
        try:
            with _translated(is_body=True):
                yield response
        finally:
            # what was not read is not worth keeping the connection for
            if response.closed or method == "HEAD":
                response.release_conn()
            else:
                response.drain_conn() if _is_read(response) else response.close()

    def _follow(self, method: str, headers: dict[str, str], options: RemoteOptions) -> Any:
        url, first = self._url, scheme_of(self._url)
        until = time.monotonic() + options.timeout
        for _ in range(_MOST_REDIRECTS + 1):
            check_scheme(scheme_of(url), options)
            left = until - time.monotonic()
            if left <= 0:
                raise ObjectStoreError("the server did not answer in time", is_unreachable=True)
            response = _send(method, url, self._with_user(url, headers), options, left)
            if response.status in _AGAIN:
                response.close()
                raise _Failed(response.status, _seconds_asked_for(response.headers))
            if response.status not in _REDIRECTS:
                return response
            response.close()
            try:
                url = urljoin(url, response.headers.get("Location", ""))
                urlsplit(url).port  # noqa: B018  # raises where it is no number
            except ValueError:
                raise ObjectStoreError("leads on to no valid URL") from None
            if scheme_of(url) != first:
                raise ObjectStoreError(
                    f"leads on to another scheme; a redirect is followed only within {first}://",
                    is_refused=True,
                )
        raise ObjectStoreError(f"leads on more than {_MOST_REDIRECTS} times")

    def _with_user(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        """Return headers with the user and the password of the URL, for its own host alone."""
        own, there = urlsplit(self._url), urlsplit(url)
        basic = {}
        if own.username is not None and (own.hostname, own.port) == (there.hostname, there.port):
            user, _, password = own.netloc.rpartition("@")[0].partition(":")
            secret = b":".join(
                unquote_to_bytes(part.encode(errors="surrogateescape")) for part in (user, password)
            )
            basic = {"Authorization": f"Basic {b64encode(secret).decode()}"}
        return {"Accept-Encoding": "identity", "User-Agent": "sktransfer", **basic, **headers}


class _Failed(ObjectStoreError):
    """The server fails now, and may tell after how many seconds to ask again."""

    def __init__(self, status: int, seconds: float):
        super().__init__(f"the server failed ({status})", is_unreachable=True)
        self.seconds = seconds


def _seconds_asked_for(headers: Any) -> float:
    """Return the seconds of a ``Retry-After``, a number or a date; 0 without a valid one."""
    import urllib3

    try:
        return urllib3.Retry().parse_retry_after(headers.get("Retry-After", "0"))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError, TypeError, IndexError):
        return 0.0


def _is_read(response: Any) -> bool:
    return response.length_remaining == 0


def _again(attempt: Callable[[], Any], n_retries: int) -> Any:
    for number in range(n_retries + 1):
        try:
            return attempt()
        except ObjectStoreError as error:
            if not error.is_unreachable or number == n_retries:
                raise
            asked_for = error.seconds if isinstance(error, _Failed) else 0.0
            if asked_for > remote_options().timeout:  # nobody waits for an hour for an image
                raise
        _pause(max(min(0.1 * 2**number, 15.0), asked_for))
    raise AssertionError("unreachable")


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _check_status(status: int, good: tuple[int, ...]) -> None:
    if status in good:
        return
    if status in (404, 410):
        raise NoSuchObjectError(f"no such page ({status})")
    if status in (401, 403):
        raise ObjectStoreError(f"access denied ({status})", is_refused=True)
    if good == (206,) and status == 200:
        raise ObjectStoreError("the server does not send parts of a file, as an archive needs")
    # too many requests: later it will answer, as one that fails may
    raise ObjectStoreError(f"the server answered {status}", is_unreachable=status == 429)


def _size(headers: Any, is_part: bool = False) -> int | None:
    """Return the number of bytes that the server tells; of a part, that of the whole."""
    text = headers.get("Content-Length", "")
    if is_part:
        text = headers.get("Content-Range", "").rpartition("/")[2]
    # not all that is a digit is one of a number, and a number may have thousands of them
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _tag(headers: Any, is_part: bool = False) -> str | None:
    size = _size(headers, is_part)
    return None if size is None else strong_tag(headers.get("ETag"), size)


def _send(
    method: str, url: str, headers: dict[str, str], options: RemoteOptions, seconds: float
) -> Any:
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme.lower())
    if proxy and proxy_bypass(host):
        proxy = None
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    manager = connection_pools(options.connections, options.is_private_allowed, proxy)
    import urllib3  # which is there: else the line above says what to install

    with _translated():
        return manager.request(
            method,
            plain,
            headers=headers,
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=min(10.0, seconds), read=seconds),
        )


@contextmanager
def _translated(is_body: bool = False) -> Iterator[None]:
    """Turn errors of urllib3 into ours; its own hold the URL."""
    from urllib3 import exceptions

    try:
        yield
    except PrivateAddressError:
        raise ObjectStoreError(
            "the address is not public; addresses of the own network are read only where "
            "SKTRANSFER_REMOTE_PRIVATE=1 is set",
            is_refused=True,
        ) from None
    except exceptions.SSLError:
        raise ObjectStoreError("the server's certificate can't be trusted") from None
    except exceptions.NameResolutionError:
        raise ObjectStoreError("no such host", is_unreachable=True) from None
    except exceptions.NewConnectionError:  # which urllib3 counts among the timeouts
        raise ObjectStoreError("the server can't be reached", is_unreachable=True) from None
    except exceptions.TimeoutError:
        raise ObjectStoreError("the server did not answer in time", is_unreachable=True) from None
    except exceptions.LocationValueError:
        raise ObjectStoreError("no valid URL") from None
    except exceptions.HTTPError as error:
        cause = f"the server can't be reached ({type(error).__name__})"
        if is_body:
            cause = "the download broke off before its end, each time it was tried"
        raise ObjectStoreError(cause, is_unreachable=True) from None
    except ValueError:  # of urllib3 and of the codecs that it calls
        if is_body:
            raise
        raise ObjectStoreError("no valid URL") from None
