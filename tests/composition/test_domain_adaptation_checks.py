"""skada's own checks of its deep estimators, run over ours; they take rows of two numbers.

Not run, with the reason:

- `test_mcc` hands `sample_domain` to `fit` by position, where scikit-learn has `sample_weight`;
  it is repeated here with the name.
- `test_allow_source` expects `predict_proba` to leave sources out; ours raise, as skada's other
  estimators do.
- `test_predict_proba` counts the mask -1 as a class.
- The others are of skada's modules, samplers and loaders.
"""

import numpy as np
import pytest
import sklearn
import torch

from sktransfer import FineTunedClassifier
from sktransfer.training._adaptation import class_confusion

# skada switches scikit-learn's metadata routing on when it is imported, for all that
# comes after; the tests beside these shall not depend on whether it was, nor these on them.
with sklearn.config_context(enable_metadata_routing=True):
    skada = pytest.importorskip("skada")
    from skada import metrics
    from skada.datasets import make_shifted_datasets
    from skada.deep import losses

    checks_of_scorers = pytest.importorskip("skada.deep.tests.test_deep_scorer")
    checks_of_pipelines = pytest.importorskip("skada.deep.tests.test_deep_pipeline")


@pytest.fixture(autouse=True)
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="module")
def da_dataset():
    return make_shifted_datasets(
        n_samples_source=4,
        n_samples_target=4,
        shift="covariate_shift",
        noise=0.1,
        random_state=0,
        return_dataset=True,
    )


@pytest.fixture
def make_adapted(cache):
    """Return what stands for a class of skada's deep estimators; its arguments are skada's."""

    def make(*_args, **_options):
        classifier = FineTunedClassifier(
            "mini",
            image_shape=(1, -1),
            pixel_range="fit",
            image_size=32,
            freeze_depth=None,
            adapt="mcc",
            max_epochs=5,
            batch_size=16,
            feature_cache=str(cache),
            random_state=0,
        )
        return classifier.set_score_request(sample_weight=True)

    return make


def test_pipeline(da_dataset, make_adapted):
    checks_of_pipelines.test_pipeline(da_dataset, make_adapted())


@pytest.mark.parametrize(
    "scorer",
    [
        metrics.PredictionEntropyScorer,
        metrics.SoftNeighborhoodDensity,
        metrics.DeepEmbeddedValidation,
        metrics.MaNoScorer,
    ],
)
def test_generic_scorer(da_dataset, make_adapted, monkeypatch, scorer):
    monkeypatch.setattr(checks_of_scorers, "DeepCoral", make_adapted)
    checks_of_scorers.test_generic_scorer(scorer(), da_dataset)


@pytest.mark.parametrize(
    "scorer",
    [  # the others ask for the module of a deep estimator of skada
        metrics.PredictionEntropyScorer,
        metrics.SoftNeighborhoodDensity,
        metrics.CircularValidation,
        metrics.MixValScorer,
        metrics.ImportanceWeightedScorer,
    ],
)
def test_generic_scorer_on_deepmodel(da_dataset, make_adapted, monkeypatch, scorer):
    monkeypatch.setattr(checks_of_scorers, "DeepCoral", make_adapted)
    checks_of_scorers.test_generic_scorer_on_deepmodel(scorer(), da_dataset)


def test_mcc(da_dataset, make_adapted):
    X, y, domain = da_dataset.pack(as_sources=["s"], as_targets=["t"], mask_target_labels=True)
    X_test, _, domain_test = da_dataset.pack(
        as_sources=[], as_targets=["t"], mask_target_labels=False
    )
    fitted = make_adapted().fit(X.astype(np.float32), y, sample_domain=domain)
    assert fitted.predict(X_test.astype(np.float32), domain_test).shape == (len(X_test),)
    assert fitted.history_[0]["train_loss"] > fitted.history_[-1]["train_loss"]


def test_mcc_with_zeros():
    logits = 100 * (2 * torch.eye(3) - 1)
    assert torch.isfinite(class_confusion(logits))


def test_the_loss_is_skadas():
    logits = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    expected = losses.mcc_loss(logits, T=2.5)
    torch.testing.assert_close(class_confusion(logits), expected, rtol=1e-5, atol=1e-6)
