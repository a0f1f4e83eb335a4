"""One image of JPEG holds the interpreter's lock for less than 0.6 of the time it did before.

    python benchmarks/bench_decode_lock.py folder

The interpreter's lock lets one thread at a time run Python. What an image needs of it is the limit
of one process, whatever its cores decode. The images are the JPEG files without a colour profile of
``folder/<class>/<image>``, of at most 512 pixels a side. Measured are the reading threads of an
extraction for a GPU, in four ways:

- now: the code as it is, without a store;
- scans: the scans of a file are counted with ``bytes.count``, which holds the lock;
- copies: pixels leave Pillow by ``tobytes``, which holds the lock, and are copied;
- before: both, as the package did once;
- stored, stored before: with a store, to the writing of rows as wide as ResNet-50's.

1. The lock: CPU time of an image between each taking and the next release of the lock, in one
   thread, and how often it is released. A library that is loaded before Python's counts: the script
   compiles it and starts itself again, which takes gcc and a Python with a shared library.
2. The limit: calls that compute without the lock (hashing, decoding, resizing, the network) are
   replaced by sleeping for as long, which needs no core, in 16 threads. Images/s are then those of
   one process with enough cores; handing over the lock costs what it costs on this machine.
3. The parts: CPU time of one thread for each part of "now", without the calls that compute, in warm
   caches. System calls that read the file, and comparing its bytes, release the lock.

Claim: by 1. "now" takes at most 0.6 times as much as "before". Three minutes.
"""

import argparse
import contextlib
import ctypes
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageFile

from _report import write_csv
from sktransfer import load_image_folder
from sktransfer._spec import FittedPlan
from sktransfer.backbones._registry import load_backbone
from sktransfer.extraction import _feature_extractor
from sktransfer.extraction._batches import run_images
from sktransfer.extraction._compute import MissingRows
from sktransfer.extraction._feature_extractor import ExtractionPlan
from sktransfer.extraction._image_ids import ImageIds
from sktransfer.extraction._rows import Rows
from sktransfer.images import _colour, _decode, _fingerprint, _formats, _image_ref
from sktransfer.images._collection import as_images
from sktransfer.runtime._threads import CorePool
from sktransfer.store._store import open_store

BATCH = 128  # as on a GPU
LONGEST_SIDE = 512
THREADS = 16
N_LIMIT = 4000  # images of a run in 2.
WIDTHS = (64, 256, 512, 1024, 2048)  # of rows, at the ends of stages
FORWARD = 0.01  # s for a batch
MOST_OF_BEFORE = 0.6
WITHOUT = {
    "now": (),
    "scans": ("scans",),
    "copies": ("copies",),
    "before": ("scans", "copies"),
    "stored": (),
    "stored before": ("scans", "copies"),
}
PARTS = {
    "status and reading of the file": [(_image_ref, "file_version"), (_image_ref, "read_file")],
    "header": [(_formats.Format, "opened")],
    "checks of format, size, scans": [(_decode, "identify"), (_decode, "check_inner_size")],
    "filter of warnings": [(_decode, "quiet_pillow")],
    "set-up of the decoder": [(ImageFile.ImageFile, "load")],
    "orientation, profile, pixels": [(_decode, "_to_pixels")],
    "resizing, but for the kernel": [(_feature_extractor, "preprocess")],
}
PRELOADED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static long held, released;
static __thread long taken_at;
static long cpu_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}
void *PyEval_SaveThread(void) {
    static void *(*real)(void);
    if (!real) real = dlsym(RTLD_NEXT, "PyEval_SaveThread");
    if (taken_at) __sync_fetch_and_add(&held, cpu_time() - taken_at);
    __sync_fetch_and_add(&released, 1);
    return real();
}
void PyEval_RestoreThread(void *state) {
    static void (*real)(void *);
    if (!real) real = dlsym(RTLD_NEXT, "PyEval_RestoreThread");
    real(state);
    taken_at = cpu_time();
}
long lock_held_ns(void) { return held; }
long lock_releases(void) { return released; }
"""


# what takes the place of calls


class Waiting:
    """The calls that compute without the lock, timed, or replaced by waits."""

    def __init__(self, seconds=None):
        self.seconds = seconds  # by call; None measures
        self.taken = defaultdict(list)
        self._digests = itertools.count()
        self._hash = _fingerprint._digest_bytes
        self._decoder = Image._getdecoder
        self._resize = torch.nn.functional.interpolate

    def call(self, name, compute, instead):
        if self.seconds is None:
            started = time.perf_counter()
            result = compute()
            self.taken[name].append(time.perf_counter() - started)
            return result
        if self.seconds[name]:
            time.sleep(self.seconds[name])
        return instead()

    def hash(self, data):
        some = next(self._digests).to_bytes(16, "little")
        return self.call("hash", lambda: self._hash(data), lambda: some)

    def decoder(self, *given):
        return Decoder(self, self._decoder(*given))

    def resize(self, batch, shape, **how):
        return self.call(
            "resize",
            lambda: self._resize(batch, shape, **how),
            lambda: torch.empty((*batch.shape[:2], *shape), dtype=torch.uint8),
        )

    @contextlib.contextmanager
    def patched(self):
        with (
            mock.patch.object(_fingerprint, "_digest_bytes", self.hash),
            mock.patch.object(Image, "_getdecoder", self.decoder),
            mock.patch.object(torch.nn.functional, "interpolate", self.resize),
        ):
            yield


class Decoder:
    """Pillow's decoder of a JPEG file, which takes the file in blocks."""

    pulls_fd = False

    def __init__(self, waiting, decoder):
        self._waiting, self._decoder = waiting, decoder
        self.setimage, self.cleanup = decoder.setimage, decoder.cleanup

    def decode(self, data):
        is_last = not ImageFile.MAXBLOCK <= len(data) < ImageFile.MAXBLOCK + 64
        return self._waiting.call(
            "decode",
            lambda: self._decoder.decode(data),
            lambda: (-1, 0) if is_last else (len(data) - 32, 0),
        )


