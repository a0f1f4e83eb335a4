"""Warm rows come back at the speed of reading, and memory does not grow with the images.

    python benchmarks/bench_store.py

PNG files of 32 pixels are drawn into a temporary folder: one picture, with a number
behind its end that no decoder reads, so that each file has a digest of its own. All
rows are those of ``mini`` at 32 pixels, 256 values.

- memory: anonymous memory at the peak of the first ``transform`` of 1,000, 10,000 and
  100,000 files, beyond what it was before, the returned rows left out. Anonymous, as
  the store's file is mapped, and its pages are the system's to drop. It is never quite
  flat: what tells one image from another stays until the call ends. Flat here is at most
  250 bytes an image.
- keys: the same for a million images that are drawn, not read: the store has their digests
  by the version of the file, and a row of three numbers for each.
- paths: rows/s of ``transform`` on 20,000 of the files when their rows are in the store:
  the first call of a new process, which reads every file for its digest, and the later
  ones, which look at size and time of each file.
- arrays: the same for 1,000 arrays of 224 pixels in memory, which have to be digested
  in every call, 150,528 bytes each.
- disk: bytes of the store's file for each row, written 16 at a time, beside the bytes of
  the row itself, for the rows of mini and of ResNet-50 and for an activation.

Each runs in a process of its own, memory before the others; ``--files`` draws fewer for
a try, too few to tell memory from noise. Claims: flat memory; 20,000 rows/s from paths
and 4,000 from arrays, median of the later calls, on 2 cores; a file of at most 1.5 times
the rows. Two minutes on 2 cores. Linux, as memory is read from /proc.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from _report import in_own_process, write_csv
from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.store._store import open_store

N_FILES, N_WARM, N_ARRAYS = 100_000, 20_000, 1_000
CALLS = 7
MOST_BYTES_AN_IMAGE, N_KEYS = 250, 1_000_000
LEAST_ROWS_PER_S = {"paths": 20_000, "arrays": 4_000}
MOST_FILE_TO_ROWS = 1.5
# shape of a row, and how many of them are written
DISK = {"mini": ((256,), 3_200), "resnet50": ((2048,), 1_600), "activation": ((32, 14, 14), 800)}


def draw_files(folder, n):
    rng = np.random.default_rng(0)
    picture = BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture, "PNG")
    for i in range(n):
        file = folder / f"{i:06d}.png"
        file.write_bytes(picture.getvalue() + i.to_bytes(4, "big"))


def files_in(folder):
    return np.array(sorted(os.path.join(folder, name) for name in os.listdir(folder)), dtype=object)


def transformer(cache):
    return PretrainedFeatureTransformer("mini", image_size=32, feature_cache=cache)


def anonymous_bytes():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class PeakMemory:
    """Watches anonymous memory from a thread; `bytes` is the most it has seen."""

    def __init__(self, interval=0.01):
        self.bytes = 0
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self._done.wait(self._interval):
            self.bytes = max(self.bytes, anonymous_bytes())

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._done.set()
        self._thread.join()
        self.bytes = max(self.bytes, anonymous_bytes())


def run_memory(folder, cache, n):
    paths = files_in(folder)[: int(n)]
    fitted = transformer(cache).fit(paths)
    with tempfile.TemporaryDirectory() as other:
        # threads, network and buffers are there before the first reading
        transformer(other).fit(paths[:200]).transform(paths[:200])
    before, started = anonymous_bytes(), time.perf_counter()
    with PeakMemory() as peak:
        rows = fitted.transform(paths)
    seconds = time.perf_counter() - started
    return {
        "images": len(paths),
        "images_per_s": round(len(paths) / seconds),
        "peak_mib": round((peak.bytes - before - rows.nbytes) / 2**20, 1),
        "rows_mib": round(rows.nbytes / 2**20, 1),
    }


class DrawnImages(Sequence):
    """Images that exist as their numbers only: a version, and a digest in the store."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return DrawnImage(index)


class DrawnImage(NamedTuple):
    number: int
    is_file = True

    def version(self):
        return blake2b(b"version %d" % self.number, digest_size=16).digest()

    def digest(self):
        return blake2b(b"digest %d" % self.number, digest_size=16).digest()

    def describe(self):
        return f"image {self.number}"


