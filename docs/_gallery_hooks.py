"""What the gallery asks of this site: the order of its examples, and the same start for each."""

import os
import shutil
from pathlib import Path

import sklearn

FOLDER = Path(__file__).resolve().parents[1] / "build" / "docs" / "features"
LESSONS = (
    "first_pipeline",
    "depth_curve",
    "fine_tuning_grid",
    "training_curves",
    "choosing",
    "few_labels",
    "imbalanced",
    "multilabel",
    "regression",
    "image_and_table",
    "speech",
    "error_report",
    "duplicates",
    "drift",
    "domain_adaptation",
    "onnx",
    "dask",
)


class ByLesson:
    """Sort examples from the first pipeline on; those that are not in the list come last."""

    def __init__(self, src_dir):
        pass

    def __call__(self, filename):
        lesson = Path(filename).stem.removeprefix("plot_")
        return (LESSONS.index(lesson) if lesson in LESSONS else len(LESSONS), lesson)


def empty_store(gallery_conf, fname):
    """Give each example an empty store: what it prints does not depend on those before it."""
    sklearn.set_config(enable_metadata_routing=False)  # skada's import switches it on for all
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.environ["SKTRANSFER_CACHE"] = str(FOLDER / Path(fname).stem)
