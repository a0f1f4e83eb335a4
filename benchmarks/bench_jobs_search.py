"""A search on machines with a store each: a job first, or each passes its own images.

    python benchmarks/bench_jobs_search.py CIFAR10.zip [--images 2000] [--backbone mini]

Two dask workers stand for two machines: each has a store of its own, as has the process that
starts the search. GridSearchCV over the C of a logistic regression on rows, four values, five
folds, and the refit.

- each: the stores are empty. Every worker passes the images of its folds, and the refit all.
- job first: an ExtractionJob on the same workers, whose rows each store imports; then the search.

Claim: with a job first each image passes the network once in all, scores are the same, and the
whole takes less time. Two to five minutes on 2 cores.
"""

import argparse
import json
import logging
import os
import tempfile
import time
import zipfile
from pathlib import Path

import dask
import joblib
import numpy as np
from dask.distributed import Client, Nanny, Scheduler, SpecCluster
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from _report import in_own_process, write_csv
from sktransfer import PretrainedFeatureTransformer, feature_cache_info
from sktransfer.jobs import ExtractionJob, import_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", help="cifar10.zip, or the folder of its images")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--variant")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(run_variant(options)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-jobs-search-") as folder:
        extract_images(options.archive, folder, options.images)
        common = ("--backbone", options.backbone, "--image-size", options.image_size)
        rows = []
        for variant in ("each", "job first"):
            rows.append({"variant": variant, **in_own_process(__file__, variant, folder, *common)})
            print(rows[-1], flush=True)
    each, first = rows
    scores = [np.array(row.pop("scores")) for row in rows]
    write_csv("bench_jobs_search", rows)
    np.testing.assert_allclose(*scores, atol=0.005)
    assert first["passes"] == first["images"]
    assert first["seconds"] < each["seconds"]


def extract_images(archive, folder, n):
    with zipfile.ZipFile(archive) as members:
        names = sorted(name for name in members.namelist() if name.startswith("train/"))
        for i, name in enumerate(names[:: len(names) // n][:n]):
            label = name.split("/")[1]
            path = Path(folder) / "images" / label / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(members.read(name))


def start_cluster(folder):
    """Return a cluster of two workers of one thread, each with a store of its own."""
    workers = {
        name: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "silence_logs": logging.CRITICAL,
                "env": {
                    "SKTRANSFER_CACHE": os.path.join(folder, name),
                    "OMP_NUM_THREADS": "1",
                },
            },
        }
        for name in ("one", "two")
    }
    dask.config.set({"distributed.scheduler.worker-ttl": None})  # a busy machine answers late
    scheduler = {
        "cls": Scheduler,
        "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)


def run_variant(options):
    import sktransfer.jobs  # noqa: F401  before the clock

    paths = np.array(sorted(str(p) for p in Path(options.archive).rglob("*.jpg")), dtype=object)
    y = np.array([Path(path).parent.name for path in paths])
    transformer = PretrainedFeatureTransformer(
        options.backbone, image_size=options.image_size, precision="float32", device="cpu"
    )
    pipeline = make_pipeline(transformer, StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(
        pipeline,
        {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]},
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
    )
    folder = tempfile.mkdtemp(prefix="stores-", dir=options.archive)
    os.environ["SKTRANSFER_CACHE"] = os.path.join(folder, "driver")
    with (
        start_cluster(folder) as cluster,
        Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        client.wait_for_workers(2)
        client.run(load_package)
        start = time.perf_counter()
        passes = 0
        if options.variant == "job first":
            job = ExtractionJob(transformer, paths, os.path.join(folder, "job"), rows_per_shard=250)
            passes = job.run("joblib").n_images_done
            job_seconds = time.perf_counter() - start
            client.run(import_rows, job.out, check=0)
            import_rows(job.out, check=0)
            import_seconds = time.perf_counter() - start - job_seconds
        before = count_rows(client)
        search.fit(paths, y)
        seconds = time.perf_counter() - start
        # a pass stores the rows of all stage ends
        stored = count_rows(client) - before
    figures = {
        "images": len(paths),
        "passes": passes + stored // n_stage_ends(transformer),
        "seconds": round(seconds, 1),
        "score": round(float(search.best_score_), 4),
        "scores": search.cv_results_["mean_test_score"].tolist(),
    }
    if options.variant == "job first":
        figures |= {"job": round(job_seconds, 1), "import": round(import_seconds, 1)}
    else:
        figures |= {"job": "", "import": ""}
    return figures


def load_package():
    import sktransfer.jobs  # noqa: F401


def count_entries():
    return feature_cache_info().n_entries


def count_rows(client):
    return count_entries() + sum(client.run(count_entries).values())


def n_stage_ends(transformer):
    fitted = PretrainedFeatureTransformer(**transformer.get_params()).fit(["a path"])
    return len(fitted.backbone_spec_.stages)


if __name__ == "__main__":
    main()
