"""Train the embedded backbone "mini" on CIFAR-10, from nothing but the images.

    python benchmarks/train_mini.py cifar10.zip mini_raw.safetensors

The zip holds CIFAR-10 as JPEG files, ``train/<class>/*.jpg`` (50,000) and
``test/<class>/*.jpg`` (10,000). The 32-pixel images are shown at 64 pixels, the
network's own size, at a random zoom, position and colour, mirrored half of the
time. Stochastic gradient descent with Nesterov momentum, one cycle of the
learning rate, bfloat16 where the processor has it.

Writes the trained state dict, rounded to float16; ``score_mini.py`` measures it
through the package and writes the file that ships, with its card. 30 epochs
take about half an hour on 2 cores with bfloat16, minutes on a GPU.

The printed accuracy is that of the float16-rounded weights in float32
arithmetic on all test images, without augmentation. The last epoch is taken
whatever its score: nothing is chosen on the test images.
"""

import argparse
import io
import math
import time
import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from sktransfer.backbones.embedded._mini import MiniNet

SIZE = 64  # pixels
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, as most backbones have it
STD = (0.229, 0.224, 0.225)
BATCH_SIZE = 256
PEAK_LR = 0.4
WEIGHT_DECAY = 5e-4
WARM_UP = 0.2  # share of the steps


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


def augment(images):
    """Random zoom, shift, mirror and colour; float images in [0, 1] at SIZE pixels."""
    n, device = len(images), images.device

    def uniform(low, high, *shape):
        return torch.empty(*shape, device=device).uniform_(low, high)

    # Zooming out as well as in shows the network finer detail than a 32-pixel
    # image stretched to 64 has, which real photographs at 64 pixels do have.
    zoom = torch.exp(uniform(math.log(0.65), math.log(1.3), n))
    stretch = torch.exp(uniform(-0.15, 0.15, n))
    mirror = torch.where(uniform(0, 1, n) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = zoom * stretch * mirror
    theta[:, 1, 1] = zoom / stretch
    theta[:, :, 2] = uniform(-0.25, 0.25, n, 2)
    grid = F.affine_grid(theta, (n, 3, SIZE, SIZE), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.6, 1.4, n, 1, 1, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * uniform(0.7, 1.3, n, 1, 1, 1)
    return (images * uniform(0.8, 1.2, n, 1, 1, 1)).clamp(0, 1)


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


def train(splits, n_classes, epochs, seed, device):
    torch.manual_seed(seed)
    images, labels = splits["train"]
    model = MiniNet(n_classes).to(device, memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}],
        lr=PEAK_LR,
        momentum=0.9,
        nesterov=True,
    )
    n_steps = epochs * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, n_steps, pct_start=WARM_UP, cycle_momentum=False
    )
    for epoch in range(1, epochs + 1):
        model.train()
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images))
        n_batches = len(images) // BATCH_SIZE
        for chosen in order[: n_batches * BATCH_SIZE].view(n_batches, BATCH_SIZE):
            batch = augment(images[chosen].to(device).float() / 255)
            batch = normalise(batch).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = F.cross_entropy(model(batch), labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch:2d}/{epochs}  loss {total / n_batches:.3f}  "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("out", help="where the trained state dict goes (.safetensors)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    splits, classes = read_cifar(arguments.cifar)
    model = train(splits, len(classes), arguments.epochs, arguments.seed, device)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.cpu().state_dict().items()
    }
    model.load_state_dict(state)  # what is scored is what is written
    score = accuracy(model, *splits["test"], "cpu")
    state = {name: value.contiguous() for name, value in state.items()}
    recipe = {
        "epochs": str(arguments.epochs),
        "seed": str(arguments.seed),
        "test_accuracy": f"{score:.4f}",
    }
    save_file(state, arguments.out, metadata=recipe)
    print(f"CIFAR-10 test accuracy {score:.4f}; wrote {arguments.out}")


if __name__ == "__main__":
    main()
