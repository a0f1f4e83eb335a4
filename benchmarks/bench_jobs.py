"""A job that is killed 50 times has the bytes of one that is not, on every engine.

    python benchmarks/bench_jobs.py CIFAR10.zip [--images 10000] [--kills 50]

20 shards of CIFAR-10 pass `mini` in float32.

- undisturbed: one process of one thread. What all others are compared with, byte for byte.
- kills: a driver is killed by SIGKILL after a random time, 50 times; shards in place are not
  touched. Where a job ends before, the next one begins.
- two drivers: both begin at once on one folder, and one of them is killed.
- engines with two workers each, where they are installed: the time of a job, and of one in which
  a worker is killed after the second shard; where the engine gives up, `run` is called again.

Claim: all shards have the bytes of the undisturbed job, and none was written twice. The seconds of
the engines are beside those of one process with two threads, measured just before.
Five to ten minutes on 2 cores. Linux.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import joblib
import psutil

from _report import in_own_process, write_csv
from sktransfer import PretrainedFeatureTransformer
from sktransfer.jobs import ExtractionJob, load_rows

N_SHARDS = 20
ENGINES = {"loky": "joblib", "dask": "distributed", "ray": "ray", "spark": "pyspark"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", help="cifar10.zip, or the folder of its images")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--folder", help="for the jobs; default: a temporary one")
    parser.add_argument("--variant")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(run_variant(options.variant, options)))
        return
    folder = tempfile.mkdtemp(prefix="bench-jobs-", dir=options.folder)
    images = extract_images(options.archive, folder, options.images)
    common = (images, "--folder", folder, "--images", options.images, "--kills", options.kills)
    variants = ["undisturbed", "kills", "two drivers"]
    variants += [name for name, module in ENGINES.items() if find_spec(module)]
    rows = []
    for variant in variants:
        rows.append({"variant": variant, **in_own_process(__file__, variant, *common)})
        print(rows[-1], flush=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_csv("bench_jobs", [{name: row.get(name, "") for name in names} for row in rows])
    shutil.rmtree(folder)
    assert all(row["equal"] and row["touched"] == 0 for row in rows)
    wanted = {"undisturbed": "", "kills": options.kills}
    assert all(row.get("kills", "") == wanted.get(row["variant"], 1) for row in rows)


def extract_images(archive, folder, n):
    """Write the first images of each class to files; return their folder."""
    where = Path(folder) / "images"
    where.mkdir()
    with zipfile.ZipFile(archive) as members:
        names = sorted(name for name in members.namelist() if name.startswith("train/"))
        for i, name in enumerate(names[:: len(names) // n][:n]):
            (where / f"{i:05d}.jpg").write_bytes(members.read(name))
    return str(where)


def make_job(options, name):
    transformer = PretrainedFeatureTransformer(
        "mini", image_size=32, precision="float32", device="cpu"
    )
    images = sorted(str(path) for path in Path(options.archive).iterdir())
    return ExtractionJob(
        transformer,
        images,
        Path(options.folder) / name,
        rows_per_shard=-(-len(images) // N_SHARDS),
    )


def digests(job):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((Path(job.out) / "rows").iterdir())
    }


class Committed:
    """What is in place: a shard that changes afterwards is counted as touched."""

    def __init__(self, job):
        self._rows = Path(job.out) / "rows"
        self._seen = {}
        self.touched = 0

    def look(self):
        for path in self._rows.glob("[0-9]*"):
            status = path.stat()
            facts = (status.st_ino, status.st_mtime_ns, status.st_size)
            self.touched += self._seen.setdefault(path.name, facts) != facts
        return len(self._seen)


def compare(options, job, committed, **figures):
    """Return the figures, and whether the job's bytes are those of the undisturbed one."""
    committed.look()
    undisturbed = ExtractionJob.open(Path(options.folder) / "undisturbed")
    rows = load_rows(job.out)
    return {
        **figures,
        "images": len(rows.path),
        "equal": digests(job) == digests(undisturbed) and job.status().is_complete,
        "twice": len(rows.path) - len(set(rows.path)),
        "missing": job.n_images - len(rows.path),
        "touched": committed.touched,
    }


def run_variant(variant, options):
    if variant == "undisturbed":
        return run_undisturbed(options)
    if variant == "kills":
        return run_kills(options)
    if variant == "two drivers":
        return run_two_drivers(options)
    return run_engine(variant, options)


def run_undisturbed(options):
    job = make_job(options, "undisturbed")
    start = time.perf_counter()
    cpu = time.process_time()
    job.run(cpus_per_worker=1)
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    n_bytes = sum(path.stat().st_size for path in (Path(job.out) / "rows").iterdir())
    return {
        **compare(options, job, Committed(job)),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "images_per_second": round(job.n_images / seconds, 1),
        "images_per_cpu_second": round(job.n_images / cpu, 1),
        "bytes_per_image": round(n_bytes / job.n_images, 1),
    }


