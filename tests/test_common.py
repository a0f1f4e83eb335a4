"""scikit-learn's own checks over every public estimator."""

from collections import Counter

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    PretrainedFeatureTransformer,
    ZeroShotClassifier,
)
from sktransfer.domain_adaptation import PseudoLabelClassifier
from sktransfer.model_selection import TransferSearchCV
from sktransfer.monitoring import DriftMonitor, NoveltyDetector

# How scikit-learn's rows of numbers are read as images: one pixel high.
ROWS = {"backbone": "mini", "image_shape": (1, -1), "pixel_range": "fit"}
# The checks fit dozens of times; they ask for the contract, not for accuracy.
SHORT = {"recipe": "fast", "freeze_depth": -1, "max_epochs": 5, "random_state": 0}

# A model of both towers with random weights; of names such as "0" its texts know nothing.
CLIP = {
    "backbone": "openclip:ViT-B-32",
    "backbone_params": {
        "embed_dim": 64,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"layers": 1, "width": 32, "heads": 1},
    },
    "weights": None,
    "templates": ["{}"],
}

ESTIMATORS = [
    PretrainedFeatureTransformer(**ROWS),
    FineTunedClassifier(**ROWS, freeze_depth=None),
    FineTunedClassifier(**ROWS, **SHORT),
    FineTunedRegressor(**ROWS, freeze_depth=None),
    FineTunedRegressor(**ROWS, **SHORT),
    FineTunedTransformer(FineTunedClassifier(**ROWS, freeze_depth=None), cv=3),
    FineTunedTransformer(FineTunedRegressor(**ROWS, **SHORT), output="rows", cv=3),
    ZeroShotClassifier(**{**ROWS, **CLIP}),
    NoveltyDetector(),
    NoveltyDetector("knn"),
    DriftMonitor(PretrainedFeatureTransformer(**ROWS)),
    DriftMonitor("passthrough"),
    PseudoLabelClassifier(),
    PseudoLabelClassifier(LogisticRegression(), n_components=2),
    TransferSearchCV(FineTunedClassifier(**ROWS), depths=(None,), max_fits=6, cv=2),
    TransferSearchCV(FineTunedRegressor(**ROWS), depths=(-1,), max_fits=4, cv=2),
]

# As scikit-learn lists it for its own estimators that train on random batches.
IN_RANDOM_BATCHES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a repeated image is in other batches than a weighted one"
    )
}

# scikit-learn runs both on numbers, and not on its own cross-fitted TargetEncoder.
CROSS_FITTED = dict.fromkeys(
    ["check_transformer_general", "check_transformer_data_not_an_array"],
    "fit_transform is cross-fitted, so it is not fit and transform",
)


def expected_failures(estimator):
    """Return what may fail: nothing where the best head is unique."""
    if isinstance(estimator, FineTunedTransformer):
        return CROSS_FITTED
    return IN_RANDOM_BATCHES if getattr(estimator, "freeze_depth", None) is not None else {}


_ran = Counter()


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_check(estimator, check):
    check(estimator)
    _ran[type(estimator).__name__] += 1  # not where it skips


def test_scikit_learn_checks_ran_and_which_are_expected_to_fail(closing_lines):
    if not _ran:
        pytest.skip("the checks themselves were not selected")
    for name, count in sorted(_ran.items()):
        closing_lines.append(f"scikit-learn checks run on {name}: {count}")
    for estimator in ESTIMATORS:
        expected = ", ".join(expected_failures(estimator)) or "none"
        closing_lines.append(f"expected failures of {estimator!r}: {expected}")
    assert set(_ran) == {type(estimator).__name__ for estimator in ESTIMATORS}
    assert min(_ran.values()) > 40
