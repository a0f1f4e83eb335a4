"""Searches on a dask cluster of two worker processes."""

import logging
import os
import signal

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes

distributed = pytest.importorskip("distributed")

# In bfloat16 a row depends in its third digit on how many share its batch, and workers that
# divide the images make other batches.
SMALL = {"backbone": "mini", "image_size": 32, "precision": "float32"}


@pytest.fixture(scope="module")
def client():
    """Return a client of two workers of one thread each, and restore what dask changes."""
    environment = dict(os.environ)
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # None would be port 8787, with a warning if in use
            silence_logs=logging.CRITICAL,  # nannies tell of each worker that is killed
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
    # the numbers of threads that are meant for workers, for one
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def split_scores(search):
    names = [f"split{i}_test_score" for i in range(search.n_splits_)]
    return np.array([search.cv_results_[name] for name in names])


def search_pipeline(cache):
    pipeline = make_pipeline(
        PretrainedFeatureTransformer(**SMALL, feature_cache=cache),
        LogisticRegression(max_iter=1000),
    )
    return GridSearchCV(pipeline, {"logisticregression__C": [1e-5, 1.0]}, cv=3)


def search_classifier(cache, head="linear"):
    classifier = FineTunedClassifier(
        **SMALL, recipe="fast", head=head, max_epochs=1, random_state=0, feature_cache=cache
    )
    return GridSearchCV(classifier, {"freeze_depth": [None, -1], "lr": [1e-4, 1e-3, 1e-2]}, cv=3)


@pytest.mark.parametrize("make_search", [search_pipeline, search_classifier])
def test_a_search_on_dask_has_the_scores_of_one_process(client, shapes, tmp_path, make_search):
    alone = make_search(tmp_path / "alone").fit(*shapes)
    with joblib.parallel_config("dask"), count_forward_passes() as counter:
        both = make_search(tmp_path / "both").fit(*shapes)
    np.testing.assert_array_equal(split_scores(both), split_scores(alone))
    assert both.best_params_ == alone.best_params_
    # the workers did the work, and the refit in this process found it
    assert counter.computed == 0
    assert counter.cache_hits == len(shapes[0])


def test_each_worker_has_its_share_of_the_cores(client):
    def numbers():
        from sktransfer.runtime._threads import n_threads

        return n_threads(None), torch.get_num_threads(), n_threads(7)

    assert list(client.run(numbers).values()) == [(1, 1, 7)] * 2


def test_workers_keep_their_core_busy_once(client, shapes, threads_at_work):
    X, y = shapes

    def fit():
        FineTunedClassifier(
            **SMALL,
            recipe="fast",
            freeze_depth=-1,
            max_epochs=1,
            random_state=0,
            feature_cache=None,
        ).fit(X, y).predict(X)

    with joblib.parallel_config("dask"):
        counts = joblib.Parallel(n_jobs=2)(joblib.delayed(threads_at_work)(fit) for _ in range(2))
    assert counts == [(1, 1)] * 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_search_whose_worker_is_killed_ends_with_the_right_result(
    client, shapes, deadly_head, tmp_path
):
    X, y = shapes
    fits = tmp_path / "fits"
    fits.mkdir()
    head = deadly_head(fits, n_fits=8)
    with joblib.parallel_config("dask"), count_forward_passes() as counter:
        both = search_classifier(tmp_path / "both", head).fit(X, y)
    assert len(list(fits.iterdir())) > 2 * 3 * 3 + 1  # every fit and the refit, and one again
    assert (counter.computed, counter.cache_hits) == (0, len(X))
    alone = search_classifier(tmp_path / "alone", head).fit(X, y)
    np.testing.assert_array_equal(split_scores(both), split_scores(alone))
    assert both.best_params_ == alone.best_params_
    with count_forward_passes() as counter:
        search_classifier(tmp_path / "both", head).fit(X, y)
    assert counter.computed == 0
