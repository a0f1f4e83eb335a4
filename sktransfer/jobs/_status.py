"""How far a job is: read from its folder, by any process."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .._text_table import html_table, table
from ..runtime._display import Display, spelled
from ._folder import JobFolder
from ._record import NAME, JobRecord
from ._shard import ROWS, own_fields, read_facts, shard_name

SUCCESS = "_SUCCESS"
_BETWEEN_LOOKS = 2.0  # s, of a display at the folder
_AT_ONCE = 8  # files whose ends are read at the same time
STARTED = "started"  # written by each `run`, so that a pause is no part of the speed


@dataclass(frozen=True)
class JobStatus:
    """How far a job is. It prints as a table.

    Attributes
    ----------
    out : str
        The folder of the job.
    n_shards, n_shards_done : int
        All shards, and those that are in place.
    n_images, n_images_done : int
        All images, and those of shards that are in place.
    n_failures : int
        Images of these that can't be read; their rows are null.
    images_per_second : float or None
        Over all workers, since `run` was last called or the job was made, up to the shard
        that was put in place last. None where no shard was put in place since.
    seconds_left : float or None
        For the images that are left, at this speed.
    is_complete : bool
        Whether all shards are in place and the job was closed: the file _SUCCESS is there too.
    """

    out: str
    n_shards: int
    n_shards_done: int
    n_images: int
    n_images_done: int
    n_failures: int
    images_per_second: float | None
    seconds_left: float | None
    is_complete: bool

    _HEADER = ("", "done", "of")

    def _rows(self) -> list[tuple[str, str | None, str | None]]:
        return [
            ("shards", f"{self.n_shards_done:,}", f"{self.n_shards:,}"),
            ("images", f"{self.n_images_done:,}", f"{self.n_images:,}"),
            ("failures", f"{self.n_failures:,}", None),
            ("images/s", _number(self.images_per_second), None),
            ("time left", None if self.seconds_left is None else spelled(self.seconds_left), None),
        ]

    def _headline(self) -> str:
        return f"{self.out}: {'complete' if self.is_complete else 'not complete'}"

    def __repr__(self) -> str:
        return f"{self._headline()}\n{table(self._HEADER, self._rows())}"

    def _repr_html_(self) -> str:
        return html_table(self._HEADER, self._rows(), self._headline())


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shards_in_place(folder: JobFolder, record: JobRecord) -> dict[int, float]:
    """Return the shards that are in place, and when they were put there."""
    listed = folder.list(ROWS)
    shards = {}
    for name, facts in listed.items():
        number = name.removeprefix(ROWS).removesuffix(".parquet")
        # names alone are read: a job may have more shards than its folder has files
        if number.isascii() and number.isdigit() and name == shard_name(shard := int(number)):
            shards[shard] = facts.time
    return {shard: time for shard, time in shards.items() if shard < record.n_shards}


class StatusReader:
    """Reads the status of a job; what a shard says of itself is read once.

    Parameters
    ----------
    folder : JobFolder
    record : JobRecord
    """

    def __init__(self, folder: JobFolder, record: JobRecord):
        self._folder = folder
        self._record = record
        self._failures: dict[int, int] = {}

    def read(self) -> JobStatus:
        """Return the status now.

        Raises
        ------
        ValueError
            When a shard is of another job, or damaged.
        """
        record = self._record
        done = shards_in_place(self._folder, record)
        new = sorted(done.keys() - self._failures.keys())
        for shard, facts in zip(new, check_shards(self._folder, record, new), strict=True):
            self._failures[shard] = facts["failures"]
        n_done = sum(record.n_rows_of(shard) for shard in done)
        speed = self._speed(done)
        left = record.n_images - n_done
        return JobStatus(
            out=self._folder.name,
            n_shards=record.n_shards,
            n_shards_done=len(done),
            n_images=record.n_images,
            n_images_done=n_done,
            n_failures=sum(self._failures[shard] for shard in done),
            images_per_second=speed,
            seconds_left=0.0 if not left else left / speed if speed else None,
            is_complete=len(done) == record.n_shards and self._folder.facts(SUCCESS) is not None,
        )

    @contextmanager
    def shown(self, verbose: int) -> Iterator[None]:
        """Show the images of shards that come to the folder, whoever computes them."""
        seen, ended = self.read().n_images_done, threading.Event()
        n_images = self._record.n_images
        with Display("job", n_images, "images", initial=seen, verbose=verbose) as display:

            def show() -> None:
                nonlocal seen
                status = self.read()
                display.set_note(f"{status.n_failures} failures")
                display.update(status.n_images_done - seen)
                seen = status.n_images_done

            def watch() -> None:
                # what is wrong with a shard is raised when the job is closed
                with suppress(ValueError, OSError):
                    while not ended.wait(_BETWEEN_LOOKS):
                        show()

            watcher = threading.Thread(target=watch, name="sktransfer-job", daemon=True)
            watcher.start()
            try:
                yield
            finally:
                ended.set()
                watcher.join()
            show()

    def _speed(self, done: Mapping[int, float]) -> float | None:
        facts = self._folder.facts(STARTED) or self._folder.facts(NAME)
        assert facts is not None  # the record was read from it
        since = {shard: time for shard, time in done.items() if time > facts.time}
        if not since:
            return None
        seconds = max(since.values()) - facts.time
        return sum(map(self._record.n_rows_of, since)) / seconds


def check_shards(
    folder: JobFolder, record: JobRecord, shards: Iterable[int]
) -> list[dict[str, Any]]:
    """Return what each of these shards says of itself; raise ValueError for one that is none."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # in a bucket, each waits for an answer
        return list(pool.map(lambda shard: read_shard_facts(folder, record, shard), shards))


def read_shard_facts(folder: JobFolder, record: JobRecord, shard: int) -> dict[str, Any]:
    """Return what a shard in place says of itself; raise ValueError where it is no such shard."""
    import pyarrow
    from pyarrow import parquet

    name = shard_name(shard)
    source = folder.open_to_read(name)
    try:
        metadata = parquet.read_metadata(source)
        schema = metadata.schema.to_arrow_schema()
    except (pyarrow.ArrowException, OSError) as error:
        # pyarrow's own errors of content have no number; those of a disk or a server do
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{folder.name}/{name} is damaged ({error}); delete it and run the job again"
        ) from None
    facts = read_facts(metadata)
    expected = (record.fingerprint, shard, record.n_rows_of(shard))
    failures = facts.get("failures")
    if (
        (facts.get("fingerprint"), facts.get("shard"), metadata.num_rows) != expected
        or not isinstance(failures, int)
        or not 0 <= failures <= metadata.num_rows
    ):
        raise ValueError(
            f"{folder.name}/{name} is not shard {shard} of this job; delete it and run the job "
            "again"
        )
    for field in own_fields(sum(record.row["widths"]), record.row["dtype"]):
        place = schema.get_field_index(field.name)
        if place < 0 or schema.field(place).type != field.type:
            raise ValueError(
                f"{folder.name}/{name} has no column {field.name!r} of type {field.type}: it is "
                "damaged; delete it and run the job again"
            )
    return facts
