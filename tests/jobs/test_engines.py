"""Every engine gives the shards that one process gives, to the byte."""

import logging
import os
import sys

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer.jobs import ExtractionJob

from .conftest import digests, small_transformer


def run_and_compare(engine, finished, table, tmp_path, **params):
    job = ExtractionJob(small_transformer(), table, tmp_path / "job", rows_per_shard=5)
    status = job.run(engine, **params)
    assert (status.is_complete, status.n_shards_done, status.n_failures) == (True, 5, 1)
    assert digests(job.out) == digests(finished.out)


@pytest.fixture
def environment():
    """Restore the environment, in which engines leave what is meant for their workers."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def test_loky(finished, table, tmp_path):
    run_and_compare("joblib", finished, table, tmp_path, n_workers=2)


def test_threads_of_joblib(finished, table, tmp_path):
    with joblib.parallel_config("threading", n_jobs=2):
        run_and_compare("joblib", finished, table, tmp_path)


def test_dask(finished, table, tmp_path, environment):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # None would be port 8787, with a warning if in use
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        run_and_compare("joblib", finished, table, tmp_path)


@pytest.fixture(scope="module")
def ray():
    """Return Ray with a cluster of two cores on this machine."""
    ray = pytest.importorskip("ray")
    before = dict(os.environ)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def test_ray(finished, table, tmp_path, ray):
    run_and_compare("ray", finished, table, tmp_path, n_workers=2)


def test_a_search_on_the_joblib_backend_of_ray(shapes, tmp_path, ray):
    from ray.util.joblib import register_ray

    def search(cache):
        pipeline = make_pipeline(small_transformer(feature_cache=cache), LogisticRegression())
        return GridSearchCV(pipeline, {"logisticregression__C": [1e-4, 1.0]}, cv=2)

    register_ray()
    with joblib.parallel_config("ray", n_jobs=2):
        there = search(tmp_path / "there").fit(*shapes)
    here = search(tmp_path / "here").fit(*shapes)
    np.testing.assert_array_equal(
        there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"]
    )


def test_an_error_in_a_worker_of_ray_is_that_of_the_job(table, tmp_path, ray):
    job = ExtractionJob(small_transformer(), table, tmp_path / "job", rows_per_shard=5)
    (part,) = (tmp_path / "job").glob("manifest-*/0000002.parquet")
    part.unlink()
    with pytest.raises(FileNotFoundError, match="0000002"):
        job.run("ray", n_workers=1)
    assert not job.status().is_complete


# Spark's own, whose input is a number here
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_spark(finished, table, tmp_path, environment, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    try:
        with pytest.raises(ValueError, match=r"spark\.task\.cpus"):
            run_and_compare("spark", finished, table, tmp_path, cpus_per_worker=3)
        run_and_compare("spark", finished, table, tmp_path)
    finally:
        session.stop()


def test_spark_needs_a_session(table, tmp_path):
    pytest.importorskip("pyspark.sql")
    job = ExtractionJob(small_transformer(), table, tmp_path / "job")
    with pytest.raises(ValueError, match="active session"):
        job.run("spark")


@pytest.mark.parametrize(("engine", "module"), [("ray", "ray"), ("spark", "pyspark.sql")])
def test_an_engine_that_is_not_installed_names_its_extra(
    table, tmp_path, monkeypatch, engine, module
):
    monkeypatch.setitem(sys.modules, module, None)
    job = ExtractionJob(small_transformer(), table, tmp_path / "job")
    with pytest.raises(ImportError, match=rf"sktransfer\[{engine}\]"):
        job.run(engine)
