"""The main job in one table: few labelled images, and three ways to use them.

    python examples/demo.py                       scikit-learn's digits
    python examples/demo.py --data folder         folder/<class>/<image>
    python examples/demo.py --backbone resnet18   another backbone

For each number of labels per class, three classifiers are chosen by grid search
on the labelled images alone and scored on images that they have not seen, over
several draws of the labelled images. A figure is saved and its path printed.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import (
    FineTunedClassifier,
    PretrainedFeatureTransformer,
    count_forward_passes,
    load_image_folder,
)

LABELS_PER_CLASS = (5, 20)
N_DRAWS = 3
MOST_TEST_IMAGES = 1000
C_GRID = [0.001, 0.01, 0.1, 1.0]
DEPTHS = [None, -1, -2]
N_EPOCHS = 20  # fewer than the recipe has, to keep the demo short
THUMBNAIL = 32  # pixels a side, for the classifier on raw pixels of photographs


def thumbnails(paths):
    """Return small grey images as rows of pixels in [0, 1]."""
    rows = []
    for path in paths:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL))
            rows.append(np.asarray(small, dtype=np.float32).ravel() / 255)
    return np.stack(rows)


def load(folder):
    """Return images, labels, a title, how estimators read the images, and raw pixels."""
    if folder is None:
        X, y = load_digits(return_X_y=True)
        how = {"image_shape": (8, 8), "pixel_range": (0, 16)}
        return X, y, "scikit-learn's digits", how, FunctionTransformer()
    X, y = load_image_folder(folder)
    return X, y, f"{folder}", {}, FunctionTransformer(thumbnails)


def candidates(backbone, how, cache, to_pixels):
    """Return the three ways, each a grid search over what it leaves open."""
    logistic = LogisticRegression(max_iter=5000)
    common = {"backbone": backbone, "feature_cache": cache, **how}
    return {
        "raw pixels + logistic regression": GridSearchCV(
            make_pipeline(to_pixels, StandardScaler(), logistic),
            {"logisticregression__C": C_GRID},
            cv=3,
        ),
        "frozen features + logistic regression": GridSearchCV(
            make_pipeline(PretrainedFeatureTransformer(**common), StandardScaler(), logistic),
            {"pretrainedfeaturetransformer__depth": DEPTHS, "logisticregression__C": C_GRID},
            cv=3,
        ),
        "FineTunedClassifier": GridSearchCV(
            FineTunedClassifier(recipe="fast", max_epochs=N_EPOCHS, random_state=0, **common),
            {"freeze_depth": DEPTHS},
            cv=3,
        ),
    }


def split(y, n_labels, n_draws):
    """Draw `n_labels` images per class to train on, and test on the rest."""
    n_classes = len(np.unique(y))
    n_train = n_labels * n_classes
    n_test = min(len(y) - n_train, MOST_TEST_IMAGES)
    return StratifiedShuffleSplit(n_draws, train_size=n_train, test_size=n_test, random_state=0)


def run(X, y, how, backbone, to_pixels):
    """Print a line for each way and number of labels; return the lines."""
    smallest = min(np.unique(y, return_counts=True)[1])
    labels_per_class = [n for n in LABELS_PER_CLASS if n <= smallest // 2]
    if not labels_per_class:
        raise SystemExit(
            f"the smallest class has {smallest} images; the demo needs at least "
            f"{2 * min(LABELS_PER_CLASS)} in each"
        )
    heads = f"{'labels per class':>16}  {'method':<38}{'accuracy':>15}{'seconds':>9}"
    print(heads + f"{'forward passes':>16}")
    lines = []
    with tempfile.TemporaryDirectory() as cache:
        for n_labels in labels_per_class:
            for name, search in candidates(backbone, how, cache, to_pixels).items():
                started = time.perf_counter()
                with count_forward_passes() as counter:
                    scores = cross_val_score(search, X, y, cv=split(y, n_labels, N_DRAWS))
                seconds = time.perf_counter() - started
                lines.append((n_labels, name, scores, seconds, counter.computed))
                print(
                    f"{n_labels:>16}  {name:<38}{scores.mean():>8.3f} ± {scores.std():.3f}"
                    f"{seconds:>9.1f}{counter.computed:>16}",
                    flush=True,
                )
    return lines


def draw(lines, title, path):
    """Save a figure of accuracy over labels per class."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    names = list(dict.fromkeys(name for _, name, *_ in lines))
    ticks = sorted({n_labels for n_labels, *_ in lines})
    for offset, name in enumerate(names):
        chosen = [line for line in lines if line[1] == name]
        x = [ticks.index(line[0]) + (offset - 1) * 0.08 for line in chosen]
        means = [line[2].mean() for line in chosen]
        spread = [line[2].std() for line in chosen]
        axes.errorbar(x, means, yerr=spread, marker="o", capsize=4, label=name)
    axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
    axes.set(
        xlabel="labelled images per class",
        ylabel="accuracy on unseen images",
        title=title,
        xlim=(-0.5, len(ticks) - 0.5),
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder/<class>/<image>; default: scikit-learn's digits")
    parser.add_argument("--backbone", default="mini", help="name or path of a backbone")
    parser.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the figure")
    arguments = parser.parse_args()

    X, y, title, how, to_pixels = load(arguments.data)
    print(f"{title}: {len(y)} images, {len(np.unique(y))} classes; backbone {arguments.backbone}")
    started = time.perf_counter()
    lines = run(X, y, how, arguments.backbone, to_pixels)
    print(f"accuracy: mean and standard deviation over {N_DRAWS} draws of the labelled images")
    print("forward passes: images that passed the frozen network; others were read from the store")
    draw(lines, f"{title}, backbone {arguments.backbone}", arguments.out)
    print(f"{time.perf_counter() - started:.0f} s; figure: {os.path.abspath(arguments.out)}")


if __name__ == "__main__":
    main()
