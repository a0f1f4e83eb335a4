"""Train a small residual network and a small vision transformer on CIFAR-10, for benchmarks.

    python benchmarks/train_small.py cifar10.zip folder

So that no default is tuned to one architecture: a ResNet-18 with half of its channels, and a
vision transformer of the shape of ViT-tiny with two thirds of its width, half of its blocks and
its patches of 16 pixels. Both are timm's, with random weights at the start, and see the 50,000
images of ``train/`` at 64 pixels with the augmentation of ``train_mini.py``. Writes
``resnet18_half.safetensors`` and ``vit_small.safetensors`` into the folder, as files that
sktransfer reads as backbones, and prints the accuracy on the 10,000 images of ``test/``. The
last epoch is taken whatever its score. An epoch takes 80 to 90 s on one core with bfloat16.

They know the classes of the benchmark's CIFAR-10 tasks, but have seen none of the images.
"""

import argparse
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

from sktransfer.backbones._weights import write_backbone_file
from train_mini import BATCH_SIZE, MEAN, SIZE, STD, accuracy, augment, normalise, read_cifar

# name of the file -> (timm's name, what create_model is given, epochs, peak learning rate)
NETWORKS = {
    "resnet18_half": ("resnet18", {"channels": [32, 64, 128, 256]}, 6, 2e-3),
    "vit_small": (
        "vit_tiny_patch16_224",
        {"img_size": SIZE, "patch_size": 16, "embed_dim": 128, "depth": 6, "num_heads": 4},
        12,
        1.5e-3,
    ),
}
VARIETY = 0.6  # of train_mini.augment


def train(model, images, labels, epochs, peak_lr, device):
    torch.manual_seed(0)
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.05)
    n_batches = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, epochs * n_batches)
    for epoch in range(1, epochs + 1):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images))
        for chosen in order[: n_batches * BATCH_SIZE].view(n_batches, BATCH_SIZE):
            batch = normalise(augment(images[chosen].to(device).float() / 255, VARIETY))
            with torch.autocast(device, dtype=torch.bfloat16):
                logits = model(batch.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels[chosen].to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - started
        print(f"epoch {epoch}/{epochs}  loss {total / n_batches:.3f}  {seconds:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--epochs", type=int, help="fewer or more than the table has")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    splits, classes = read_cifar(arguments.cifar)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks:
        timm_name, params, epochs, peak_lr = NETWORKS[name]
        epochs = arguments.epochs or epochs
        torch.manual_seed(0)
        model = timm.create_model(timm_name, num_classes=len(classes), **params)
        train(model, *splits["train"], epochs, peak_lr, device)
        score = accuracy(model, *splits["test"], device)
        path = arguments.folder / f"{name}.safetensors"
        metadata = {
            "architecture": f"timm:{timm_name}",
            "params": params,
            "input": {
                "size": SIZE,
                "resize": SIZE,
                "mean": MEAN,
                "std": STD,
                "interpolation": "bilinear",
            },
            "head": True,
            "source": f"benchmarks/train_small.py on CIFAR-10, test accuracy {score:.3f}",
            "licence": "for benchmarks only",
        }
        write_backbone_file(path, model.state_dict(), metadata)
        print(f"{name}: CIFAR-10 test accuracy {score:.4f}; wrote {path}", flush=True)


if __name__ == "__main__":
    main()
