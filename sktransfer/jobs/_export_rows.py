"""Write rows of a store as the folder of a job, for others to read or to import."""

from ..store._store import open_store
from ._extraction_job import ExtractionJob
from ._status import JobStatus


def export_rows(
    transformer, images, out, *, column=None, rows_per_shard=100_000, dtype="float32"
) -> JobStatus:
    """Write the rows that a store has of images as the folder of a job.

    The folder is that of an `ExtractionJob`: `load_rows` and `import_rows` read it. Images
    whose rows are not stored pass the network, and their rows are stored too.

    Parameters
    ----------
    transformer : PretrainedFeatureTransformer
        What made the rows; its `feature_cache` is the store.
    images, out, column, rows_per_shard, dtype
        As in `ExtractionJob`.

    Returns
    -------
    status : JobStatus

    Raises
    ------
    TypeError, ValueError
        When a parameter is not allowed, the transformer has no store, or the folder holds
        another job.

    See Also
    --------
    ExtractionJob : Computes rows in many processes, without a store.

    Notes
    -----
    The last digits of a stored row depend on the batch in which it was computed, so two
    exports may differ by them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.jobs import export_rows, load_rows
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (32, 32)).save(folder / "a.png")
    >>> images = [str(folder / "a.png")]
    >>> transformer = PretrainedFeatureTransformer(
    ...     "mini", image_size=32, feature_cache=folder / "store"
    ... )
    >>> rows = transformer.fit_transform(images)
    >>> export_rows(transformer, images, folder / "rows").is_complete
    True
    >>> bool((load_rows(folder / "rows")["row"] == rows).all())
    True
    """
    store = open_store(getattr(transformer, "feature_cache", None))
    if store is None:
        raise ValueError(
            "transformer must be a PretrainedFeatureTransformer whose feature_cache is a store, "
            f"got {transformer!r}"
        )
    job = ExtractionJob(
        transformer, images, out, column=column, rows_per_shard=rows_per_shard, dtype=dtype
    )
    for shard in job._missing():
        job._run_shard(shard, None, store)
    return job.close()