def start_driver(out):
    """Fork a process that runs a job in one thread; return its id."""
    pid = os.fork()
    if pid == 0:
        ExtractionJob.open(out).run(cpus_per_worker=1, verbose=-1)
        os._exit(0)
    return pid


def run_kills(options):
    chance = random.Random(0)
    kills = n_jobs = touched = 0
    equal, figures, longest = True, {}, 1.0
    while kills < options.kills:
        n_jobs += 1
        job = make_job(options, f"kills {n_jobs}")
        committed = Committed(job)
        while kills < options.kills and not job.status().is_complete:
            pid = start_driver(job.out)
            end = time.monotonic() + chance.uniform(0.02, longest)
            while time.monotonic() < end and os.waitpid(pid, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except ChildProcessError:  # it had ended by itself
                status = 0
            kills += status == -signal.SIGKILL
            committed.look()
        left = len(list((Path(job.out) / "rows").glob(".*"))) if kills else 0
        pid = start_driver(job.out)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        figures = compare(options, job, committed, left_aside_before_the_last=left)
        equal &= figures["equal"]
        touched += figures["touched"]
    return {**figures, "kills": kills, "jobs": n_jobs, "equal": equal, "touched": touched}


def run_two_drivers(options):
    job = make_job(options, "two drivers")
    committed = Committed(job)
    pids = [start_driver(job.out) for _ in range(2)]
    while committed.look() < N_SHARDS // 2:
        time.sleep(0.01)
    os.kill(pids[0], signal.SIGKILL)
    exits = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert exits == [-signal.SIGKILL, 0], exits
    return compare(options, job, committed, kills=1)


@contextlib.contextmanager
def engine(name):
    """Start an engine of two workers; yield what `run` is called with, and their processes."""
    if name == "loky":
        # started before the clock, as the others are
        joblib.Parallel(n_jobs=2)(joblib.delayed(warm)() for _ in range(8))
        yield {"engine": "joblib", "n_workers": 2}, lambda: processes_like("popen_loky")
    elif name == "dask":
        from dask.distributed import Client, LocalCluster

        with (
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
            joblib.parallel_config("dask"),
        ):
            client.run(warm)
            yield {"engine": "joblib"}, lambda: list(client.run(os.getpid).values())
    elif name == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        ray.get([ray.remote(warm).remote() for _ in range(2)])
        yield {"engine": "ray", "n_workers": 2}, lambda: processes_like("ray::")
        ray.shutdown()
    else:
        os.environ["PYSPARK_PYTHON"] = sys.executable
        from pyspark.sql import SparkSession

        session = (
            SparkSession.builder.master("local[2,4]")
            .config("spark.ui.enabled", "false")
            .config("spark.log.level", "OFF")
            .getOrCreate()
        )
        session.range(0, 2, 1, 2).mapInArrow(warm_batches, "id long").collect()
        yield {"engine": "spark"}, lambda: processes_like("pyspark.daemon", leaves=True)
        session.stop()


def warm():
    import sktransfer.jobs  # noqa: F401

    time.sleep(0.2)  # so that no worker takes the tasks of two


def warm_batches(batches):
    warm()
    yield from batches


def processes_like(text, leaves=False):
    """Return the ids of descendants by a part of their command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            is_one = any(text in part for part in process.cmdline())
            if is_one and not (leaves and process.children()):
                found.append(process.pid)
    return found


def run_engine(name, options):
    alone = make_job(options, f"{name} beside")
    start = time.perf_counter()
    alone.run(cpus_per_worker=2)
    one_process = time.perf_counter() - start
    start = time.perf_counter()
    with engine(name) as (params, workers):
        start_seconds = time.perf_counter() - start
        job = make_job(options, name)
        start = time.perf_counter()
        job.run(**params)
        seconds = time.perf_counter() - start
        figures = compare(options, job, Committed(job))

        killed = make_job(options, f"{name} killed")
        committed = Committed(killed)
        killed_workers = []
        killer = threading.Thread(target=kill_one, args=(committed, workers, killed_workers))
        killer.start()
        calls, gave_up = 0, ""
        while not killed.status().is_complete:
            calls += 1
            try:
                killed.run(**params)
            except Exception as error:  # each engine has its own
                gave_up = type(error).__name__
                if calls == 5:
                    raise
        killer.join()
    after = compare(options, killed, committed)
    return {
        **after,
        "equal": figures["equal"] and after["equal"],
        "kills": len(killed_workers),
        "calls_of_run": calls,
        "gave_up": gave_up,
        "start_seconds": round(start_seconds, 2),
        "seconds": round(seconds, 2),
        "one_process_seconds": round(one_process, 2),
        "times_one_process": round(seconds / one_process, 2),
    }


def kill_one(committed, workers, killed):
    while committed.look() < 2:
        time.sleep(0.02)
    worker = random.Random(0).choice(workers())
    os.kill(worker, signal.SIGKILL)
    killed.append(worker)


if __name__ == "__main__":
    main()
