"""A job of many images, divided into shards that any engine can run."""

import json
import numbers
import os
import random
import secrets
from functools import lru_cache
from typing import Any

from .._feature_transformer import PretrainedFeatureTransformer
from ..store._base import ActivationStore
from ._arrow import import_pyarrow
from ._confirmed import confirmed
from ._engines import check_engine, run_on
from ._folder import JobFolder
from ._manifest import Manifest, ManifestDigest, open_manifest, shards_of
from ._plan import RowPlan, with_files, without_files
from ._record import DTYPES, NAME, JobRecord, check_same, read_record
from ._remote_folder import open_folder
from ._shard import ROWS, manifest_name, shard_name, write_shard
from ._status import STARTED, SUCCESS, JobStatus, StatusReader, shards_in_place


class ExtractionJob:
    """Rows of many images, in shards that any number of processes compute.

    A shard is `rows_per_shard` images. `run_shard` computes one, and is the unit of
    work: it gives the same bytes wherever and however often it runs, and puts them in place
    in one step, only if they are not there. So a process may be killed at any time, a shard
    may be given to two, and several drivers may work on one folder. `run` divides all shards
    between the workers of an engine that you have: this process, joblib and dask, Ray, Spark.

    Making a job writes its folder: ``job.json``, which says what is computed, and the
    manifest, divided into the shards' parts. The same call finds the job that is there and
    goes on with it; another transformer or other images are an error that names what
    differs. Needs the extra ``sktransfer[jobs]``.

    Parameters
    ----------
    transformer : PretrainedFeatureTransformer
        What makes the rows; it need not be fitted, and is not changed. What would be decided
        on each machine, ``device="auto"`` and ``precision="auto"``, is decided now and
        written to ``job.json``. A backbone that is a file travels with the job. One of
        ``register_backbone`` must be registered in each worker.
    images : str, path-like, table, or sequence of str
        A Parquet file, a folder of these, a CSV file, a table of pandas, polars or pyarrow,
        or a list of the paths or URLs of the images.
    out : str or path-like
        The folder of the job, which all workers see under this name.
    column : str, default=None
        The column of the images in a table; the others are carried along. None is the only
        one, or "path" or "url".
    rows_per_shard : int, default=100_000
        Images of a shard. A worker that dies loses the shard that it computes.
    dtype : {"float32", "float16"}, default="float32"
        Of the rows in the shards. float16 takes half the bytes and keeps three digits; such
        rows can't be imported into a store.

    Attributes
    ----------
    out : str
        The folder, absolute.
    n_images, n_shards : int
        Images of the manifest, and shards.
    transformer : PretrainedFeatureTransformer
        Not fitted; with the device and the precision of this job. In a search, it asks
        the store for the rows that `import_rows` has put there.
    fingerprint : str
        A digest of what is computed of which images.

    Raises
    ------
    TypeError, ValueError
        When a parameter is not allowed, or the folder holds another job.
    ImportError
        When the extra is not installed.

    See Also
    --------
    load_rows : Reads the rows of a job.
    import_rows : Puts them into a store, so that searches compute nothing.

    Notes
    -----
    A shard has the columns ``path``, ``digest`` (of the image's content, 16 bytes),
    ``version`` (of an object by URL, 16 bytes; null for files), ``row`` (a list of fixed size)
    and ``error``, then those of the manifest. Where an image can't
    be read, its row and digest are null and ``error`` says why; no other row changes.
    An image by URL that failed is asked for once more; where its server does not answer,
    the shard is an error and is not written. URLs are written as they are given: they
    must hold no password and no signature.

    The store of activations is neither read nor written: rows that were computed in other
    batches differ in their last digits, and a shard would not have the same bytes
    each time. These bytes are those of one kind of processor and one version of torch and
    pyarrow; with others the last digits differ. In a worker, one thread
    computes a batch, and batches are divided between threads; memory does not grow with
    `rows_per_shard`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.jobs import ExtractionJob, load_rows
    >>> folder = Path(tempfile.mkdtemp())
    >>> for level in range(5):
    ...     Image.new("RGB", (32, 32), (50 * level, 0, 0)).save(folder / f"{level}.png")
    >>> images = sorted(map(str, folder.glob("*.png")))
    >>> transformer = PretrainedFeatureTransformer("mini", image_size=32, precision="float32")
    >>> job = ExtractionJob(transformer, images, folder / "job", rows_per_shard=2)
    >>> status = job.run()
    >>> status.n_shards_done, status.n_images_done, status.n_failures
    (3, 5, 0)
    >>> load_rows(job.out)["row"].shape
    (5, 256)
    """

    def __init__(
        self,
        transformer,
        images,
        out,
        *,
        column=None,
        rows_per_shard=100_000,
        dtype="float32",
    ):
        import_pyarrow()
        rows_per_shard = _as_int("rows_per_shard", rows_per_shard)
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, got {rows_per_shard}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
        folder = open_folder(out)
        plan = RowPlan(transformer)
        manifest = open_manifest(images, column)
        row = {**plan.row_values, "dtype": dtype}
        if folder.facts(NAME) is None:
            record = _make(folder, plan, manifest, row, rows_per_shard)
        else:
            record = read_record(folder)
            digest = ManifestDigest(manifest.schema)
            for batch in manifest.batches:
                digest.update(batch)
            here = JobRecord(
                with_files(plan.params, None),
                row,
                _images(manifest, digest),
                rows_per_shard,
                "",
            )
            check_same(folder, record.identity, here.identity, "holds another job")
        self._open(folder, record, plan)

    @classmethod
    def open(cls, out) -> "ExtractionJob":
        """Return the job of a folder, as a worker in another process does.

        Parameters
        ----------
        out : str or path-like
            The folder of a job.

        Returns
        -------
        job : ExtractionJob

        Raises
        ------
        FileNotFoundError
            When the folder holds no ``job.json``.
        ValueError
            When the code that is installed here would compute other rows; the message names
            what differs, such as the version of torch.
        """
        import_pyarrow()
        folder = open_folder(out)
        job = cls.__new__(cls)
        job._open(folder, read_record(folder), None)
        return job

    def _open(self, folder: JobFolder, record: JobRecord, plan: RowPlan | None) -> None:
        self._folder = folder
        self._record = record
        self._made_plan = plan
        self._status = StatusReader(folder, record)
        self.out = folder.name
        self.n_images = record.n_images
        self.n_shards = record.n_shards
        self.fingerprint = record.fingerprint

    def __reduce__(self):
        return ExtractionJob.open, (self.out,)

    def __repr__(self) -> str:
        return f"ExtractionJob({self.out!r}, {self.n_images:,} images, {self.n_shards:,} shards)"

    @property
    def transformer(self):
        return self._plan.make_transformer()

    @property
    def _plan(self) -> RowPlan:
        if self._made_plan is None:
            self._made_plan = plan_of(self._folder, self._record)
        return self._made_plan

    def run_shard(self, shard, *, n_jobs=None) -> bool:
        """Compute one shard, if it is not in place.

        Parameters
        ----------
        shard : int
            Its number, from 0.
        n_jobs : int, default=None
            Threads that read images and pass the network. None is one for each core that
            this process may use.

        Returns
        -------
        is_computed : bool
            False where the shard was in place. The shard is in place when the call returns.

        Raises
        ------
        ValueError
            When there is no such shard, or the code that is installed here would compute
            other rows than the job's.
        """
        return self._run_shard(shard, n_jobs)

    def _run_shard(
        self, shard: int, n_jobs: int | None, store: ActivationStore | None = None
    ) -> bool:
        shard = _as_int("shard", shard)
        if not 0 <= shard < self.n_shards:
            raise ValueError(f"shard must be from 0 to {self.n_shards - 1}, got {shard}")
        if self._folder.facts(shard_name(shard)) is not None:
            return False
        plan = self._plan
        write_shard(
            self._folder,
            self._record,
            shard,
            lambda paths: confirmed(
                paths, lambda: plan.extract(paths, n_jobs=n_jobs, store=store), plan.pixel_range
            ),
        )
        return True

    def run(self, engine="local", *, n_workers=None, cpus_per_worker=None, verbose=0) -> JobStatus:
        """Compute all shards that are not in place, and close the job.

        Parameters
        ----------
        engine : {"local", "joblib", "ray", "spark"}, default="local"
            Where shards are computed. ``"local"`` is this process. ``"joblib"`` is the
            backend of ``joblib.parallel_config``: processes of this machine, or dask's workers.
            ``"ray"`` and ``"spark"`` are the cluster or session that is active.
        n_workers : int, default=None
            Shards that are computed at the same time. None is what the engine has.
            Not for "local".
        cpus_per_worker : int, default=None
            Threads of a worker, for which the engine keeps as many cores. None is all cores
            for "local", the worker's share for "joblib", 1 for "ray", and ``spark.task.cpus``
            for "spark", which takes no other value.
        verbose : int, default=0
            As in the estimators.

        Returns
        -------
        status : JobStatus

        Raises
        ------
        ValueError
            When a parameter is not allowed.
        ImportError
            When the engine is not installed; the message names the extra.

        Notes
        -----
        An error in a worker ends the call; shards in place stay. Images that can't be
        read are no error.
        """
        check_engine(engine, n_workers, cpus_per_worker)
        shards = self._missing()
        if shards:
            self._folder.write(STARTED, b"")
            task = _TaskOfJob(self.out, self._record)
            with self._status.shown(verbose):
                run_on(engine, task, shards, n_workers, cpus_per_worker)
        return self.close()

    def _missing(self) -> list[int]:
        done = shards_in_place(self._folder, self._record)
        missing = [shard for shard in range(self.n_shards) if shard not in done]
        # in one order, two drivers that start together would compute each shard twice
        random.SystemRandom().shuffle(missing)
        return missing

    def close(self) -> JobStatus:
        """Write ``_SUCCESS`` if all shards are in place, and remove what was left aside.

        `run` calls it, and the command line where the last shard is in place.

        Returns
        -------
        status : JobStatus
        """
        status = self.status()
        if status.n_shards_done < status.n_shards:
            return status
        if not status.is_complete:
            facts = {
                "fingerprint": self.fingerprint,
                "n_images": self.n_images,
                "n_failures": status.n_failures,
            }
            with self._folder.new_file(SUCCESS) as aside:
                aside.write_bytes(json.dumps(facts).encode() + b"\n")
            status = self.status()
        self._folder.clear(ROWS)  # a driver may have been killed after another closed the job
        return status

    def status(self) -> JobStatus:
        """Return how far the job is: shards, images, failures, speed and time left.

        Any process may ask: what it says is read from the folder.

        Returns
        -------
        status : JobStatus
            Prints as a table.

        Raises
        ------
        ValueError
            When a shard is damaged or of another job; the message names it.
        """
        return self._status.read()


