"""On a GPU as fast as the GPU: extraction, training and a search beside plain torch, one table.

    python benchmarks/bench_gpu.py                   # on the first GPU, or small on the CPU
    python benchmarks/bench_gpu.py --device cuda:1 --networks resnet50 --sections extraction

Needs no data and no downloads: images are drawn, JPEG files are written on the spot, and all
networks have random weights, the same on both sides. Each section runs in a process of its own;
what is compared runs in turns, and a figure is the median over the repeats.

- extraction, float32 and bfloat16, images/s, store off. `arrays`: uint8 arrays of the side that
  preprocessing resizes to; `jpeg`: files whose digests are not known. Beside them `loop`, the
  best plain loop by hand with its copies, of the batch sizes and ways to use bfloat16 that a trial
  compares; `compiled`, the same with torch.compile and pixels on the device (for the networks of
  --compile); `timm`, the protocol of timm's benchmark.py; `one at a time`; `decoding` alone.
- training, steps/s of the last stage and of the last two with a head, from stored activations,
  beside plain torch with the same tail, the same batches and data on the device.
- search: 4 learning rates x 5 folds x 10 epochs of a head, with an empty store, refit included.
  Beside it skorch's way: one of its 20 fits with the prediction of its fold, times 20.
- memory (on a GPU): a transform whose batch does not fit, and a fit whose batch does not.
- busy: the share of the time in which a kernel runs, by torch.profiler.

On the CPU networks and sizes are smaller (`SETTINGS`), and only results are asserted: rows equal
those of the loop, and the search ends. On CUDA the claims of `CLAIMS` are asserted, once the table
is written. `--label` names the version of the code: rows of other labels stay in the file. `--clock
processor` counts processor time, which a busy machine does not lengthen; on a CPU, with one thread
(OMP_NUM_THREADS=1), it is what a free core would take.
"""

import argparse
import csv
import gc
import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _gpu_loops import (
    CLOCKS,
    CORES,
    decode_all,
    draw_arrays,
    fastest_loop,
    now,
    plain_steps_per_s,
    rate,
    skorch_seconds,
    synchronize,
    timm_rate,
    use_clock,
    write_jpegs,
)
from skorch.callbacks import Callback
from torch import nn
from torchvision.transforms.v2 import functional as F

from _report import RESULTS, in_own_process, write_csv
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer.backbones._registry import load_backbone

PRECISIONS = ("float32", "bfloat16")
SECTIONS = ("extraction", "training", "search", "memory")
TIMM_NAMES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "vit_b_16": "vit_base_patch16_224",
    "convnext_tiny": "convnext_tiny",
    "efficientnet_b0": "efficientnet_b0",
}
# Ratios that are asserted on a GPU: the least of each, and the cosine of rows.
CLAIMS = {
    "arrays / loop": 0.95,
    "arrays / compiled": 0.8,
    "jpeg / min(decoding, network)": 0.9,
    "busy": 0.9,
    "cosine with the CPU": 0.9999,
    "steps / plain": 0.9,
    "skorch / search": 100,
}
# Rows against those of the loop, on any device: in bfloat16 the order of rounding differs.
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.999}


@dataclass(frozen=True)
class Setting:
    """How much is measured."""

    networks: tuple[str, ...]
    size: int
    seconds: float  # of each measurement, about
    most_images: int
    batch_sizes: tuple[int, ...]
    repeats: int
    training_network: str
    n_training: int
    training_batches: tuple[int, ...]
    training_epochs: int
    n_search: int
    jpeg: tuple[int, int]


SETTINGS = {
    "cuda": Setting(
        ("resnet50", "vit_b_16", "convnext_tiny", "efficientnet_b0"),
        224, 1.5, 16384, (128, 256), 3, "resnet50", 1024, (32, 256), 8, 400, (500, 375),
    ),
    "cpu": Setting(
        ("resnet18", "efficientnet_b0"),  # ViT-B/16 has one size, 224 pixels
        64, 0.3, 1024, (16,), 3, "resnet18", 96, (32,), 4, 40, (160, 120),
    ),
    "smallest": Setting(
        ("resnet18",), 32, 0.01, 16, (8,), 1, "resnet18", 24, (8,), 2, 20, (48, 40)
    ),
}  # fmt: skip


def row(section, network, precision, what, unit, values):
    """Return a line of the table; `values` are those of the repeats."""
    return {
        "section": section,
        "network": network,
        "precision": precision,
        "what": what,
        "unit": unit,
        "median": round(statistics.median(values), 5),
        "least": round(min(values), 5),
        "most": round(max(values), 5),
    }


