"""Train a small image-text model from nothing, on captions that are put together from words.

Used by ``bench_zero_shot.py``; alone it writes a self-describing file of both towers:

    python benchmarks/train_image_text.py cifar10.zip cifar10.safetensors

Classes are described by attributes. A caption names some of the attributes of an image's class,
so the text tower learns words and not whole captions, and a class that no training image has
can be described. Of CIFAR-10 six classes are trained on; of drawn shapes, 30 of 36 pairs of shape
and colour. A minute each on one core.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sktransfer.backbones._weights import write_backbone_file

SIZE = 64
NAME = "openclip:RN50"
PARAMS = {
    "embed_dim": 64,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "image_size": SIZE},
    "text_cfg": {"context_length": 20, "width": 64, "heads": 2, "layers": 1},
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# What is to be seen of each class. Words that only held-out classes have would mean nothing.
CIFAR10 = {
    "airplane": ("vehicle", "wings", "metal"),
    "automobile": ("vehicle", "wheels", "metal"),
    "cat": ("animal", "fur", "paws"),
    "deer": ("animal", "hooves", "long legs"),
    "frog": ("animal", "smooth skin", "short legs"),
    "ship": ("vehicle", "water", "metal"),
}
CIFAR10_HELD_OUT = {
    "bird": ("animal", "wings"),
    "dog": ("animal", "fur", "paws"),
    "horse": ("animal", "hooves", "long legs"),
    "truck": ("vehicle", "wheels", "metal"),
}
SHAPES = ("disc", "square", "triangle", "cross", "ring", "bar")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 50),
    "blue": (50, 70, 220),
    "yellow": (230, 215, 40),
    "white": (240, 240, 240),
    "purple": (160, 40, 200),
}
DRAWN_HELD_OUT = (
    *("red disc", "green square", "blue triangle"),
    *("yellow cross", "white ring", "purple bar"),
)
DRAWN = tuple(
    f"{colour} {shape}"
    for colour in COLOURS
    for shape in SHAPES
    if f"{colour} {shape}" not in DRAWN_HELD_OUT
)


@dataclass
class Captions:
    """Words of each class; a caption has some of them, in any order."""

    words: list[tuple[str, ...]]

    def draw(self, n, rng):
        """Return captions, and whether each is true of each class (n_classes, n)."""
        texts, true = [], []
        for _ in range(n):
            words = self.words[rng.integers(len(self.words))]
            some = rng.permutation(words)[: rng.integers(1, len(words) + 1)]
            texts.append(caption(some))
            true.append([set(some) <= set(of_class) for of_class in self.words])
        return texts, np.array(true, dtype=np.float32).T


def caption(words):
    """Return a text with these words."""
    return "a picture of " + ", ".join(words)


def draw(name, rng):
    """Draw a shape of a colour, somewhere on a noisy ground, as an array (SIZE, SIZE, 3)."""
    colour, shape = name.split()
    image = Image.fromarray(rng.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8))
    side = int(rng.integers(20, 36))
    left, top = (int(value) for value in rng.integers(2, SIZE - side - 2, 2))
    right, low, pen = left + side, top + side, ImageDraw.Draw(image)
    ink = tuple(int(np.clip(v + rng.integers(-20, 21), 0, 255)) for v in COLOURS[colour])
    if shape == "disc":
        pen.ellipse((left, top, right, low), fill=ink)
    elif shape == "square":
        pen.rectangle((left, top, right, low), fill=ink)
    elif shape == "triangle":
        pen.polygon([(left, low), (right, low), ((left + right) // 2, top)], fill=ink)
    elif shape == "ring":
        pen.ellipse((left, top, right, low), outline=ink, width=side // 5)
    elif shape == "bar":
        pen.rectangle((left, top + side // 3, right, low - side // 3), fill=ink)
    else:
        third = side // 3
        pen.rectangle((left + third, top, right - third, low), fill=ink)
        pen.rectangle((left, top + third, right, low - third), fill=ink)
    return np.asarray(image)


def drawn(names, n_each, seed):
    """Return drawn images (n, SIZE, SIZE, 3), uint8, and the position of each one's name."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(names)), n_each)
    return np.stack([draw(names[i], rng) for i in y]), y


