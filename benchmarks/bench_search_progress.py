"""The estimate of `search_progress` tells a search's time after its first fit.

    python benchmarks/bench_search_progress.py

Searches of `FineTunedClassifier` with the backbone "mini" on 120 drawn images: over learning
rates, whose fits take equally long, and over freeze depths from the cheapest on, whose fits do
not; in one process, and in two of joblib's. The rows are not stored before. The error stream is a
pipe, as in a log file. Reported are the estimated time of all fits over what they took, after
the first fit and after half of them, and the lines that were written.

Asserted, for candidates that cost the same: after the first fit, which loads the network and
starts the workers, the estimate is between half and four times the truth, and after half of the
fits between half and twice. No search writes more than 15 lines, and none a carriage return.
Two minutes on two idle cores; what else the machine does is in the figures.
"""

import argparse
import contextlib
import io
import json
import threading
import warnings

import numpy as np
from sklearn.model_selection import GridSearchCV

from _report import in_own_process, write_csv
from sktransfer import FineTunedClassifier, search_progress

GRIDS = {
    "rates": {"lr": [1e-3, 3e-3, 1e-2, 3e-2]},
    "depths": {"freeze_depth": [None, -1, -2, 0]},
}


def draw_images(n=120, size=64):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 120, (n, size, size, 3), dtype=np.uint8)
    y = np.arange(n) % 2
    for image, label in zip(X, y, strict=True):
        top, left = rng.integers(0, size // 2, 2)
        image[top : top + 16 + 8 * label, left : left + 24 - 8 * label] += 100
    return X, y


def search_of(grid, n_jobs):
    classifier = FineTunedClassifier(
        "mini", recipe="fast", freeze_depth=-1, max_epochs=4, feature_cache=None, random_state=0
    )
    return GridSearchCV(classifier, GRIDS[grid], cv=3, n_jobs=n_jobs, refit=False)


def run(grid, n_jobs):
    """Return the figures of one search, watched from a thread."""
    X, y = draw_images()
    warnings.simplefilter("ignore")
    estimates, over = {}, threading.Event()

    def watch(progress):
        while not over.wait(0.02):
            left, n_done = progress.seconds_left, progress.n_done
            if left is not None and n_done not in estimates:
                estimates[n_done] = progress.seconds + left

    log = io.StringIO()
    with contextlib.redirect_stderr(log), search_progress() as progress:
        watcher = threading.Thread(target=watch, args=(progress,))
        watcher.start()
        search_of(grid, n_jobs).fit(X, y)
        seconds = progress.seconds
        over.set()
        watcher.join()
    half = progress.n_fits // 2
    return {
        "fits": progress.n_done,
        "seconds": round(seconds, 1),
        "after_first": round(estimates[min(estimates)] / seconds, 2),
        "after_half": round(estimates[min(n for n in estimates if n >= half)] / seconds, 2),
        "lines": log.getvalue().count("\n"),
        "carriage_returns": log.getvalue().count("\r"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant")
    arguments = parser.parse_args()
    if arguments.variant:
        grid, n_jobs = arguments.variant.split("-")
        print(json.dumps(run(grid, int(n_jobs))))
        return
    rows = []
    for grid in GRIDS:
        for n_jobs in (1, 2):
            figures = in_own_process(__file__, f"{grid}-{n_jobs}")
            rows.append({"grid": grid, "n_jobs": n_jobs, **figures})
            print(rows[-1], flush=True)
    write_csv("bench_search_progress", rows)
    for row in rows:
        assert row["lines"] <= 15, row
        assert row["carriage_returns"] == 0, row
        if row["grid"] == "rates":
            assert 1 / 2 <= row["after_first"] <= 4, row
            assert 1 / 2 <= row["after_half"] <= 2, row


if __name__ == "__main__":
    main()
