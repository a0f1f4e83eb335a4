"""Put the rows of a job into a store, so that searches compute none of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._text_table import html_table, table
from ..exceptions import DecodeError
from ..images._collection import as_images
from ..store._base import ActivationStore
from ..store._key import row_key
from ..store._limit import format_size
from ..store._store import open_store
from ._arrow import import_pyarrow
from ._extraction_job import plan_of
from ._folder import JobFolder
from ._load_rows import rows_of, shards_to_read
from ._manifest import DIGEST, PATH, ROW, VERSION, absolute_paths
from ._plan import RowPlan, common_keys
from ._record import JobRecord, read_record
from ._remote_folder import open_folder
from ._shard import shard_name

# Rows of one put. Each put writes pages of the store's tables that many rows share, and waits for
# the disk.
_ROWS_AT_ONCE = 2**15
_BYTES_AT_ONCE = 2**25
_MARGIN = 1.3  # of the store, for keys and tables
_SMALL_ROW = 200  # bytes of a key and its places, which count where rows are small

# What a row may differ by, of its largest value: rounding in other batches and on another kind
# of processor. Rows of another network or image differ by more.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True)
class ImportedRows:
    """What `import_rows` did. It prints as a table.

    Attributes
    ----------
    n_rows : int
        Rows that were put into the store, or were there.
    n_failures : int
        Images without a row, or with one that is not finite. Such a row is not put into the
        store: an estimator computes it.
    n_checked : int
        Images that were read and computed here, whose rows are those of the job.
    transformer : PretrainedFeatureTransformer
        Not fitted; it asks the store for these rows.
    """

    n_rows: int
    n_failures: int
    n_checked: int
    transformer: Any

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("rows", f"{self.n_rows:,}"),
            ("failures", f"{self.n_failures:,}"),
            ("checked", f"{self.n_checked:,}"),
        ]

    def __repr__(self) -> str:
        return table(("imported", ""), self._rows())

    def _repr_html_(self) -> str:
        return html_table(("imported", ""), self._rows())


def import_rows(out, *, feature_cache="auto", check=8, partial=False) -> ImportedRows:
    """Put the rows of an `ExtractionJob` into a store.

    Estimators that use the store then compute none of them: no image passes the network. A
    search reads each file once, to learn which content it has; of an object by URL it asks for
    the version alone, and reads it where that is not the job's.

    Parameters
    ----------
    out : str or path-like
        The folder of the job.
    feature_cache : str, path-like or list of these, default="auto"
        The store, as in the estimators. Of a list, the last one is written to.
    check : int, default=8
        Rows to compute here and to compare, of images spread over the job that can be read
        here. 0 computes none.
    partial : bool, default=False
        Whether a job whose shards are not all in place may be imported.

    Returns
    -------
    imported : ImportedRows

    Raises
    ------
    ValueError
        When the installed code would compute other rows, by what ``job.json`` says or by the
        rows that were checked; when rows are float16, which are rounded; when the store's limit
        is too small; when shards are missing or damaged.
    FileNotFoundError
        When the folder holds no job.
    OSError
        When the store can't be written.

    See Also
    --------
    export_rows : The other way.

    Notes
    -----
    A stored row is what the installed code would compute. So every ingredient of its key is
    compared: the weights, loaded here, what the network computes with them, preprocessing,
    arithmetic, and the versions of libraries. What a folder says of the content of its images
    can't be compared without the images: import from folders that you trust, and let
    `check` find mistakes. Nothing that is read runs code.

    Which file has which content is not imported: a file of the same path may be another one
    here. Which version of an object has which content is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sktransfer import PretrainedFeatureTransformer, count_forward_passes
    >>> from sktransfer.jobs import ExtractionJob, import_rows
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (32, 32)).save(folder / "a.png")
    >>> images = [str(folder / "a.png")]
    >>> transformer = PretrainedFeatureTransformer("mini", image_size=32)
    >>> status = ExtractionJob(transformer, images, folder / "job").run()
    >>> imported = import_rows(folder / "job", feature_cache=folder / "store")
    >>> transformer = imported.transformer.set_params(feature_cache=folder / "store")
    >>> with count_forward_passes() as counter:
    ...     rows = transformer.fit_transform(images)
    >>> counter.computed
    0
    """
    import_pyarrow()
    if isinstance(check, bool) or not isinstance(check, int) or check < 0:
        raise ValueError(f"check must be an int of at least 0, got {check!r}")
    folder = open_folder(out)
    record = read_record(folder)
    if record.row["dtype"] != "float32":
        raise ValueError(
            f"{folder.name} has rows in {record.row['dtype']}, which are rounded, and a store "
            "keeps rows as they were computed; make the job with dtype='float32'"
        )
    store = open_store(feature_cache)
    if store is None:
        raise ValueError("feature_cache must name a store to import to, got None")
    shards = shards_to_read(folder, record, partial)
    plan = plan_of(folder, record)  # raises where this code would compute other rows
    _check_limit(record, shards, store)
    n_checked = _check_rows(folder, record, shards, plan, check)
    n_rows, last = _put_all(folder, record, shards, store)
    if last is not None and store.get_many([last])[0] is None:
        raise OSError(
            f"the store {store.path} did not keep the rows: it can't be written, or is too small "
            "(see the warnings)"
        )
    n_images = sum(map(record.n_rows_of, shards))
    transformer = plan.make_transformer(feature_cache=feature_cache)
    return ImportedRows(n_rows, n_images - n_rows, n_checked, transformer)


def _check_limit(record: JobRecord, shards: list[int], store: ActivationStore) -> None:
    value_bytes = 4 if record.transformer["precision"] == "float32" else 2
    row_bytes = value_bytes * sum(record.row["widths"]) + _SMALL_ROW
    needed = int(_MARGIN * row_bytes * sum(map(record.n_rows_of, shards)))
    if needed > store.limit:
        raise ValueError(
            f"the rows need about {format_size(needed)}, and the store {store.path} may use "
            f"{format_size(store.limit)}: set SKTRANSFER_CACHE_LIMIT, or name a store on a larger "
            "disk, or train on the rows of load_rows"
        )


def _put_all(
    folder: JobFolder, record: JobRecord, shards: list[int], store: ActivationStore
) -> tuple[int, bytes | None]:
    """Put the rows of shards; return their number and the last key."""
    from pyarrow import parquet

    commons = common_keys(record.row)
    ends = np.cumsum(record.row["widths"])
    at_once = max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (4 * int(ends[-1]))))
    n_rows, last = 0, None
    for shard in shards:
        file = parquet.ParquetFile(
            folder.open_to_read(shard_name(shard)), page_checksum_verification=True
        )
        for batch in file.iter_batches(batch_size=at_once, columns=[DIGEST, VERSION, ROW]):
            rows = rows_of(batch.column(ROW))
            digests = batch.column(DIGEST).to_pylist()
            # a null is no row, nor is NaN, whoever wrote it beside a digest
            is_row = [
                digest is not None and is_finite
                for digest, is_finite in zip(digests, np.isfinite(rows).all(axis=1), strict=True)
            ]
            items = {}
            for common, end, width in zip(commons, ends, record.row["widths"], strict=True):
                own = rows[:, end - width : end]
                for digest, row, is_stored in zip(digests, own, is_row, strict=True):
                    if is_stored:
                        last = row_key(common, digest)
                        items[last] = row
            store.put_many(items)
            versions = batch.column(VERSION).to_pylist()
            store.put_digests(
                {
                    version: digest
                    for version, digest in zip(versions, digests, strict=True)
                    if version is not None and digest is not None
                }
            )
            n_rows += sum(is_row)
        file.close()
    return n_rows, last


def _check_rows(
    folder: JobFolder, record: JobRecord, shards: list[int], plan: RowPlan, wanted: int
) -> int:
    """Compute some rows here, and raise ValueError where one is not the job's; return how many."""
    from pyarrow import parquet

    if not wanted or not shards:
        return 0
    chosen = [shards[i] for i in np.unique(np.linspace(0, len(shards) - 1, wanted, dtype=int))]
    each = -(-wanted // len(chosen))
    n_checked = 0
    for shard in chosen:
        file = parquet.ParquetFile(folder.open_to_read(shard_name(shard)))
        group = file.metadata.num_row_groups // 2
        some = file.read_row_group(group, columns=[PATH, DIGEST, ROW]).combine_chunks()
        places = np.unique(np.linspace(0, len(some) - 1, 4 * each, dtype=int))
        some = some.take(places).combine_chunks()
        paths = absolute_paths(some[PATH].to_pylist(), record.images["relative_to"])
        digests = some[DIGEST].to_pylist()
        rows = rows_of(_one(some[ROW]))
        here = [
            place
            for place, (path, digest) in enumerate(zip(paths, digests, strict=True))
            if digest is not None and _has_digest(path, plan, digest)
        ][: min(each, wanted - n_checked)]
        if here:
            _compare(plan, [paths[i] for i in here], rows[here], record)
            n_checked += len(here)
        file.close()
    return n_checked


def _one(column: Any) -> Any:
    combined = column.combine_chunks()
    return combined.chunk(0) if hasattr(combined, "chunk") else combined


def _has_digest(path: str | None, plan: RowPlan, digest: bytes) -> bool:
    """Return whether a file of this path is here, with the content that the job read."""
    if path is None:
        return False
    try:
        return as_images([path], pixel_range=plan.pixel_range)[0].digest() == digest
    except DecodeError:
        return False


def _compare(plan: RowPlan, paths: list[str | None], rows: np.ndarray, record: JobRecord) -> None:
    computed = plan.extract(paths).values
    off = np.abs(computed - rows).max(axis=1) / np.maximum(np.abs(computed).max(axis=1), 1e-6)
    tolerance = _TOLERANCE[record.transformer["precision"]]
    wrong = np.flatnonzero(~(off <= tolerance))
    if len(wrong):
        raise ValueError(
            f"the row of {paths[wrong[0]]} differs from what is computed here, by "
            f"{off[wrong[0]]:.2g} of its largest value: the folder's rows are not those of its "
            "job.json"
        )
