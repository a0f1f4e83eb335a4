"""The band of LabelCurveDisplay holds the true score in about nine of ten data sets.

    python benchmarks/bench_label_curve.py

Data sets are drawn: normal classes, of which the true score of a logistic regression with any
number of labels is known from many further draws. Each data set is scored with eight repeats
of five numbers of labels, up to three quarters of it; the band is compared with the true score
there, at twice and at four times as many labels, and the interval of the gain with the true
gain of twice the labels. "naive" is the band without what repeats that share images need.
The curves of these models are no power laws.

Claim: in the mean over the kinds of data, the bands hold the true score in at least 0.8 of the
data sets at each of the three numbers of labels. A minute on one core.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from _report import write_csv
from sktransfer.inspection._label_scores import default_sizes, draws, scores_by_size
from sktransfer.inspection._power_law import continuation

N_SETS, N_REPEATS, N_CLASSES = 60, 8, 4
TEST_SHARE = 0.25
LEAST_COVERAGE = 0.8
# columns, distance of the classes, images
KINDS = {"hard": (30, 0.35, 200), "many columns": (100, 0.25, 200), "easy": (10, 0.5, 400)}


def drawn(n, rng, n_columns, distance):
    centres = distance * np.random.default_rng(1).normal(size=(N_CLASSES, n_columns))
    y = rng.permutation(np.arange(n) % N_CLASSES)
    return rng.normal(size=(n, n_columns)) + centres[y], y


def true_scores(model, sizes, n_columns, distance):
    rng = np.random.default_rng(0)
    X, y = drawn(5000, rng, n_columns, distance)
    return np.array(
        [
            np.mean([model.fit(*drawn(n, rng, n_columns, distance)).score(X, y) for _ in range(40)])
            for n in sizes
        ]
    )


def main():
    model = LogisticRegression(max_iter=200)
    lines = []
    for kind, (n_columns, distance, n) in KINDS.items():
        n_most = round((1 - TEST_SHARE) * n)
        at = np.array([n_most, 2 * n_most, 4 * n_most])
        true = true_scores(model, at, n_columns, distance)
        inside, inside_naive, widths, gains = [], [], [], []
        for seed in range(N_SETS):
            X, y = drawn(n, np.random.default_rng(100 + seed), n_columns, distance)
            pairs = draws(model, X, y, None, N_REPEATS, TEST_SHARE, seed)
            sizes = default_sizes(n_most, 2 * N_CLASSES)
            scores = scores_by_size(model, X, y, pairs, sizes, None, None)
            inflation = np.sqrt(1 + N_REPEATS * TEST_SHARE / (1 - TEST_SHARE))
            found = continuation(sizes, scores, 1.0, inflation)
            low, high = found.band(at)
            inside.append((low <= true) & (true <= high))
            widths.append(high - low)
            low, high = continuation(sizes, scores, 1.0, 1.0).band(at)
            inside_naive.append((low <= true) & (true <= high))
            low, high = found.gain(at[0], at[1])
            gains.append(low <= true[1] - true[0] <= high)
        for i, times in enumerate((1, 2, 4)):
            line = {
                "data": kind,
                "labels": int(at[i]),
                "times": times,
                "true_score": round(float(true[i]), 4),
                "coverage": round(float(np.mean(inside, axis=0)[i]), 3),
                "naive_coverage": round(float(np.mean(inside_naive, axis=0)[i]), 3),
                "width": round(float(np.mean(widths, axis=0)[i]), 3),
                "gain_coverage": round(float(np.mean(gains)), 3) if times == 2 else None,
            }
            lines.append(line)
            print(line, flush=True)
    write_csv("bench_label_curve", lines)
    for times in (1, 2, 4):
        coverage = np.mean([line["coverage"] for line in lines if line["times"] == times])
        print(f"{times} times the labels: coverage {coverage:.3f}")
        assert coverage >= LEAST_COVERAGE, (times, coverage)


if __name__ == "__main__":
    main()