class _TaskOfJob:
    """Computes shards in a worker, which opens the job, and loads its network, once."""

    def __init__(self, out: str, record: JobRecord):
        self._out = out
        self._fingerprint = record.fingerprint
        self._manifest = record.manifest
        self.uses_gpu = record.transformer["device"] == "cuda"

    def __call__(self, shard: int, cpus: int | None) -> bool:
        return _opened(self._out, self._fingerprint, self._manifest).run_shard(shard, n_jobs=cpus)


@lru_cache(maxsize=4)
def _opened(out: str, fingerprint: str, manifest: str) -> ExtractionJob:
    # The manifest too: the folder of a deleted job may hold the same job, made anew.
    job = ExtractionJob.open(out)
    if (job.fingerprint, job._record.manifest) != (fingerprint, manifest):
        raise ValueError(f"{out} holds another job by now; run the job again")
    return job


def plan_of(folder: JobFolder, record: JobRecord) -> RowPlan:
    """Return the plan of a job, after a check that this process computes the same rows."""
    params = without_files(record.transformer, folder)
    plan = RowPlan(PretrainedFeatureTransformer(**params))
    there = {name: value for name, value in record.row.items() if name != "dtype"}
    check_same(folder, there, plan.row_values, "has rows that the code here would not compute")
    return plan


