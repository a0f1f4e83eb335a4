"""A grid search costs little more than one pass of each image.

    python benchmarks/bench_grid_search.py hymenoptera mobilenet_v2_0.35.safetensors

4 learning rates x 5 folds x 10 epochs and the refit: a frozen MobileNetV2-0.35
with a linear head on the 245 training photographs of ants and bees, at 129 pixels.

- skorch: as its transfer-learning tutorial does it, ``Freezer`` and a data set of
  files in ``GridSearchCV``. Every epoch decodes and passes every image.
- sktransfer: ``FineTunedClassifier(freeze_depth=None)`` in ``GridSearchCV``, with
  an empty store.
- floor: each image decoded and passed once in plain torch, in batches of 16,
  channels last and bfloat16, then the same heads in plain torch.

Each runs in a process of its own, in turns; seconds leave out imports. Claim:
sktransfer is at least 100 times as fast as skorch and takes at most 1.25 times the
floor. A few minutes on 2 cores.
"""

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.transforms import v2

from _report import in_own_process, write_csv
from sktransfer import FineTunedClassifier, load_image_folder
from sktransfer.backbones._weights import read_tensors

LEARNING_RATES = [0.0003, 0.001, 0.003, 0.01]
FOLDS, EPOCHS, BATCH_SIZE, SIZE = 5, 10, 32, 129
RESIZE = round(257 * SIZE / 225)
LEAST_TIMES_SKORCH, MOST_TIMES_FLOOR = 100, 1.25


def network(weights):
    model = mobilenet_v2(width_mult=0.35, num_classes=2)
    model.load_state_dict(read_tensors(weights), strict=False)
    return model


def preprocess():
    return v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(RESIZE, antialias=True),
            v2.CenterCrop(SIZE),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )


def run_skorch(folder, weights):
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Freezer
    from skorch.helper import SliceDataset
    from torchvision.datasets import ImageFolder

    data = ImageFolder(
        folder / "train", preprocess(), is_valid_file=lambda path: not path.endswith(".gif")
    )
    data.samples += [(str(p), 0) for p in sorted((folder / "train" / "ants").glob("*.gif"))]
    net = NeuralNetClassifier(
        network(weights),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        max_epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        iterator_train__num_workers=2,
        iterator_valid__num_workers=2,
        train_split=None,
        callbacks=[Freezer(lambda name: not name.startswith("classifier"))],
        verbose=0,
    )
    X, y = SliceDataset(data, idx=0), np.array([label for _, label in data.samples])
    search = GridSearchCV(net, {"lr": LEARNING_RATES}, cv=StratifiedKFold(FOLDS))
    search.fit(X, y)
    return search.best_score_


def run_sktransfer(folder, weights):
    X, y = load_image_folder(folder / "train")
    with tempfile.TemporaryDirectory() as cache:
        classifier = FineTunedClassifier(
            weights,
            freeze_depth=None,
            image_size=SIZE,
            max_epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            feature_cache=cache,
            random_state=0,
        )
        search = GridSearchCV(classifier, {"lr": LEARNING_RATES}, cv=StratifiedKFold(FOLDS))
        search.fit(X, y)
    return search.best_score_


def run_floor(folder, weights):
    X, y = load_image_folder(folder / "train")
    y = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    transform = preprocess()

    def read(path):
        with Image.open(path) as image:
            return transform(image.convert("RGB"))

    features = network(weights).features.eval().to(memory_format=torch.channels_last)
    rows = []
    with (
        ThreadPoolExecutor(2) as pool,
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
    ):
        images = pool.map(read, X)
        for start in range(0, len(X), 16):
            batch = torch.stack([next(images) for _ in X[start : start + 16]])
            batch = batch.contiguous(memory_format=torch.channels_last)
            rows.append(features(batch).mean((2, 3)).float())
    rows = torch.cat(rows).clone()

    def fit_head(chosen, lr):
        head = nn.Linear(rows.shape[1], 2)
        optimizer = torch.optim.AdamW(head.parameters(), lr=lr)
        for _ in range(EPOCHS):
            for batch in chosen[torch.randperm(len(chosen))].split(BATCH_SIZE):
                loss = nn.functional.cross_entropy(head(rows[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return head

    scores = {}
    splits = list(StratifiedKFold(FOLDS).split(rows, y))
    for lr in LEARNING_RATES:
        accuracies = []
        for train, test in splits:
            head = fit_head(torch.from_numpy(train), lr)
            with torch.inference_mode():
                accuracies.append((head(rows[test]).argmax(1) == y[test]).float().mean().item())
        scores[lr] = statistics.mean(accuracies)
    fit_head(torch.arange(len(rows)), max(scores, key=scores.get))
    return max(scores.values())


VARIANTS = {"skorch": run_skorch, "sktransfer": run_sktransfer, "floor": run_floor}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="hymenoptera: train/{ants,bees}")
    parser.add_argument("weights", help="self-describing file of MobileNetV2 at width 0.35")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS)
    arguments = parser.parse_args()
    if arguments.variant:
        started = time.perf_counter()
        score = VARIANTS[arguments.variant](arguments.folder, arguments.weights)
        print(json.dumps({"seconds": time.perf_counter() - started, "score": score}))
        return

    lines = []
    for repeat in range(arguments.repeats):
        for variant in VARIANTS:
            if variant == "skorch" and repeat:
                continue  # minutes, and its spread does not matter at this distance
            report = in_own_process(__file__, variant, arguments.folder, arguments.weights)
            lines.append({"variant": variant, **report})
            print(f"{variant:<12}{report['seconds']:>8.2f} s   accuracy {report['score']:.3f}")
    seconds = {
        variant: [line["seconds"] for line in lines if line["variant"] == variant]
        for variant in VARIANTS
    }
    median = {variant: statistics.median(values) for variant, values in seconds.items()}
    for variant, values in seconds.items():
        print(
            f"{variant:<12}median {median[variant]:.2f} s, from {min(values):.2f} to "
            f"{max(values):.2f}; {median['skorch'] / median[variant]:.0f} x skorch, "
            f"{median[variant] / median['floor']:.2f} x the floor"
        )
    write_csv("bench_grid_search", lines)
    assert median["skorch"] / median["sktransfer"] >= LEAST_TIMES_SKORCH
    assert median["sktransfer"] / median["floor"] <= MOST_TIMES_FLOOR


if __name__ == "__main__":
    main()
