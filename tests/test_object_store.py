"""Objects by URL: read, listed, written where there is none; and what their errors say."""

import os
import socket
import threading

import pytest

from sktransfer import _object_store
from sktransfer._object_store import (
    NoSuchObjectError,
    ObjectStoreError,
    TooLargeError,
    open_bucket,
    redacted_text,
    split_object_url,
)
from sktransfer._remote_options import remote_options

KEY = "a folder/ü #1?%20x.png"  # what a URL would read otherwise


@pytest.fixture
def bucket(s3):
    return open_bucket(f"s3://{s3.name}")


@pytest.fixture
def answers(monkeypatch):
    """Return a function: a server at the endpoint gives each request to a function."""
    sockets = []

    def start(answer):
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        sockets.append(listening)
        requests = []

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                requests.append(connection.recv(2**16).decode())
                sockets.append(connection)
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-secret")
        monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "1")
        return requests

    yield start
    for one in sockets:
        one.close()


def test_an_object_is_written_and_read_under_any_name(bucket):
    bucket.put(KEY, b"content")
    data, status = bucket.get(KEY)
    assert data == b"content"
    assert status == bucket.head(KEY)
    assert (status.key, status.size) == (KEY, 7)
    assert bucket.get_range(KEY, 3, 100) == (b"tent", status)
    bucket.delete(KEY)
    bucket.delete(KEY)
    with pytest.raises(NoSuchObjectError, match="no such object"):
        bucket.get(KEY)


def test_an_object_is_created_once(bucket):
    assert bucket.put_if_absent("one", b"first")
    assert not bucket.put_if_absent("one", b"second")
    assert bucket.get("one").data == b"first"


def test_of_several_writers_one_creates_the_object(bucket):
    start, wrote = threading.Barrier(8), []

    def write(number):
        start.wait()
        wrote.append(bucket.put_if_absent("one", b"%d" % number))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wrote) == [False] * 7 + [True]


def test_a_folder_is_listed_with_what_head_tells(bucket):
    for key in ("in/1", "in/2", "in/deep/3", "inside/4"):
        bucket.put(key, key.encode())
    listed = [status for page in bucket.list("in") for status in page]
    assert [status.key for status in listed] == ["in/1", "in/2", "in/deep/3"]
    assert listed[0] == bucket.head("in/1")
    assert [s.key for page in bucket.list("in", after="in/1") for s in page] == [
        "in/2",
        "in/deep/3",
    ]


def test_an_object_that_is_too_large_is_not_read(bucket):
    bucket.put("large", bytes(1000))
    with pytest.raises(TooLargeError, match="1,000 bytes") as caught:
        bucket.get("large", max_bytes=999)
    assert caught.value.n_bytes == 1000
    assert len(bucket.get("large", max_bytes=1000).data) == 1000


def test_a_bucket_is_opened_once_for_one_environment(bucket, s3, monkeypatch):
    assert open_bucket(f"s3://{s3.name}/a/key") is bucket
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert open_bucket(f"s3://{s3.name}/a/key") is not bucket


def test_not_all_buckets_that_are_named_are_kept(bucket, s3, monkeypatch):
    monkeypatch.setattr(_object_store, "_MOST_BUCKETS", 3)
    for i in range(9):
        open_bucket(f"s3://name-{i}")
        assert open_bucket(f"s3://{s3.name}") is bucket  # which is used all the time
    assert len(_object_store._buckets) == 3


def test_its_identity_is_its_place_without_credentials(bucket, s3):
    assert bucket.identity == f"s3://{s3.name} at {os.environ['AWS_ENDPOINT_URL']}"


def test_a_missing_bucket_is_named(s3):
    with pytest.raises(NoSuchObjectError, match="no such bucket"):
        open_bucket("s3://there-is-none").get("key")
    with pytest.raises(NoSuchObjectError, match="no such bucket"):
        next(open_bucket("s3://there-is-none").list())


def test_access_that_is_denied_is_named(answers):
    requests = answers(
        lambda connection: connection.sendall(
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 45\r\nConnection: close\r\n\r\n"
            b"<Error><Code>SignatureDoesNotMatch</Code></Err"
        )
    )
    with pytest.raises(ObjectStoreError, match="access denied") as caught:
        open_bucket("s3://bucket").get("key")
    assert caught.value.is_refused
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("answer", "refused", "unreachable"),
    [("400 Bad Request", True, False), ("429 Too Many Requests", False, True)],
)
def test_credentials_that_ended_are_a_refusal_and_too_many_requests_no_answer(
    answers, answer, refused, unreachable
):
    body = b"<Error><Code>ExpiredToken</Code></Error>" if refused else b""
    head = f"HTTP/1.1 {answer}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    answers(lambda connection: connection.sendall(head.encode() + body))
    with pytest.raises(ObjectStoreError) as caught:
        open_bucket("s3://bucket").get("key")
    assert (caught.value.is_refused, caught.value.is_unreachable) == (refused, unreachable)


def test_a_download_that_breaks_off_is_tried_again_and_then_an_error(answers):
    def some_bytes(connection):
        connection.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: "1"\r\n'
            b"Last-Modified: Sat, 28 Nov 2026 21:00:00 GMT\r\n\r\nthree"
        )
        connection.shutdown(socket.SHUT_RDWR)

    requests = answers(some_bytes)
    with pytest.raises(ObjectStoreError, match="broke off before its 100 bytes"):
        open_bucket("s3://bucket").get("key")
    assert len(requests) == 2


