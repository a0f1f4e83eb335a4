"""Images at web addresses: no other scheme, no address of the own network, a bounded size.

Whoever writes a URL makes this machine send a request. So a redirect is followed only within
its scheme, and a connection to an address that is not public is closed before anything is sent,
whatever name led there. A proxy of the environment is used, and then decides that itself.
"""

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from .._object_store import NoSuchObjectError, ObjectStoreError, TooLargeError, check_scheme
from .._remote_options import RemoteOptions, remote_options
from ._blob import Part, strong_tag
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

    def __init__(self, url: str):
        self._url = url
        try:
            self.identity = https_identity(url)
            urlsplit(url).port  # noqa: B018  # raises where it is no number
        except ValueError as error:
            raise ObjectStoreError(f"no valid URL ({error})") from None

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
        with self._response("HEAD") as response:
            _check_status(response.status, (200,))
            return int(response.headers.get("Content-Length", -1))

    def stream(self) -> Iterator[bytes]:
        """Yield the content in order."""
        with self._response("GET") as response:
            _check_status(response.status, (200,))
            yield from response.stream(_CHUNK)

    def _read(
        self,
        headers: dict[str, str],
        max_bytes: int,
        admit: Callable[[int], None] | None = None,
    ) -> Part:
        def attempt() -> Part:
            with self._response("GET", headers, n_retries=0) as response:
                _check_status(response.status, (206,) if headers else (200,))
                promised = int(response.headers.get("Content-Length") or 0)
                if promised > max_bytes:
                    raise TooLargeError(promised)
                if admit is not None:
                    admit(promised)
                chunks, n_bytes = [], 0
                until = time.monotonic() + remote_options().timeout
                for chunk in response.stream(_CHUNK):
                    chunks.append(chunk)
                    n_bytes += len(chunk)
                    if n_bytes > max_bytes:
                        raise TooLargeError(n_bytes)
                    if time.monotonic() > until:
                        raise ObjectStoreError(
                            "the server did not answer in time", is_unreachable=True
                        )
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
        for _ in range(_MOST_REDIRECTS + 1):
            check_scheme(scheme_of(url), options)
            response = _send(method, url, self._with_user(url, headers), options)
            if response.status in _AGAIN:
                response.close()
                raise _Failed(response.status)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
            if scheme_of(url) != first:
                raise ObjectStoreError(
                    f"leads on to {scheme_of(url)}://; a redirect is followed only within "
                    f"{first}://",
                    is_refused=True,
                )
        raise ObjectStoreError(f"leads on more than {_MOST_REDIRECTS} times")

    def _with_user(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        """Return headers with the user and the password of the URL, for its own host alone."""
        import urllib3

        own, there = urlsplit(self._url), urlsplit(url)
        basic = {}
        if own.username is not None and (own.hostname, own.port) == (there.hostname, there.port):
            user = f"{own.username}:{own.password or ''}"
            basic = urllib3.make_headers(basic_auth=user)
        return {"Accept-Encoding": "identity", "User-Agent": "sktransfer", **basic, **headers}


class _Failed(ObjectStoreError):
    def __init__(self, status: int):
        super().__init__(f"the server failed ({status})", is_unreachable=True)


def _is_read(response: Any) -> bool:
    return response.length_remaining == 0


def _again(attempt: Callable[[], Any], n_retries: int) -> Any:
    for number in range(n_retries + 1):
        try:
            return attempt()
        except ObjectStoreError as error:
            if not error.is_unreachable or number == n_retries:
                raise
        _pause(0.1 * 2**number)
    raise AssertionError("unreachable")


def _pause(seconds: float) -> None:
    threading.Event().wait(min(seconds, 15.0))


def _check_status(status: int, good: tuple[int, ...]) -> None:
    if status in good:
        return
    if status in (404, 410):
        raise NoSuchObjectError(f"no such page ({status})")
    if status in (401, 403):
        raise ObjectStoreError(f"access denied ({status})", is_refused=True)
    if good == (206,) and status == 200:
        raise ObjectStoreError("the server does not send parts of a file, as an archive needs")
    raise ObjectStoreError(f"the server answered {status}")


def _tag(headers: Any, is_part: bool = False) -> str | None:
    size = headers.get("Content-Length")
    if is_part:
        size = headers.get("Content-Range", "").rpartition("/")[2]
    if not size or not size.isdigit():
        return None
    return strong_tag(headers.get("ETag"), int(size))


def _send(method: str, url: str, headers: dict[str, str], options: RemoteOptions) -> Any:
    import urllib3

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme.lower())
    if proxy and proxy_bypass(host):
        proxy = None
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    manager = _manager(options.connections, options.is_private_allowed, proxy)
    with _translated():
        return manager.request(
            method,
            plain,
            headers=headers,
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=min(10.0, options.timeout), read=options.timeout),
        )


@contextmanager
def _translated(is_body: bool = False) -> Iterator[None]:
    """Turn errors of urllib3 into ours; its own hold the URL."""
    from urllib3 import exceptions

    try:
        yield
    except _PrivateError:
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


class _PrivateError(Exception):
    """A connection leads to an address that is not public."""


@cache
def _manager(n_connections: int, is_private_allowed: bool, proxy: str | None) -> Any:
    try:
        import urllib3
    except ImportError:
        raise ImportError(
            "images at https:// need urllib3: pip install 'sktransfer[remote]'"
        ) from None
    if proxy is not None:
        return urllib3.ProxyManager(proxy, maxsize=n_connections)
    manager = urllib3.PoolManager(maxsize=n_connections)
    if not is_private_allowed:
        manager.pool_classes_by_scheme = _public_pools()
    return manager


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_manager.cache_clear)  # connections are of one process


@cache
def _public_pools() -> dict[str, type]:
    """Return urllib3's pools with connections that are closed where they lead to no public one."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    # The method that makes the socket, before TLS; `connect` would send the name of the server.
    class PublicHTTPConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _checked_public(super()._new_conn())

    class PublicHTTPSConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _checked_public(super()._new_conn())

    class PublicHTTPPool(HTTPConnectionPool):
        ConnectionCls = PublicHTTPConnection

    class PublicHTTPSPool(HTTPSConnectionPool):
        ConnectionCls = PublicHTTPSConnection

    return {"http": PublicHTTPPool, "https": PublicHTTPSPool}


def _checked_public(connected: socket.socket) -> socket.socket:
    address = ipaddress.ip_address(connected.getpeername()[0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if not address.is_global:
        connected.close()
        raise _PrivateError
    return connected
