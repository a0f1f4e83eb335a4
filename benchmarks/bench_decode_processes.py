"""Threads of one process decode as fast as processes that write to shared memory, on few cores.

    python benchmarks/bench_decode_processes.py folder

Reads, decodes and resizes the JPEG files of ``folder/<class>/<image>`` to squares of 224 pixels, as
an extraction does, in turns:

- threads: one for each core, in this process;
- processes: one for each core, forked before, which write their squares to memory that they share
  with this process.

Both have their results in this process's memory. The interpreter's lock lets one thread at a
time run Python; Pillow and torch release it while they decode and resize. Where there are more
cores than the lock lets work, processes win. Beside images/s: CPU time for each image, which
other work on the machine changes less.

Claim: on this machine's cores processes are less than 1.25 times as fast as threads, which is not
worth a second way of reading images. Two minutes.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from _report import write_csv
from sktransfer import load_image_folder
from sktransfer._spec import InputSpec
from sktransfer.images._collection import as_images
from sktransfer.images._preprocess import preprocess

CORES = len(os.sched_getaffinity(0))
INPUT = InputSpec(size=224, resize=256, mean=(127.5,) * 3, std=(127.5,) * 3)
AT_ONCE = 8
MOST_TIMES_THREADS = 1.25

shared: np.ndarray  # squares of all images, in memory that forked processes write to
images = None


def read(positions):
    """Write the squares of some images; return the CPU time that it took."""
    started = time.thread_time()
    for position in positions:
        square = preprocess(images[position].load().decode(lambda n_bytes: None, True), INPUT)
        shared[position] = square.numpy()
    return time.thread_time() - started


def measure(pool, parts):
    started = time.perf_counter()
    cpu = sum(pool.map(read, parts))
    n = parts[-1][-1] + 1
    return n / (time.perf_counter() - started), 1e3 * cpu / n


def main():
    global shared, images
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder/<class>/<image>")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = [path for path in load_image_folder(arguments.folder)[0] if path.endswith(".jpg")]
    images = as_images(paths)
    n, side = len(paths), INPUT.size
    memory = multiprocessing.RawArray("B", n * 3 * side * side)
    shared = np.frombuffer(memory, dtype=np.uint8).reshape(n, 3, side, side)
    parts = [range(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE)]

    forked = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(CORES, mp_context=forked) as processes,
        ThreadPoolExecutor(CORES) as threads,
    ):
        pools = {"processes": processes, "threads": threads}
        squares = {}
        for name, pool in pools.items():  # not counted
            shared[:] = 0
            measure(pool, parts)
            squares[name] = shared.copy()
        assert np.array_equal(squares["processes"], squares["threads"])
        found = {name: [] for name in pools}
        for _ in range(arguments.repeats):
            for name, pool in pools.items():
                found[name].append(measure(pool, parts))

    lines = []
    for name, values in found.items():
        rates, cpu = zip(*values, strict=True)
        ratios = [a[0] / b[0] for a, b in zip(values, found["threads"], strict=True)]
        lines.append(
            {
                "how": name,
                "cores": CORES,
                "images": n,
                "images_per_s": round(statistics.median(rates)),
                "cpu_ms": round(statistics.median(cpu), 2),
                "times_threads": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "most": round(max(ratios), 2),
            }
        )
        print(lines[-1])
    write_csv("bench_decode_processes", lines)
    assert lines[0]["times_threads"] < MOST_TIMES_THREADS


if __name__ == "__main__":
    main()