class Network:
    """What a device does with a batch: it takes a while, and there are rows."""

    device = torch.device("cpu")
    current = contextlib.nullcontext

    def __init__(self, n_depths):
        self._widths = WIDTHS[-n_depths:]
        self._values = np.random.default_rng(0).random((BATCH, WIDTHS[-1]), dtype=np.float32)

    def launch(self, images):
        n = len(images)
        time.sleep(FORWARD)
        return lambda: [self._values[:n, :width].copy() for width in self._widths]


@contextlib.contextmanager
def without(what):
    with contextlib.ExitStack() as stack:
        if "scans" in what:
            count = mock.patch.object(
                _formats, "_count_scans", lambda data: data.count(b"\xff\xda")
            )
            stack.enter_context(count)
        if "copies" in what:
            stack.enter_context(mock.patch.object(_colour, "pixel_memory", return_value=None))
        yield


# runs


def photographs(folder):
    paths = []
    for path in load_image_folder(folder)[0]:
        with Image.open(path) as image:
            is_plain = image.format == "JPEG" and "icc_profile" not in image.info
            if is_plain and max(image.size) <= LONGEST_SIDE:
                paths.append(path)
    return paths


def missing_rows(paths, store):
    backbone = load_backbone("mini")
    spec = replace(backbone.spec.input, size=224, resize=256)
    fitted = FittedPlan(backbone.spec, spec, (len(backbone.stages),), "avg", "float32")
    plan = ExtractionPlan(backbone, fitted, torch.device("cpu"))
    rows = Rows(plan, store)
    missing = MissingRows(as_images(paths), ImageIds(len(paths)), plan, rows, store, BATCH)
    missing._on_cpu = False  # batches are read by all threads together
    missing._extractors = [Network(len(rows.computed_depths))]
    return missing


def read(paths, n_threads, what):
    """Read all images as `what` says."""
    positions = np.arange(len(paths))
    with without(WITHOUT[what]), CorePool(n_threads) as pool:
        if what.startswith("stored"):
            with tempfile.TemporaryDirectory() as folder:
                missing = missing_rows(paths, open_store(folder))
                for computed in missing.compute(positions, pool):
                    assert not computed.failures
        else:
            missing = missing_rows(paths, None)
            batches = missing._batches(positions)
            for parts in run_images(batches, missing._prepare, pool, n_threads):
                assert not any(part.failures for part in parts)


