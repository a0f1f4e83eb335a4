"""How training went: losses, and the score on what was held out, over the epochs.

    python examples/plot_training_curves.py
    python examples/plot_training_curves.py --data folder --backbone resnet18

Two fifths of scikit-learn's digits, 20 images of each, or of folder/<class>/<image>,
are held out to stop early; the mark is the epoch whose weights were kept. Prints
what became of each stage as well. Under a minute on 2 cores.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sktransfer import FineTunedClassifier, TrainingCurveDisplay, load_image_folder

IMAGES_PER_CLASS = 20


def load(folder):
    """Return some images, their labels, and how estimators read them."""
    if folder is not None:
        return (*load_image_folder(folder), {})
    X, y = load_digits(return_X_y=True)
    X, _, y, _ = train_test_split(
        X, y, train_size=10 * IMAGES_PER_CLASS, stratify=y, random_state=0
    )
    return X, y, {"image_shape": (8, 8), "pixel_range": (0, 16)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder/<class>/<image>; default: scikit-learn's digits")
    parser.add_argument("--backbone", default="mini", help="name or path of a backbone")
    parser.add_argument("--out", type=Path, default=Path("docs/plot_training_curves.png"))
    arguments = parser.parse_args()

    mpl.use("Agg")
    from matplotlib import pyplot

    X, y, how = load(arguments.data)
    classifier = FineTunedClassifier(
        arguments.backbone,
        recipe="fast",
        freeze_depth=-2,
        early_stopping=True,
        validation_fraction=0.4,
        max_epochs=20,
        random_state=0,
        **how,
    ).fit(X, y)
    print(classifier.stages_)

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained", dpi=110)
    display = TrainingCurveDisplay.from_estimator(
        classifier, ax=axes[0], score_name="Accuracy on held-out images"
    )
    display.plot(axes[1], curve="score")
    figure.savefig(arguments.out)
    print(f"{classifier.n_iter_} epochs, the best is number {classifier.best_epoch_}")
    print(f"figure: {arguments.out}")


if __name__ == "__main__":
    main()
