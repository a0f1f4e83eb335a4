"""What `bench_gpu.py` compares with: loops by hand in plain torch, timm's loop and skorch's search.

Images are drawn; nothing is downloaded, and all networks have random weights, the same ones on
both sides.
"""

import copy
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

CORES = int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_clock = "wall"


def use_clock(name):
    """Set what `now` reads: the time, or the processor time of this process."""
    global _clock
    _clock = name


def now():
    return CLOCKS[_clock]()


def synchronize(device):
    """Wait for what a device was asked to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def rate(work, images, device):
    """Return images/s of a call of `work`."""
    synchronize(device)
    started = now()
    work(images)
    synchronize(device)
    return len(images) / (now() - started)


# images


def draw_arrays(n, side, seed=0):
    """Return uint8 (n, side, side, 3): blots of many sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    few = min(n, 64)
    pixels = np.zeros((few, side, side, 3), dtype=np.float32)
    for n_blots in (2, 8, 32):
        blots = rng.random((few, n_blots, n_blots, 3), dtype=np.float32) - 0.5
        for image, coarse in zip(pixels, blots, strict=True):
            resized = F.resize(torch.from_numpy(coarse).permute(2, 0, 1), [side, side])
            image += resized.permute(1, 2, 0).numpy() / n_blots**0.5
    pixels += rng.normal(0, 0.03, pixels.shape)
    drawn = np.clip(pixels * 180 + 128, 0, 255).astype(np.uint8)
    # further images are the first ones moved: no two are equal
    moved = [np.roll(drawn, shift, axis=2) for shift in range(-(-n // few))]
    return np.concatenate(moved)[:n]


def write_jpegs(n, width, height, folder):
    """Write JPEG files with digests of their own; return their paths."""
    square = draw_arrays(min(n, 32), max(width, height), seed=1)
    first = Path(folder) / "drawn.jpg"
    contents = []
    for pixels in square[:, :height, :width]:
        Image.fromarray(pixels).save(first, quality=90)
        contents.append(first.read_bytes())
    first.unlink()
    paths = []
    for i in range(n):
        path = Path(folder) / f"{i:06d}.jpg"
        # a number behind the end, which no decoder reads: equal images pass only once
        path.write_bytes(contents[i % len(contents)] + i.to_bytes(4, "big"))
        paths.append(str(path))
    return np.array(paths, dtype=object)


def decode(path, spec):
    """Return uint8 (3, size, size) of a file, with Pillow and torchvision."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    way = InterpolationMode(spec.interpolation)
    pixels = F.resize(pixels, [spec.resize], interpolation=way, antialias=True)
    return F.center_crop(pixels, [spec.size, spec.size])


def decode_all(paths, spec):
    """Decode a file for each core at a time, and drop the pixels."""
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(lambda path: decode(path, spec), paths):
            pass
    torch.set_num_threads(CORES)  # parts of torch have one number for all threads


# rows


class Loop:
    """The loop by hand, from arrays (n, resize, resize, 3) in memory to rows in memory.

    Channels last, inference mode; on a GPU with copies from pinned memory, which are not
    waited for, two buffers in turns.
    """

    def __init__(self, model, spec, device, precision, *, has_cast_weights, batch_size):
        self.device, self.batch_size = device, batch_size
        self._autocasts = precision == "bfloat16" and not has_cast_weights
        self._is_cast = has_cast_weights
        self._margin, self._size = (spec.resize - spec.size) // 2, spec.size
        model = copy.deepcopy(model).eval().requires_grad_(False)
        model = model.to(device, memory_format=torch.channels_last)
        self._model = model.bfloat16() if has_cast_weights else model
        scale = 1 / (255 * torch.tensor(spec.std))
        shift = -torch.tensor(spec.mean) / torch.tensor(spec.std)
        self._scale, self._shift = (x.reshape(1, 3, 1, 1).to(device) for x in (scale, shift))

    def compiled(self):
        """Return the same loop with a compiled network."""
        other = copy.copy(self)
        is_cuda = torch.device(self.device).type == "cuda"
        other._model = torch.compile(self._model, mode="reduce-overhead" if is_cuda else "default")
        return other

    def rows(self, pixels):
        """Return the rows of a batch of uint8 pixels on the device."""
        end = self._margin + self._size
        square = pixels[:, self._margin : end, self._margin : end].permute(0, 3, 1, 2)
        images = torch.addcmul(self._shift, square.float(), self._scale)
        images = images.contiguous(memory_format=torch.channels_last)
        if self._is_cast:
            images = images.bfloat16()
        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self._autocasts):
            return self._model(images).flatten(1)

    def __call__(self, arrays):
        batches = torch.from_numpy(arrays).split(self.batch_size)
        if torch.device(self.device).type == "cpu":
            return torch.cat([self.rows(batch).float() for batch in batches]).numpy()
        pinned = [torch.empty_like(batches[0]).pin_memory() for _ in range(2)]
        is_free = [torch.cuda.Event() for _ in range(2)]
        rows = []
        for i, batch in enumerate(batches):
            is_free[i % 2].synchronize()
            buffer = pinned[i % 2][: len(batch)]
            buffer.copy_(batch)
            pixels = buffer.to(self.device, non_blocking=True)
            is_free[i % 2].record()
            rows.append(self.rows(pixels).float())
        return torch.cat(rows).cpu().numpy()

    def on_device(self, arrays):
        """Return a function of no images: one batch, on the device already, again and again."""
        pixels = torch.from_numpy(arrays[: self.batch_size]).to(self.device)
        n_batches = len(arrays) // len(pixels)

        def run(images):
            for _ in range(n_batches):
                self.rows(pixels)

        return run

    def one_at_a_time(self, arrays):
        """Pass each image alone and wait for its row, as the simple packages do."""
        for pixels in arrays:
            self.rows(torch.from_numpy(pixels[None]).to(self.device)).float().cpu().numpy()


def fastest_loop(model, spec, device, precision, batch_sizes, arrays):
    """Return the fastest way to write the loop, by a trial."""
    loops = [
        Loop(model, spec, device, precision, has_cast_weights=is_cast, batch_size=batch_size)
        for batch_size in batch_sizes
        for is_cast in ((False, True) if precision == "bfloat16" else (False,))
    ]
    rates = []
    for loop in loops:
        loop(arrays)  # not counted
        rates.append(rate(loop, arrays, device))
    return loops[int(np.argmax(rates))]


def timm_rate(name, size, device, precision, batch_size, n_steps):
    """Return images/s as the benchmark of timm's repository counts them.

    timm's own network with its head, in the precision of its weights, on one batch of random
    floats that is on the device; without gradients, and waited for after each step. The script
    is not part of the package, so the protocol is repeated here.
    """
    import timm

    sizes = {"img_size": size} if name.startswith("vit") else {}  # others take every size
    model = timm.create_model(name, pretrained=False, num_classes=1000, **sizes)
    dtype = getattr(torch, precision)
    model = model.to(device, dtype, memory_format=torch.channels_last).eval()
    images = torch.randn(batch_size, 3, size, size, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for _ in range(max(1, n_steps // 4)):
            model(images)
        synchronize(device)
        started = now()
        for _ in range(n_steps):
            model(images)
            synchronize(device)
        return n_steps * batch_size / (now() - started)


# training


def plain_steps_per_s(tail, width, n_classes, activations, labels, device, batch_size, n_epochs):
    """Return steps/s of plain torch on a tail and a linear head, with data on the device.

    What is computed in a step is what `FineTunedClassifier` computes by the recipe "fast": frozen
    batch norms, dropout and smoothed labels, gradients of norm 2, AdamW. The first epoch is not
    counted.
    """
    module = nn.Sequential(tail, nn.Dropout(0.3), nn.Linear(width, n_classes)).requires_grad_()
    module = module.to(device, memory_format=torch.channels_last).train()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    data = torch.from_numpy(activations).to(device)
    if data.ndim == 4:
        data = data.contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels).to(device)
    seconds = []
    for _ in range(n_epochs):
        synchronize(device)
        started = now()
        for chosen in torch.randperm(len(data), device=device).split(batch_size):
            outputs = module(data[chosen])
            loss = nn.functional.cross_entropy(outputs, targets[chosen], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 2.0)
            optimizer.step()
        synchronize(device)
        seconds.append(now() - started)
    return -(-len(data) // batch_size) / statistics.median(seconds[1:])


# search


def skorch_seconds(model, spec, paths, labels, device, n_epochs, n_folds, n_workers):
    """Return seconds of one of the fits of skorch's transfer-learning tutorial, and its test.

    The whole network and a new last layer, all but that one frozen by ``Freezer``; each epoch
    decodes and passes every image of its folds.
    """
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Freezer

    n_test = len(paths) // n_folds

    class Files(torch.utils.data.Dataset):
        def __init__(self, chosen):
            self.chosen = chosen

        def __len__(self):
            return len(self.chosen)

        def __getitem__(self, position):
            i = self.chosen[position]
            pixels = decode(paths[i], spec).float() / 255
            return F.normalize(pixels, MEAN, DEVIATION), int(labels[i])

    model = copy.deepcopy(model).eval()
    with torch.inference_mode():
        width = model(torch.zeros(1, 3, spec.size, spec.size)).flatten(1).shape[1]
    module = nn.Sequential(model, nn.Flatten(), nn.Linear(width, len(np.unique(labels))))
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-3,
        max_epochs=n_epochs,
        batch_size=32,
        iterator_train__shuffle=True,
        iterator_train__num_workers=n_workers,
        iterator_valid__num_workers=n_workers,
        train_split=None,
        callbacks=[Freezer(lambda name: not name.startswith("2."))],
        device=device,
        verbose=0,
    )
    train, test = np.arange(n_test, len(paths)), np.arange(n_test)
    started = now()
    net.fit(Files(train), None)
    net.predict_proba(Files(test))
    return now() - started
