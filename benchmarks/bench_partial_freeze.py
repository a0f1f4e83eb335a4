"""Kept activations make training as much faster as the frozen part's share of it allows.

    python benchmarks/bench_partial_freeze.py hymenoptera mobilenet_v2_0.35.safetensors

MobileNetV2-0.35 on the 245 training photographs of ants and bees, at 129 pixels, 20
epochs in batches of 32, with the last stage trained (``freeze_depth=-1``) and with the
last two (-2).

- sktransfer: ``FineTunedClassifier`` with an empty store, from the paths to the fitted
  classifier: it reads the photographs, passes the frozen stages once, and trains.
- torch: the same training as it is written by hand. Photographs are decoded once, on all
  cores, and kept as uint8 tensors in memory. In every step the batch passes the frozen
  stages in evaluation mode without gradients, then the trained ones, with AdamW, batch
  normalisation at its pretrained statistics; channels last, on all cores. It has the
  same trained stages, head, number of steps and precision (float32). It measures what
  it spends on reading, on the frozen stages and on the trained ones.

With these shares, keeping activations makes E epochs

    (reading + (frozen + trained) x E) / (reading + frozen + trained x E)

times as fast. Claim: sktransfer is at least 0.85 times that faster than torch, median of
the repeats in turns, each in a process of its own, imports left out. It may be more: the
one pass of frozen stages has all cores on batches of their own. Both use torch's default
number of threads, and threads that wait sleep (``OMP_WAIT_POLICY=PASSIVE``), as other
work on the machine would make waiting threads cost more than the work. Three minutes on
2 cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.transforms.v2 import functional as F

from _report import in_own_process, write_csv
from sktransfer import FineTunedClassifier, load_image_folder
from sktransfer.backbones._weights import read_tensors

EPOCHS, BATCH_SIZE, SIZE = 20, 32, 129
RESIZE = round(257 * SIZE / 225)
# Where sktransfer cuts MobileNetV2: layers of ``features`` before the cut, by freeze_depth
FIRST_TRAINED_LAYER = {-1: 18, -2: 14}
LEAST_OF_EXPECTED = 0.85


def run_sktransfer(folder, weights, freeze_depth, epochs):
    X, y = load_image_folder(folder / "train")
    with tempfile.TemporaryDirectory() as cache:
        classifier = FineTunedClassifier(
            weights,
            freeze_depth=freeze_depth,
            augment=None,
            dropout=0,
            label_smoothing=0,
            image_size=SIZE,
            max_epochs=epochs,
            batch_size=BATCH_SIZE,
            precision="float32",
            feature_cache=cache,
            random_state=0,
        )
        started = time.perf_counter()
        classifier.fit(X, y)
        seconds = time.perf_counter() - started
    assert classifier.n_iter_ == epochs
    trained = classifier.net_.module_.parameters()
    return {"seconds": seconds, "trained_parameters": sum(p.numel() for p in trained)}


def read(path):
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    height, width = pixels.shape[1:]
    scale = RESIZE / min(height, width)
    pixels = F.resize(pixels, [int(height * scale), int(width * scale)], antialias=True)
    return F.center_crop(pixels, [SIZE, SIZE])


class Stopwatch:
    """Adds up seconds by name."""

    def __init__(self):
        self.seconds = {"reading": 0.0, "frozen": 0.0, "trained": 0.0}
        self._last = time.perf_counter()

    def stop(self, name):
        """Add what has passed since the last stop."""
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now


def run_torch(folder, weights, freeze_depth, epochs):
    X, y = load_image_folder(folder / "train")
    started, watch = time.perf_counter(), Stopwatch()
    classes, y = np.unique(y, return_inverse=True)
    labels = torch.from_numpy(y)
    with ThreadPoolExecutor() as pool:
        pixels = torch.stack(list(pool.map(read, X)))
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    watch.stop("reading")

    torch.manual_seed(0)
    model = mobilenet_v2(width_mult=0.35)
    model.load_state_dict(read_tensors(weights), strict=False)
    model = model.eval().to(memory_format=torch.channels_last)
    cut = FIRST_TRAINED_LAYER[freeze_depth]
    frozen, stages = model.features[:cut].requires_grad_(False), model.features[cut:]
    head = nn.Linear(model.last_channel, len(classes))
    optimizer = torch.optim.AdamW(
        [{"params": stages.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-3}]
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(BATCH_SIZE):
            with torch.inference_mode():
                kept = frozen(pixels[chosen].float().div_(127.5).sub_(1))
            watch.stop("frozen")
            # a tensor of inference mode can't be saved for the backward pass
            rows = stages(kept.clone()).mean((2, 3))
            loss = nn.functional.cross_entropy(head(rows), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.stop("trained")
    parameters = [*stages.parameters(), *head.parameters()]
    return {
        "seconds": time.perf_counter() - started,
        "trained_parameters": sum(p.numel() for p in parameters),
        **watch.seconds,
    }


VARIANTS = {"sktransfer": run_sktransfer, "torch": run_torch}


def compare(folder, weights, freeze_depth, epochs, repeats):
    """Run both in turns; return lines of figures, the speed-up, and what can be expected."""
    lines = []
    for _ in range(repeats):
        for variant in VARIANTS:
            report = in_own_process(
                __file__, variant, folder, weights, "--run", freeze_depth, epochs
            )
            lines.append({"variant": variant, "freeze_depth": freeze_depth, **report})
    assert len({line["trained_parameters"] for line in lines}) == 1, "not the same stages"

    def median(variant, what):
        return statistics.median(line[what] for line in lines if line["variant"] == variant)

    for variant in VARIANTS:
        seconds = [line["seconds"] for line in lines if line["variant"] == variant]
        print(
            f"freeze_depth={freeze_depth}  {variant:<11}{statistics.median(seconds):>7.2f} s, "
            f"from {min(seconds):.2f} to {max(seconds):.2f}"
        )
    reading, frozen, trained = (median("torch", what) for what in ("reading", "frozen", "trained"))
    speedup = median("torch", "seconds") / median("sktransfer", "seconds")
    # the times of the frozen and the trained part are those of all epochs
    expected = (reading + frozen + trained) / (reading + frozen / epochs + trained)
    print(
        f"freeze_depth={freeze_depth}  the frozen part is {frozen / (frozen + trained):.0%} of a "
        f"step; {speedup:.2f} times as fast, {expected:.2f} expected: "
        f"{speedup / expected:.2f} of it",
        flush=True,
    )
    return lines, speedup, expected


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="hymenoptera: train/{ants,bees}")
    parser.add_argument("weights", help="self-describing file of MobileNetV2 at width 0.35")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--run", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        run = VARIANTS[arguments.variant]
        print(json.dumps(run(arguments.folder, arguments.weights, *arguments.run)))
        return

    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # for the processes of the variants
    figures, shares = [], {}
    for freeze_depth in FIRST_TRAINED_LAYER:
        lines, speedup, expected = compare(
            arguments.folder, arguments.weights, freeze_depth, arguments.epochs, arguments.repeats
        )
        shares[freeze_depth] = speedup / expected
        figures += [
            {
                "reading": "",
                "frozen": "",
                "trained": "",
                **line,
                "speedup": round(speedup, 2),
                "expected": round(expected, 2),
            }
            for line in lines
        ]
    write_csv("bench_partial_freeze", figures)
    for freeze_depth, share in shares.items():
        assert share >= LEAST_OF_EXPECTED, f"freeze_depth={freeze_depth}: {share:.2f} of expected"


if __name__ == "__main__":
    main()
