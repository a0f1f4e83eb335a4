"""scikit-learn's own checks over every public estimator."""

from collections import Counter

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

# How scikit-learn's rows of numbers are read as images: one pixel high.
ROWS = {"backbone": "mini", "image_shape": (1, -1), "pixel_range": "fit"}

ESTIMATORS = [
    PretrainedFeatureTransformer(**ROWS),
    FineTunedClassifier(**ROWS, freeze_depth=None, lr=0.01, random_state=0),
    FineTunedClassifier(**ROWS, random_state=0),
]

EXPECTED_FAILURES: dict[str, str] = {}

_ran = Counter()


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
def test_scikit_learn_check(estimator, check):
    _ran[type(estimator).__name__] += 1
    check(estimator)


def test_scikit_learn_checks_ran_and_which_are_expected_to_fail(closing_lines):
    if not _ran:
        pytest.skip("the checks themselves were not selected")
    for name, count in sorted(_ran.items()):
        closing_lines.append(f"scikit-learn checks run on {name}: {count}")
    closing_lines.append(f"expected failures: {EXPECTED_FAILURES or 'none'}")
    assert set(_ran) == {type(estimator).__name__ for estimator in ESTIMATORS}
    assert min(_ran.values()) > 40
