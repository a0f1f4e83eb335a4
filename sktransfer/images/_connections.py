"""Connections to web servers: to public addresses alone, and each answer ends in time.

The library's own time limit is that of one wait for some bytes: a server that sends a byte now
and then would keep a reader for days. Here it is that of an answer, from its first byte to its
last.
"""

import http.client
import io
import ipaddress
import os
import socket
import time
from functools import cache
from typing import Any

_MOST_LINE = 2**16  # as http.client allows for a header; urllib3 sets no limit to other lines
# What Azure answers its machines at, though the address is a public one.
_OF_THE_CLOUD = frozenset({"168.63.129.16"})
# IPv6 addresses that end in an IPv4 address, which a gateway may lead to: NAT64, and an old form.
_HOLD_IPV4 = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))


class PrivateAddressError(Exception):
    """A name leads to an address that is not public."""


@cache
def connection_pools(n_connections: int, is_private_allowed: bool, proxy: str | None) -> Any:
    """Return urllib3's manager of connections; those through a proxy go where it allows."""
    try:
        import urllib3
    except ImportError:
        raise ImportError(
            "images at https:// need urllib3: pip install 'sktransfer[remote]'"
        ) from None
    manager: Any
    if proxy is not None:
        manager = urllib3.ProxyManager(proxy, maxsize=n_connections)
    else:
        manager = urllib3.PoolManager(maxsize=n_connections)
    manager.pool_classes_by_scheme = _pool_classes(is_private_allowed or proxy is not None)
    return manager


if hasattr(os, "register_at_fork"):
    # connections are of one process
    os.register_at_fork(after_in_child=connection_pools.cache_clear)


@cache
def _pool_classes(is_private_allowed: bool) -> dict[str, type]:
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Public:
        """Makes the socket, before TLS; `connect` would send the name of the server."""

        response_class: Any = _TimedResponse

        def _new_conn(self: Any) -> socket.socket:
            if is_private_allowed:
                return super()._new_conn()  # type: ignore[misc]  # of the class beside
            _check_name(self._dns_host, self.port)
            return _checked(super()._new_conn())  # type: ignore[misc]  # the same

    class Connection(Public, HTTPConnection): ...

    class TLSConnection(Public, HTTPSConnection): ...

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = TLSConnection

    return {"http": Pool, "https": TLSPool}


# addresses


def is_public(text: str) -> bool:
    """Tell whether an address is one of the internet, whatever form it is written in."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _HOLD_IPV4):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast and str(address) not in _OF_THE_CLOUD


def _check_name(host: str, port: int) -> None:
    """Raise before a connection is tried: whether one can be made is told to nobody."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return  # the connection fails as well, and says why
    if not all(is_public(str(address[0])) for *_, address in found):
        raise PrivateAddressError


def _checked(connected: socket.socket) -> socket.socket:
    """Return a socket that leads to a public address: the name may have another one by now."""
    if not is_public(connected.getpeername()[0]):
        connected.close()
        raise PrivateAddressError
    return connected


# time


class _TimedResponse(http.client.HTTPResponse):
    """An answer that has to end within the time limit of its socket."""

    def __init__(self, sock: Any, *args: Any, **options: Any):
        super().__init__(_TimedSocket(sock), *args, **options)  # type: ignore[arg-type]  # of it `makefile` is used

    def begin(self) -> None:
        super().begin()
        # urllib3 logs what is wrong in headers as a warning, with the URL and its query
        self.headers.defects.clear()
        self.headers.set_payload([])


class _TimedSocket:
    def __init__(self, sock: Any):
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        timeout = self._sock.gettimeout()
        return _Lines(self._sock.makefile(mode) if timeout is None else _Timed(self._sock, timeout))


class _Lines(io.BufferedReader):
    """Lines of bounded length."""

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(_MOST_LINE + 1 if size is None or size < 0 else size)


class _Timed(io.RawIOBase):
    """What a socket receives until its time limit is over, counted from now."""

    def __init__(self, sock: Any, timeout: float):
        self._sock, self._timeout = sock, timeout
        self._until = time.monotonic() + timeout
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:  # type: ignore[no-untyped-def]  # no type before 3.12
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        n_bytes: int | None = self._file.readinto(buffer)
        return n_bytes

    def close(self) -> None:
        if not self.closed:
            if self._sock.fileno() >= 0:
                self._sock.settimeout(self._timeout)  # the connection may be used again
            self._file.close()
        super().close()
