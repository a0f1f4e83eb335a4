"""Near-duplicates among a million rows of shards, by an approximate index.

    pip install faiss-cpu
    python benchmarks/bench_jobs_neighbours.py [--rows 1000000]

Drawn rows of 256 values around 20,000 centres, as features of a data set with many subjects are,
in shards; one in a hundred is a near-duplicate of another one, of cosine 0.98. The index is that of
docs/scale.md: rows of length one, in cells, a byte a value.

Claim: of the near-duplicates 95 % are found, and a row takes a tenth of the time that a comparison
with all rows takes. Some minutes on one core, 3 GB of memory.
"""

import argparse
import resource
import time

import faiss
import numpy as np

from _report import write_csv

WIDTH, CENTRES, COSINE, QUERIES = 256, 20_000, 0.98, 5_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    n = options.rows
    rows, firsts, copies = draw(n, rng)

    start = time.perf_counter()
    index = faiss.index_factory(WIDTH, f"IVF{2 * int(n**0.5)},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(rows[rng.choice(n, min(n, 40 * index.nlist), replace=False)])
    trained = time.perf_counter() - start
    for part in range(0, n, 100_000):
        index.add(rows[part : part + 100_000])
    built = time.perf_counter() - start
    index.nprobe = 8

    chosen = rng.choice(len(copies), min(QUERIES, len(copies)), replace=False)
    start = time.perf_counter()
    cosines, found = index.search(rows[copies[chosen]], 5)
    a_row = (time.perf_counter() - start) / len(chosen)
    is_found = ((found == firsts[chosen][:, None]) & (cosines > 0.95)).any(axis=1)

    start = time.perf_counter()
    flat = rows[copies[chosen[:50]]] @ rows.T
    flat.argmax(axis=1)
    with_all = (time.perf_counter() - start) / 50
    figures = {
        "rows": n,
        "width": WIDTH,
        "found": round(float(is_found.mean()), 4),
        "train_seconds": round(trained, 1),
        "build_seconds": round(built, 1),
        "milliseconds_a_row": round(1000 * a_row, 3),
        "milliseconds_with_all": round(1000 * with_all, 3),
        "index_bytes_a_row": WIDTH + 8,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "faiss": faiss.__version__,
    }
    for name, value in figures.items():
        print(f"{name:24} {value}")
    write_csv("bench_jobs_neighbours", [figures])
    assert figures["found"] >= 0.95
    assert a_row < with_all / 10


def draw(n, rng):
    """Return unit rows, and the positions of firsts and of their near-duplicates."""
    centres = rng.standard_normal((CENTRES, WIDTH), dtype=np.float32)
    rows = centres[rng.integers(0, CENTRES, n)]
    for part in range(0, n, 100_000):
        here = rows[part : part + 100_000]
        here += 0.7 * rng.standard_normal(here.shape, dtype=np.float32)
        here /= np.linalg.norm(here, axis=1, keepdims=True)
    pairs = rng.permutation(n)[: n // 50].reshape(2, -1)
    firsts, copies = pairs
    noise = rng.standard_normal((len(copies), WIDTH), dtype=np.float32)
    first_rows = rows[firsts]
    noise -= (noise * first_rows).sum(axis=1, keepdims=True) * first_rows
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    rows[copies] = COSINE * first_rows + (1 - COSINE**2) ** 0.5 * noise
    return rows, firsts, copies


if __name__ == "__main__":
    main()
