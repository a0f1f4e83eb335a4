"""Which strategy, and how many labels: a search, and score over the number of labels.

    python examples/plot_choosing.py
    python examples/plot_choosing.py --data folder --backbone resnet18

Two figures of scikit-learn's digits, 15 images of each, or of folder/<class>/<image>: the
strategies that a search has tried, score against time; and the scores of two of them with
more and more labels, continued to four times as many. A minute or two on 2 cores.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, load_image_folder
from sktransfer.inspection import LabelCurveDisplay, StrategyDisplay
from sktransfer.model_selection import TransferSearchCV

IMAGES_PER_CLASS = 15


def load(folder):
    """Return some images, their labels, and how estimators read them."""
    if folder is not None:
        return (*load_image_folder(folder), {})
    X, y = load_digits(return_X_y=True)
    X, _, y, _ = train_test_split(
        X, y, train_size=10 * IMAGES_PER_CLASS, stratify=y, random_state=0
    )
    return X, y, {"image_shape": (8, 8), "pixel_range": (0, 16), "image_size": 32}


def strategies(backbone, X, y, how, ax):
    """Draw what a search has tried."""
    classifier = FineTunedClassifier(backbone, random_state=0, **how)
    search = TransferSearchCV(
        classifier,
        recipes=("fast", "default"),
        freeze_depths=(-1,),
        cv=3,
        scoring="accuracy",
        random_state=0,
    )
    search.fit(X, y)
    print(search.answer_, search.strategies_, sep="\n", flush=True)
    return StrategyDisplay.from_search(search, ax=ax)


def label_curve(backbone, X, y, how, ax):
    """Draw the scores of two strategies with more and more labels."""
    rows = PretrainedFeatureTransformer(backbone, depth=-1, **how)
    models = {
        "frozen rows": make_pipeline(
            rows, StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
        ),
        "fine-tuned, fast": FineTunedClassifier(backbone, recipe="fast", random_state=0, **how),
    }
    display = LabelCurveDisplay.from_estimators(
        models, X, y, n_repeats=5, scoring="accuracy", random_state=0, ax=ax
    )
    print(*display.answers_.values(), sep="\n")
    return display


FIGURES = {"strategies": strategies, "label_curve": label_curve}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder/<class>/<image>; default: scikit-learn's digits")
    parser.add_argument("--backbone", default="mini", help="name or path of a backbone")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the figures")
    parser.add_argument("--figures", nargs="+", default=list(FIGURES), choices=list(FIGURES))
    arguments = parser.parse_args()

    mpl.use("Agg")
    from matplotlib import pyplot

    X, y, how = load(arguments.data)
    for name in arguments.figures:
        _, ax = pyplot.subplots(figsize=(7, 4.2), layout="constrained", dpi=110)
        display = FIGURES[name](arguments.backbone, X, y, how, ax)
        display.figure_.savefig(arguments.out / f"plot_{name}.png")


if __name__ == "__main__":
    main()
