"""Ten million images: the memory of a job's driver and worker does not grow with their number.

    python benchmarks/bench_jobs_scale.py [--images 10000000]

Without images: a manifest of drawn URLs, and rows that are drawn where a network would compute
them, three values each. All else is what a job does: the manifest is read and divided, shards
are written and put in place, the status is read, rows are imported into a store. Each step is a
process, at a tenth of the images and at all of them.

Claim: with ten times the images the peak of a process's own memory grows by less than 128 MiB in
each step, which is what one put changes of the store, and the status of all shards is read in
less than a second.

Half an hour on a busy core, 5 GB of disk. Linux, which tells a process's own memory.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from _report import in_own_process, write_csv
from sktransfer import PretrainedFeatureTransformer
from sktransfer.extraction._extract import Extraction
from sktransfer.jobs import ExtractionJob, import_rows
from sktransfer.jobs._plan import RowPlan
from sktransfer.store._store import open_store

STEPS = ("manifest", "shards", "status", "import")
MOST_GROWTH = 128  # MiB
BATCH = 100_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--folder", help="for the files; default: a temporary one")
    parser.add_argument("--variant")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(run_step(options.variant, Path(options.folder), options.images)))
        return
    rows = []
    for n_images in (options.images // 10, options.images):
        folder = tempfile.mkdtemp(prefix="bench-jobs-scale-", dir=options.folder)
        draw_manifest(Path(folder) / "images.parquet", n_images)
        for step in STEPS:
            figures = in_own_process(__file__, step, "--folder", folder, "--images", n_images)
            rows.append({"images": n_images, "step": step, **figures})
            print(rows[-1], flush=True)
        shutil.rmtree(folder)
    write_csv("bench_jobs_scale", rows)
    few, many = rows[: len(STEPS)], rows[len(STEPS) :]
    for one, other in zip(few, many, strict=True):
        assert other["peak_mib"] - one["peak_mib"] < MOST_GROWTH, (one, other)
    assert many[STEPS.index("status")]["seconds"] < 1


def draw_manifest(path, n_images):
    schema = pa.schema([("url", pa.string()), ("label", pa.int32())])
    rng = np.random.default_rng(0)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, n_images, BATCH):
            n = min(BATCH, n_images - start)
            urls = [f"s3://drawn/{i // 1000:06d}/{i:09d}.jpg" for i in range(start, start + n)]
            labels = rng.integers(0, 1000, n, dtype=np.int32)
            writer.write_table(pa.table({"url": urls, "label": labels}, schema))


class Peak:
    """The most memory of its own that this process had in a ``with`` block, in MiB."""

    def __enter__(self):
        self.mib, self._ended = own_memory(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self):
        while not self._ended.wait(0.05):
            self.mib = max(self.mib, own_memory())

    def __exit__(self, *_):
        self._ended.set()
        self._watcher.join()


def own_memory():
    """Return the memory that belongs to no file, in MiB; that of a store's file is the system's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def drawn(self, paths, **_):
    """Return drawn rows in the place of computed ones."""
    numbers = np.array([int(path[-13:-4]) for path in paths], dtype=np.uint64)
    digests = np.stack([numbers * np.uint64(0x9E3779B97F4A7C15), numbers], axis=1)
    rows = np.stack([numbers % 251, numbers % 13, numbers % 7], axis=1).astype(np.float32)
    return Extraction(rows, [], np.ascontiguousarray(digests).view(np.uint8))


def run_step(step, folder, n_images):
    out = folder / "job"
    figures = {}
    start = time.perf_counter()
    with Peak() as peak:
        if step == "manifest":
            transformer = PretrainedFeatureTransformer(
                "mini", depth=0, image_size=32, precision="float32", device="cpu"
            )
            job = ExtractionJob(transformer, folder / "images.parquet", out, column="url")
            figures["bytes"] = size_of(out)
            assert job.n_images == n_images
        elif step == "shards":
            RowPlan.extract = drawn
            status = ExtractionJob.open(out).run(cpus_per_worker=1, verbose=-1)
            assert status.n_images_done == n_images
            assert status.is_complete
            figures["bytes"] = size_of(out / "rows")
        elif step == "status":
            times = []
            for _ in range(3):  # on a machine with other work, the least
                job = ExtractionJob.open(out)  # which has read no shard yet
                start = time.perf_counter()  # without the imports of the process
                assert job.status().n_images_done == n_images
                times.append(time.perf_counter() - start)
        else:
            imported = import_rows(out, feature_cache=folder / "store", check=0)
            assert imported.n_rows == n_images
            figures["bytes"] = size_of(folder / "store")
        seconds = min(times) if step == "status" else time.perf_counter() - start
    if step == "import":
        figures["found"] = look_up(folder, n_images)
    return {
        "seconds": round(seconds, 3),
        "images_per_second": round(n_images / seconds),
        "peak_mib": round(peak.mib),
        "bytes_per_image": round(figures.pop("bytes", 0) / n_images, 1),
        "found": figures.get("found", ""),
    }


def look_up(folder, n_images):
    """Return how many of 10,000 rows, drawn from all, the store has as they were written."""
    from sktransfer.jobs._plan import common_keys

    job = ExtractionJob.open(folder / "job")
    (common,) = common_keys(job._record.row)
    chosen = np.random.default_rng(1).integers(0, n_images, 10_000)
    expected = drawn(None, [f"{i:09d}.jpg" for i in chosen])
    keys = [common + digest.tobytes() for digest in expected.digests]
    rows = open_store(folder / "store").get_many(keys)
    n_found = sum(
        row is not None and bool((row == wanted).all())
        for row, wanted in zip(rows, expected.values, strict=True)
    )
    assert n_found == len(chosen), n_found
    return n_found


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