# extraction


def transform_unseen(fitted, paths):
    """Transform files that have changed since their digest was taken."""
    for path in paths:
        Path(path).touch()
    return fitted.transform(paths)


def covered(intervals):
    """Return the length that intervals (start, end) cover together."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def busy_share(work):
    """Return the share of the time of a call in which a kernel runs on the GPU."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    ]
    return covered(kernels) / (1e6 * seconds)


def cosines(rows, others):
    """Return the least cosine of rows with others."""
    rows, others = rows.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float(((rows * others).sum(1) / lengths).min())


def extraction(name, precision, setting, device, is_compiled):
    """Return the lines of one network in one precision."""
    is_cuda = device.startswith("cuda")
    fitted = PretrainedFeatureTransformer(
        name,
        weights=None,
        image_size=setting.size,
        device=device,
        precision=precision,
        feature_cache=None,
    )
    backbone = load_backbone(name, weights=None)
    spec = backbone.spec.input.at(setting.size)
    n_trial = max(setting.batch_sizes) * (4 if is_cuda else 1)
    some = draw_arrays(n_trial, spec.resize)
    fitted.fit(some)
    # the layers of torchvision, pooled as the rows are: where a norm comes after, it is left out
    pool = backbone.pool(fitted.pooling_, len(backbone.stages))
    network = nn.Sequential(*backbone.stages.values(), pool)
    loop = fastest_loop(network, spec, device, precision, setting.batch_sizes, some)
    images_per_s = rate(loop, some, device)
    whole = loop.batch_size
    n = int(min(images_per_s * setting.seconds, setting.most_images)) // whole * whole
    arrays = draw_arrays(max(n, n_trial), spec.resize)
    rows = fitted.transform(some)
    least = cosines(rows, loop(some))
    assert least >= LEAST_COSINE[precision], f"{name}: cosine {least} of rows with the loop's"

    with tempfile.TemporaryDirectory() as folder:
        few = write_jpegs(whole, *setting.jpeg, folder)
        decoded_per_s = rate(lambda paths: decode_all(paths, spec), few, device)
        n = int(min(decoded_per_s * setting.seconds, len(arrays))) // whole * whole
        paths = write_jpegs(max(n, whole), *setting.jpeg, folder)
        works = {
            "arrays": (fitted.transform, arrays),
            "loop": (loop, arrays),
            "jpeg": (lambda paths: transform_unseen(fitted, paths), paths),
            "decoding": (lambda paths: decode_all(paths, spec), paths),
            "one at a time": (loop.one_at_a_time, arrays[: max(4, whole)]),
        }
        if is_compiled:
            works["compiled"] = (loop.compiled().on_device(arrays), arrays)
        rates = {what: [] for what in works}
        for repeat in range(setting.repeats + 1):
            for what, (work, images) in works.items():
                images_per_s = rate(work, images, device)
                if repeat:  # the first is for warming up
                    rates[what].append(images_per_s)
        # what a call leaves behind, with memory that it returned to the allocator
        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
            gc.collect()
            before = torch.cuda.memory_allocated()
            fitted.transform(arrays)
            peak, left = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated() - before
            assert left <= 2**20, f"{name}: a call leaves {left / 2**20:.0f} MiB on the device"
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    try:
        timm_size = 224 if is_cuda else setting.size
        steps = 40 if is_cuda else 2 * setting.repeats
        rates["timm"] = [
            timm_rate(
                TIMM_NAMES[name], timm_size, device, precision, max(setting.batch_sizes), steps
            )
        ]
    except ImportError:
        print("timm is not installed: without its loop", file=sys.stderr)

    facts = "extraction", name, precision
    lines = [row(*facts, what, "images/s", values) for what, values in rates.items()]
    lines.append(row(*facts, "peak memory", "MiB", [peak / 2**20]))
    pairs = zip(rates["arrays"], rates["loop"], strict=True)
    lines.append(row(*facts, "arrays / loop", "ratio", [ours / loop for ours, loop in pairs]))
    networks = map(max, rates["arrays"], rates["loop"])
    both = list(zip(rates["jpeg"], rates["decoding"], networks, strict=True))
    if is_cuda:
        parts = [jpeg / min(decoding, network) for jpeg, decoding, network in both]
        lines.append(row(*facts, "jpeg / min(decoding, network)", "ratio", parts))
        busy = busy_share(lambda: fitted.transform(arrays))
        lines.append(row(*facts, "busy", "share", [busy]))
        on_cpu = PretrainedFeatureTransformer(**{**fitted.get_params(), "device": "cpu"})
        least = cosines(rows[:32], on_cpu.fit_transform(some[:32]))
        if precision == "float32":
            lines.append(row(*facts, "cosine with the CPU", "cosine", [least]))
    else:  # decoding and network share the cores
        parts = [jpeg * (1 / decoding + 1 / network) for jpeg, decoding, network in both]
        lines.append(row(*facts, "jpeg / together", "ratio", parts))
    if "compiled" in rates:
        pairs = zip(rates["arrays"], rates["compiled"], strict=True)
        lines.append(row(*facts, "arrays / compiled", "ratio", [a / b for a, b in pairs]))
    return lines


