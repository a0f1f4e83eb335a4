"""imbalanced-learn: samplers in its own pipeline, on rows or on the images themselves."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from sktransfer import count_forward_passes

pytest.importorskip("imblearn")

from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler


@pytest.fixture
def rare(shapes):
    """Return all twelve squares and four of the discs."""
    X, y = shapes
    keep = np.flatnonzero((y == "square") | (np.arange(len(y)) < 8))
    return X[keep], y[keep]


def count(labels):
    return dict(zip(*np.unique(labels, return_counts=True), strict=True))


@pytest.mark.parametrize(
    ("sampler", "n"),
    [
        (SMOTE(k_neighbors=2, random_state=0), 12),
        (RandomOverSampler(random_state=0), 12),
        (RandomUnderSampler(random_state=0), 4),
    ],
)
def test_a_sampler_on_rows_evens_the_classes_and_only_in_fit(rare, transformer, sampler, n):
    X, y = rare
    assert count(y) == {"disc": 4, "square": 12}
    linear = LogisticRegression(max_iter=1000)
    with count_forward_passes() as counter:
        model = make_pipeline(transformer, sampler, linear).fit(X, y)
        predicted = model.predict_proba(X)
    assert counter.computed == len(X)
    assert predicted.shape == (len(X), 2)  # nothing is sampled in predict
    rows, labels = clone(sampler).fit_resample(transformer.fit_transform(X), y)
    assert count(labels) == {"disc": n, "square": n}
    by_hand = clone(linear).fit(rows, labels).predict_proba(transformer.transform(X))
    np.testing.assert_array_equal(predicted, by_hand)


def test_no_made_up_row_gets_into_the_test_folds(rare, transformer):
    X, y = rare
    model = make_pipeline(
        transformer, SMOTE(k_neighbors=1, random_state=0), LogisticRegression(max_iter=1000)
    )
    with count_forward_passes() as counter:
        scores = cross_val_score(model, X, y, cv=2, scoring="balanced_accuracy")
    assert counter.computed == len(X)
    assert scores.mean() >= 0.9


@pytest.mark.parametrize("which", ["model", "classifier"])
@pytest.mark.parametrize("table", [False, True])
def test_images_are_repeated_as_one_column_and_pass_once(rare, which, table, request):
    X, y = rare
    column = pd.DataFrame({"photo": X}) if table else X.reshape(-1, 1)
    sampler, estimator = RandomOverSampler(random_state=0), request.getfixturevalue(which)
    repeated, labels = sampler.fit_resample(column, y)
    assert count(labels) == {"disc": 12, "square": 12}
    with count_forward_passes() as counter:
        model = make_pipeline(sampler, estimator).fit(column, y)
        by_hand = clone(estimator).fit(repeated, labels)
    assert counter.computed == len(X)
    np.testing.assert_allclose(
        model.predict_proba(column), by_hand.predict_proba(column), rtol=1e-6
    )
    assert model.score(column, y) == 1.0
