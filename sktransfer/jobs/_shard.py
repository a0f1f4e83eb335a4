"""One shard: rows of its images, written as a Parquet file of the same bytes each time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..extraction._extract import Extraction
from ..images._fingerprint import DIGEST_SIZE
from ._arrow import import_pyarrow
from ._folder import JobFolder
from ._manifest import DIGEST, ERROR, PATH, ROW, VERSION, absolute_paths
from ._record import CHUNK, JobRecord

ROWS = "rows/"
_METADATA = b"sktransfer"


def shard_name(shard: int) -> str:
    """Return the name of a shard's rows; names sort as numbers do."""
    return f"{ROWS}{shard:07d}.parquet"


def manifest_name(folder: str, shard: int) -> str:
    """Return the name of a shard's part of the manifest."""
    return f"{folder}{shard:07d}.parquet"


def write_shard(
    folder: JobFolder,
    record: JobRecord,
    shard: int,
    compute: Callable[[list[str | None]], Extraction],
) -> None:
    """Compute the rows of a shard and put its file in place, unless it is there by then."""
    import_pyarrow()
    from pyarrow import parquet

    images = parquet.ParquetFile(folder.open_to_read(manifest_name(record.manifest, shard)))
    width = sum(record.row["widths"])
    dtype = np.dtype(record.row["dtype"])
    schema = shard_schema(images.schema_arrow, width, dtype.name)
    n_rows = n_failures = 0
    with folder.new_file(shard_name(shard)) as aside, _writer(aside, schema) as writer:
        for batch in images.iter_batches(batch_size=CHUNK):
            paths = absolute_paths(batch.column(PATH).to_pylist(), record.images["relative_to"])
            part = _part(batch, compute(paths), schema, dtype)
            writer.write_table(part, row_group_size=CHUNK)
            n_rows += len(part)
            n_failures += part[DIGEST].null_count
        if n_rows != record.n_rows_of(shard):
            raise ValueError(
                f"{folder.name}/{manifest_name(record.manifest, shard)} holds {n_rows} images, "
                f"expected {record.n_rows_of(shard)}: it was changed; make the job anew"
            )
        facts = {"fingerprint": record.fingerprint, "shard": shard, "failures": n_failures}
        writer.add_key_value_metadata({_METADATA.decode(): json.dumps(facts)})


def shard_schema(manifest: Any, width: int, dtype: str) -> Any:
    """Return the columns of a shard, from those of its part of the manifest."""
    pa = import_pyarrow()
    carried = [field for field in manifest if field.name != PATH]
    return pa.schema([manifest.field(PATH), *own_fields(width, dtype), *carried])


def own_fields(width: int, dtype: str) -> list[Any]:
    """Return the columns that a shard has beside those of the manifest."""
    pa = import_pyarrow()
    values = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    return [
        pa.field(DIGEST, pa.binary(DIGEST_SIZE)),
        pa.field(VERSION, pa.binary(DIGEST_SIZE)),
        # the name of the values is part of the file's columns, and differs between versions
        pa.field(ROW, pa.list_(pa.field("element", values), width)),
        pa.field(ERROR, pa.string()),
    ]


def _writer(path: Path, schema: Any) -> Any:
    from pyarrow import parquet

    return parquet.ParquetWriter(
        path,
        schema,
        compression="zstd",
        # values of rows hardly repeat; their bytes, sorted by significance, do
        use_dictionary=[name for name in schema.names if name not in (ROW, DIGEST, VERSION)],
        use_byte_stream_split=[f"{ROW}.list.element"],
        write_page_checksum=True,
        store_schema=True,
    )


def _part(batch: Any, extraction: Extraction, schema: Any, dtype: np.dtype) -> Any:
    """Return the table of some images and their rows."""
    pa = import_pyarrow()
    n, width = len(batch), schema.field(ROW).type.list_size
    errors: list[str | None] = [None] * n
    for failure in extraction.failures:
        errors[failure.position] = failure.reason
    rows = extraction.values
    if len(extraction.failures) == n:  # no image told the width
        rows = np.zeros((n, width), dtype=np.float32)
    if dtype == np.float16:
        rows = _rounded(rows, errors)
    is_failed = np.array([error is not None for error in errors])
    digests = np.ascontiguousarray(extraction.digests).tobytes()
    return pa.table(
        {
            PATH: batch.column(PATH),
            DIGEST: pa.array(
                [
                    None if is_failed[i] else digests[DIGEST_SIZE * i : DIGEST_SIZE * (i + 1)]
                    for i in range(n)
                ],
                pa.binary(DIGEST_SIZE),
            ),
            VERSION: pa.array(
                [None if is_failed[i] else extraction.versions.get(i) for i in range(n)],
                pa.binary(DIGEST_SIZE),
            ),
            ROW: pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(rows).ravel()),
                type=schema.field(ROW).type,
                mask=pa.array(is_failed),
            ),
            ERROR: pa.array(errors, pa.string()),
            **{name: batch.column(name) for name in batch.schema.names if name != PATH},
        },
        schema=schema,
    )


def _rounded(rows: np.ndarray, errors: list[str | None]) -> np.ndarray:
    """Return rows in float16; one with a value beyond its range is no row."""
    with np.errstate(over="ignore"):
        rounded = rows.astype(np.float16)
    lost = np.isfinite(rows) & ~np.isfinite(rounded)
    for i in np.flatnonzero(lost.any(axis=1)):
        if errors[i] is None:
            errors[i] = (
                f"its row has the value {np.abs(rows[i]).max():g}, which float16 can't hold; "
                "use dtype='float32'"
            )
    return rounded


def read_facts(metadata: Any) -> dict[str, Any]:
    """Return fingerprint, number and failures of a shard from the metadata of its file.

    What others wrote may be anything: where it is no such record, nothing is returned.
    """
    try:
        facts = json.loads((metadata.metadata or {}).get(_METADATA, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
