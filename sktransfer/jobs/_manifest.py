"""Which images a job reads: a table of paths and what goes with them, divided into shards.

The user's manifest is read once, in batches. A shard's part of it is a file of its own in the
folder of the job, so a worker reads that and nothing else, whatever the size of the whole.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._object_store import redacted_text
from ._arrow import import_pyarrow
from ._remote_folder import open_folder

# the columns of a shard that are ours
PATH, DIGEST, VERSION, ROW, ERROR = "path", "digest", "version", "row", "error"
_OWN = (PATH, DIGEST, VERSION, ROW, ERROR)

_BATCH_ROWS = 2**16
_ABSOLUTE = r"^(/|[A-Za-z]:[\\/]|\\\\|[A-Za-z][A-Za-z0-9+.-]*://)"
_DIGEST_SIZE = 16
_ALLOWED = (
    "the path or URL of a Parquet or CSV file, the path of a folder of Parquet files, a table of "
    "pandas, polars or pyarrow, or a list of paths or URLs"
)


class Manifest(NamedTuple):
    """A table of images: its schema, and its batches.

    The first column is `PATH`, the others are carried along.
    """

    schema: Any  # pyarrow.Schema
    batches: Iterator[Any]  # of pyarrow.Table


def open_manifest(images: Any, column: str | None) -> Manifest:
    """Return the table of `images`, with the column of the images first.

    Raises
    ------
    TypeError
        When `images` is of another kind, or the images' column holds no strings.
    ValueError
        When there is no such column, or two columns would have one name.
    """
    pa = import_pyarrow()
    if isinstance(images, (str, os.PathLike)):
        schema, batches = _of_file(os.fspath(images))
    elif isinstance(images, pa.Table):
        schema, batches = images.schema, iter(images.to_batches(_BATCH_ROWS))
    elif hasattr(images, "columns"):
        table = images.to_arrow() if hasattr(images, "to_arrow") else _of_pandas(images)
        schema, batches = table.schema, iter(table.to_batches(_BATCH_ROWS))
    else:
        return _of_list(images, column)
    name = _image_column(schema.names, column)
    carried = [other for other in schema.names if other != name]
    clash = sorted(set(carried) & set(_OWN))
    if clash:
        raise ValueError(
            f"the manifest has a column {clash[0]!r} beside that of the images, and a shard has "
            f"columns {', '.join(_OWN)} of its own; rename it"
        )
    wanted = pa.schema([(PATH, pa.string()), *(_plain(schema.field(other)) for other in carried)])
    return Manifest(wanted, (_chosen(pa, batch, name, carried, wanted) for batch in batches))


def _of_file(path: str) -> tuple[Any, Iterator[Any]]:
    from pyarrow import parquet

    is_parquet = path.lower().endswith((".parquet", ".pq"))
    if path.lower().endswith(".csv"):
        from pyarrow import csv

        reader = csv.open_csv(_source(path))
        return reader.schema, iter(reader)
    if not is_parquet and ("://" in path or not os.path.isdir(path)):
        raise ValueError(f"images must be {_ALLOWED}, got {redacted_text(path)!r}")
    is_folder = "://" not in path and os.path.isdir(path)
    files = sorted(map(str, Path(path).rglob("*.parquet"))) if is_folder else [path]
    if not files:
        raise ValueError(f"images={path!r} is a folder without a Parquet file")
    return parquet.read_schema(_source(files[0])), _batches_of(files)


def _batches_of(files: list[str]) -> Iterator[Any]:
    from pyarrow import parquet

    for file in files:
        # not by a data set, which reads ahead: memory must not grow with the manifest
        with parquet.ParquetFile(_source(file)) as opened:
            yield from opened.iter_batches(batch_size=_BATCH_ROWS)


def _source(path: str) -> Any:
    """Return what pyarrow reads a file by: its path, or an object of a store."""
    if "://" not in path:
        return path
    folder, _, name = path.rpartition("/")
    return open_folder(folder, "images").open_to_read(name)


def _of_pandas(frame: Any) -> Any:
    pa = import_pyarrow()
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def _of_list(images: Any, column: str | None) -> Manifest:
    pa = import_pyarrow()
    if column is not None:
        raise ValueError(f"column={column!r} is for a table, and images is {_kind(images)}")
    if isinstance(images, (bytes, dict)) or not hasattr(images, "__len__"):
        raise TypeError(f"images must be {_ALLOWED}, got {_kind(images)}")
    for position, cell in enumerate(images):
        if not isinstance(cell, (str, os.PathLike)):
            raise TypeError(
                f"images[{position}] is {_kind(cell)}; the images of a job are paths or URLs, "
                "which every worker can read"
            )
    schema = pa.schema([(PATH, pa.string())])
    starts = range(0, len(images), _BATCH_ROWS)
    return Manifest(
        schema,
        (
            pa.table(
                {PATH: pa.array([os.fspath(c) for c in images[i : i + _BATCH_ROWS]], pa.string())}
            )
            for i in starts
        ),
    )


def _image_column(names: list[str], column: str | None) -> str:
    if column is None:
        if len(names) == 1:
            return names[0]
        found = [name for name in names if name in (PATH, "url")]
        if len(found) != 1:
            raise ValueError(
                f"column=None, and the manifest has the columns {', '.join(names)}; name that of "
                "the paths or URLs of the images"
            )
        return found[0]
    if column not in names:
        raise ValueError(
            f"column={column!r} is not in the manifest, which has {', '.join(map(str, names))}"
        )
    return column


def _plain(field: Any) -> Any:
    """Return a field as it is carried: without what only one library reads."""
    pa = import_pyarrow()
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_nested(kind):
        raise ValueError(
            f"the manifest's column {field.name!r} is of type {kind}; numbers, texts, dates and "
            "the like are carried along"
        )
    if _is_text(pa, kind):
        kind = pa.string()  # libraries differ in which kind of text they have
    return pa.field(field.name, kind)


def _is_text(pa: Any, kind: Any) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _chosen(pa: Any, batch: Any, name: str, carried: list[str], wanted: Any) -> Any:
    missing = [other for other in (name, *carried) if other not in batch.schema.names]
    if missing:  # the files of a folder
        raise ValueError(f"a later part of the manifest has no column {missing[0]!r}")
    table = pa.table({PATH: batch[name], **{other: batch[other] for other in carried}})
    kind = table.schema.field(PATH).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (_is_text(pa, kind) or pa.types.is_null(kind)):
        raise TypeError(
            f"the column {name!r} of the images holds {kind}; the images of a job are paths or URLs"
        )
    return table.cast(wanted)


def shards_of(manifest: Manifest, rows_per_shard: int) -> Iterator[Any]:
    """Yield tables of `rows_per_shard` rows, the last one of what is left."""
    pa = import_pyarrow()
    waiting: list[Any] = []
    n_waiting = 0
    for batch in manifest.batches:
        start = 0
        while start < len(batch):
            part = batch.slice(start, rows_per_shard - n_waiting)
            start += len(part)
            n_waiting += len(part)
            waiting.append(part)
            if n_waiting == rows_per_shard:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting, n_waiting = [], 0
    if n_waiting:
        yield pa.concat_tables(waiting).combine_chunks()


class ManifestDigest:
    """A digest of all values of a manifest, the same however it is stored and divided."""

    def __init__(self, schema: Any):
        self._pa = import_pyarrow()
        # lengths and texts of a column are two streams, whose values don't depend on batches
        self._lengths = [hashlib.blake2b(digest_size=_DIGEST_SIZE) for _ in schema.names]
        self._texts = [hashlib.blake2b(digest_size=_DIGEST_SIZE) for _ in schema.names]
        self._names = [f"{field.name}|{field.type}" for field in schema]
        self.n_rows = 0
        self.has_relative_paths = False

    def update(self, table: Any) -> None:
        """Add the rows of a table."""
        from pyarrow import compute

        self.n_rows += len(table)
        paths = table[PATH]
        if not self.has_relative_paths:
            absolute = compute.match_substring_regex(paths, _ABSOLUTE)
            self.has_relative_paths = compute.all(absolute, min_count=0).as_py() is False
        streams = zip(self._lengths, self._texts, table.columns, strict=True)
        for of_lengths, of_texts, column in streams:
            texts = compute.cast(column, self._text_type(column.type)).combine_chunks()
            if isinstance(texts, self._pa.ChunkedArray):  # of no chunk, or an older pyarrow
                texts = self._pa.concat_arrays(texts.chunks)
            lengths = compute.fill_null(compute.binary_length(texts), -1)
            of_lengths.update(np.asarray(lengths, dtype="<i8").tobytes())
            _, offsets, data = texts.buffers()
            if data is not None:
                ends = np.frombuffer(offsets, dtype="<i8")[texts.offset :][: len(texts) + 1]
                of_texts.update(memoryview(data)[ends[0] : ends[-1]])

    def _text_type(self, kind: Any) -> Any:
        types = self._pa.types
        is_bytes = types.is_binary(kind) or types.is_large_binary(kind)
        if is_bytes or types.is_fixed_size_binary(kind):
            return self._pa.large_binary()
        return self._pa.large_string()

    def hexdigest(self) -> str:
        """Return the digest of what was added."""
        hasher = hashlib.blake2b(str(self.n_rows).encode(), digest_size=_DIGEST_SIZE)
        for name, lengths, texts in zip(self._names, self._lengths, self._texts, strict=True):
            hasher.update(f"|{name}|".encode() + lengths.digest() + texts.digest())
        return hasher.hexdigest()


def absolute_paths(paths: list[str | None], base: str | None) -> list[str | None]:
    """Return paths as a worker in another folder reads them; `base` is None for absolute ones."""
    if base is None:
        return paths
    return [
        path if path is None or re.match(_ABSOLUTE, path) else os.path.join(base, path)
        for path in paths
    ]


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"
