"""Images by URL are read ahead of those who decode them: a read waits, and decoding computes."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)

import numpy as np

from .._remote_options import remote_options
from ..exceptions import DecodeError
from ._image_ref import ImageReference, RemoteImage
from ._remote import Unanswered

# Encoded images that were read and wait for their turn: about 2,500 photographs of 100 kB.
_HELD_BYTES = 2**28


class _NoRoomError(Exception):
    """Too much is held already; the image is read when its turn comes."""


class ReadAhead(Sequence):
    """The images of a collection; those by URL are requested before they are asked for.

    What is by URL comes as an encoded image in memory, or raises DecodeError; other images come
    as they are. To be closed, or used in a ``with`` block.

    Parameters
    ----------
    images : sequence of ImageReference
    order : iterable of int
        Positions in the order in which they will be asked for, more or less.
    n_bytes : int
        Most bytes that wait for their turn.
    """

    def __init__(
        self,
        images: Sequence[ImageReference],
        order: Iterable[int],
        n_bytes: int = _HELD_BYTES,
    ):
        self._images = images
        self._order = order
        self._n_bytes = n_bytes
        self._held = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None  # until there is an image by URL
        self._queue = np.empty(0, dtype=np.int64)
        self._place: np.ndarray = self._queue  # of each position in the queue
        self._next = 0
        self._futures: dict[int, Future] = {}
        self._n_connections = 0
        self._unanswered = Unanswered(0)  # until the options are read
        self._is_closed = False
        self._end: Future = Future()  # which those wait for as well that wait for an image

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(  # type: ignore[override]  # nothing asks for slices
        self, index: int
    ) -> ImageReference:
        image = self._images[index]
        if not isinstance(image, RemoteImage):
            return image
        with self._lock:
            if self._is_closed:
                raise _ended()
            self._submit_until(index)
            future = self._futures.pop(index, None)
        if future is not None:
            if not future.done():
                wait((future, self._end), return_when=FIRST_COMPLETED)
                if not future.done():
                    raise _ended()
            try:
                encoded, n_held = future.result()
            except (_NoRoomError, CancelledError):
                pass
            else:
                with self._lock:
                    self._held -= n_held
                return encoded
        return self._read(image)[0]

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was read and not asked for; no further image by URL is read."""
        with self._lock:
            pool, self._is_closed = self._pool, True
            self._futures.clear()
            if not self._end.done():
                self._end.set_result(None)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit_until(self, position: int) -> None:
        """Request all images up to some way behind a position."""
        if self._pool is None:
            self._n_connections = remote_options().connections
            self._unanswered = Unanswered(max(self._n_connections, 8))
            self._queue = np.fromiter(self._order, dtype=np.int64)
            self._place = np.full(len(self._images), -1, dtype=np.int64)
            self._place[self._queue] = np.arange(len(self._queue))
            self._pool = ThreadPoolExecutor(self._n_connections, "sktransfer-remote")
        end = min(int(self._place[position]) + 1 + self._n_connections, len(self._queue))
        while self._next < end:
            ahead = int(self._queue[self._next])
            self._next += 1
            image = self._images[ahead]
            if isinstance(image, RemoteImage):
                self._futures[ahead] = self._pool.submit(self._read, image, True)

    def _read(self, image: RemoteImage, is_ahead: bool = False) -> tuple[ImageReference, int]:
        """Return an image in memory, and the bytes that were counted as held for it."""
        self._unanswered.check(image.url)
        n_held = 0

        def admit(n_bytes: int) -> None:
            nonlocal n_held
            with self._lock:
                self._held -= n_held  # of an attempt that failed
                n_held = 0
                if self._held + n_bytes > self._n_bytes:
                    raise _NoRoomError
                self._held += n_bytes
                n_held = n_bytes

        try:
            encoded = image.encoded(admit if is_ahead else None)
        except BaseException as error:
            with self._lock:
                self._held -= n_held
            if isinstance(error, DecodeError):
                self._unanswered.note(image.url, error)
            raise
        self._unanswered.note(image.url, None)
        return encoded, n_held


def _ended() -> DecodeError:
    # After Ctrl-C, a batch that is under way ends with what it has. It does not wait for each of
    # its other images as long as a server may take.
    return DecodeError("not read, as the call has ended")