def run_keys(folder, cache, n):
    from sktransfer._spec import FittedPlan
    from sktransfer.backbones._registry import load_backbone
    from sktransfer.extraction._extract import extract
    from sktransfer.extraction._feature_extractor import ExtractionPlan

    backbone = load_backbone("mini")
    fitted = FittedPlan(backbone.spec, backbone.spec.input, (0,), "avg", "float32")
    plan = ExtractionPlan(backbone, fitted, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as own:
        store, images = open_store(own), DrawnImages(N_KEYS)
        common = plan.common_key(0)
        for start in range(0, N_KEYS, 10_000):
            some = [images[i] for i in range(start, start + 10_000)]
            store.put_digests({image.version(): image.digest() for image in some})
            row = np.zeros(3, dtype=np.float32)
            store.put_many({common + image.digest(): row + image.number for image in some})
        known = store.get_digests([images[i].version() for i in range(0, N_KEYS, 100)])
        assert None not in known, "digests of files were dropped"
        extract(DrawnImages(1000), plan, store)
        before, started = anonymous_bytes(), time.perf_counter()
        with PeakMemory() as peak:
            values = extract(images, plan, store).values
        seconds = time.perf_counter() - started
    assert (values[:, 0] == np.arange(N_KEYS, dtype=np.float32)).all()
    return {
        "images": N_KEYS,
        "images_per_s": round(N_KEYS / seconds),
        "bytes_an_image": round((peak.bytes - before - values.nbytes) / N_KEYS, 1),
    }


def time_warm(fitted, X):
    """Return rows/s of calls that find every row in the store."""
    rates = []
    for _ in range(CALLS + 1):
        started = time.perf_counter()
        with count_forward_passes() as counter:
            fitted.transform(X)
        rates.append(len(X) / (time.perf_counter() - started))
        assert counter.computed == 0, "the store was not warm"
    first, *later = rates
    return {
        "images": len(X),
        "first_call": round(first),
        "median": round(statistics.median(later)),
        "least": round(min(later)),
        "most": round(max(later)),
    }


def run_paths(folder, cache, n):
    X = files_in(folder)[: int(n)]
    return time_warm(transformer(cache).fit(X), X)


def run_arrays(folder, cache, n):
    X = np.random.default_rng(0).integers(0, 256, (N_ARRAYS, 224, 224, 3), dtype=np.uint8)
    fitted = transformer(cache).fit(X)
    fitted.transform(X)
    return time_warm(fitted, X)


def run_disk(folder, cache, n):
    lines = []
    rng = np.random.default_rng(0)
    for name, (shape, n_rows) in DISK.items():
        with tempfile.TemporaryDirectory() as own:
            store = open_store(own)
            kind = rng.bytes(16)
            for _ in range(0, n_rows, 16):
                rows = rng.random((16, *shape), dtype=np.float32)
                store.put_many({kind + rng.bytes(16): row for row in rows})
            n_cache_hits = len(store)
            used = sum(file.stat().st_blocks * 512 for file in Path(own).rglob("*.mdb"))
        lines.append(
            {
                "row": name,
                "rows": n_cache_hits,
                "row_bytes": rows[0].nbytes,
                "file_bytes_a_row": round(used / n_cache_hits),
                "file_to_rows": round(used / n_cache_hits / rows[0].nbytes, 3),
            }
        )
    return lines


VARIANTS = {
    "memory": run_memory,
    "keys": run_keys,
    "paths": run_paths,
    "arrays": run_arrays,
    "disk": run_disk,
}


def compare_memory(folder, n_files):
    lines = []
    for n in (n_files // 100, n_files // 10, n_files):
        cache = folder / f"cache-{n}"
        report = in_own_process(__file__, "memory", folder / "files", cache, n)
        lines.append(report)
        print(
            f"memory {n:>8,} images  peak {report['peak_mib']:>6.1f} MiB beside "
            f"{report['rows_mib']:>5.1f} MiB of rows, {report['images_per_s']:,} images/s",
            flush=True,
        )
    least, most = lines[0], lines[-1]
    grown = (most["peak_mib"] - least["peak_mib"]) * 2**20 / (most["images"] - least["images"])
    print(f"memory grows by {grown:.0f} bytes an image")
    return lines, grown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=N_FILES)
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(VARIANTS[options.variant](*options.arguments)))
        return

    os.environ["TQDM_DISABLE"] = "1"  # no bars between the lines of the table
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "files").mkdir()
        draw_files(folder / "files", options.files)
        memory, grown = compare_memory(folder, options.files)
        arguments = folder / "files", folder / f"cache-{options.files}", N_WARM
        warm = {name: in_own_process(__file__, name, *arguments) for name in ("paths", "arrays")}
        for name, report in warm.items():
            print(
                f"{name:<8}first call {report['first_call']:>7,} rows/s, later "
                f"{report['median']:>7,}, from {report['least']:,} to {report['most']:,}"
            )
        keys = in_own_process(__file__, "keys", *arguments)
        print(
            f"keys    {keys['images']:,} images  {keys['bytes_an_image']} bytes an image, "
            f"{keys['images_per_s']:,} images/s"
        )
        disk = in_own_process(__file__, "disk", *arguments)
    for line in disk:
        print(
            f"disk    {line['row']:<12}{line['row_bytes']:>7,} bytes a row, "
            f"{line['file_bytes_a_row']:>7,} of file: {line['file_to_rows']:.2f} times"
        )

    figures = [{"what": "memory", **line} for line in memory]
    figures += [{"what": name, **report} for name, report in warm.items()]
    figures += [{"what": "keys", **keys}]
    figures += [{"what": "disk", **line} for line in disk]
    columns = list(dict.fromkeys(column for figure in figures for column in figure))
    write_csv(
        "bench_store", [{name: figure.get(name, "") for name in columns} for figure in figures]
    )
    assert grown <= MOST_BYTES_AN_IMAGE, "memory grows with the images"
    assert keys["bytes_an_image"] <= MOST_BYTES_AN_IMAGE, "keys take memory"
    for name, report in warm.items():
        assert report["median"] >= LEAST_ROWS_PER_S[name], f"{name} are slow"
    for line in disk:
        assert line["file_to_rows"] <= MOST_FILE_TO_ROWS, line["row"]


if __name__ == "__main__":
    main()
