"""The rows of all stage ends cost less than a twentieth of a forward pass.

    python benchmarks/bench_depths.py

A search over `depth` passes each image once, because a forward pass gives the rows of every
stage end and all of them are stored. Three prices of that, on noise in memory, one thread:

- taps: a forward pass that gives the rows of all stage ends, against one that gives the last.
- whole: a forward pass through all stages, against one up to the depth -2, which is what
  ``depth=-2, feature_cache=None`` takes.
- disk: bytes of the store after ``depth=-2``, against the bytes of the rows of all stage ends,
  and against those of depth -2 alone.

Variants alternate in one process; ratios are medians of pairs, with the middle half. Claim:
taps cost less than 5 %, and the store takes at most 1.5 times the rows that it holds. A
minute on 2 cores.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from _report import write_csv
from sktransfer import PretrainedFeatureTransformer
from sktransfer._spec import FittedPlan
from sktransfer.backbones._registry import load_backbone
from sktransfer.extraction._feature_extractor import ExtractionPlan, FeatureExtractor

MOST_FOR_TAPS, MOST_DISK = 1.05, 1.5
BATCH, N_ON_DISK = 16, 1000
# name, weights, image size
BACKBONES = [
    ("mini", "default", 64),
    ("mobilenet_v2", None, 224),
    ("resnet18", None, 224),
    ("resnet50", None, 224),
    ("vit_b_16", None, 224),
    ("convnext_tiny", None, 224),
]


def extractor(backbone, depths, size):
    pooling = backbone.pooling("auto")
    fitted = FittedPlan(backbone.spec, backbone.spec.input.at(size), depths, pooling, "float32")
    return FeatureExtractor(ExtractionPlan(backbone, fitted, torch.device("cpu")), depths)


def ratio(one, other, pixels, n_pairs):
    """Return the quartiles of the seconds of `one` over those of `other`, in pairs."""
    ratios = []
    for pair in range(n_pairs + 1):
        seconds = {}
        for variant in (one, other) if pair % 2 else (other, one):
            start = time.perf_counter()
            variant(pixels)
            seconds[variant] = time.perf_counter() - start
        if pair:  # the first warms up
            ratios.append(seconds[one] / seconds[other])
    return statistics.quantiles(ratios, n=4)


def disk(name, weights, size):
    """Return the bytes of the store, of the rows of all stage ends, and of those of depth -2."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (N_ON_DISK, 32, 32, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as cache:
        transformer = PretrainedFeatureTransformer(
            name, weights=weights, image_size=size, depth=-2, precision="float32",
            feature_cache=cache,
        )  # fmt: skip
        rows = transformer.fit_transform(X)
        n_bytes = sum(file.stat().st_blocks * 512 for file in Path(cache).rglob("*"))
    backbone = load_backbone(name, {}, weights)
    pooling, spec = backbone.pooling("auto"), backbone.spec.input.at(size)
    widths = [backbone.width(n, pooling, spec) for n in range(len(backbone.stages) + 1)]
    return n_bytes, 4 * N_ON_DISK * sum(widths), rows.nbytes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    for name, weights, size in BACKBONES:
        backbone = load_backbone(name, {}, weights)
        n = len(backbone.stages)
        pixels = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
        last, middle = extractor(backbone, (n,), size), extractor(backbone, (n - 2,), size)
        every = extractor(backbone, tuple(range(n + 1)), size)
        taps = ratio(every, last, pixels, options.pairs)
        whole = ratio(every, middle, pixels, options.pairs)
        table.append(
            {
                "backbone": name,
                "size": size,
                "taps": round(taps[1], 3),
                "taps_quartiles": f"{taps[0]:.3f} to {taps[2]:.3f}",
                "whole": round(whole[1], 2),
                "whole_quartiles": f"{whole[0]:.2f} to {whole[2]:.2f}",
            }
        )
        print(table[-1], flush=True)
    for row, (name, weights, _) in zip(table, BACKBONES, strict=True):
        if name not in ("mini", "resnet18"):
            continue
        n_bytes, of_all, wanted = disk(name, weights, 32 if name == "mini" else 64)
        row["disk"] = round(n_bytes / of_all, 2)
        row["disk_of_wanted"] = round(n_bytes / wanted, 2)
        print(name, "disk", row["disk"], "of the wanted depth alone", row["disk_of_wanted"])
    write_csv("bench_depths", table)
    assert max(row["taps"] for row in table) < MOST_FOR_TAPS
    assert max(row.get("disk", 0) for row in table) <= MOST_DISK


if __name__ == "__main__":
    main()
