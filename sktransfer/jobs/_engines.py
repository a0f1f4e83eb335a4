"""The engines that divide shards between workers: this process, joblib, Ray and Spark.

Each is given the numbers of shards and a task, which is a few words of text. A worker opens
the job by its folder, so no image, row or network is sent. What an engine does when a worker
dies is its own: a shard that is computed twice is put in place once.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import joblib

ENGINES = ("local", "joblib", "ray", "spark")
_RETRIES = 3  # times that Ray computes a shard again, whose worker died
_MESSAGE = "engine={!r} needs {}: pip install 'sktransfer[{}]'"


class ShardTask(Protocol):
    """Computes a shard in a worker; pickled by reference, so the worker imports it."""

    uses_gpu: bool

    def __call__(self, shard: int, cpus: int | None) -> bool:
        """Compute a shard in `cpus` threads; return whether it was not in place."""


def check_engine(engine: str, n_workers: int | None, cpus: int | None) -> None:
    """Raise an error that names the parameter of `run` which is not allowed."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")
    for name, value in (("n_workers", n_workers), ("cpus_per_worker", cpus)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} must be an int or None, got {value!r}")
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if engine == "local" and n_workers is not None:
        raise ValueError(
            f"n_workers={n_workers} is for the other engines; engine='local' is this process, and "
            "cpus_per_worker is its number of threads"
        )


def run_on(
    engine: str, task: ShardTask, shards: Sequence[int], n_workers: int | None, cpus: int | None
) -> None:
    """Compute shards in the workers of an engine, and return when all are in place."""
    if engine == "local":
        for shard in shards:
            task(shard, cpus)
    elif engine == "joblib":
        _run_joblib(task, shards, n_workers, cpus)
    elif engine == "ray":
        _run_ray(task, shards, n_workers, cpus)
    else:
        _run_spark(task, shards, n_workers, cpus)


def _run_joblib(
    task: ShardTask, shards: Sequence[int], n_workers: int | None, cpus: int | None
) -> None:
    """Use the backend that is active: loky's processes, or dask's workers.

    The environment tells loky's and dask's processes their share of the cores.
    """
    _, active = joblib.parallel.get_active_backend()
    n_jobs = n_workers if n_workers is not None else (-1 if active in (None, 1) else active)
    # one shard at a time: a worker that dies takes nothing else with it
    joblib.Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch="2*n_jobs")(
        joblib.delayed(task)(shard, cpus) for shard in shards
    )


def _run_ray(
    task: ShardTask, shards: Sequence[int], n_workers: int | None, cpus: int | None
) -> None:
    """Use tasks of Ray.

    Not actors: Ray gives a task to another worker where one dies, and what an actor would hold,
    the network, stays in the process of a task from one shard to the next. Not Ray Data: rows
    would go through its object store, and its files get new names in every run.
    """
    try:
        import ray
    except ImportError:
        raise ImportError(_MESSAGE.format("ray", "Ray", "ray")) from None
    n_cpus = cpus or 1
    if not ray.is_initialized():
        ray.init()
    if n_workers is None:
        n_workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // n_cpus)
    remote = ray.remote(_call).options(
        num_cpus=n_cpus, num_gpus=1 if task.uses_gpu else 0, max_retries=_RETRIES
    )
    waiting = list(reversed(shards))
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                running.append(remote.remote(task, waiting.pop(), n_cpus))
            ended, running = ray.wait(running)
            ray.get(ended)  # raises what the worker raised
    finally:
        for reference in running:
            ray.cancel(reference)


def _call(task: ShardTask, shard: int, cpus: int) -> bool:
    return task(shard, cpus)


def _run_spark(
    task: ShardTask, shards: Sequence[int], n_workers: int | None, cpus: int | None
) -> None:
    """Use the tasks of Spark's active session, one for each shard."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise ImportError(_MESSAGE.format("spark", "Spark", "spark")) from None
    session = SparkSession.getActiveSession()
    if session is None:
        raise ValueError("engine='spark' uses the active session: start one by SparkSession")
    n_cpus = int(session.conf.get("spark.task.cpus", "1"))
    if cpus not in (None, n_cpus):
        raise ValueError(
            f"cpus_per_worker={cpus}, and each task of this Spark session has {n_cpus}: "
            "spark.task.cpus says so when the session starts; leave cpus_per_worker=None"
        )
    # A shard is a task of Spark, which is what Spark computes again where one fails. Fewer
    # workers than it has cores are fewer and longer tasks.
    n_tasks = len(shards) if n_workers is None else min(len(shards), n_workers)
    numbers = session.range(0, len(shards), 1, n_tasks)
    # not an RDD, which Spark Connect has not
    numbers.mapInArrow(_OnBatches(task, list(shards), n_cpus), "n long").collect()


class _OnBatches:
    """What a task of Spark does with batches of places in the list of shards."""

    def __init__(self, task: ShardTask, shards: list[int], cpus: int):
        self._task = task
        self._shards = shards
        self._cpus = cpus

    def __call__(self, batches: Any) -> Iterator[Any]:
        import pyarrow

        n_computed = 0
        for batch in batches:
            for place in batch.column(0).to_pylist():
                n_computed += self._task(self._shards[place], self._cpus)
        yield pyarrow.RecordBatch.from_pydict({"n": [n_computed]})
