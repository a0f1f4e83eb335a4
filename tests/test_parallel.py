"""Searches in two workers: the scores of one, the cores of one, and a worker that dies."""

import signal
from math import ceil

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.runtime import _threads

# In bfloat16 a row depends in its third digit on how many share its batch, and workers that
# divide the images make other batches.
SMALL = {"backbone": "mini", "image_size": 32, "precision": "float32"}


@pytest.fixture(scope="module", autouse=True)
def _joblib_shares_the_cores():
    """Let joblib tell its workers how many threads each may use.

    The suite sets OMP_NUM_THREADS, and joblib leaves to its workers what is set. All tests
    here have one environment, so that they share the workers, whose start takes seconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.delenv("MKL_NUM_THREADS", raising=False)
        yield


def make_search(kind, cache, **options):
    if kind == "pipeline":
        transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=cache)
        estimator = make_pipeline(transformer, LogisticRegression(max_iter=1000))
        grid = {"logisticregression__C": [1e-5, 1.0]}
    else:
        estimator = FineTunedClassifier(
            **SMALL, recipe="fast", max_epochs=2, batch_size=8, random_state=0, feature_cache=cache
        )
        grid = {"freeze_depth": [None, -1]}
    return GridSearchCV(estimator, grid, cv=3, **options)


def split_scores(search):
    names = [f"split{i}_test_score" for i in range(search.n_splits_)]
    return np.array([search.cv_results_[name] for name in names])


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize("kind", ["pipeline", "classifier"])
def test_a_search_in_two_workers_has_the_scores_of_one(shapes, tmp_path, kind, backend):
    alone = make_search(kind, tmp_path / "alone").fit(*shapes)
    with joblib.parallel_config(backend):
        both = make_search(kind, tmp_path / "both", n_jobs=2).fit(*shapes)
    np.testing.assert_array_equal(split_scores(both), split_scores(alone))
    assert both.best_params_ == alone.best_params_
    np.testing.assert_array_equal(both.predict(shapes[0]), alone.predict(shapes[0]))


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize("kind", ["pipeline", "classifier"])
def test_cross_validation_in_two_workers_has_the_scores_of_one(shapes, tmp_path, kind, backend):
    X, y = shapes
    alone = cross_validate(make_search(kind, tmp_path / "alone").estimator, X, y, cv=3)
    with joblib.parallel_config(backend):
        both = cross_validate(
            make_search(kind, tmp_path / "both").estimator,
            X,
            y,
            cv=3,
            n_jobs=2,
            return_estimator=True,
        )
    np.testing.assert_array_equal(both["test_score"], alone["test_score"])
    predictions = [estimator.predict(X) for estimator in both["estimator"]]
    assert np.shape(predictions) == (3, len(X))


def test_fits_in_threads_draw_what_they_would_alone(shapes, cache):
    classifier = FineTunedClassifier(
        **SMALL, recipe="fast", head=(16,), max_epochs=2, random_state=0, feature_cache=cache
    )
    grid = {"freeze_depth": [None, -1], "lr": [1e-3, 1e-2]}
    search = GridSearchCV(classifier, grid, scoring="neg_log_loss", cv=3)
    alone = split_scores(search.fit(*shapes))
    before = torch.random.get_rng_state()
    with joblib.parallel_config("threading"):
        together = split_scores(search.set_params(n_jobs=4).fit(*shapes))
    np.testing.assert_array_equal(together, alone)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_workers_share_the_cores():
    def numbers():
        from sktransfer.runtime._threads import n_threads

        return n_threads(None), n_threads(-1), torch.get_num_threads(), n_threads(7)

    share = ceil(joblib.cpu_count() / 2)
    workers = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(numbers)() for _ in range(4))
    for reading, reading_on_all, of_torch, asked_for in workers:
        assert 1 <= reading <= share
        assert 1 <= reading_on_all <= share
        assert 1 <= of_torch <= share
        assert asked_for == 7


def fits(shapes):
    """Return a fit that extracts, trains a stage and predicts."""
    X, y = shapes
    options = {"recipe": "fast", "freeze_depth": -1, "max_epochs": 1, "random_state": 0}

    def fit():
        FineTunedClassifier(**SMALL, **options, feature_cache=None).fit(X, y).predict(X)

    return fit


def test_workers_keep_all_cores_busy_once(shapes, threads_at_work):
    fit, n_workers = fits(shapes), 2
    counts = joblib.Parallel(n_jobs=n_workers, backend="loky")(
        joblib.delayed(threads_at_work)(fit) for _ in range(n_workers)
    )
    for extracting, training in counts:
        assert 1 <= extracting <= ceil(joblib.cpu_count() / n_workers)
        assert 1 <= training <= ceil(joblib.cpu_count() / n_workers)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_one_process_keeps_all_cores_busy_once(shapes, threads_at_work, n_jobs, monkeypatch):
    """Also where joblib runs fits in threads: they share the cores, and one trains at a time."""
    monkeypatch.setattr(_threads, "_ALLOTTED", [])  # as where nothing is set in the environment
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    _threads._turns.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(8)  # as torch counts in a container with a share of the machine
    fit = fits(shapes)
    try:
        extracting, training = threads_at_work(
            lambda: joblib.Parallel(n_jobs=n_jobs, backend="threading")(
                joblib.delayed(fit)() for _ in range(2)
            )
        )
    finally:
        torch.set_num_threads(before)
        _threads._turns.cache_clear()
    assert 1 <= extracting <= 3
    assert 1 <= training <= 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_worker_is_joblibs_error_and_costs_no_finished_image(
    shapes, deadly_head, tmp_path
):
    X, y = shapes
    fits = tmp_path / "fits"
    fits.mkdir()

    def search(cache, **options):
        classifier = FineTunedClassifier(
            **SMALL,
            recipe="fast",
            head=deadly_head(fits, n_fits=8),
            max_epochs=1,
            random_state=0,
            feature_cache=cache,
        )
        grid = {"freeze_depth": [None, -1], "lr": [1e-4, 1e-3, 1e-2]}
        return GridSearchCV(classifier, grid, cv=3, **options)

    with joblib.parallel_config("loky"), pytest.raises(TerminatedWorkerError):
        search(tmp_path / "both", n_jobs=2).fit(X, y)
    assert 8 <= len(list(fits.iterdir())) < 2 * 3 * 3

    with count_forward_passes() as counter:
        again = search(tmp_path / "both").fit(X, y)
    # The first seven fits, of one depth, were through with all images.
    assert counter.computed <= len(X)
    alone = search(tmp_path / "alone").fit(X, y)
    np.testing.assert_array_equal(split_scores(again), split_scores(alone))
    assert again.best_params_ == alone.best_params_
    with count_forward_passes() as counter:
        kept, computed = (
            PretrainedFeatureTransformer(**SMALL, feature_cache=cache).fit_transform(X)
            for cache in (tmp_path / "both", None)
        )
    assert (counter.cache_hits, counter.computed) == (len(X), len(X))
    # what the killed worker had put is right: between batches of two sizes float32 rows differ
    # by up to 1e-5 of the largest value, on some processors
    np.testing.assert_allclose(kept, computed, rtol=0, atol=1e-5 * float(np.abs(computed).max()))
