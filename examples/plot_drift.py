"""Ten weeks of digits, of which the pen slowly runs dry from the sixth on.

    python examples/plot_drift.py

A classifier is trained on 400 of scikit-learn's digits, and a monitor has 400 others as
reference. Each week brings 60 more; those of the last five are fainter from week to week.
Prints the verdict of each week, and writes the plot and the report of the last one. Under a
minute on 2 cores.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import shuffle

from sktransfer import PretrainedFeatureTransformer
from sktransfer.monitoring import DriftMonitor

N_TRAINED, N_REFERENCE, N_WEEK, N_WEEKS = 400, 400, 60, 10
FIRST_FAINT, FAINTER = 6, 0.04  # week, and part of the ink that is lost in each


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/plot_drift.png"))
    parser.add_argument("--report", type=Path, help="a file of HTML, for the report")
    arguments = parser.parse_args()

    X, y = shuffle(*load_digits(return_X_y=True), random_state=0)
    transformer = PretrainedFeatureTransformer("mini", image_shape=(8, 8), pixel_range=(0, 16))
    model = make_pipeline(transformer, LogisticRegression(max_iter=1000))
    model.fit(X[:N_TRAINED], y[:N_TRAINED])
    reference = slice(N_TRAINED, N_TRAINED + N_REFERENCE)
    # at most one week in a hundred without drift is called drift
    monitor = DriftMonitor(level=0.01).fit(X[reference], y[reference], estimator=model)
    for week in range(1, N_WEEKS + 1):
        start = N_TRAINED + N_REFERENCE + (week - 1) * N_WEEK
        ink = 1 - FAINTER * max(0, week - FIRST_FAINT + 1)
        report = monitor.update(X[start : start + N_WEEK] * ink, f"week {week}")
        print(f"week {week}: {report.verdict}")

    mpl.use("Agg")
    monitor.plot().figure_.savefig(arguments.out, dpi=110)
    print(f"figure: {arguments.out}")
    if arguments.report is not None:
        report.save(arguments.report)


if __name__ == "__main__":
    main()
