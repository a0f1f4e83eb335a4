"""Two workers, of joblib or of dask, don't get in each other's way.

    python benchmarks/bench_workers.py [folder] [--backbone mini]

A grid search over `FineTunedClassifier`: 2 depths x 3 learning rates x 3 folds and the
refit, each with a store that is empty at first. Without a folder on 160 drawn discs and
squares; `folder` holds <class>/<image>.

- one process: no workers; reading and torch use all cores.
- loky, 2 workers; dask, 1 and 2 workers of one thread: each uses its share. Dask's
  workers leave memory to malloc's own rules.
- dask, 2 trimming: with dask's own setting for memory, for comparison.

Each runs in a process of its own, in turns. Workers are started, and have imported
everything, before the clock: their start is a column of its own. Claim, on 2 cores: two
workers take at most 1.2 times what one process takes, which has the same cores, with
loky and with dask; and all find the same scores.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from contextlib import contextmanager, nullcontext

import joblib
import numpy as np
from PIL import Image
from sklearn.model_selection import GridSearchCV

from _report import in_own_process, write_csv
from sktransfer import FineTunedClassifier, load_image_folder

GRID = {"freeze_depth": [None, -1], "lr": [3e-4, 1e-3, 3e-3]}
FOLDS, EPOCHS, N_DRAWN, DRAWN_SIZE = 3, 6, 160, 96
TRIMMING = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
MOST_TIMES_ONE_PROCESS = 1.2


def draw_images(folder):
    """Return the files of discs and squares of random place, size and colour on noise."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 120, (N_DRAWN, DRAWN_SIZE, DRAWN_SIZE, 3), dtype=np.uint8)
    y = np.arange(N_DRAWN) % 2
    rows, columns = np.mgrid[:DRAWN_SIZE, :DRAWN_SIZE]
    for image, is_disc in zip(X, y, strict=True):
        half = rng.integers(8, 24)
        top, left = rng.integers(half, DRAWN_SIZE - half, 2)
        down, right = abs(rows - top), abs(columns - left)
        inside = down**2 + right**2 < half**2 if is_disc else np.maximum(down, right) < half * 0.9
        image[inside] = rng.integers(100, 255, 3)
    files = [os.path.join(folder, f"{i:03d}.png") for i in range(N_DRAWN)]
    for file, image in zip(files, X, strict=True):
        Image.fromarray(image).save(file)
    return files, y


@contextmanager
def dask_workers(n, keep_trimming=False):
    import dask
    from distributed import Client, LocalCluster

    # dask lets workers give memory back to the system at once, which torch then asks for
    # again, for every batch and layer; None leaves the system's default
    trimming = {} if keep_trimming else {TRIMMING: None}
    with (
        dask.config.set(trimming),
        LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield


def get_ready(n_workers):
    """Import everything, and wait a little, so that no worker gets two of these calls."""
    import sktransfer  # noqa: F401

    time.sleep(n_workers - 1.0)


# variant -> what surrounds the search, and the number of its workers
VARIANTS = {
    "one process": (nullcontext, 1),
    "loky, 2 workers": (lambda: joblib.parallel_config("loky"), 2),
    "dask, 1 worker": (lambda: dask_workers(1), 1),
    "dask, 2 workers": (lambda: dask_workers(2), 2),
    "dask, 2 trimming": (lambda: dask_workers(2, keep_trimming=True), 2),
}


def run(variant, folder, backbone):
    surround, n_workers = VARIANTS[variant]
    classifier = FineTunedClassifier(backbone, recipe="fast", max_epochs=EPOCHS, random_state=0)
    started = time.perf_counter()
    with surround(), tempfile.TemporaryDirectory() as own:
        X, y = load_image_folder(folder) if folder else draw_images(own)
        joblib.Parallel(n_jobs=n_workers)(
            joblib.delayed(get_ready)(n_workers) for _ in range(n_workers)
        )
        ready = time.perf_counter()
        search = GridSearchCV(
            classifier.set_params(feature_cache=own), GRID, cv=FOLDS, n_jobs=n_workers
        ).fit(X, y)
        ended = time.perf_counter()
    return {
        "seconds": ended - ready,
        "start_seconds": ready - started,
        "scores": search.cv_results_["mean_test_score"].tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="", help="<class>/<image>; default: drawn")
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(run(arguments.variant, arguments.folder, arguments.backbone)))
        return

    lines, scores = [], {}
    for _ in range(arguments.repeats):
        for variant in VARIANTS:
            report = in_own_process(
                __file__, variant, arguments.folder, "--backbone", arguments.backbone
            )
            scores[variant] = report.pop("scores")
            lines.append({"variant": variant, "best_score": max(scores[variant]), **report})
    median = {
        variant: statistics.median(line["seconds"] for line in lines if line["variant"] == variant)
        for variant in VARIANTS
    }
    print(
        f"{'':<18}{'search':>10}{'from':>8}{'to':>8}{'start':>8}{'x one process':>15}  best score"
    )
    for variant in VARIANTS:
        mine = [line for line in lines if line["variant"] == variant]
        seconds = [line["seconds"] for line in mine]
        start = statistics.median(line["start_seconds"] for line in mine)
        print(
            f"{variant:<18}{median[variant]:>8.2f} s{min(seconds):>8.2f}{max(seconds):>8.2f}"
            f"{start:>8.1f}{median[variant] / median['one process']:>15.2f}"
            f"{mine[0]['best_score']:>12.3f}"
        )
    write_csv("bench_workers", lines)
    for variant in VARIANTS:
        np.testing.assert_allclose(scores[variant], scores["one process"], atol=0.01)
    for variant in ("loky, 2 workers", "dask, 2 workers"):
        assert median[variant] <= MOST_TIMES_ONE_PROCESS * median["one process"], variant


if __name__ == "__main__":
    main()
