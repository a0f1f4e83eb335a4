"""Images by URL are requested before they are asked for, within bounds."""

import threading

import pytest

from sktransfer.exceptions import DecodeError
from sktransfer.images import _image_ref
from sktransfer.images._collection import as_images
from sktransfer.images._read_ahead import ReadAhead
from sktransfer.images._remembered import RememberedImages
from sktransfer.images._remote import RemoteContent, UnreachableError

N = 40
X = [f"s3://bucket/{i}" for i in range(N)]


class Store:
    """Stands for the network: notes what is fetched, and how many fetches are under way."""

    def __init__(self):
        self.lock = threading.Lock()
        self.fetched, self.n_now, self.n_most = [], 0, 0
        self.hold = threading.Event()
        self.hold.set()
        self.failing = None
        self.n_bytes = 10

    def fetch(self, url, admit=None):
        with self.lock:
            self.fetched.append(int(url.rpartition("/")[2]))
            self.n_now += 1
            self.n_most = max(self.n_most, self.n_now)
        try:
            self.hold.wait(30)
            if self.failing is not None:
                raise self.failing
            if admit is not None:
                admit(self.n_bytes)
            return RemoteContent(url.encode(), None)
        finally:
            with self.lock:
                self.n_now -= 1


@pytest.fixture
def store(monkeypatch):
    store = Store()
    monkeypatch.setattr(_image_ref, "fetch", store.fetch)
    monkeypatch.setenv("SKTRANSFER_REMOTE_CONNECTIONS", "8")
    return store


def wait_until(condition):
    done = threading.Event()
    for _ in range(3000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it never came to that")


def test_each_image_is_fetched_once_and_is_its_own(store):
    order = list(range(N - 1, -1, -1))
    with ReadAhead(as_images(X), order) as images:
        for position in order:
            assert images[position].data == X[position].encode()
            assert images[position - 1 if position else 0].describe() == X[max(position - 1, 0)]
    assert sorted(set(store.fetched)) == list(range(N))


def test_as_many_requests_are_under_way_as_allowed_and_no_more(store):
    store.hold.clear()
    with ReadAhead(as_images(X), range(N)) as images:
        asking = threading.Thread(target=lambda: images[0])
        asking.start()
        wait_until(lambda: store.n_now == 8)
        store.hold.set()
        asking.join()
        for position in range(1, N):
            images[position]
    assert store.n_most == 8
    assert sorted(store.fetched) == list(range(N))


def test_what_is_far_ahead_is_not_fetched(store):
    with ReadAhead(as_images(X), range(N)) as images:
        images[0]
        wait_until(lambda: len(store.fetched) == 9)
    assert max(store.fetched) == 8


def test_no_more_bytes_are_held_than_allowed(store):
    with ReadAhead(as_images(X), range(N), n_bytes=25) as images:
        images[0]
        wait_until(lambda: len(store.fetched) >= 9 and store.n_now == 0)
        assert images._held <= 25
        for position in range(1, N):
            assert images[position].data == X[position].encode()
        assert images._held == 0
    # what found no room was asked for again when its turn came
    assert N < len(store.fetched) <= 2 * N


def test_files_and_arrays_come_as_they_are_and_start_nothing(store):
    images = as_images(["a.png", "b.png"])
    with ReadAhead(images, range(2)) as ahead:
        assert ahead[0] == images[0]
        assert ahead._pool is None
    assert store.fetched == []


def test_after_it_is_closed_nothing_is_read(store):
    images = ReadAhead(as_images([*X, "a.png"]), range(N))
    assert images[0].data == X[0].encode()
    images.close()
    wait_until(lambda: store.n_now == 0)
    n_before = len(store.fetched)
    for position in (1, N - 1):  # one of them may have been read ahead
        with pytest.raises(DecodeError, match="the call has ended"):
            images[position]
    assert len(store.fetched) == n_before
    assert images[N].describe() == "a.png"


def test_who_waits_for_an_image_when_it_is_closed_does_not_wait_on(store):
    store.hold.clear()
    images = ReadAhead(as_images(X), range(N))
    reasons = []

    def ask():
        try:
            images[0]
        except DecodeError as error:
            reasons.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: store.n_now == 8)
    images.close()
    asking.join(20)  # the store answers after 30 seconds
    assert reasons == ["not read, as the call has ended"]
    store.hold.set()


def test_an_image_that_fails_is_an_error_where_it_is_asked_for(store):
    with ReadAhead(as_images(X), range(N)) as images:
        images[0]
        store.failing = DecodeError("no such object")
        wait_until(lambda: store.n_now == 0)
        with pytest.raises(DecodeError, match="no such object"):
            images[20]
        store.failing = None
        assert images[39].data == X[39].encode()


def test_when_no_answer_comes_for_long_the_rest_is_not_asked_for(store):
    store.failing = UnreachableError("the store can't be reached")
    reasons = []
    with ReadAhead(as_images(X), range(N)) as images:
        for position in range(N):
            with pytest.raises(DecodeError) as caught:
                images[position]
            reasons.append(str(caught.value))
    assert reasons[0] == "the store can't be reached"
    assert reasons[-1] == "not asked for: no answer came for the images before it"
    assert 8 <= len(store.fetched) <= 8 + 8  # those that were under way


def test_one_server_that_does_not_answer_does_not_stop_another(store):
    urls = [f"s3://dead/{i}" for i in range(20)] + [f"s3://alive/{i}" for i in range(20)]
    fetch = store.fetch

    def half(url, admit=None):
        if "dead" in url:
            raise UnreachableError("the store can't be reached")
        return fetch(url, admit)

    _image_ref.fetch = half  # which the fixture restores
    with ReadAhead(as_images(urls), range(40)) as images:
        for position in range(20):
            with pytest.raises(DecodeError):
                images[position]
        assert [images[position].data for position in range(20, 40)] == [
            url.encode() for url in urls[20:]
        ]


def test_an_error_that_is_none_of_an_image_is_raised_as_it_is(store):
    store.failing = ImportError("pip install")
    with ReadAhead(as_images(X), range(N)) as images, pytest.raises(ImportError):
        images[0]


def test_images_that_are_remembered_are_fetched_once(store):
    images = RememberedImages(as_images(X))
    for _ in range(2):
        with ReadAhead(images, range(N)) as ahead:
            for position in range(N):
                assert ahead[position].describe() == X[position]
    assert sorted(store.fetched) == list(range(N))
    images.forget()
    images[3].encoded()
    assert store.fetched.count(3) == 2


def test_no_more_bytes_are_remembered_than_allowed(store):
    images = RememberedImages(as_images(X), n_bytes=len(X[0]) * 5)
    for _ in range(2):
        for position in range(10):
            images[position].encoded()
    assert len(store.fetched) == 10 + 5
