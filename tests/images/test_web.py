"""Images at web addresses: what is sent where, what is refused, and what no message shows."""

import base64
import gzip
import io
import socket
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from sktransfer import PretrainedFeatureTransformer, load_image_folder
from sktransfer._remote_options import RemoteOptions
from sktransfer.exceptions import DecodeError
from sktransfer.images import _connections, _https
from sktransfer.images._formats import MAX_BYTES
from sktransfer.images._image_ref import RemoteImage


class Server:
    """A web server whose answers are functions of the handler, by path; it notes requests."""

    def __init__(self):
        outer = self
        self.answers, self.requests, self.ports = {}, [], set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                path = self.path.partition("?")[0]
                outer.requests.append((self.command, self.path, self.headers))
                outer.ports.add(self.client_address[1])
                outer.answers.get(path, not_found)(self)

            do_GET = do_HEAD = answer

            def log_message(self, *args): ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def methods(self):
        return [method for method, _, _ in self.requests]


def not_found(handler):
    answer(404)(handler)


def answer(status, body=b"", **headers):
    def send(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(headers.get("length", len(body))))
        for name, value in headers.items():
            if name != "length":
                handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    return send


@pytest.fixture(scope="module")
def running():
    pytest.importorskip("urllib3")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def web(running, monkeypatch):
    """Return the server; plain http and addresses of this machine are allowed."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SKTRANSFER_REMOTE_SCHEMES", "http,https,zip,tar")
    monkeypatch.setenv("SKTRANSFER_REMOTE_PRIVATE", "1")
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "1")
    running.answers.clear()
    running.requests.clear()
    running.ports.clear()
    return running


def test_an_image_is_read_with_its_version(web, picture, encode):
    data = encode(picture, "PNG")
    web.answers["/a.png"] = answer(200, data, ETag='"one"')
    image = RemoteImage(f"{web.url}/a.png")
    read = image.encoded()
    assert read.data == data
    assert read.version() == image.version() is not None
    assert web.methods() == ["GET", "HEAD"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"one"'}])
def test_no_etag_or_a_weak_one_is_no_version(web, headers):
    web.answers["/a"] = answer(200, b"bytes", **headers)
    image = RemoteImage(f"{web.url}/a")
    assert image.version() is None
    assert image.encoded().version() is None


def test_a_server_that_takes_no_head_gives_no_version_and_the_image(web):
    def only_get(handler):
        answer(*((200, b"bytes") if handler.command == "GET" else (403,)), ETag='"1"')(handler)

    web.answers["/a"] = only_get
    image = RemoteImage(f"{web.url}/a")
    assert image.version() is None
    assert image.encoded().data == b"bytes"


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "no such page"), (410, "no such page"), (403, "access denied"), (418, "answered 418")],
)
def test_an_answer_that_is_no_image_is_named(web, status, message):
    web.answers["/a"] = answer(status, b"secret error page")
    with pytest.raises(DecodeError, match=message):
        RemoteImage(f"{web.url}/a").read()
    assert len(web.requests) == 1


@pytest.mark.parametrize("busy", [503, 429])
def test_a_server_that_fails_or_has_too_many_requests_is_asked_again(web, busy):
    statuses = iter([busy, 200])
    web.answers["/a"] = lambda handler: answer(next(statuses), b"bytes")(handler)
    assert RemoteImage(f"{web.url}/a").encoded().data == b"bytes"
    web.answers["/a"] = answer(500)
    with pytest.raises(DecodeError, match="failed"):
        RemoteImage(f"{web.url}/a").read()
    assert len(web.requests) == 4


@pytest.mark.parametrize(
    ("asked", "waits"),
    [("7", [7.0]), ("0", [0.1]), ("soon", [0.1]), ("9" * 30, None), ("31", None)],
)
def test_a_server_that_tells_when_to_ask_again_is_asked_then(web, monkeypatch, asked, waits):
    """Not where that is longer than a request may take, and not by a value that is none."""
    waited = []
    monkeypatch.setattr(_https, "_pause", waited.append)
    statuses = iter([429, 200])
    web.answers["/a"] = lambda handler: answer(next(statuses), b"bytes", **{"Retry-After": asked})(
        handler
    )
    if waits is None:
        with pytest.raises(DecodeError, match=r"failed \(429\)"):
            RemoteImage(f"{web.url}/a").encoded()
        assert waited == []
    else:
        assert RemoteImage(f"{web.url}/a").encoded().data == b"bytes"
        assert waited == waits


def test_a_download_that_breaks_off_is_tried_again(web):
    bodies = iter([b"byt", b"bytes"])

    def broken(handler):
        body = next(bodies)
        answer(200, body, length=5)(handler)
        handler.close_connection = len(body) < 5

    web.answers["/a"] = broken
    assert RemoteImage(f"{web.url}/a").encoded().data == b"bytes"
    bodies = iter([b"", b"by"])
    with pytest.raises(DecodeError, match="broke off"):
        RemoteImage(f"{web.url}/a").read()


def test_a_server_that_hangs_is_given_up(web, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_REMOTE_TIMEOUT", "0.2")
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "0")
    end = threading.Event()
    web.answers["/a"] = lambda handler: end.wait(60)
    try:
        with pytest.raises(DecodeError, match="did not answer in time"):
            RemoteImage(f"{web.url}/a").read()
    finally:
        end.set()


def test_a_server_that_sends_without_end_is_given_up(web):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        chunk = b"%x\r\n%b\r\n" % (2**20, bytes(2**20))
        try:
            while True:
                handler.wfile.write(chunk)
        except OSError:
            handler.close_connection = True

    web.answers["/a"] = endless
    with pytest.raises(DecodeError, match=r"more than the 268,435,456 allowed|in time"):
        RemoteImage(f"{web.url}/a").read()


def test_a_size_above_the_limit_is_refused_before_the_bytes_come(web):
    web.answers["/a"] = answer(200, b"", length=2**30)
    with pytest.raises(DecodeError, match="1,073,741,824 bytes, more than"):
        RemoteImage(f"{web.url}/a").read()


def test_a_smaller_limit_can_be_set(web, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_REMOTE_MAX_BYTES", "4")
    assert RemoteOptions().max_bytes == MAX_BYTES  # the default is the limit of files
    web.answers["/a"] = answer(200, b"bytes")
    with pytest.raises(DecodeError, match="5 bytes, more than the 4 allowed"):
        RemoteImage(f"{web.url}/a").read()


@pytest.mark.parametrize("part", ["status", "headers", "body", "chunks"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(web, monkeypatch, part):
    monkeypatch.setenv("SKTRANSFER_REMOTE_TIMEOUT", "0.3")
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "0")
    pause = threading.Event()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    start, slow = {
        "status": (b"HTTP/1.1 200 ", b"x" * 40 + b"\r\nContent-Length: 0\r\n\r\n"),
        "headers": (head, b"X: %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * 40)),
        "body": (head + b"Content-Length: 40\r\n\r\n", b"x" * 40),
        "chunks": (head + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 9 + b"0\r\n\r\n"),
    }[part]

    def drip(handler):
        handler.close_connection = True
        try:
            handler.wfile.write(start)
            for byte in slow:
                pause.wait(0.05)
                handler.wfile.write(bytes([byte]))
        except OSError:
            return

    web.answers["/a"] = drip
    with pytest.raises(DecodeError, match="did not answer in time"):
        RemoteImage(f"{web.url}/a").read()


def test_a_connection_is_used_again(web):
    web.answers["/a"] = answer(200, b"bytes")
    for _ in range(3):
        assert RemoteImage(f"{web.url}/a").encoded().data == b"bytes"
    assert len(web.ports) == 1


def test_a_compressed_answer_is_refused_and_not_unpacked(web):
    bomb = gzip.compress(bytes(2**20))
    web.answers["/a"] = answer(200, bomb, **{"Content-Encoding": "gzip"})
    with pytest.raises(DecodeError, match="compressed"):
        RemoteImage(f"{web.url}/a").read()


@pytest.mark.parametrize("length", ["many", "-5", "5, 5", "\xb2", "9" * 5000])
def test_a_length_that_is_no_number_is_no_other_error(web, length):
    def odd(handler):
        handler.close_connection = True
        handler.wfile.write(
            b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: %b\r\n\r\n' % length.encode("latin-1")
        )
        if handler.command == "GET":
            handler.wfile.write(b"bytes")

    web.answers["/a"] = odd
    image = RemoteImage(f"{web.url}/a")
    for ask in (image.version, image.encoded):
        with suppress(DecodeError):
            ask()


def test_bytes_whose_number_was_not_told_are_admitted_as_they_come(web):
    def chunked(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(3):
            handler.wfile.write(b"%x\r\n%b\r\n" % (2**18, bytes(2**18)))
        handler.wfile.write(b"0\r\n\r\n")

    web.answers["/a"] = chunked
    admitted = []
    assert len(RemoteImage(f"{web.url}/a").encoded(admitted.append).data) == 3 * 2**18
    assert admitted[0] == 0
    assert admitted[-1] == 3 * 2**18


def test_odd_headers_are_not_logged_with_the_url(web, caplog):
    def odd(handler):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nno header\r\n\r\nbytes")

    web.answers["/a"] = odd
    with caplog.at_level("WARNING"):
        RemoteImage(f"{web.url}/a?token=hush").encoded()
    assert "hush" not in caplog.text


# redirects and addresses


def test_a_redirect_within_the_scheme_is_followed(web):
    web.answers["/a"] = answer(302, Location="/b?c=1")
    web.answers["/b"] = answer(200, b"bytes")
    assert RemoteImage(f"{web.url}/a").encoded().data == b"bytes"
    assert [path for _, path, _ in web.requests] == ["/a", "/b?c=1"]


@pytest.mark.parametrize("there", ["http://[::1/b", "http://host:port/b", "//[x"])
def test_a_redirect_to_no_valid_url_is_an_image_error(web, there):
    web.answers["/a"] = answer(301, Location=there)
    with pytest.raises(DecodeError, match="leads on to no valid URL"):
        RemoteImage(f"{web.url}/a").read()


@pytest.mark.parametrize("there", ["https://127.0.0.1/b", "file:///etc/passwd", "s3://bucket/b"])
def test_a_redirect_to_another_scheme_is_refused(web, there):
    web.answers["/a"] = answer(301, Location=there)
    with pytest.raises(DecodeError, match="redirect is followed only within http://"):
        RemoteImage(f"{web.url}/a").read()


def test_a_password_may_hold_any_letter(web):
    web.answers["/a"] = answer(200, b"bytes")
    RemoteImage(f"http://m%40e:p%3A\u20ac@127.0.0.1:{web.port}/a").encoded()
    sent = base64.b64encode("m@e:p:\u20ac".encode()).decode()
    assert web.requests[0][2]["Authorization"] == f"Basic {sent}"


def test_redirects_in_a_circle_end(web):
    web.answers["/a"] = answer(307, Location="/a")
    with pytest.raises(DecodeError, match="leads on more than 5 times"):
        RemoteImage(f"{web.url}/a").read()
    assert len(web.requests) == 6


def test_a_password_is_sent_to_its_own_host_alone(web):
    other = Server()
    try:
        other.answers["/b"] = answer(200, b"bytes")
        web.answers["/a"] = answer(302, Location=f"{other.url}/b")
        url = f"http://me:secret@127.0.0.1:{web.port}/a"
        assert RemoteImage(url).encoded().data == b"bytes"
        sent = base64.b64encode(b"me:secret").decode()
        assert web.requests[0][2]["Authorization"] == f"Basic {sent}"
        assert "Authorization" not in other.requests[0][2]
        assert "secret" not in str(other.requests[0][2])
    finally:
        other.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_is_not_public_is_not_connected_to(web, monkeypatch, scheme, host):
    monkeypatch.delenv("SKTRANSFER_REMOTE_PRIVATE")
    if host == "[::1]":
        if not socket.has_ipv6:
            pytest.skip("this machine has no IPv6")
        listening = socket.socket(socket.AF_INET6)
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    else:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
    with listening:
        listening.listen()
        listening.setblocking(False)
        url = f"{scheme}://{host}:{listening.getsockname()[1]}/a"
        with pytest.raises(DecodeError, match="address is not public"):
            RemoteImage(url).read()
        with pytest.raises(BlockingIOError):  # whether a port is open is told to nobody
            listening.accept()


def test_a_name_whose_address_changes_gets_no_request(web, monkeypatch):
    monkeypatch.delenv("SKTRANSFER_REMOTE_PRIVATE")
    monkeypatch.setattr(_connections, "_check_name", lambda host, port: None)  # public at first
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with pytest.raises(DecodeError, match="address is not public"):
            RemoteImage(f"https://localhost:{listening.getsockname()[1]}/a").read()
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),  # NAT64 of 8.8.8.8
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.100.100.200", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),  # NAT64 of 169.254.169.254
        ("2002:7f00:1::1", False),
        ("::7f00:1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("fd00:ec2::254", False),
    ],
)
def test_addresses_of_the_internet_are_told_from_others(address, expected):
    assert _connections.is_public(address) is expected


def test_a_scheme_is_allowed_by_name(web, monkeypatch):
    monkeypatch.delenv("SKTRANSFER_REMOTE_SCHEMES")
    with pytest.raises(DecodeError, match="http:// is not allowed"):
        RemoteImage(f"{web.url}/a").read()
    assert web.requests == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "pass the path"),
        ("ftp://host/a.png", "ftp:// is not allowed"),
        ("https://", "no valid URL"),
        ("https://host:port/a", "no valid URL"),
        ("https://[::1/a", "no valid URL"),
        ("zip://a.png", "names no archive"),
        ("zip://a::zip://b::c.zip", "no such file|archive"),
    ],
)
def test_a_url_that_can_not_be_read_is_an_image_error(url, message):
    with pytest.raises(DecodeError, match=message):
        RemoteImage(url).read()
    with pytest.raises(DecodeError, match=message):
        RemoteImage(url).version()


# what is a secret

SECRETS = [
    "https://me:hush@host/a.png",
    "https://host/a.png?X-Amz-Signature=hush&X-Amz-Credential=hush",
    "https://acc.blob.core.windows.net/c/a.png?sv=hush&sig=hush",
    "https://host/a.png?token=hush#hush",
    "s3://hush:hush@bucket/a.png",
    "s3://bucket/a.png?X-Amz-Signature=hush",
    "zip://a.png::https://me:hush@host/a.zip?sig=hush",
    "foo://me:hush@host/a?hush",
    # what must be encoded in a URL, and is not
    "https://me:hush@hush@host/a.png",
    "https://me:hu/hush@host/a.png",
    "https://me:hu?hush@host/a.png",
    "https://me:hu hush@host/a.png",
    "https://me:hu\u2100hush@host/a.png",
    "s3://AKIAhush:hu/hush+hush@bucket/a.png",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_is_in_no_name_and_no_message(url, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_REMOTE_SCHEMES", "gs,zip")  # so that nothing is sent
    image = RemoteImage(url)
    assert image.describe().endswith(("a.png", "?...", "://...", "a.zip?..."))
    for shown in (image.describe(), repr(image), str(image)):
        assert "hush" not in shown
    for ask in (image.read, image.version, image.identity):
        with pytest.raises(DecodeError) as caught:
            ask()
        assert "hush" not in str(caught.value)


def test_an_error_holds_no_other_error_with_the_url(web):
    image = RemoteImage(f"{web.url.replace('127.0.0.1', 'localhost')[:-1]}/a?token=hush")
    with pytest.raises(DecodeError) as caught:
        image.read()
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_archive_that_can_not_be_listed_is_named_without_its_secret(web):
    web.answers["/a.zip"] = answer(403)
    with pytest.raises(PermissionError, match="access denied") as caught:
        load_image_folder(f"zip://::{web.url}/a.zip?token=hush")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_archive_at_a_web_address_is_read_in_parts(web):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        info = tarfile.TarInfo("1.png")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"bytes"))
    data = content.getvalue()

    def parts(handler):
        if handler.command == "HEAD":  # as of an address that is signed for GET
            return answer(403)(handler)
        first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return answer(206, part, ETag='"1"', **{"Content-Range": span})(handler)

    web.answers["/a.tar"] = parts
    for _ in range(2):
        image = RemoteImage(f"tar://1.png::{web.url}/a.tar?X-Amz-Signature=1")
        assert image.encoded().data == b"bytes"
    assert len(web.requests) == 4  # size, table, and twice the member
    web.answers["/b.tar"] = answer(200, data)
    with pytest.raises(DecodeError, match="does not send parts"):
        RemoteImage(f"tar://1.png::{web.url}/b.tar").read()


def test_a_signature_does_not_distinguish_images_and_any_other_query_does(web):
    def identity(query):
        return RemoteImage(f"https://me:hush@Host/a.png?{query}").identity()

    for signed in (
        "X-Amz-Signature=1&X-Amz-Date=2",
        "X-Goog-Signature=1",
        "Signature=1&Expires=3&Key-Pair-Id=4",
        "AWSAccessKeyId=1&Signature=1&Expires=3",
        "sv=2024&sp=r&se=5&sig=hush",
    ):
        assert identity(signed) == "https://host/a.png"
        assert identity(f"id=5&{signed}") == "https://host/a.png?id=5"
    for query in (
        "id=5",
        "st=5",  # without "sig" no signature of Azure
        "src=1.png&sig=5",  # of a service that draws thumbnails
        "expires=1",
        "policy=1",
        "x-amz-meta=1",
        "a=1;b=2&c&d=%2f",
    ):
        assert identity(query) == f"https://host/a.png?{query}"


def test_addresses_that_differ_are_never_taken_for_one_image(web, encode, tmp_path):
    pictures = {}
    for shade in (10, 200):
        pictures[str(shade)] = encode(np.full((40, 40, 3), shade, np.uint8), "PNG")

    def drawn(handler):
        query = handler.path.partition("?")[2]
        answer(200, pictures[query.partition("&")[0].partition("=")[2]])(handler)

    web.answers["/thumb"] = drawn
    X = [f"{web.url}/thumb?src={shade}&sv=1&sp=1&sig={shade}" for shade in pictures]
    X += [f"http://{user}@127.0.0.1:{web.port}/thumb?src=10" for user in "ab"]
    for cache in (None, tmp_path):
        rows = PretrainedFeatureTransformer(
            "mini", image_size=32, precision="float32", feature_cache=cache
        ).fit_transform(X)
        assert not np.array_equal(rows[0], rows[1])
        np.testing.assert_array_equal(rows[0], rows[2])
    users = {headers["Authorization"] for _, path, headers in web.requests if "&" not in path}
    assert len(users) == 2


@pytest.mark.parametrize("tag", ['""', "", 'w/"1"'])
def test_an_etag_that_says_nothing_is_no_version(web, tag):
    web.answers["/a"] = answer(200, b"bytes", ETag=tag)
    assert RemoteImage(f"{web.url}/a").version() is None


def test_more_bytes_than_were_asked_for_are_an_image_error(web):
    def whole(handler):
        handler.requestline = ""
        answer(206, bytes(500), **{"Content-Range": "bytes 0-0/500"})(handler)

    web.answers["/a.zip"] = whole
    with pytest.raises(DecodeError, match="more than was asked for"):
        RemoteImage(f"zip://1.png::{web.url}/a.zip").read()


def test_the_same_object_under_another_signature_has_the_same_version(web):
    web.answers["/a"] = answer(200, b"bytes", ETag='"one"')
    versions = {
        RemoteImage(f"http://{user}127.0.0.1:{web.port}/a?X-Amz-Signature={i}").version()
        for i, user in enumerate(("", "me:secret@"))
    }
    assert len(versions) == 1
    assert None not in versions
