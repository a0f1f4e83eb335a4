"""The rows of a job, as NumPy, pandas, polars or Arrow have them."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from ..exceptions import ImageFailure, ImageReadError
from ..images._url import described, is_url
from ._arrow import import_pyarrow
from ._folder import JobFolder
from ._manifest import DIGEST, ERROR, PATH, ROW, VERSION
from ._record import JobRecord, read_record
from ._remote_folder import open_folder
from ._shard import manifest_name, shard_name, shard_schema
from ._status import check_shards, shards_in_place

OUTPUTS = ("numpy", "pandas", "polars", "arrow")


def load_rows(out, *, output="numpy", columns=None, on_error="raise", partial=False):
    """Return the rows of an `ExtractionJob`, in the order of its images.

    Parameters
    ----------
    out : str or path-like
        The folder of the job.
    output : {"numpy", "pandas", "polars", "arrow"}, default="numpy"
        ``"numpy"`` is arrays by name. ``"pandas"`` and ``"polars"`` are tables, in which
        the column ``row`` holds an array for each image. ``"arrow"`` is a
        ``pyarrow.dataset.Dataset``, which reads when it is asked: for rows that do not fit in
        memory.
    columns : list of str, default=None
        The columns to read; None is all: "path", "digest", "version", "row", "error", then
        those of the manifest. Not for "arrow", which is told when it is read.
    on_error : {"raise", "nan"}, default="raise"
        What arrays hold for images that can't be read: an error that lists them, or rows of
        NaN. Tables and data sets have a null there.
    partial : bool, default=False
        Whether a job whose shards are not all in place may be read. Only whole shards are.

    Returns
    -------
    rows : Bunch, pandas.DataFrame, polars.DataFrame or pyarrow.dataset.Dataset
        In a Bunch, ``row`` has the shape (n_images, width) and the job's dtype, ``digest`` and
        ``version`` (n_images, 16) and uint8; other columns are one-dimensional.

    Raises
    ------
    ValueError
        When shards are missing, damaged or of another job, or a parameter is not allowed.
    ImageReadError
        Lists the images that can't be read.
    FileNotFoundError
        When the folder holds no job.
    ImportError
        When what reads it is not installed.

    See Also
    --------
    ExtractionJob : Writes them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from PIL import Image
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.jobs import ExtractionJob, load_rows
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png"):
    ...     Image.new("RGB", (32, 32)).save(folder / name)
    >>> table = pd.DataFrame({"path": map(str, sorted(folder.glob("*.png"))), "label": [0, 1]})
    >>> transformer = PretrainedFeatureTransformer("mini", image_size=32)
    >>> job = ExtractionJob(transformer, table, folder / "job")
    >>> status = job.run()
    >>> rows = load_rows(job.out, columns=["row", "label"])
    >>> rows["row"].shape, rows["label"].tolist()
    ((2, 256), [0, 1])
    """
    import_pyarrow()
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(map(repr, OUTPUTS))}, got {output!r}")
    if on_error not in ("raise", "nan"):
        raise ValueError(f"on_error must be 'raise' or 'nan', got {on_error!r}")
    if output == "arrow" and columns is not None:
        raise ValueError("columns is not for output='arrow'; name them in to_batches or to_table")
    folder = open_folder(out)
    record = read_record(folder)
    data = dataset_of(folder, record, shards_to_read(folder, record, partial))
    if output == "arrow":
        return data
    unknown = [name for name in columns or () if name not in data.schema.names]
    if unknown:
        there = ", ".join(data.schema.names)
        raise ValueError(f"columns={columns!r}: there is no {unknown[0]!r}; there are {there}")
    if output == "numpy":
        return _arrays(data, data.schema.names if columns is None else columns, on_error)
    table = data.to_table(columns=columns)
    if output == "pandas":
        return table.to_pandas()
    try:
        import polars
    except ImportError:
        raise ImportError("output='polars' needs polars: pip install polars") from None
    return polars.from_arrow(table)


def shards_to_read(folder: JobFolder, record: JobRecord, partial: bool = False) -> list[int]:
    """Return the shards in place; raise ValueError where some are missing or not of this job."""
    shards = sorted(shards_in_place(folder, record))
    if len(shards) < record.n_shards and not partial:
        raise ValueError(
            f"{folder.name} has {len(shards)} of {record.n_shards} shards: run the job to its "
            "end, or read what is there with partial=True"
        )
    check_shards(folder, record, shards)  # also of a closed job: a file may be replaced since
    return shards


def dataset_of(folder: JobFolder, record: JobRecord, shards: list[int]) -> Any:
    """Return the data set of shards, in their order; nothing is read of rows."""
    from pyarrow import dataset, parquet

    filesystem, root = folder.filesystem()
    images = parquet.read_schema(folder.open_to_read(manifest_name(record.manifest, 0)))
    schema = shard_schema(images, sum(record.row["widths"]), record.row["dtype"])
    return dataset.FileSystemDataset.from_paths(
        [f"{root}/{shard_name(shard)}" for shard in shards],
        schema=schema.remove_metadata(),
        format=dataset.ParquetFileFormat(
            default_fragment_scan_options=dataset.ParquetFragmentScanOptions(
                page_checksum_verification=True,
                pre_buffer=False,  # which would hold a whole shard
            )
        ),
        filesystem=filesystem,
    )


def _arrays(data: Any, names: list[str], on_error: str) -> Bunch:
    """Return the columns as arrays; rows are copied once, a batch at a time."""
    if not {ROW, DIGEST, VERSION} & set(names):
        return Bunch(**{n: data.to_table(columns=[n])[n].to_numpy() for n in names})
    if on_error == "raise" and ROW in names:
        _raise_failures(data)
    others = [name for name in names if name not in (ROW, DIGEST, VERSION)]
    table = data.to_table(columns=others)
    found = {name: table[name].to_numpy() for name in others}
    n_images = data.count_rows()
    for name in (ROW, DIGEST, VERSION):
        if name in names:
            nulls_are_errors = on_error == "raise" and name == ROW
            found[name] = _matrix(data, name, n_images, nulls_are_errors)
    return Bunch(**{name: found[name] for name in names})


def _matrix(data: Any, name: str, n_images: int, nulls_are_errors: bool) -> np.ndarray:
    matrix: np.ndarray | None = None
    start = 0
    for batch in data.to_batches(columns=[name], batch_readahead=2, fragment_readahead=1):
        if nulls_are_errors and batch.column(name).null_count:
            raise ValueError(  # failures, which have an error, were raised before
                "an image has neither a row nor an error: its shard was changed; delete it and "
                "run the job again"
            )
        part = rows_of(batch.column(name)) if name == ROW else digests_of(batch.column(name))
        if matrix is None:
            matrix = np.empty((n_images, part.shape[1]), part.dtype)
        matrix[start : start + len(part)] = part
        start += len(part)
    if matrix is None:
        return np.empty((0, 0), np.float32)
    return matrix


def rows_of(column: Any) -> np.ndarray:
    """Return the rows (n, width) of an Arrow array of lists of fixed size; NaN for null."""
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    # what lies beneath a null is not defined
    rows = np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), width)
    if column.null_count:
        rows = rows.copy()
        rows[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return rows


def digests_of(column: Any) -> np.ndarray:
    """Return the digests (n, 16), uint8; zeros for null."""
    size = column.type.byte_width
    data = b"".join(value or bytes(size) for value in column.to_pylist())
    return np.frombuffer(data, np.uint8).reshape(len(column), size)


def _described(path: str | None) -> str:
    """Return the name of an image in errors; that of a URL is without its password."""
    return described(path) if path is not None and is_url(path) else str(path)


def _raise_failures(data: Any) -> None:
    failures: list[ImageFailure] = []
    n_images = 0
    for batch in data.to_batches(columns=[PATH, ERROR]):
        if batch.column(ERROR).null_count < len(batch):
            pairs = zip(
                batch.column(PATH).to_pylist(), batch.column(ERROR).to_pylist(), strict=True
            )
            failures += [
                ImageFailure(n_images + place, _described(path), reason)
                for place, (path, reason) in enumerate(pairs)
                if reason is not None
            ]
        n_images += len(batch)
    if failures:
        raise ImageReadError(failures, n_images)
