"""Measure the embedded backbone "mini" and write the file that ships, with its card.

    python benchmarks/score_mini.py mini_raw.safetensors cifar10.zip hymenoptera

The first file is what ``train_mini.py`` wrote, the folder is that of the PyTorch
transfer-learning tutorial, ``hymenoptera/{train,val}/{ants,bees}``. Two figures,
both at the network's own 64 pixels, in float32, through the package:

- CIFAR-10: accuracy of the trained network, its head included, on the test
  images. Claim: at least 0.90.
- ants and bees: accuracy on ``val`` of a logistic regression on the pooled
  features, fitted on ``train``, C by 5-fold cross-validation, at depth None and -1.
  Beside it, the same with random weights. Claim: the trained features are better.

Takes about a minute on 2 cores.
"""

import argparse
import io
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer, load_image_folder
from sktransfer.backbones._weights import write_backbone_file
from train_mini import MEAN, SIZE, STD

C_GRID = [0.0001, 0.001, 0.01, 0.1, 1.0]


def metadata(recipe, scores):
    return {
        "architecture": "mini",
        "params": {},
        "input": {
            "size": SIZE,
            "resize": SIZE,
            "mean": MEAN,
            "std": STD,
            "interpolation": "bilinear",
        },
        "head": True,
        "source": "trained by sktransfer's benchmarks/train_mini.py on CIFAR-10 (Krizhevsky, 2009)",
        "licence": "BSD-3-Clause",
        "card": {
            "purpose": "for trying and testing sktransfer offline, not for real work",
            "data": "CIFAR-10, 50,000 training images of 32 pixels in 10 classes, as JPEG",
            "recipe": recipe,
            "scores": scores,
        },
    }


def cifar_test_images(path):
    """Return the test images as encoded bytes, and their labels as class numbers."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        names = [name for name in names if name.startswith("test/")]
        labels = torch.tensor([classes.index(name.split("/")[1]) for name in names])
        return [io.BytesIO(archive.read(name)).getvalue() for name in names], labels


def score_cifar(backbone, head, path):
    images, labels = cifar_test_images(path)
    transformer = PretrainedFeatureTransformer(backbone, precision="float32", feature_cache=None)
    rows = torch.from_numpy(transformer.fit_transform(images))
    logits = rows @ head["fc.weight"].float().T + head["fc.bias"].float()
    return float((logits.argmax(1) == labels).float().mean())


def score_hymenoptera(backbone, folder, **options):
    X, y = load_image_folder(folder / "train")
    transformer = PretrainedFeatureTransformer(
        backbone, precision="float32", feature_cache=None, **options
    )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": C_GRID},
        cv=5,
    ).fit(transformer.fit_transform(X), y)
    X, y = load_image_folder(folder / "val")
    return float(search.score(transformer.transform(X), y))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, help="what train_mini.py wrote")
    parser.add_argument("cifar", type=Path, help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("hymenoptera", type=Path, help="folder of ants and bees")
    parser.add_argument("--out", type=Path, help="where the file goes; default: the package")
    arguments = parser.parse_args()

    package = Path(__file__).resolve().parents[1] / "sktransfer" / "backbones" / "embedded"
    out = arguments.out or package / "mini.safetensors"
    state = load_file(arguments.raw)
    with safe_open(arguments.raw, framework="pt") as file:
        recipe = file.metadata()

    write_backbone_file(out, state, metadata(recipe, {}))
    probe = "hymenoptera_val_probe_accuracy"
    scores = {
        "cifar10_test_accuracy": score_cifar(out, state, arguments.cifar),
        probe: score_hymenoptera(out, arguments.hymenoptera),
        f"{probe}_depth_-1": score_hymenoptera(out, arguments.hymenoptera, depth=-1),
        f"{probe}_random_weights": score_hymenoptera(out, arguments.hymenoptera, weights=None),
    }
    scores = {name: round(value, 4) for name, value in scores.items()}
    write_backbone_file(out, state, metadata(recipe, scores))
    for name, value in scores.items():
        print(f"{name:<48}{value:.4f}")
    print(f"{out.stat().st_size:,} bytes in {out}")
    assert scores["cifar10_test_accuracy"] >= 0.90
    assert scores[probe] > scores[f"{probe}_random_weights"]


if __name__ == "__main__":
    main()