def test_a_server_that_hangs_is_given_up(answers, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_REMOTE_TIMEOUT", "0.2")
    answers(lambda connection: None)
    with pytest.raises(ObjectStoreError, match="did not answer in time") as caught:
        open_bucket("s3://bucket").get("key")
    assert caught.value.is_unreachable


def test_a_server_that_ends_each_connection_without_an_answer_can_not_be_reached(answers):
    requests = answers(lambda connection: connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(ObjectStoreError, match="the store can't be reached") as caught:
        open_bucket("s3://bucket").get("key")
    assert caught.value.is_unreachable
    assert len(requests) == 2


def test_a_server_that_fails_is_asked_again(answers):
    replies = iter(
        [
            b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "1"\r\nConnection: close\r\n'
            b"Last-Modified: Sat, 28 Nov 2026 21:00:00 GMT\r\n\r\nok",
        ]
    )
    answers(lambda connection: connection.sendall(next(replies)))
    assert open_bucket("s3://bucket").get("key").data == b"ok"


def test_a_profile_signs_where_the_environment_has_no_key(answers, monkeypatch, tmp_path):
    requests = answers(
        lambda connection: connection.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "1"\r\nConnection: close\r\n'
            b"Last-Modified: Sat, 28 Nov 2026 21:00:00 GMT\r\n\r\nok"
        )
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = OFPROFILE\naws_secret_access_key = hush\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert open_bucket("s3://bucket").get("key").data == b"ok"
    assert "Credential=OFPROFILE/" in requests[0]


@pytest.mark.parametrize(
    ("scheme", "variables", "place"),
    [
        ("gs", {"GOOGLE_BASE_URL": "{}", "GOOGLE_SKIP_SIGNATURE": "true"}, "gs://bucket at {}"),
        (
            "az",
            {
                "AZURE_STORAGE_ENDPOINT": "{}",
                "AZURE_STORAGE_ACCOUNT_NAME": "me",
                "AZURE_STORAGE_ACCOUNT_KEY": "aHVzaA==",
            },
            "az://bucket at me {}",
        ),
    ],
)
def test_other_stores_are_asked_at_their_endpoints(answers, monkeypatch, scheme, variables, place):
    requests = answers(
        lambda connection: connection.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "1"\r\nConnection: close\r\n'
            b"Last-Modified: Sat, 28 Nov 2026 21:00:00 GMT\r\n\r\nok"
        )
    )
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(endpoint))
    bucket = open_bucket(f"{scheme}://bucket/a.png")
    content = bucket.get("a.png")
    assert (content.data, content.status[:3]) == (b"ok", ("a.png", 2, '"1"'))
    assert bucket.identity == place.format(endpoint)
    assert requests[0].startswith("GET /bucket/a")


def test_no_server_is_an_error(monkeypatch, s3):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "0")
        with pytest.raises(ObjectStoreError, match="can't be reached") as caught:
            open_bucket("s3://bucket").get("key")
    assert caught.value.is_unreachable


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://user:password@bucket/key", "never from a URL"),
        ("s3:///key", "no name of a bucket"),
        ("s3://evil.example:80/key", "no name of a bucket"),
        ("s3://../key", "no name of a bucket"),
        ("ftp://bucket/key", "no object store"),
    ],
)
def test_a_url_that_names_no_bucket_is_refused(url, message):
    with pytest.raises(ObjectStoreError, match=message) as caught:
        split_object_url(url)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "/key", "a//b", "a/../b"])
def test_a_key_that_would_be_read_as_another_one_is_refused(bucket, s3, key):
    s3.put("key", b"another")
    s3.forget()
    with pytest.raises(ObjectStoreError, match="key"):
        bucket.get(key)
    assert s3.requests() == []


def test_a_store_that_is_not_allowed_is_not_asked(s3, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_REMOTE_SCHEMES", "https, gs")
    with pytest.raises(ObjectStoreError, match="s3:// is not allowed; allowed: gs, https"):
        open_bucket(f"s3://{s3.name}")
    assert s3.requests() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_of_a_process_that_has_read_is_an_error_and_does_not_hang(bucket, s3):
    bucket.put("key", b"content")
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        try:
            open_bucket(f"s3://{s3.name}").get("key")
        except ObjectStoreError as error:
            os.write(sending, str(error).encode())
        finally:
            if grandchild:
                os.waitpid(grandchild, 0)
            os._exit(0)
    os.close(sending)
    with open(receiving) as file:
        assert file.read().count("loky") == 2
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCHEMES", "https,ftp"),
        ("CONNECTIONS", "0"),
        ("CONNECTIONS", "2.5"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "inf"),
        ("RETRIES", "-1"),
        ("MAX_BYTES", "0"),
        ("MAX_BYTES", "268435457"),
        ("PRIVATE", "yes"),
    ],
)
def test_an_option_that_can_not_be_used_names_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"SKTRANSFER_REMOTE_{name}", value)
    with pytest.raises(ValueError, match=f"SKTRANSFER_REMOTE_{name}"):
        remote_options()


def test_texts_are_shown_without_users_passwords_and_queries():
    text = "GET https://me:secret@host/a?X-Amz-Signature=123 failed, at s3://bucket/b?c"
    assert redacted_text(text) == "GET https://host/a failed, at s3://bucket/b"