def lock_times(paths, repeats):
    """Return ms that an image holds the lock, releases of it and ms of CPU, by what is read."""
    library = ctypes.PyDLL(os.environ["LD_PRELOAD"])
    library.lock_held_ns.restype = library.lock_releases.restype = ctypes.c_long
    found = defaultdict(list)
    for _ in range(repeats):
        for what in WITHOUT:
            before = library.lock_held_ns(), library.lock_releases(), time.process_time_ns()
            read(paths, 1, what)
            after = library.lock_held_ns(), library.lock_releases(), time.process_time_ns()
            found[what].append([(b - a) / len(paths) for a, b in zip(before, after, strict=True)])
    lines = []
    for what, values in found.items():
        held, releases, cpu = zip(*values, strict=True)
        lines.append(
            {
                "measured": "lock",
                "what": what,
                "ms": round(1e-6 * statistics.median(held), 3),
                "least": round(1e-6 * min(held), 3),
                "most": round(1e-6 * max(held), 3),
                "releases": round(statistics.median(releases), 1),
                "cpu_ms": round(1e-6 * statistics.median(cpu), 3),
                "images_per_s": round(1e9 / statistics.median(held)),
            }
        )
    return lines


def limits(paths, seconds, repeats):
    """Return images/s where nothing that computes needs a core."""
    many = (paths * (1 + N_LIMIT // len(paths)))[:N_LIMIT]
    found = defaultdict(list)
    with Waiting(seconds).patched():
        for _ in range(repeats):
            for what in ("now", "before", "stored", "stored before"):
                started = time.perf_counter()
                read(many, THREADS, what)
                found[what].append(len(many) / (time.perf_counter() - started))
    return [
        {
            "measured": f"limit, {THREADS} threads",
            "what": what,
            "ms": round(1e3 / statistics.median(rates), 3),
            "least": round(1e3 / max(rates), 3),
            "most": round(1e3 / min(rates), 3),
            "images_per_s": round(statistics.median(rates)),
        }
        for what, rates in found.items()
    ]


def parts_of(paths):
    """Return ms of CPU for each part of an image, without the calls that compute."""
    spent = defaultdict(int)

    def timed(name, call):
        def wrapped(*given, **named):
            started = time.thread_time_ns()
            try:
                return call(*given, **named)
            finally:
                spent[name] += time.thread_time_ns() - started

        return wrapped

    def timed_context(name, make):
        @contextlib.contextmanager
        def wrapped():
            context = timed(name, make)()
            timed(name, context.__enter__)()
            yield
            timed(name, context.__exit__)(None, None, None)

        return wrapped

    with contextlib.ExitStack() as stack:
        stack.enter_context(Waiting(defaultdict(int)).patched())
        for name, calls in PARTS.items():
            for owner, attribute in calls:
                wrap = timed_context if attribute == "quiet_pillow" else timed
                call = wrap(name, getattr(owner, attribute))
                stack.enter_context(mock.patch.object(owner, attribute, call))
        started = time.process_time_ns()
        read(paths, 1, "now")
        whole = time.process_time_ns() - started
    parts = {name: spent[name] / len(paths) for name in PARTS}
    return {**parts, "references, batches, the rest": whole / len(paths) - sum(parts.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder/<class>/<image>")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = photographs(arguments.folder)
    n_bytes = statistics.mean(Path(path).stat().st_size for path in paths)
    print(f"{len(paths)} photographs of {n_bytes / 1e3:.0f} kB")
    real = Waiting()
    with real.patched():
        read(paths, 1, "now")  # not counted
        real.taken.clear()
        read(paths, 1, "now")
    seconds = {name: statistics.mean(taken) for name, taken in real.taken.items()}
    print("ms of a call:", {name: round(1e3 * value, 3) for name, value in seconds.items()})

    lines = lock_times(paths, arguments.repeats) + limits(paths, seconds, arguments.repeats)
    every = [parts_of(5 * paths) for _ in range(arguments.repeats)]
    for name in every[0]:
        ms = [1e-6 * parts[name] for parts in every]
        line = {"measured": "part", "what": name, "ms": round(statistics.median(ms), 4)}
        lines.append({**line, "least": round(min(ms), 4), "most": round(max(ms), 4)})
    columns = dict.fromkeys(name for line in lines for name in line)
    lines = [{name: line.get(name, "") for name in columns} for line in lines]
    for line in lines:
        print(line)
    write_csv("bench_decode_lock", lines)
    ms = {line["what"]: line["ms"] for line in lines if line["measured"] == "lock"}
    assert ms["now"] <= MOST_OF_BEFORE * ms["before"]


def started_again():
    """Run this script once more, with the library that counts."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "counts.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"],
            input=PRELOADED,
            text=True,
            check=True,
        )
        again = {**os.environ, "LD_PRELOAD": str(library)}
        return subprocess.run([sys.executable, *sys.argv], env=again).returncode


if __name__ == "__main__":
    if "LD_PRELOAD" in os.environ:
        main()
    else:
        sys.exit(started_again())
