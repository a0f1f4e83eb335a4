"""Pretrain a small ResNet and a small ViT on CIFAR-10, for benchmarks of fine-tuning.

    python benchmarks/pretrain_small.py cifar10.zip folder --network resnet
    python benchmarks/pretrain_small.py cifar10.zip folder --network vit

Defaults of fine-tuning that were chosen with one architecture may fail with another. These two
stand for the others: a ResNet-18 of half the width, and a ViT-tiny of 6 blocks and 128
channels, both timm's, at 64 pixels. They are trained on the images of the zip's ``train``, from
random numbers, with mirrored and shifted images, AdamW and one cycle of the learning rate.
``resnet_small.safetensors`` or ``vit_small.safetensors`` is a self-describing backbone file.
The accuracy that is printed is that of ``test``; nothing is chosen by it.

One core and about a quarter of an hour each.
"""

import argparse
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

from sktransfer.backbones._weights import write_backbone_file
from train_mini import MEAN, STD, read_cifar

SIZE, BATCH = 64, 128
NETWORKS = {
    "resnet": ("timm:resnet18", {"channels": [32, 64, 128, 256]}, 2e-3, 8),
    "vit": (
        "timm:vit_tiny_patch16_224",
        {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4},
        1e-3,
        10,
    ),
}


def changed(images, generator):
    """Return a batch of normalised images, each shifted, half of them mirrored, at 64 pixels."""
    images = images.float() / 255
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    padded = F.pad(images, [4] * 4, mode="reflect")
    top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
    return at_size(padded[:, :, top : top + 32, left : left + 32])


def at_size(images):
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return (F.interpolate(images, SIZE, mode="bilinear", antialias=True) - mean) / std


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    architecture, params, lr, n_epochs = NETWORKS[arguments.network]
    n_epochs = arguments.epochs or n_epochs
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    splits, classes = read_cifar(arguments.cifar)
    (X, y), (X_test, y_test) = splits["train"], splits["test"]
    name = architecture.removeprefix("timm:")
    model = timm.create_model(name, num_classes=len(classes), **params)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=n_epochs * (len(X) // BATCH), pct_start=0.2
    )
    start = time.time()
    for epoch in range(n_epochs):
        model.train()
        for chosen in torch.randperm(len(X), generator=generator).split(BATCH):
            if len(chosen) < BATCH:
                continue
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(changed(X[chosen], generator))
            loss = F.cross_entropy(logits.float(), y[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.time() - start:.0f} s", flush=True)
    model.eval()
    with torch.inference_mode():
        parts = [model(at_size(part.float() / 255)).argmax(1) for part in X_test.split(500)]
    accuracy = (torch.cat(parts) == y_test).float().mean().item()
    print(f"{arguments.network}: accuracy on test {accuracy:.4f}")
    write_backbone_file(
        arguments.folder / f"{arguments.network}_small.safetensors",
        model.state_dict(),
        {
            "architecture": architecture,
            "params": params,
            "input": {
                "size": SIZE, "resize": SIZE, "mean": MEAN, "std": STD,
                "interpolation": "bilinear", "crop": "center",
            },
            "head": True,
            "source": f"CIFAR-10, benchmarks/pretrain_small.py, test accuracy {accuracy:.3f}",
            "licence": "BSD-3-Clause",
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