def _make(
    folder: JobFolder, plan: RowPlan, manifest: Manifest, row: dict[str, Any], rows_per_shard: int
) -> JobRecord:
    """Write the manifest's parts and job.json; return the job that is there then."""
    from pyarrow import parquet

    # a folder of its own: what a killed process left of another manifest is never read
    where = f"manifest-{secrets.token_hex(4)}/"
    digest = ManifestDigest(manifest.schema)
    n_parts = 0
    try:
        for part in shards_of(manifest, rows_per_shard):
            digest.update(part)
            with folder.new_file(manifest_name(where, n_parts)) as aside:
                parquet.write_table(part, aside, compression="zstd", row_group_size=2**16)
            n_parts += 1
    except BaseException:  # also an interrupt: nothing else would remove these parts
        _remove_parts(folder, where, n_parts)
        raise
    if not n_parts:
        raise ValueError("images holds no image: a job needs at least one")
    record = JobRecord(
        with_files(plan.params, folder),
        row,
        _images(manifest, digest),
        rows_per_shard,
        where,
    )
    with folder.new_file(NAME) as aside:
        aside.write_bytes(record.to_json())
    there = read_record(folder)
    if there.manifest != where:  # another driver was first
        _remove_parts(folder, where, n_parts)
        check_same(folder, there.identity, record.identity, "holds another job")
    return there


def _remove_parts(folder: JobFolder, where: str, n_parts: int) -> None:
    for shard in range(n_parts):
        folder.remove(manifest_name(where, shard))


def _as_int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {value!r}")
    return int(value)


def _images(manifest: Manifest, digest: ManifestDigest) -> dict[str, Any]:
    return {
        "n_rows": digest.n_rows,
        "digest": digest.hexdigest(),
        "columns": {field.name: str(field.type) for field in manifest.schema},
        # workers may run in another folder
        "relative_to": os.getcwd() if digest.has_relative_paths else None,
    }
