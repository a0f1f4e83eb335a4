"""Extraction beside another checkout of the package: cold files, arrays, and stored rows.

    git worktree add ../former <commit>
    python benchmarks/bench_against.py ../former hymenoptera mobilenet_v2_0.35.safetensors

For each network both checkouts take turns, each time in a fresh process, on the same
images, with the digests of the files and the rows in a store of that process:

- cold: paths of JPEG files, an empty store; images/s, bytes read from the files and
  forward passes an image.
- arrays: uint8 arrays, store off; images/s.
- warm: the paths again, now that their rows are stored; rows/s.

Ratios this checkout / other checkout: the median over the rounds, the lowest and the
highest. Single rounds differ by a fifth and more, above all where other work runs beside
them; ``--networks`` measures some networks again, and keeps the rows of the others. Claim:
no median is below 0.97. Fifteen minutes on 2 cores.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import RESULTS, write_csv

HERE = Path(__file__).resolve().parents[1]
# network -> images, and the side that its preprocessing resizes to
NETWORKS = {
    "mini": (1536, 64),
    "mobilenet_v2_0.35": (768, 257),
    "resnet18": (192, 256),
    "resnet50": (144, 232),
    "vit_b_16": (80, 256),
}
FIGURES = ("cold", "arrays", "warm")
MOST_RATIO_LOST = 0.03


def copies(folder, n, to):
    """Write `n` JPEG files with digests of their own; return their paths."""
    contents = [path.read_bytes() for path in sorted(Path(folder).rglob("*.jpg"))]
    paths = []
    for i in range(n):
        path = Path(to) / f"{i:05d}.jpg"
        path.write_bytes(contents[i % len(contents)] + i.to_bytes(4, "big"))
        paths.append(str(path))
    return paths


def bytes_read():
    """Return the bytes that this process has read until now, from files and the page cache."""
    text = Path("/proc/self/io").read_text()
    return int(text.split("rchar: ")[1].split()[0])


def measure(name, weights, folder):
    """Return the figures of the checkout that this process imports."""
    import numpy as np

    import sktransfer

    is_former = not hasattr(sktransfer, "count_forward_passes")  # before the name changed
    count = sktransfer.count_passes if is_former else sktransfer.count_forward_passes
    n_images, side = NETWORKS[name]
    options = {"backbone": name, "weights": "default" if name == "mini" else None}
    if name == "mobilenet_v2_0.35":
        options = {"backbone": weights}
    with tempfile.TemporaryDirectory() as temporary:
        files, store = Path(temporary, "files"), Path(temporary, "store")
        files.mkdir()
        paths = np.array(copies(folder, n_images, files), dtype=object)
        time.sleep(4)  # the digest of a file that was just written is not stored
        transformer = sktransfer.PretrainedFeatureTransformer(**options, feature_cache=store)
        transformer.fit(paths[:1])
        transformer.transform(paths[:16])  # traces and folds the network, in both checkouts
        before, started = bytes_read(), time.perf_counter()
        with count() as counter:
            transformer.transform(paths[16:])
        cold = time.perf_counter() - started
        n_read = bytes_read() - before
        warm = []
        for _ in range(15):
            started = time.perf_counter()
            transformer.transform(paths)
            warm.append(n_images / (time.perf_counter() - started))
        off = sktransfer.PretrainedFeatureTransformer(**options, feature_cache=None)
        arrays = np.random.default_rng(0).integers(
            0, 256, (n_images, side, side, 3), dtype=np.uint8
        )
        off.fit(arrays[:1])
        off.transform(arrays[:16])
        started = time.perf_counter()
        off.transform(arrays)
        in_memory = time.perf_counter() - started
        n_cold = n_images - 16
        passes = counter.passed if is_former else counter.computed
        return {
            "package": str(Path(sktransfer.__file__).parents[1]),
            "cold": n_cold / cold,
            "arrays": n_images / in_memory,
            "warm": statistics.median(warm),
            "bytes_of_size": n_read / sum(os.path.getsize(path) for path in paths[16:]),
            "passes_an_image": passes / n_cold,
        }


def in_checkout(checkout, name, weights, folder):
    """Measure in a fresh process that imports the package of `checkout`."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, __file__, "--variant", name, str(folder), str(weights)]
    finished = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    figures = json.loads(finished.stdout.splitlines()[-1])
    assert Path(figures.pop("package")).samefile(checkout), "another checkout was imported"
    return figures


def rows_of_others(networks):
    """Return the rows of the table that are of none of these networks."""
    path = RESULTS / "bench_against.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["network"] not in networks]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("former", type=Path, help="the other checkout")
    parser.add_argument("folder", type=Path, help="a folder of JPEG photographs")
    parser.add_argument("weights", type=Path, help="self-describing MobileNetV2 at width 0.35")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    rows = []
    for name in options.networks:
        rounds = []
        for i in range(options.rounds):
            pair = {}
            checkouts = {"this": HERE, "former": options.former.resolve()}
            for which in sorted(checkouts, reverse=bool(i % 2)):
                pair[which] = in_checkout(
                    checkouts[which], name, options.weights.resolve(), options.folder.resolve()
                )
            rounds.append(pair)
        row = {"network": name}
        for figure in FIGURES:
            ratios = [pair["this"][figure] / pair["former"][figure] for pair in rounds]
            row[f"{figure}_per_s"] = round(statistics.median(p["this"][figure] for p in rounds))
            row[f"{figure}_ratio"] = round(statistics.median(ratios), 3)
            row[f"{figure}_lowest"] = round(min(ratios), 3)
            row[f"{figure}_highest"] = round(max(ratios), 3)
        for figure in ("bytes_of_size", "passes_an_image"):
            for which in ("this", "former"):
                row[f"{figure}_{which}"] = round(max(p[which][figure] for p in rounds), 2)
        rows.append(row)
        print(row, flush=True)
    write_csv("bench_against", [*rows_of_others(options.networks), *rows])
    lost = [
        f"{row['network']} {figure} {row[f'{figure}_ratio']}"
        for row in rows
        for figure in FIGURES
        if row[f"{figure}_ratio"] < 1 - MOST_RATIO_LOST
    ]
    if lost:
        sys.exit(f"slower than the other checkout: {', '.join(lost)}")


if __name__ == "__main__":
    if "--variant" in sys.argv:
        _, _, name, folder, weights = sys.argv
        print(json.dumps(measure(name, weights, folder)))
    else:
        main()
