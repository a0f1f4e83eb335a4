"""Train the embedded backbone "mini" on CIFAR-10, from nothing but the images.

    python benchmarks/train_mini.py cifar10.zip mini_raw.safetensors

The zip holds CIFAR-10 as JPEG files, ``train/<class>/*.jpg`` (50,000) and
``test/<class>/*.jpg`` (10,000). The 32-pixel images are shown at 64 pixels, the
network's own size, mirrored half of the time, in two phases. In the first their
zoom, position and colour vary widely, so that features serve other images too; in
the second less, so that the network ends on images nearly as they are. Stochastic
gradient descent with Nesterov momentum and one cycle of the learning rate in each
phase, bfloat16.

In the second phase labels are smoothed, a square of each image is grey, and a
second head, dropped afterwards, has to tell from the pooled row what the stage
before the last found: a row that knows the ten classes alone serves other images
badly.

Writes the trained state dict, rounded to float16; ``score_mini.py`` measures it
through the package and writes the file that ships, with its card. The state after
the first phase is kept beside it, and a second run goes on from there. 30 and 14
epochs take about three quarters of an hour on 2 cores with bfloat16, minutes on a
GPU.

The printed accuracy is that of the float16-rounded weights in float32
arithmetic on all test images, without augmentation. The last epoch is taken
whatever its score: nothing is chosen on the test images.
"""

import argparse
import io
import math
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from sktransfer.backbones.sources._embedded import MiniNet

SIZE = 64  # pixels
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, as most backbones have it
STD = (0.229, 0.224, 0.225)
BATCH_SIZE = 256
WEIGHT_DECAY = 5e-4


class Phase(NamedTuple):
    """What differs between the phases."""

    epochs: int
    peak_lr: float
    warm_up: float  # share of the steps
    variety: float  # how far images vary: 1 widely, 0 not at all
    smoothing: float  # of the labels
    grey_square: int  # pixels a side
    recall: float  # weight of the second head's loss


WIDE = Phase(30, 0.4, 0.2, variety=1.0, smoothing=0.0, grey_square=0, recall=0.0)
NARROW = Phase(14, 0.15, 0.1, variety=0.5, smoothing=0.1, grey_square=20, recall=0.5)


def read_cifar(path):
    """Return {split: (uint8 images (n, 3, 32, 32), labels (n,))} and class names."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        splits = {}
        for split in ("train", "test"):
            chosen = [name for name in names if name.startswith(f"{split}/")]
            images = np.empty((len(chosen), 32, 32, 3), dtype=np.uint8)
            for i, name in enumerate(chosen):
                images[i] = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            labels = [classes.index(name.split("/")[1]) for name in chosen]
            splits[split] = (
                torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
                torch.tensor(labels),
            )
    return splits, classes


def normalise(images):
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std


def augment(images, variety):
    """Random zoom, shift, mirror and colour; float images in [0, 1] at SIZE pixels."""
    n, device = len(images), images.device

    def uniform(low, high, *shape):
        return torch.empty(*shape, device=device).uniform_(low * variety, high * variety)

    # Zooming out as well as in shows the network finer detail than a 32-pixel
    # image stretched to 64 has, which real photographs at 64 pixels do have.
    zoom = torch.exp(uniform(math.log(0.65), math.log(1.3), n))
    stretch = torch.exp(uniform(-0.15, 0.15, n))
    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = zoom * stretch * mirror
    theta[:, 1, 1] = zoom / stretch
    theta[:, :, 2] = uniform(-0.25, 0.25, n, 2)
    grid = F.affine_grid(theta, (n, 3, SIZE, SIZE), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 + uniform(-0.4, 0.4, n, 1, 1, 1))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + uniform(-0.3, 0.3, n, 1, 1, 1))
    return (images * (1 + uniform(-0.2, 0.2, n, 1, 1, 1))).clamp(0, 1)


def hide_a_square(images, side):
    """Set a square at a random place of each normalised image to zero, its mean."""
    if side == 0:
        return images
    position = torch.arange(SIZE, device=images.device)
    start = torch.randint(-side // 2, SIZE - side // 2, (len(images), 2, 1), device=images.device)
    inside = (position >= start) & (position < start + side)
    hidden = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images.masked_fill(hidden[:, None], 0)


class WithRecall(nn.Module):
    """The network with a second head that predicts the pooled row of the stage before."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.recall = nn.Linear(model.fc.in_features, model.stage3[-1].bn2.num_features)

    def forward(self, images):
        """Return logits, and how far the second head is off, in standard deviations."""
        model = self.model
        before = model.stage3(model.stage2(model.stage1(model.stem(images))))
        row = model.avgpool(model.stage4(before)).flatten(1)
        target = before.detach().float().mean((2, 3))
        target = (target - target.mean(0)) / (target.std(0) + 1e-4)
        return model.fc(row), F.mse_loss(self.recall(row).float(), target)


@torch.no_grad()
def accuracy(model, images, labels, device):
    model.eval()
    right = 0
    for start in range(0, len(images), 500):
        batch = images[start : start + 500].to(device).float() / 255
        batch = F.interpolate(batch, size=SIZE, mode="bilinear", align_corners=False)
        prediction = model(normalise(batch)).argmax(1).cpu()
        right += int((prediction == labels[start : start + 500]).sum())
    return right / len(images)


def train(model, images, labels, phase, seed, device):
    """Train for one phase; its random numbers depend on `seed` and the phase alone."""
    torch.manual_seed(seed)
    network = WithRecall(model).to(device, memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}],
        lr=phase.peak_lr,
        momentum=0.9,
        nesterov=True,
    )
    n_batches = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        phase.peak_lr,
        phase.epochs * n_batches,
        pct_start=phase.warm_up,
        cycle_momentum=False,
    )
    for epoch in range(1, phase.epochs + 1):
        network.train()
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images))
        for chosen in order[: n_batches * BATCH_SIZE].view(n_batches, BATCH_SIZE):
            batch = augment(images[chosen].to(device).float() / 255, phase.variety)
            batch = hide_a_square(normalise(batch), phase.grey_square)
            batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, dtype=torch.bfloat16):
                logits, off = network(batch)
            loss = F.cross_entropy(
                logits.float(), labels[chosen].to(device), label_smoothing=phase.smoothing
            )
            loss = loss + phase.recall * off
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch:2d}/{phase.epochs}  loss {total / n_batches:.3f}  "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )


def rounded_state(model):
    """Return the state dict in float16, and give the model the rounded values."""
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.cpu().state_dict().items()
    }
    model.load_state_dict(state)
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("out", type=Path, help="where the trained state dict goes (.safetensors)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    splits, classes = read_cifar(arguments.cifar)
    torch.manual_seed(arguments.seed)
    model = MiniNet(len(classes))
    between = arguments.out.with_suffix(".wide.safetensors")
    if between.exists():
        model.load_state_dict(load_file(between))
    else:
        train(model, *splits["train"], WIDE, arguments.seed, device)
        save_file(rounded_state(model), between)
    train(model, *splits["train"], NARROW, arguments.seed + 1, device)
    state = rounded_state(model)  # what is scored is what is written
    score = accuracy(model, *splits["test"], "cpu")
    recipe = {"wide": str(WIDE), "narrow": str(NARROW), "seed": str(arguments.seed)}
    save_file(state, arguments.out, metadata=recipe)
    print(f"CIFAR-10 test accuracy {score:.4f}; wrote {arguments.out}")


if __name__ == "__main__":
    main()
