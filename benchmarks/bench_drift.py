"""Drift is found where there is some, and no more often than the level says where there is none.

    python benchmarks/bench_drift.py data mobilenet_v2_0.35.safetensors

CIFAR-10, rows of MobileNetV2 at width 0.35 and 97 pixels. A logistic regression is fitted on 100
images of each class; the reference and the new images are drawn from 4,000 others. The folder
has ``cifar10.zip``.

- null: 300 of reference against 100 new images, both drawn anew, 200 times.
- blur, contrast, camera: new images are blurred (a Gaussian of one pixel), have 0.4 of the
  contrast, or are those of another camera: a colour cast, a gamma of 1.2, and noise.
- mix: of the new images 0.4 are of one class, in place of 0.1.
- shares: those of ten classes in the mix, of 300 new images with 500 of reference.

Claims: at level 0.05 at most 0.05 of the null comparisons find a significant difference,
whatever its size; blur, contrast and camera are found in 50 new images and the mix in 400, each in
19 of 20 draws at least; corrected shares have a mean absolute error of 0.035 at most, and that
of the class that has grown is at most 0.75 of the error of its predicted share. Two minutes on one
core.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from _data import cifar10, corrupted
from _report import write_csv
from sktransfer import PretrainedFeatureTransformer
from sktransfer.monitoring import DriftMonitor

IMAGE_SIZE = 97
LEVEL = 0.05
N_NULL, N_REFERENCE, N_NEW = 200, 300, 100
N_DRAWS, N_CHANGED = 20, 400
SIZES = {"blur": (20, 50), "contrast": (20, 50), "camera": (20, 50), "mix": (100, 200, 400)}
CLAIMED = {"blur": 50, "contrast": 50, "camera": 50, "mix": 400}
SHARE_OF_ONE = 0.4
N_FOR_SHARES, N_REFERENCE_FOR_SHARES = 300, 500
LARGEST_ERROR, LARGEST_PART = 0.035, 0.75


def other_camera(X, seed):
    """Return images with a colour cast, another gamma, and noise."""
    rng = np.random.default_rng(seed)
    changed = np.empty(len(X), dtype=object)
    for i, data in enumerate(X):
        with Image.open(io.BytesIO(data)) as opened:
            values = np.asarray(opened.convert("RGB")) / 255
        values = values ** (1 / 1.2) * [1.08, 1.0, 0.88] + rng.normal(0, 0.02, values.shape)
        changed[i] = (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
    return changed


def mixed(y, n, rng):
    """Return positions of `n` images, of which one drawn class has its share; and the shares."""
    classes = np.unique(y)
    shares = np.full(len(classes), (1 - SHARE_OF_ONE) / (len(classes) - 1))
    shares[rng.integers(len(classes))] = SHARE_OF_ONE
    counts = rng.multinomial(n, shares)
    parts = [
        rng.choice(np.flatnonzero(y == label), count, replace=False)
        for label, count in zip(classes, counts, strict=True)
    ]
    return np.concatenate(parts), counts / n


def null(pool, y, model):
    """Return a line for each comparison of images of one kind."""
    lines = []
    for seed in range(N_NULL):
        order = np.random.default_rng(seed).permutation(len(pool))
        reference, new = order[:N_REFERENCE], order[N_REFERENCE : N_REFERENCE + N_NEW]
        monitor = DriftMonitor(level=LEVEL, n_shown=0, random_state=seed)
        report = monitor.fit(pool[reference], y[reference], estimator=model).compare(pool[new])
        lines.append(
            {
                "part": "null",
                "draw": seed,
                "n_new": N_NEW,
                "significant": min(test.p_value for test in report) <= LEVEL,
                "drift": report.is_drift,
                "auc": report.auc,
                "interval_holds": report.auc_interval[0] <= 0.5 <= report.auc_interval[1],
                "novelty_rate": report.novelty_rate,
            }
        )
    return lines


def changes(pool, y, model):
    """Return a line for each comparison with changed images."""
    kept, rest = np.arange(N_CHANGED), np.arange(N_CHANGED, len(pool))
    changed = {kind: corrupted(pool[kept], kind) for kind in ("blur", "contrast")}
    changed["camera"] = other_camera(pool[kept], 0)
    lines = []
    for seed in range(N_DRAWS):
        rng = np.random.default_rng(1000 + seed)
        order = rng.permutation(rest)
        reference, others = order[:N_REFERENCE], order[N_REFERENCE:]
        monitor = DriftMonitor(level=LEVEL, n_shown=0, random_state=seed)
        monitor.fit(pool[reference], y[reference], estimator=model)
        for kind, sizes in SIZES.items():
            for n in sizes:
                if kind == "mix":
                    new = pool[others[mixed(y[others], n, rng)[0]]]
                else:
                    new = changed[kind][rng.choice(N_CHANGED, n, replace=False)]
                report = monitor.compare(new)
                lines.append(
                    {
                        "part": kind,
                        "draw": seed,
                        "n_new": n,
                        "significant": min(test.p_value for test in report) <= LEVEL,
                        "drift": report.is_drift,
                        "auc": report.auc,
                        "novelty_rate": report.novelty_rate,
                        "families": " ".join(
                            dict.fromkeys(test.family for test in report if test.is_drift)
                        ),
                    }
                )
    return lines


def shares(pool, y, model):
    """Return a line for each mix: errors of the corrected and of the predicted shares."""
    lines = []
    for seed in range(N_DRAWS):
        rng = np.random.default_rng(2000 + seed)
        order = rng.permutation(len(pool))
        reference, others = order[:N_REFERENCE_FOR_SHARES], order[N_REFERENCE_FOR_SHARES:]
        chosen, true = mixed(y[others], N_FOR_SHARES, rng)
        monitor = DriftMonitor(level=LEVEL, n_shown=0, random_state=seed)
        monitor.fit(pool[reference], y[reference], estimator=model)
        found = monitor.compare(pool[others[chosen]]).class_shares
        columns = zip(*((s.corrected, s.predicted, s.low, s.high) for s in found), strict=True)
        corrected, predicted, low, high = map(np.array, columns)
        lines.append(
            {
                "part": "shares",
                "draw": seed,
                "n_new": N_FOR_SHARES,
                "error": np.abs(corrected - true).mean(),
                "error_of_predicted": np.abs(predicted - true).mean(),
                "error_of_grown": np.abs(corrected - true)[true.argmax()],
                "error_of_predicted_grown": np.abs(predicted - true)[true.argmax()],
                "interval_holds": np.mean((low <= true) & (true <= high)),
            }
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, help="folder of the data sets")
    parser.add_argument("weights", help="self-describing file with ImageNet weights")
    arguments = parser.parse_args()
    data = cifar10(arguments.files / "cifar10.zip", IMAGE_SIZE, 2, 100, 400)
    order = np.random.default_rng(2).permutation(len(data.X_test))
    pool, y = data.X_test[order], data.y_test[order]
    with tempfile.TemporaryDirectory() as cache:
        transformer = PretrainedFeatureTransformer(
            arguments.weights, image_size=IMAGE_SIZE, feature_cache=cache
        )
        linear = LogisticRegression(C=1e-3, max_iter=500)
        model = make_pipeline(transformer, StandardScaler(), linear).fit(data.X, data.y)
        print(f"accuracy of the classifier {model.score(pool, y):.3f}")
        lines = null(pool, y, model) + changes(pool, y, model) + shares(pool, y, model)
    names = list(dict.fromkeys(name for line in lines for name in line))
    rounded = [
        {name: round(v, 4) if isinstance(v := line.get(name), float) else v for name in names}
        for line in lines
    ]
    write_csv("bench_drift", rounded)

    def mean(name, part, n=None):
        return float(
            np.mean([ln[name] for ln in lines if ln["part"] == part and n in (None, ln["n_new"])])
        )

    for name in ("significant", "drift", "auc", "interval_holds", "novelty_rate"):
        print(f"null, {name}: {mean(name, 'null'):.3f}")
    for kind, sizes in SIZES.items():
        for n in sizes:
            found, auc = mean("drift", kind, n), mean("auc", kind, n)
            print(f"{kind:<9} {n:>4} new images: found in {found:.2f}, AUC {auc:.3f}")
    for name in (
        "error",
        "error_of_predicted",
        "error_of_grown",
        "error_of_predicted_grown",
        "interval_holds",
    ):
        print(f"shares, {name}: {mean(name, 'shares'):.4f}")

    assert mean("significant", "null") <= LEVEL
    for kind, n in CLAIMED.items():
        assert mean("drift", kind, n) >= 0.95, (kind, n)
    assert mean("error", "shares") <= LARGEST_ERROR
    of_predicted = mean("error_of_predicted_grown", "shares")
    assert mean("error_of_grown", "shares") <= LARGEST_PART * of_predicted


if __name__ == "__main__":
    main()
