"""What a classifier gets wrong, as a page: scikit-learn's digits, five labels of which are wrong.

    python examples/error_report.py
    python examples/error_report.py --data folder --backbone resnet18

Saves the page, which any browser shows. With your own folder/<class>/<image>, labels are left as
they are. A minute on 2 cores.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer, load_image_folder
from sktransfer.inspection import ErrorReport

N_DIGITS = 600


def load(folder):
    """Return images, their labels, and how estimators read them."""
    if folder is not None:
        return (*load_image_folder(folder), {})
    X, y = load_digits(return_X_y=True)
    X, y = X[:N_DIGITS], y[:N_DIGITS]
    rng = np.random.default_rng(0)
    wrong = rng.choice(N_DIGITS, 5, replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, 10, 5)) % 10
    print("wrong labels:", *sorted(wrong.tolist()))
    return X, y, {"image_shape": (8, 8), "pixel_range": (0, 16)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder/<class>/<image>; default: scikit-learn's digits")
    parser.add_argument("--backbone", default="mini", help="name or path of a backbone")
    parser.add_argument("--image-size", type=int, help="pixels; default: the backbone's own")
    parser.add_argument("--title", default="Error report")
    parser.add_argument("--out", type=Path, default=Path("error_report.html"))
    arguments = parser.parse_args()

    X, y, how = load(arguments.data)
    pipeline = make_pipeline(
        PretrainedFeatureTransformer(arguments.backbone, image_size=arguments.image_size, **how),
        StandardScaler(),
        LogisticRegression(C=0.03, max_iter=1000),
    )
    # 12 images pass the network once more, for where it looked
    report = ErrorReport.from_cv(pipeline, X, y, title=arguments.title, activation_maps=12)
    print(report)
    print(report.label_issues)
    report.save(arguments.out)
    print(f"page: {arguments.out}")


if __name__ == "__main__":
    main()