# training


class EpochClock(Callback):
    """Measures the seconds of each epoch, with the work that the device still has to do."""

    def __init__(self, device):
        self.device = device

    def on_train_begin(self, net, **kwargs):
        self.seconds_ = []

    def on_epoch_begin(self, net, **kwargs):
        synchronize(self.device)
        self.started_ = now()

    def on_epoch_end(self, net, **kwargs):
        synchronize(self.device)
        self.seconds_.append(now() - self.started_)


def training(name, setting, device):
    """Return steps/s of the last stages, and those of plain torch."""
    backbone = load_backbone(name, weights=None)
    spec = backbone.spec.input.at(setting.size)
    n_classes = 10
    arrays = draw_arrays(setting.n_training, spec.resize)
    labels = np.arange(len(arrays)) % n_classes
    lines = []
    with tempfile.TemporaryDirectory() as store:
        for depth in (-1, -2):
            n_frozen = len(backbone.stages) + depth
            frozen = backbone.frozen(n_frozen, None)
            pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2)
            square = F.center_crop(pixels, [spec.size, spec.size])
            with torch.inference_mode():
                parts = [frozen(part) for part in square.split(32)]
            activations = torch.cat(parts).numpy()
            for batch_size in setting.training_batches:
                clocks, plain = [], []
                for _ in range(setting.repeats):
                    clock = EpochClock(device)
                    FineTunedClassifier(
                        name, weights=None, recipe="fast", freeze_depth=depth, device=device,
                        precision="float32", image_size=setting.size, batch_size=batch_size,
                        max_epochs=setting.training_epochs, callbacks=[clock],
                        feature_cache=store, random_state=0, verbose=-1,
                    ).fit(arrays, labels)  # fmt: skip
                    steps = -(-len(arrays) // batch_size)
                    clocks.append(steps / statistics.median(clock.seconds_[1:]))
                    fresh = load_backbone(name, weights=None).rest(n_frozen, "avg")
                    plain.append(
                        plain_steps_per_s(
                            fresh, backbone.width(len(backbone.stages), "avg", spec), n_classes,
                            activations, labels, device, batch_size, setting.training_epochs,
                        )
                    )  # fmt: skip
                facts = "training", name, f"float32, freeze_depth={depth}, batch {batch_size}"
                lines.append(row(*facts, "steps", "steps/s", clocks))
                lines.append(row(*facts, "plain", "steps/s", plain))
                ratios = [a / b for a, b in zip(clocks, plain, strict=True)]
                lines.append(row(*facts, "steps / plain", "ratio", ratios))
    return lines


# search


def search(name, setting, device):
    """Return seconds of the reference search, and of skorch's way."""
    from sklearn.model_selection import GridSearchCV

    epochs, folds = (10, 5) if setting.repeats > 1 else (1, 2)
    rates = [0.0003, 0.001, 0.003, 0.01]
    backbone = load_backbone(name, weights=None)
    spec = backbone.spec.input.at(setting.size)
    labels = np.arange(setting.n_search) % 4
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(setting.n_search, *setting.jpeg, folder)
        seconds = []
        for repeat in range(setting.repeats):
            classifier = FineTunedClassifier(
                name, weights=None, freeze_depth=None, image_size=setting.size, max_epochs=epochs,
                batch_size=32, device=device, feature_cache=Path(folder) / f"store{repeat}",
                random_state=0, verbose=-1,
            )  # fmt: skip
            grid = GridSearchCV(classifier, {"lr": rates}, cv=folds)
            started = now()
            grid.fit(paths, labels)
            seconds.append(now() - started)
            assert len(grid.cv_results_["mean_test_score"]) == len(rates)
        workers = CORES if device.startswith("cuda") else 0
        one = skorch_seconds(backbone.model, spec, paths, labels, device, epochs, folds, workers)
    whole = one * len(rates) * folds
    facts = "search", name, f"{len(rates)} x {folds} x {epochs}, {setting.n_search} files"
    return [
        row(*facts, "search", "s", seconds),
        row(*facts, "skorch", "s", [whole]),
        row(*facts, "skorch / search", "ratio", [whole / s for s in seconds]),
    ]


# memory


def memory(name, setting, device):
    """Run a transform and a fit whose batches do not fit; return the lines of both.

    The first call is one with the memory that it needs, whose results are compared.
    """
    spec = load_backbone(name, weights=None).spec.input.at(setting.size)
    arrays = draw_arrays(512, spec.resize)
    labels = np.arange(len(arrays)) % 4
    fitted = PretrainedFeatureTransformer(
        name, weights=None, image_size=setting.size, device=device, batch_size=512,
        precision="float32", feature_cache=None,
    ).fit(arrays)  # fmt: skip
    classifier = FineTunedClassifier(
        name, weights=None, recipe="fast", freeze_depth=0, augment=None, device=device,
        precision="float32", image_size=setting.size, batch_size=256, max_epochs=1,
        dropout=0.0, feature_cache=None, random_state=0, verbose=-1,
    )  # fmt: skip
    facts = "memory", name, "float32"
    lines = []
    for what, work in {
        "transform": lambda: fitted.transform(arrays),
        "fit": lambda: classifier.fit(arrays, labels).predict_proba(arrays),
    }.items():
        torch.cuda.reset_peak_memory_stats()
        expected = work()
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(0.4 * peak / total)
        try:
            found = work()
            lines.append(row(*facts, f"{what}, cosine with little memory", "cosine",
                             [cosines(found, expected)]))  # fmt: skip
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        lines.append(row(*facts, f"{what}, peak memory with enough", "MiB", [peak / 2**20]))
    return lines


# the table


def run(variant, options):
    """Return the lines of one section; the variant is its name and that of a network."""
    section, name, precision = (*variant.split(":"), None)[:3]
    torch.set_num_threads(CORES)
    use_clock(options.clock)
    setting = SETTINGS[options.size]
    if section == "extraction":
        is_compiled = name in options.compile
        return extraction(name, precision, setting, options.device, is_compiled)
    return {"training": training, "search": search, "memory": memory}[section](
        name, setting, options.device
    )


def variants(options):
    """Return what is run, in order."""
    setting = SETTINGS[options.size]
    networks = options.networks or setting.networks
    found = []
    if "extraction" in options.sections:
        found += [f"extraction:{name}:{kind}" for name in networks for kind in PRECISIONS]
    for section in ("training", "search", "memory"):
        if section in options.sections and (section != "memory" or "cuda" in options.device):
            found.append(f"{section}:{setting.training_network}")
    return found


def kept(name, label):
    """Return the rows of other labels in the file."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["label"] != label]


def show(lines):
    for line in lines:
        spread = "" if line["least"] == line["most"] else f"{line['least']:g} to {line['most']:g}"
        print(
            f"{line['section']:<11}{line['network']:<16}{line['precision']:<38}{line['what']:<32}"
            f"{line['median']:>12g} {line['unit']:<9}{spread}",
            flush=True,
        )


def missed(lines):
    """Return the claims that do not hold, in words."""
    return [
        f"{line['network']}, {line['precision']}: {line['what']} is {line['median']:g}, claimed "
        f"{CLAIMS[line['what']]:g}"
        for line in lines
        if line["what"] in CLAIMS and not line["median"] >= CLAIMS[line["what"]]
    ]


def options_of(arguments=None):
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=SETTINGS, help="how much; as the device is by default")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--networks", nargs="+", choices=TIMM_NAMES)
    parser.add_argument("--compile", nargs="*", choices=TIMM_NAMES)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--label", default="now", help="the version of the code")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    kind = options.device.split(":")[0]
    options.size = options.size or kind
    if options.compile is None:  # on a CPU that takes minutes, and needs a compiler
        options.compile = ["resnet50", "vit_b_16"] if kind == "cuda" else []
    return options


def main():
    options = options_of()
    if options.variant:
        print(json.dumps(run(options.variant, options)))
        return
    lines = []
    settings = ["--device", options.device, "--size", options.size, "--compile", *options.compile]
    settings += ["--clock", options.clock]
    for variant in variants(options):
        started = time.perf_counter()
        found = in_own_process(__file__, variant, *settings)
        show(found)
        print(f"{variant}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        lines += [{"label": options.label, "clock": options.clock, **line} for line in found]
    name = f"bench_gpu_{options.device.split(':')[0]}"
    write_csv(name, kept(name, options.label) + lines)
    if options.device.startswith("cuda"):
        failed = missed(lines)
        assert not failed, "; ".join(failed)


if __name__ == "__main__":
    main()
