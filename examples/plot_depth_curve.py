"""How deep to cut: the score over the depth, with its spread over folds.

    python examples/plot_depth_curve.py
    python examples/plot_depth_curve.py --data folder --backbone resnet18

Left, rows of features from the first stages of a frozen network, with a logistic
regression of searched strength. Right, the same network with its last stages
trained. Both are searched over folds of scikit-learn's digits, 15 images of each,
or of folder/<class>/<image>. About a minute on 2 cores.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import (
    DepthCurveDisplay,
    FineTunedClassifier,
    PretrainedFeatureTransformer,
    load_image_folder,
)

IMAGES_PER_CLASS = 15
N_FOLDS = 4
DEPTHS = [None, -1, -2, -3]


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
    parser.add_argument("--out", type=Path, default=Path("docs/plot_depth_curve.png"))
    arguments = parser.parse_args()

    mpl.use("Agg")
    from matplotlib import pyplot

    X, y, how = load(arguments.data)
    frozen = make_pipeline(
        PretrainedFeatureTransformer(arguments.backbone, **how),
        StandardScaler(),
        LogisticRegression(max_iter=5000),
    )
    trained = FineTunedClassifier(arguments.backbone, recipe="fast", random_state=0, **how)
    searches = {
        "frozen features + logistic regression": GridSearchCV(
            frozen,
            {
                "pretrainedfeaturetransformer__depth": DEPTHS,
                "logisticregression__C": [0.001, 0.01, 0.1],
            },
            scoring="accuracy",
            cv=N_FOLDS,
        ),
        "FineTunedClassifier": GridSearchCV(
            trained, {"freeze_depth": DEPTHS}, scoring="accuracy", cv=N_FOLDS
        ),
    }
    figure, axes = pyplot.subplots(
        1, 2, figsize=(8, 3.4), sharey=True, layout="constrained", dpi=110
    )
    for ax, (title, search) in zip(axes, searches.items(), strict=True):
        display = DepthCurveDisplay.from_grid(search.fit(X, y), ax=ax)
        ax.set_title(title, fontsize="medium")
        ax.label_outer()
        for depth, mean, std in zip(
            display.depths,
            display.test_scores.mean(axis=1),
            display.test_scores.std(axis=1),
            strict=True,
        ):
            print(f"{title:<40}{depth!s:>6}{mean:>9.3f} ± {std:.3f}", flush=True)
    figure.savefig(arguments.out)
    print(f"figure: {arguments.out}")


if __name__ == "__main__":
    main()
