"""Labels beside prompts: scores of images that were left out, and the weights of both."""

import numpy as np
import pytest
from scipy.special import log_softmax

from sktransfer._zero_shot_labels import discriminant_scores, weights_of


def drawn_rows(n_each, n_classes=4, width=12, distance=3.0, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_classes, width)) * distance / np.sqrt(width)
    y = np.repeat(np.arange(n_classes), n_each)
    return means[y] + rng.normal(size=(len(y), width)), y, means


def without(rows, y, i, n_classes):
    """Return the scores of row `i` by the others, computed anew with the whole's shrinkage."""
    others = np.arange(len(y)) != i
    everything = np.stack([rows[y == c].mean(0) for c in range(n_classes)])
    centre, freedom = everything.mean(0), len(y) - n_classes
    width = rows.shape[1]
    level = np.square(rows - everything[y]).sum() / freedom / width
    means = np.stack([rows[others & (y == c)].mean(0) for c in range(n_classes)])
    within = rows[others] - means[y[others]]
    share = freedom / (freedom + width)
    covariance = share / freedom * within.T @ within + (1 - share) * level * np.eye(width)
    counts = np.bincount(y[others])
    means = (means - centre) * (counts / (counts + 1))[:, None]
    coef = means @ np.linalg.inv(covariance)
    return coef @ (rows[i] - centre) - 0.5 * (coef * means).sum(1)


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (2, 3, 9, 4)])
def test_left_out_scores_are_those_of_the_other_rows(counts):
    rows, _, _ = drawn_rows(10)
    y = np.repeat(np.arange(4), counts)
    rows = rows[: len(y)]
    scores = discriminant_scores(rows, y, 4)
    assert scores.is_tested.all()
    for i in range(len(y)):
        np.testing.assert_allclose(scores.left_out[i], without(rows, y, i, 4), atol=1e-9)


def test_a_class_of_one_row_is_not_tested():
    rows, _, _ = drawn_rows(2)
    y = np.array([0, 0, 1, 2, 2, 2, 3, 3])
    assert np.array_equal(discriminant_scores(rows, y, 4).is_tested, y != 1)


def test_a_class_without_rows_has_a_score_of_zero():
    rows, y, _ = drawn_rows(5)
    scores = discriminant_scores(rows, y, 6)
    assert not scores.of(rows)[:, 4:].any()
    assert np.abs(scores.of(rows)[:, :4]).min() > 0


def test_scores_find_the_class_of_new_rows():
    rows, y, means = drawn_rows(20)
    new = means[y] + np.random.default_rng(1).normal(size=rows.shape)
    scores = discriminant_scores(rows, y, 4).of(new)
    nearest = ((new[:, None] - means) ** 2).sum(2).argmin(1)
    assert np.mean(scores.argmax(1) == y) > np.mean(nearest == y) - 0.05


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.ones((1, 3))], ids=["equal", "one"])
def test_rows_without_spread_leave_the_texts_alone(rows):
    y = np.arange(len(rows)) % 2
    scores = discriminant_scores(rows, y, 2)
    text = np.arange(2.0 * len(rows)).reshape(len(rows), 2)
    of_text, of_labels = weights_of(text, scores, rows, y)
    assert of_labels == 0
    assert of_text > 0


def accuracy_with(text_of, n_each, distance, draws=20):
    """Return mean accuracies on new rows: of texts alone, and with labels."""
    alone, both = [], []
    for seed in range(draws):
        rows, y, means = drawn_rows(n_each, distance=distance, seed=seed)
        rng = np.random.default_rng(1000 + seed)
        true = rng.integers(0, 4, 400)
        new = means[true] + rng.normal(size=(400, means.shape[1]))
        given = text_of(rows, means, rng)
        scores = discriminant_scores(rows, y, 4)
        of_text, of_labels = weights_of(given(rows), scores, rows, y)
        alone.append(np.mean(given(new).argmax(1) == true))
        both.append(np.mean((of_text * given(new) + of_labels * scores.of(new)).argmax(1) == true))
    return np.mean(alone), np.mean(both)


def good(rows, means, rng):
    """Return the logits of texts that know the classes."""
    return lambda x: x @ means.T - 0.5 * (means**2).sum(1)


def useless(rows, means, rng):
    """Return the logits of texts that say nothing, and are sure of it."""
    directions = rng.normal(size=means.shape)
    return lambda x: 3 * x @ directions.T


@pytest.mark.parametrize("n_each", [1, 2, 4, 16])
def test_labels_leave_good_texts_alone(n_each):
    alone, both = accuracy_with(good, n_each, distance=2.0)
    assert both > alone - 0.005


@pytest.mark.parametrize("n_each", [4, 16])
def test_labels_take_the_place_of_useless_texts(n_each):
    alone, both = accuracy_with(useless, n_each, distance=3.0)
    assert alone < 0.35
    assert both > alone + 0.35


@pytest.mark.parametrize("counts", [[1] * 4, [2] * 4, [4] * 4, [1, 3, 1, 2]], ids=str)
def test_a_few_labels_leave_probabilities_that_are_right_alone(counts):
    alone, both = [], []
    for seed in range(20):
        rows, y, means = drawn_rows(max(counts), distance=1.5, seed=seed)
        kept = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in enumerate(counts)])
        rows, y = rows[kept], y[kept]
        rng = np.random.default_rng(1000 + seed)
        true = rng.integers(0, 4, 400)
        new = means[true] + rng.normal(size=(400, means.shape[1]))
        texts = good(rows, means, rng)
        scores = discriminant_scores(rows, y, 4)
        of_text, of_labels = weights_of(texts(rows), scores, rows, y)
        assert of_labels <= 1
        alone.append(log_loss_of(texts(new), true))
        both.append(log_loss_of(of_text * texts(new) + of_labels * scores.of(new), true))
    assert np.mean(both) < np.mean(alone) + 0.05
    assert np.max(np.subtract(both, alone)) < 0.4


def log_loss_of(scores, y):
    return -log_softmax(scores, axis=1)[np.arange(len(y)), y].mean()
