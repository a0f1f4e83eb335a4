"""What tests of jobs share: a small transformer, a table of images, and a finished job."""

import hashlib
from pathlib import Path

import pytest

from sktransfer import PretrainedFeatureTransformer

pytest.importorskip("pyarrow")


def small_transformer(**params):
    """Return a transformer whose rows are the same on every machine, and fast."""
    fixed = {"image_size": 32, "precision": "float32", "device": "cpu"}
    return PretrainedFeatureTransformer("mini", **{**fixed, **params})


def digests(out):
    """Return a digest of each shard's bytes."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((Path(out) / "rows").iterdir())
    }


@pytest.fixture
def transformer():
    return small_transformer()


@pytest.fixture(scope="session")
def table(shapes, tmp_path_factory):
    """Return 24 images, of which the fifth is missing, with their labels, as a table."""
    import pyarrow

    paths, labels = shapes
    missing = str(tmp_path_factory.mktemp("images") / "missing.png")
    paths = [missing if i == 5 else path for i, path in enumerate(paths)]
    return pyarrow.table({"label": labels.tolist(), "path": paths})


@pytest.fixture(scope="session")
def finished(table, tmp_path_factory):
    """Return a finished job of 24 images in shards of 5; it must not be changed."""
    from sktransfer.jobs import ExtractionJob

    job = ExtractionJob(
        small_transformer(), table, tmp_path_factory.mktemp("jobs") / "job", rows_per_shard=5
    )
    job.run()
    return job


@pytest.fixture(scope="session")
def whole(shapes, tmp_path_factory):
    """Return a finished job of 24 images, all of which can be read; it must not be changed."""
    from sktransfer.jobs import ExtractionJob

    out = tmp_path_factory.mktemp("jobs") / "whole"
    job = ExtractionJob(small_transformer(), shapes[0], out, rows_per_shard=10)
    job.run()
    return job
