"""A second call of partial_fit learns classes that the first call did not have.

    python benchmarks/bench_continued.py

The embedded backbone on scikit-learn's digits. The first call has 200 images of the digits
0 to 2, the second one 200 of the digits 3 to 5. Accuracy of the old and the new digits on
other images, for a linear head alone (``freeze_depth=None``) and with the last stage
trained, 10 epochs (-1), without old images and with 50 and all 200 of them; means over seeds.

Claim: new digits are learned in one call (0.95) in every case; with all old images, old ones
are kept (0.95); with 50 of them, most are (0.85). A few minutes on 2 cores.
"""

import argparse
import tempfile

import numpy as np
from sklearn.datasets import load_digits

from _report import write_csv
from sktransfer import FineTunedClassifier

N_IMAGES = 200
EPOCHS = {None: None, -1: 10}
LEAST_NEW = 0.95
LEAST_OLD = {200: 0.95, 50: 0.85, 0: 0.0}


def accuracies(freeze_depth, replay, seed, cache):
    """Return the accuracies of old and new digits after the second call."""
    X, y = load_digits(n_class=6, return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(X))
    X, y = X[order], y[order]
    old, new = np.flatnonzero(y < 3), np.flatnonzero(y >= 3)
    classifier = FineTunedClassifier(
        "mini",
        freeze_depth=freeze_depth,
        max_epochs=EPOCHS[freeze_depth],
        augment=None,
        dropout=0,
        label_smoothing=0,
        replay=replay,
        image_shape=(8, 8),
        pixel_range=(0, 16),
        feature_cache=cache,
        random_state=seed,
    )
    classifier.partial_fit(X[old[:N_IMAGES]], y[old[:N_IMAGES]], classes=range(6))
    classifier.partial_fit(X[new[:N_IMAGES]], y[new[:N_IMAGES]])
    return [classifier.score(X[chosen], y[chosen]) for chosen in (old[N_IMAGES:], new[N_IMAGES:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    n_seeds = parser.parse_args().seeds
    lines = []
    with tempfile.TemporaryDirectory() as cache:
        for freeze_depth in EPOCHS:
            for replay in LEAST_OLD:
                runs = [accuracies(freeze_depth, replay, seed, cache) for seed in range(n_seeds)]
                old, new = np.mean(runs, axis=0)
                print(f"freeze_depth={freeze_depth} replay={replay}: {old:.3f} {new:.3f}")
                lines.append(
                    {
                        "freeze_depth": freeze_depth,
                        "replay": replay,
                        "accuracy_old": f"{old:.3f}",
                        "accuracy_new": f"{new:.3f}",
                        "seeds": n_seeds,
                    }
                )
                assert new >= LEAST_NEW
                assert old >= LEAST_OLD[replay]
    write_csv("bench_continued", lines)


if __name__ == "__main__":
    main()