def train(pixels, y, captions, path, n_epochs, *, sigmoid, seed=0, batch=128, lr=2e-3):
    """Train both towers and write them to a self-describing file.

    As CLIP: of the captions in a batch, those that are true of an image are to be found among
    the others, and the images among the images. With `sigmoid` as SigLIP: whether a caption is
    true of an image, for each pair.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    params = {**PARAMS, **({"init_logit_bias": -4.0} if sigmoid else {})}
    model = open_clip.CLIP(**params).train()
    tokenizer = open_clip.SimpleTokenizer(context_length=PARAMS["text_cfg"]["context_length"])
    model.visual.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    n_steps = n_epochs * (len(y) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, n_steps, pct_start=0.1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    start = time.process_time()
    for epoch in range(n_epochs):
        order, losses = rng.permutation(len(y)), []
        for first in range(0, len(y) - batch + 1, batch):
            chosen = order[first : first + batch]
            images = torch.from_numpy(_enlarged(pixels[chosen], rng)).permute(0, 3, 1, 2)
            texts, true = captions.draw(48, rng)
            true = torch.from_numpy(true[y[chosen]])
            logits = model.logit_scale.exp() * (
                model.encode_image((images.float() - mean) / std, normalize=True)
                @ model.encode_text(tokenizer(texts), normalize=True).T
            )
            if sigmoid:
                loss = binary_cross_entropy_with_logits(logits + model.logit_bias, true)
            else:
                loss = _contrastive_loss(logits, true)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, {time.process_time() - start:.0f} s")
    model.eval()
    write_backbone_file(
        path,
        model.state_dict(),
        {
            "architecture": NAME,
            "params": params,
            "input": {
                **{"size": SIZE, "resize": SIZE, "mean": MEAN, "std": STD},
                "interpolation": "bilinear",
            },
            "head": False,
            "source": "benchmarks/train_image_text.py",
            "licence": "BSD-3-Clause",
        },
    )
    return time.process_time() - start


def _contrastive_loss(logits, true):
    images, texts = true.sum(1) > 0, true.sum(0) > 0
    return 0.5 * (
        cross_entropy(logits[images], true[images] / true[images].sum(1, keepdim=True))
        + cross_entropy(logits.T[texts], true.T[texts] / true.T[texts].sum(1, keepdim=True))
    )


def _enlarged(pixels, rng):
    """Return images, half of them mirrored, each moved by some pixels."""
    n, size = len(pixels), pixels.shape[1]
    pixels = np.where(rng.random((n, 1, 1, 1)) < 0.5, pixels[:, :, ::-1], pixels)
    margin = size // 8
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    moved = np.empty_like(pixels)
    for i, (top, left) in enumerate(rng.integers(0, 2 * margin + 1, (n, 2))):
        moved[i] = padded[i, top : top + size, left : left + size]
    return moved


def of_cifar10(archive, n_each, seed=0):
    """Return images of the six classes of ``train``, enlarged to SIZE, and their positions."""
    from _data import cifar10
    from sktransfer import read_image

    data = cifar10(archive, SIZE, seed, n_each, 1)
    names = list(CIFAR10)
    chosen = [
        (x, names.index(label)) for x, label in zip(data.X, data.y, strict=True) if label in CIFAR10
    ]
    pixels = [
        np.asarray(Image.fromarray(read_image(x)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        for x, _ in chosen
    ]
    return np.stack(pixels), np.array([position for _, position in chosen])


def train_cifar10(archive, path, n_each=1500, n_epochs=4):
    """Train on six classes of CIFAR-10; return seconds."""
    pixels, y = of_cifar10(archive, n_each)
    return train(pixels, y, Captions(list(CIFAR10.values())), path, n_epochs, sigmoid=False)


def train_drawn(path, n_each=120, n_epochs=8):
    """Train on 30 pairs of shape and colour; return seconds."""
    pixels, y = drawn(DRAWN, n_each, seed=0)
    captions = Captions([tuple(name.split()) for name in DRAWN])
    return train(pixels, y, captions, path, n_epochs, sigmoid=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", help="CIFAR-10 as a zip of images, or 'drawn'")
    parser.add_argument("path", help="the file to write")
    arguments = parser.parse_args()
    if arguments.archive == "drawn":
        train_drawn(arguments.path)
    else:
        train_cifar10(arguments.archive, arguments.path)
