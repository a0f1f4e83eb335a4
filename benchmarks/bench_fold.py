"""Folding batch norms pays on a CPU; a traced and frozen graph pays no more.

    python benchmarks/bench_fold.py

Networks with random weights, channels-last, batches as the engine takes them: 16
images, one thread. In float32 and bfloat16, in turns within one process:

- eager: the network as it is
- folded: batch norms folded into the convolutions before them, as the engine runs it
- cast: folded, and the weights kept in bfloat16, which autocast casts for each batch
- graph: torch.jit.trace and freeze, optimized for inference in float32

Printed is how many times the images/s of eager, in the same turn: the median, and from
the least to the most. KeyLocks, on MobileNetV2-0.35 and a processor with AVX-512: at least
1.5 times in float32 and 1.1 times in bfloat16; and on none of the networks less than
0.9 times. A minute or two on one core; on a busy machine single turns are far off.
"""

import argparse
import copy
import statistics
import time
import warnings

import torch
from torch import nn

from _report import write_csv
from sktransfer.backbones._registry import load_backbone
from sktransfer.extraction._fold import fold_batch_norms

BATCH, TURNS = 16, 7
NETWORKS = {
    "mobilenet_v2 x 0.35": ("mobilenet_v2", {"width_mult": 0.35}, 129),
    "mobilenet_v3_small": ("mobilenet_v3_small", {}, 224),
    "resnet18": ("resnet18", {}, 224),
    "resnet50": ("resnet50", {}, 224),
}
LEAST = {"float32": 1.5, "bfloat16": 1.1}


def cast_weights(network):
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.bfloat16()
    return network


def graph(network, images, precision):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        with torch.autocast("cpu", torch.bfloat16, precision == "bfloat16", cache_enabled=False):
            frozen = torch.jit.freeze(torch.jit.trace(network, images))
        return torch.jit.optimize_for_inference(frozen) if precision == "float32" else frozen


def variants(network, folded, images, precision):
    yield "eager", network
    yield "folded", folded
    if precision == "bfloat16":
        yield "cast", cast_weights(folded)
    yield "graph", graph(network, images, precision)


def compare(networks, images, precision, seconds):
    """Return images/s of each variant, in each turn."""
    rates = {variant: [] for variant in networks}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
        for turn in range(-1, TURNS):  # the first turn warms up
            for variant, network in networks.items():
                n, started = 0, time.perf_counter()
                while n == 0 or time.perf_counter() - started < seconds:
                    network(images)
                    n += len(images)
                if turn >= 0:
                    rates[variant].append(n / (time.perf_counter() - started))
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="each variant in each turn")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    lines = []
    for name in arguments.networks:
        architecture, params, size = NETWORKS[name]
        backbone = load_backbone(architecture, params, None)
        network = backbone.frozen(len(backbone.stages), backbone.pooling("auto"))
        network = network.to(memory_format=torch.channels_last)
        folded = fold_batch_norms(network, size).to(memory_format=torch.channels_last)
        shape = (BATCH, 3, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for precision in LEAST:
            networks = dict(variants(network, folded, images, precision))
            rates = compare(networks, images, precision, arguments.seconds)
            for variant, values in rates.items():
                ratios = [a / b for a, b in zip(values, rates["eager"], strict=True)]
                line = {
                    "network": name,
                    "precision": precision,
                    "variant": variant,
                    "images_per_s": round(statistics.median(values), 1),
                    "times_eager": round(statistics.median(ratios), 2),
                    "least": round(min(ratios), 2),
                    "most": round(max(ratios), 2),
                }
                lines.append(line)
                print("{:20} {:9} {:7} {:8} images/s {:6} ({} to {})".format(*line.values()))
    write_csv("bench_fold", lines)
    for line in lines:
        if line["variant"] == "folded":
            assert line["times_eager"] >= 0.9, line
            if "0.35" in line["network"]:
                assert line["times_eager"] >= LEAST[line["precision"]], line


if __name__ == "__main__":
    main()
