"""Where frozen norms of trained stages are folded into convolutions, steps take less time.

    python benchmarks/bench_folded_norms.py [--seconds 0.5]

The last stages of networks with random weights, forward and backward passes of batches of 32 on
drawn activations, frozen batch norms, one thread, in turns within one process:

- norms: no norm is folded
- all: each norm that follows a convolution is folded into it
- rule: those are whose activation is large and not smaller than the weights, as in a fit

Printed is the least processor time of a step of all turns, which other work on the machine
lengthens least, and as a multiple of that of `norms`. Claim: `rule` takes at most 1.05 times the
faster of the other two.
"""

import argparse
import time
from unittest.mock import patch

import torch

from _report import write_csv
from sktransfer.backbones._registry import load_backbone
from sktransfer.training import _folded_norms

BATCH, TURNS, MOST = 32, 7, 1.05
TAILS = [  # network, parameters, image size, depth
    ("resnet18", {}, 64, -1),
    ("resnet18", {}, 64, -2),
    ("resnet18", {}, 224, -1),
    ("resnet50", {}, 224, -1),
    ("mobilenet_v2", {"width_mult": 0.35}, 64, -1),
    ("mobilenet_v2", {"width_mult": 0.35}, 224, -1),
    ("mobilenet_v2", {"width_mult": 0.35}, 224, -3),
]
RULES = {
    "norms": lambda conv, n_values: False,
    "all": lambda conv, n_values: True,
    "rule": _folded_norms._is_worth_it,
}


def drawn_tail(network, params, size, depth):
    """Return the last stages, ready to train, and a batch of activations."""
    backbone = load_backbone(network, params, None)
    n_frozen = len(backbone.stages) + depth
    backbone = backbone.fresh(n_frozen)
    images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        activations = backbone.frozen(n_frozen, None)(images)
    stages = backbone.rest(n_frozen, backbone.pooling("auto")).eval().requires_grad_(True)
    activations = activations.clone().contiguous(memory_format=torch.channels_last)
    return stages.to(memory_format=torch.channels_last), activations


def seconds_of_a_step(stages, activations, rule, seconds):
    """Return the processor seconds of a step, and the number of norms that are folded."""
    with (
        patch.object(_folded_norms, "_is_worth_it", rule),
        _folded_norms.folded_norms(stages, activations[:1], BATCH),
    ):
        n_folded = sum(type(m) is _folded_norms._PassedNorm for m in stages.modules())
        n, started = 0, time.process_time()
        while n == 0 or time.process_time() - started < seconds:
            stages.zero_grad(set_to_none=True)
            stages(activations).square().sum().backward()
            n += 1
        return (time.process_time() - started) / n, n_folded


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="each variant in each turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = []
    for tail in TAILS:
        stages, activations = drawn_tail(*tail)
        taken = {name: [] for name in RULES}
        n_folded = {}
        for turn in range(-1, TURNS):  # the first turn warms up
            for name, rule in RULES.items():
                seconds, n_folded[name] = seconds_of_a_step(
                    stages, activations, rule, options.seconds
                )
                if turn >= 0:
                    taken[name].append(seconds)
        for name, values in taken.items():
            network, params, size, depth = tail
            line = {
                "network": " ".join([network, *map(str, params.values())]),
                "pixels": size,
                "freeze_depth": depth,
                "variant": name,
                "folded": n_folded[name],
                "step ms": round(1e3 * min(values), 2),
                "times norms": round(min(values) / min(taken["norms"]), 3),
            }
            print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
            lines.append(line)
    write_csv("bench_folded_norms", lines)
    for norms, everything, rule in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        least = min(norms["times norms"], everything["times norms"])
        assert rule["times norms"] <= MOST * least, rule


if __name__ == "__main__":
    main()
