"""Extraction is as fast as a loop tuned by hand, from arrays and from JPEG files.

    python benchmarks/bench_extract.py hymenoptera mobilenet_v2_0.35.safetensors

Images/s of ``PretrainedFeatureTransformer`` for five networks at their own sizes:

- arrays: uint8 arrays in memory, store off. They have the side to which the network's
  preprocessing resizes, so that both sides only crop.
- JPEG: paths, store off, each file's times set anew before each call, so that its digest
  is not known. The photographs of ``hymenoptera``, as often as needed, with a number
  behind the end of each copy, which no decoder reads: equal images pass only once.
- warm: the same paths when their rows are in a store.

Beside them, in turns and in one process for each network:

- loop: plain torch on the same arrays, in inference mode, channels last, normalised as
  one multiplication and addition, in batches of 16 and in the precision that sktransfer
  chose. Once with all threads on one batch and once with a batch for each thread, and
  in bfloat16 once with autocast and once with the weights turned to bfloat16 as well: a
  trial chooses the fastest of these ways. On a GPU, batches of 128 from pinned memory
  through the compiled network.
- decoding: the files to uint8 pixels of the network's size with Pillow and torchvision,
  a file for each core at a time, and no network.
- embetter's TimmEncoder and img2vec, where they are installed and have the network, on Pillow
  images of the same arrays: as they are, with the better of one thread and all, and with random
  weights, as nothing is downloaded: in this process timm's ``create_model`` and img2vec's
  networks are replaced by ones that don't load any. sktransfer and the loop have random
  weights, too, except for ``mini`` and the given file; the time does not depend on them.

Claims, ratios in one run, medians over the repeats: from arrays at least 0.95 of the
loop (0.9 on a GPU); from JPEG at least 0.9 of what decoding and network allow together;
3 times embetter, arrays against its Pillow images. On a CPU decoding and network share the
cores: an image costs the time of both, 1 / (1 / decoding + 1 / network) images/s, where
the network is the faster of arrays and loop. A GPU works while the cores decode: the
smaller of both. Eight minutes on 2 cores, at most.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms.v2 import functional as F

from _report import in_own_process, write_csv
from sktransfer import PretrainedFeatureTransformer, count_forward_passes, load_image_folder
from sktransfer.backbones.sources._embedded import MiniNet

CORES = len(os.sched_getaffinity(0))
BATCH_SIZE = {"cpu": 16, "cuda": 128}
MOST_IMAGES = 8192
LEAST_OF_LOOP = {"cpu": 0.95, "cuda": 0.9}
LEAST_OF_TOGETHER, LEAST_TIMES_EMBETTER = 0.9, 3


def without_head(name, head, **arguments):
    model = getattr(models, name)(**arguments)
    setattr(model, head, nn.Identity())
    return model


def mobilenet():
    model = models.mobilenet_v2(width_mult=0.35)
    return nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mini():
    model = MiniNet(1)
    model.fc = nn.Identity()
    return model


@dataclass(frozen=True)
class Network:
    """One network under the names that each package has for it."""

    make: Callable[[], nn.Module]  # in plain torch, to pooled rows
    backbone: str | None  # None: the file given on the command line
    weights: str | None  # None: random
    resize: int
    size: int
    timm: str | None = None
    img2vec: str | None = None


NETWORKS = {
    "mini": Network(mini, "mini", "default", 64, 64),
    "mobilenet_v2_0.35": Network(mobilenet, None, "default", 257, 225, "mobilenetv2_035"),
    "resnet18": Network(
        lambda: without_head("resnet18", "fc"), "resnet18", None, 256, 224, "resnet18", "resnet18"
    ),
    "resnet50": Network(
        lambda: without_head("resnet50", "fc"), "resnet50", None, 232, 224, "resnet50", "resnet50"
    ),
    "vit_b_16": Network(
        lambda: without_head("vit_b_16", "heads"),
        "vit_b_16",
        None,
        256,
        224,
        "vit_base_patch16_224",
    ),
}


@contextmanager
def one_thread_a_core():
    """Open a pool of threads that have a core and one thread of torch each."""
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
    torch.set_num_threads(CORES)  # parts of torch have one number for all threads


@dataclass(frozen=True)
class Way:
    """How a loop uses the cores, and bfloat16."""

    precision: str
    one_batch_a_thread: bool = False
    weights_too: bool = False  # in bfloat16; else autocast turns them in each batch

    def __str__(self):
        weights = " weights" if self.weights_too else ""
        batches = "a batch a thread" if self.one_batch_a_thread else "all on one batch"
        return f"{self.precision}{weights}, {batches}"


def ways(device, precision):
    """Return all ways that a loop could take."""
    return [
        Way(precision, one_batch_a_thread, weights_too)
        for one_batch_a_thread in ((False, True) if device == "cpu" else (False,))
        for weights_too in ((False, True) if precision == "bfloat16" else (False,))
    ]


class Loop:
    """The loop by hand: arrays to rows."""

    def __init__(self, network, device, way):
        self.device = device
        self.way = way
        self._margin = (network.resize - network.size) // 2
        self._size = network.size
        model = network.make().eval().requires_grad_(False)
        model = model.to(device, memory_format=torch.channels_last)
        if way.weights_too:
            model = model.bfloat16()
        if device == "cuda":
            model = torch.compile(model, mode="reduce-overhead")
        self._model = model
        self._scale = torch.full((1, 3, 1, 1), 1 / 127.5, device=device)
        self._shift = torch.full((1, 3, 1, 1), -1.0, device=device)

    def _rows(self, pixels):
        """Return the rows of one batch of uint8 (n, H, W, 3), on its device."""
        end = self._margin + self._size
        square = pixels[:, self._margin : end, self._margin : end].permute(0, 3, 1, 2)
        images = torch.addcmul(self._shift, square.float(), self._scale)
        images = images.contiguous(memory_format=torch.channels_last)
        if self.way.weights_too:
            images = images.bfloat16()
        is_cast = self.way.precision == "bfloat16" and not self.way.weights_too
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=is_cast):
            return self._model(images).float()

    def __call__(self, arrays):
        batches = torch.from_numpy(arrays).split(BATCH_SIZE[self.device])
        if self.device == "cuda":
            return self._on_gpu(batches)
        if not self.way.one_batch_a_thread:
            return torch.cat([self._rows(batch) for batch in batches]).numpy()
        with one_thread_a_core() as pool:
            return torch.cat(list(pool.map(self._rows, batches))).numpy()

    def _on_gpu(self, batches):
        pinned = [torch.empty_like(batches[0]).pin_memory() for _ in range(2)]
        is_free = [torch.cuda.Event() for _ in range(2)]
        rows = []
        for i, batch in enumerate(batches):
            is_free[i % 2].synchronize()
            buffer = pinned[i % 2][: len(batch)]
            buffer.copy_(batch)
            pixels = buffer.to(self.device, non_blocking=True)
            is_free[i % 2].record()
            rows.append(self._rows(pixels).clone())  # a graph writes over its own result
        return torch.cat(rows).cpu().numpy()


def rate(work, images):
    started = time.perf_counter()
    work(images)
    return len(images) / (time.perf_counter() - started)


def fastest(loops, arrays):
    """Return the fastest of the loops, and its images/s."""

    def images_per_s(loop):
        loop(arrays)  # not counted
        return max(rate(loop, arrays) for _ in range(2))

    rates = [images_per_s(loop) for loop in loops]
    return loops[np.argmax(rates)], max(rates)


def decode(path, network):
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    pixels = F.resize(pixels, [network.resize], antialias=True)
    return F.center_crop(pixels, [network.size, network.size])


def decode_all(paths, network):
    with one_thread_a_core() as pool:
        for _ in pool.map(lambda path: decode(path, network), paths):
            pass  # pixels are dropped, as a loop would that has used them


def copy_photographs(folder, n, to):
    """Write `n` JPEG files with digests of their own; return their paths."""
    photographs = [path for path in load_image_folder(folder)[0] if path.endswith(".jpg")]
    contents = [Path(path).read_bytes() for path in photographs]
    paths = []
    for i in range(n):
        path = Path(to) / f"{i:05d}.jpg"
        path.write_bytes(contents[i % len(contents)] + i.to_bytes(4, "big"))
        paths.append(str(path))
    return np.array(paths, dtype=object)


def transform_unseen(fitted, paths):
    """Transform files that have changed since their digest was taken."""
    for path in paths:
        os.utime(path)
    with count_forward_passes() as counter:
        fitted.transform(paths)
    assert counter.computed == len(paths)


def with_threads(work, n_threads):
    """Return `work` as it runs with so many threads of torch."""

    def run_work(images):
        torch.set_num_threads(n_threads)
        try:
            work(images)
        finally:
            torch.set_num_threads(CORES)

    return run_work


def with_better_threads(work, images):
    """Return `work` with one thread or with all, whichever is faster."""
    both = [with_threads(work, n_threads) for n_threads in (1, CORES)]
    return max(both, key=lambda run_work: rate(run_work, images))


def embetter_encoder(name):
    import timm
    from embetter.vision import TimmEncoder

    create = timm.create_model
    timm.create_model = lambda name, pretrained, **kwargs: create(name, pretrained=False, **kwargs)
    try:
        return TimmEncoder(name)
    finally:
        timm.create_model = create


def img2vec_encoder(name, device):
    from img2vec_pytorch import img_to_vec

    setattr(img_to_vec, name, lambda weights=None: getattr(models, name)(weights=None))
    return img_to_vec.Img2Vec(
        cuda=device == "cuda",
        model=name,
        layer_output_size=img_to_vec.Img2Vec.RESNET_OUTPUT_SIZES[name],
    )


def others(network, device, arrays):
    """Return what other packages do with Pillow images: name -> (work, images)."""
    pictures = [Image.fromarray(array) for array in arrays]
    found = {}
    if network.timm and find_spec("embetter"):
        # one at a time on the CPU: an eighth of the images tells its speed
        some = pictures[: max(8, min(len(pictures) // 8, 256))]
        encoder = embetter_encoder(network.timm)
        found["embetter"] = with_better_threads(encoder.transform, some[:8]), some
    if network.img2vec and find_spec("img2vec_pytorch"):
        img2vec, size = img2vec_encoder(network.img2vec, device), BATCH_SIZE[device]

        def get_vectors(images):
            for start in range(0, len(images), size):
                img2vec.get_vec(images[start : start + size])

        some = pictures[: max(size, len(pictures) // 2)]
        found["img2vec"] = with_better_threads(get_vectors, some[:size]), some
    return found


def precision_of(transformer, images):
    """Return what precision="auto" stands for, told by the rows."""
    exact = PretrainedFeatureTransformer(**{**transformer.get_params(), "precision": "float32"})
    same = np.array_equal(exact.fit_transform(images), transformer.fit_transform(images))
    return "float32" if same else "bfloat16"


def measure(network, transformer, loop, arrays, paths, store, repeats):
    """Return images/s of everything, in turns: name -> one figure a repeat."""
    kept = PretrainedFeatureTransformer(**{**transformer.get_params(), "feature_cache": store})
    kept.fit(paths)
    works = {
        "arrays": (transformer.transform, arrays),
        "loop": (loop, arrays),
        "jpeg": (lambda paths: transform_unseen(transformer, paths), paths),
        "decoding": (lambda paths: decode_all(paths, network), paths),
        "warm": (kept.transform, paths),
        **others(network, loop.device, arrays),
    }
    rates = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, (work, images) in works.items():
            images_per_s = rate(work, images)
            if repeat:  # the first is for warming up, and fills the store
                rates[name].append(images_per_s)
    return rates


def run(name, folder, weights, device, seconds, repeats):
    """Return precision, way of the loop, numbers of images and images/s of one network."""
    network = NETWORKS[name]
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def draw(n):
        return rng.integers(0, 256, (n, network.resize, network.resize, 3), dtype=np.uint8)

    # an equal number of whole batches for each core
    whole = BATCH_SIZE[device] * (CORES if device == "cpu" else 1)
    few = draw(whole)
    transformer = PretrainedFeatureTransformer(
        network.backbone or weights, weights=network.weights, device=device, feature_cache=None
    ).fit(few)
    precision = precision_of(transformer, few[:4])
    loops = [Loop(network, device, way) for way in ways(device, precision)]
    loop, images_per_s = fastest(loops, few)
    assert transformer.transform(few).shape == loop(few).shape

    # as many as take some seconds
    arrays = draw(max(1, min(round(images_per_s * seconds), MOST_IMAGES) // whole) * whole)
    with tempfile.TemporaryDirectory() as temporary:
        paths = copy_photographs(folder, whole, temporary)
        decoded_per_s = rate(lambda paths: decode_all(paths, network), paths)
        n_paths = min(len(arrays), round(decoded_per_s * seconds) // whole * whole)
        paths = copy_photographs(folder, max(n_paths, whole), temporary)
        store = Path(temporary) / "store"
        rates = measure(network, transformer, loop, arrays, paths, store, repeats)
    return {
        "precision": precision,
        "way": str(loop.way),
        "arrays": len(arrays),
        "paths": len(paths),
        "rates": rates,
    }


def ratios(rates, device):
    """Return what is claimed: name -> one ratio a repeat."""
    found = {"of_loop": [a / n for a, n in zip(rates["arrays"], rates["loop"], strict=True)]}
    # a network that the package runs faster than the loop does allows more
    networks = map(max, rates["arrays"], rates["loop"])
    both = zip(rates["jpeg"], rates["decoding"], networks, strict=True)
    if device == "cuda":
        found["of_together"] = [jpeg / min(d, n) for jpeg, d, n in both]
    else:
        found["of_together"] = [jpeg * (1 / d + 1 / n) for jpeg, d, n in both]
    for other in ("embetter", "img2vec"):
        if other in rates:
            pairs = zip(rates["arrays"], rates[other], strict=True)
            found[f"times_{other}"] = [a / b for a, b in pairs]
    return found


def show(name, report, found):
    print(f"{name}: {report['precision']}; the loop: {report['way']}")
    for what, values in report["rates"].items():
        median = statistics.median(values)
        print(f"    {what:<10}{median:>10,.1f} images/s, {min(values):,.1f} to {max(values):,.1f}")
    for what, values in found.items():
        median = statistics.median(values)
        print(f"    {what:<15}{median:>5.2f}, {min(values):.2f} to {max(values):.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder/<class>/<image>")
    parser.add_argument("weights", help="self-describing file of MobileNetV2 at width 0.35")
    parser.add_argument("--device", choices=BATCH_SIZE, default="cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement, about")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variant", choices=NETWORKS)
    options = parser.parse_args()
    device = options.device
    if options.variant:
        arguments = options.folder, options.weights, device, options.seconds, options.repeats
        print(json.dumps(run(options.variant, *arguments)))
        return

    os.environ["TQDM_DISABLE"] = "1"  # no bars between the lines of the table
    lines, failed = [], []
    least = {
        "of_loop": LEAST_OF_LOOP[device],
        "of_together": LEAST_OF_TOGETHER,
        "times_embetter": LEAST_TIMES_EMBETTER,
    }
    settings = ["--device", device, "--seconds", options.seconds, "--repeats", options.repeats]
    for name in options.networks:
        report = in_own_process(__file__, name, options.folder, options.weights, *settings)
        found = ratios(report["rates"], device)
        show(name, report, found)
        for what, values in {**report["rates"], **found}.items():
            median = statistics.median(values)
            lines.append(
                {
                    "network": name,
                    "device": device,
                    "precision": report["precision"],
                    "loop": report["way"],
                    "what": what,
                    "unit": "images/s" if what in report["rates"] else "ratio",
                    "median": round(median, 3),
                    "least": round(min(values), 3),
                    "most": round(max(values), 3),
                    "arrays": report["arrays"],
                    "paths": report["paths"],
                }
            )
            if median < least.get(what, 0):
                failed.append(f"{name}: {what} is {median:.2f}, claimed {least[what]}")
    write_csv("bench_extract" if device == "cpu" else f"bench_extract_{device}", lines)
    assert not failed, "; ".join(failed)


if __name__ == "__main__":
    main()
