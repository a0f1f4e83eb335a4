"""Linear heads of many rows: the optimum of scikit-learn's models, without copies of all rows."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, RidgeCV

from sktransfer.training import (
    _continued,
    _fit,
    _head,
    _large_logistic,
    _large_probe,
    _probe,
    _scaled_rows,
    _targets,
)
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._config import TrainingConfig
from sktransfer.training._continued import seen_in, solve_again
from sktransfer.training._fit import LabelledActivations, RunOptions, fit_net
from sktransfer.training._head import linear_of, start_head
from sktransfer.training._inference import outputs
from sktransfer.training._probe import PROBE_C, mean_and_scale
from sktransfer.training._targets import ClassTargets, LabelTargets, NumberTargets

CPU = torch.device("cpu")


@pytest.fixture
def all_are_many(monkeypatch):
    """Let the smallest problem count as one of many rows, of several blocks."""
    monkeypatch.setattr(_probe, "LARGE", 0)
    monkeypatch.setattr(_targets, "_MANY_VALUES", 0)
    monkeypatch.setattr(_scaled_rows, "_VALUES_OF_A_BLOCK", 2**10)


def drawn(n_classes, n=600, width=12):
    """Return overlapping classes, in order, as files in folders are."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, n_classes, n))
    centres = rng.normal(size=(n_classes, width))
    rows = centres[labels] + rng.normal(size=(n, width)) * rng.uniform(0.3, 3, width)
    return (5 + rows).astype(np.float32), labels


def standardised(rows, weights):
    mean, scale = mean_and_scale(rows, weights)
    return (rows - mean) / scale


def optimum(rows, labels, weights):
    """Return scikit-learn's probabilities, solved to the end."""
    model = LogisticRegression(C=PROBE_C, tol=1e-9, max_iter=10_000)
    return model.fit(rows, labels, sample_weight=weights).predict_proba(rows)


def logits_of(head, rows):
    with torch.no_grad():
        return head(torch.from_numpy(rows)).double().numpy()


def fitted_head(rows, encoded, weights, targets):
    return start_head(TrainingConfig(), rows, encoded, weights, weights, targets)[0]


@pytest.mark.parametrize("n_classes", [2, 7])
def test_classes_have_the_optimum_of_a_logistic_regression(all_are_many, n_classes):
    rows, labels = drawn(n_classes)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    targets = ClassTargets(n_classes)
    encoded = targets.encode(labels)
    assert encoded.shape == labels.shape
    found = softmax(logits_of(fitted_head(rows, encoded, weights, targets), rows), axis=1)
    expected = optimum(standardised(rows, weights), labels, weights)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(("n_classes", "most"), [(2, 20), (7, 36)])
def test_related_columns_take_few_passes_over_the_rows(all_are_many, monkeypatch, n_classes, most):
    """In the coordinates of the coefficients it takes 23 and 58."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, 4000)
    centres = rng.normal(size=(n_classes, 40))
    rows = centres[labels] + rng.normal(size=(4000, 40))
    rows = rows @ (rng.normal(size=(40, 40)) * np.logspace(0, -2, 40)[:, None])
    rows = (rows + 3 * rng.normal(size=(4000, 1))).astype(np.float32)
    passes = []
    objective = _large_logistic._Objective.__call__
    monkeypatch.setattr(
        _large_logistic._Objective, "__call__", lambda *a: passes.append(1) or objective(*a)
    )
    targets, ones = ClassTargets(n_classes), np.ones(len(rows))
    head = fitted_head(rows, targets.encode(labels), ones, targets)
    found = softmax(logits_of(head, rows), axis=1)
    np.testing.assert_allclose(found, optimum(standardised(rows, ones), labels, ones), atol=1e-3)
    assert len(passes) <= most


def test_moments_of_a_large_model_are_taken_by_blocks(monkeypatch):
    monkeypatch.setattr(_probe, "LARGE", 1000)
    taken = []
    by_blocks = _probe._moments_by_blocks
    monkeypatch.setattr(_probe, "_moments_by_blocks", lambda *a: taken.append(a) or by_blocks(*a))
    rows, labels = drawn(7, n=60)  # 720 values, and 420 of their outputs
    targets, ones = ClassTargets(7), np.ones(60)
    fitted_head(rows, targets.encode(labels), ones, targets)
    assert len(taken) == 1


def test_few_rows_have_the_same_optimum():
    rows, labels = drawn(7)
    weights, targets = np.ones(len(rows)), ClassTargets(7)
    head = fitted_head(rows, targets.encode(labels), weights, targets)
    found = softmax(logits_of(head, rows), axis=1)
    expected = optimum(standardised(rows, weights), labels, weights)
    np.testing.assert_allclose(found, expected, atol=1e-2)  # scikit-learn's own tolerance


def test_a_class_without_a_row_stays_improbable(all_are_many):
    rows, labels = drawn(3)
    targets = ClassTargets(4)
    head = fitted_head(rows, targets.encode(labels), np.ones(len(rows)), targets)
    found = softmax(logits_of(head, rows), axis=1)
    assert found[:, 3].max() < 0.01
    expected = optimum(standardised(rows, np.ones(len(rows))), labels, None)
    np.testing.assert_allclose(
        found[:, :3] / found[:, :3].sum(1, keepdims=True), expected, atol=1e-3
    )


def test_labels_have_the_optimum_of_a_logistic_regression_each(all_are_many):
    rows, classes = drawn(4)
    labels = np.stack([classes > 1, classes == 2, np.zeros_like(classes), classes < 9], axis=1)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    targets = LabelTargets.of(labels, weights, balanced=True)
    head = fitted_head(rows, targets.encode(labels), weights, targets)
    found = expit(logits_of(head, rows))
    scaled = standardised(rows, weights)
    for column in (0, 1):
        absence, presence = targets.balance[:, column]
        balanced = weights * np.where(labels[:, column], presence, absence)
        expected = optimum(scaled, labels[:, column], balanced)[:, 1]
        np.testing.assert_allclose(found[:, column], expected, atol=1e-3)
    assert found[:, 2].max() < 0.01  # no row has it
    assert found[:, 3].min() > 0.99  # each row has it


def test_numbers_have_the_ridge_regression_that_leaving_one_out_chooses(all_are_many):
    rows, labels = drawn(5, n=60)
    rng = np.random.default_rng(2)
    weights = rng.uniform(0.5, 2, len(rows))
    y = np.stack([labels + rng.normal(size=60), rows[:, 0] + rng.normal(size=60)], axis=1)
    targets = NumberTargets.of(y, weights)
    encoded = targets.encode(y)
    expected = RidgeCV(_probe.PROBE_ALPHAS).fit(standardised(rows, weights), encoded, weights)
    head = fitted_head(rows, encoded, weights, targets)
    found = linear_of(head)
    np.testing.assert_allclose(found.weight.detach(), expected.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.bias.detach(), expected.intercept_, rtol=1e-4, atol=1e-6)


def test_moments_by_blocks_are_the_moments(monkeypatch):
    rows, _ = drawn(3)
    counts = np.random.default_rng(0).uniform(0, 2, len(rows))
    expected = mean_and_scale(rows, counts)
    monkeypatch.setattr(_probe, "LARGE", 0)
    monkeypatch.setattr(_probe, "_ROWS_OF_A_BLOCK", 64)
    for found, wanted in zip(mean_and_scale(rows, counts), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_candidates_of_a_search_share_the_solution(all_are_many, monkeypatch):
    solved = []
    minimum = _large_probe.minimum
    monkeypatch.setattr(
        _large_probe, "minimum", lambda *a, **k: solved.append(a) or minimum(*a, **k)
    )
    rows, labels = drawn(3, n=90)
    rows = rows + 1  # rows of its own
    targets, ones = ClassTargets(3), np.ones(90)
    for _ in range(2):
        fitted_head(rows, targets.encode(labels), ones, targets)
    assert len(solved) == 1
    fitted_head(rows[1:], targets.encode(labels[1:]), ones[1:], targets)
    assert len(solved) == 2


@pytest.mark.parametrize("is_many", [True, False])
def test_a_head_that_is_solved_again_moves_towards_new_rows(monkeypatch, request, is_many):
    rows, labels = drawn(3, n=120)
    targets, ones = ClassTargets(3), np.ones(120)
    seen = np.ones((2, 3), dtype=bool)
    one_hot = targets.encode(labels)
    expected = fitted_head(rows, one_hot, ones, targets)
    solve_again(expected, rows[::2] + 1, one_hot[::2], ones[::2], targets, seen)
    if is_many:
        request.getfixturevalue("all_are_many")
    encoded = targets.encode(labels)
    assert (encoded.ndim == 1) == is_many
    found = start_head(TrainingConfig(), rows, one_hot, ones, ones, targets)[0]
    with torch.no_grad():  # from the same coefficients
        start = fitted_head_of_few(monkeypatch, rows, one_hot, ones, targets)
        found.load_state_dict(start.state_dict())
    solve_again(found, rows[::2] + 1, encoded[::2], ones[::2], targets, seen)
    np.testing.assert_allclose(
        softmax(logits_of(found, rows), axis=1),
        softmax(logits_of(expected, rows), axis=1),
        atol=3e-3,
    )


def fitted_head_of_few(monkeypatch, *arguments):
    with monkeypatch.context() as changes:
        changes.setattr(_probe, "LARGE", 2**40)
        return fitted_head(*arguments)


def fit(rows, labels, n_classes, validation=None, **config):
    targets, ones = ClassTargets(n_classes), np.ones(len(rows))
    examples = LabelledActivations(
        AugmentedActivations.fixed(rows), targets.encode(labels), ones, ones
    )
    options = RunOptions(CPU, 0, verbose=-1)
    config = TrainingConfig(**config)
    return fit_net(torch.nn.Identity(), config, targets, examples, validation, options)


def test_a_fit_of_many_rows_ends_at_the_optimum_and_records_its_loss(all_are_many):
    rows, labels = drawn(7)
    net = fit(rows, labels, 7)
    found = softmax(outputs(net.module_, rows, CPU), axis=1)
    scaled = standardised(rows, np.ones(len(rows)))
    expected = optimum(scaled, labels, None)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    loss = -np.log(expected[np.arange(len(rows)), labels]).mean()
    assert len(net.history) == 1
    assert net.history[-1, "train_loss"] == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize("changes", [{"label_smoothing": 0.3}, {"mix": "mixup"}])
def test_a_loss_that_has_another_optimum_trains_many_rows_too(all_are_many, changes):
    rows, labels = drawn(3)
    solved, trained = fit(rows, labels, 3), fit(rows, labels, 3, lr=0.1, **changes)
    assert len(solved.history) == 1
    assert len(trained.history) == 30
    before, after = (outputs(net.module_, rows, CPU) for net in (solved, trained))
    assert np.abs(after).mean() < 0.95 * np.abs(before).mean()  # it is less sure


def test_epochs_that_are_asked_for_train_on_all_rows_at_once(all_are_many, monkeypatch):
    monkeypatch.setattr(_fit, "_IMAGES_AT_ONCE", 100)
    rows, labels = drawn(4)
    changes = {"max_epochs": 3, "optimizer": "sgd"}  # Adam's steps depend on the last digits
    net = fit(rows, labels, 4, **changes)
    assert len(net.history) == 3
    assert net.n_steps_done_ == 3
    monkeypatch.setattr(_fit, "_IMAGES_AT_ONCE", 10**6)
    expected = fit(rows, labels, 4, **changes)
    for found, wanted in zip(net.module_.parameters(), expected.module_.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_fit_makes_no_copy_of_all_rows(all_are_many, monkeypatch):
    monkeypatch.setattr(_fit, "_IMAGES_AT_ONCE", 64)
    monkeypatch.setattr(_probe, "_ROWS_OF_A_BLOCK", 64)
    monkeypatch.setattr(_scaled_rows, "_VALUES_OF_A_BLOCK", 64 * 300)
    made = []

    def noted(make, *arguments, **options):
        tensor = make(*arguments, **options)
        made.append(tensor.numel())
        return tensor

    for name in ("from_numpy", "cat"):
        monkeypatch.setattr(torch, name, partial(noted, getattr(torch, name)))
    fit(*drawn(3, n=70), 3)  # imports what a fit imports
    rows, labels = drawn(3, n=4000, width=256)
    tracemalloc.start()
    fit(rows, labels, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 3
    assert max(made) < rows.size / 4


def test_positions_tell_which_classes_were_seen():
    encoded = np.array([0, 2, 2])
    rows = np.eye(4)[encoded]
    np.testing.assert_array_equal(seen_in(encoded, 4), seen_in(rows))
    np.testing.assert_array_equal(seen_in(encoded[1:], 4), seen_in(rows[1:]))


def test_the_head_is_solved_on_the_device_that_trains(all_are_many, monkeypatch):
    used = []
    monkeypatch.setattr(_head, "known_large_probe", lambda *a: used.append(a[-1]) or stop())

    def stop():
        raise InterruptedError

    rows, labels = drawn(3, n=60)
    targets, ones = ClassTargets(3), np.ones(60)
    with pytest.raises(InterruptedError):
        start_head(
            TrainingConfig(),
            rows,
            targets.encode(labels),
            ones,
            ones,
            targets,
            torch.device("meta"),
        )
    assert used == [torch.device("meta")]


def test_rare_classes_that_weights_differ_in_have_the_optimum_too(all_are_many):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(5), [700, 240, 40, 15, 5])
    rows = rng.normal(size=(5, 3))[labels] + 0.3 * rng.normal(size=(1000, 3))
    rows, weights = rows.astype(np.float32), 10 ** rng.uniform(-1.5, 1.5, 1000)
    targets = ClassTargets(5)
    head = fitted_head(rows, targets.encode(labels), weights, targets)
    found = softmax(logits_of(head, rows), axis=1)
    expected = optimum(standardised(rows, weights), labels, weights)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_most_rows_may_have_no_weight(all_are_many, monkeypatch):
    monkeypatch.setattr(_large_logistic, "_ROWS_FOR_A_COLUMN", 1)  # 13 of 600 tell the coordinates
    rows, labels = drawn(3)
    weights = np.zeros(len(rows))
    weights[::100] = 1
    targets = ClassTargets(3)
    scaled = _scaled_rows.ScaledRows(rows, np.zeros(12), np.ones(12))
    probe = _large_probe.known_large_probe(scaled, targets.encode(labels), weights, targets, CPU)
    found = softmax(rows @ probe.weight.T + probe.bias, axis=1)
    np.testing.assert_allclose(found, optimum(rows, labels, weights), atol=1e-3)


def test_rare_labels_that_are_balanced_have_the_optimum_too(all_are_many):
    rng = np.random.default_rng(0)
    labels = np.sort(rng.random((1000, 3)) < [0.01, 0.02, 0.9], axis=0)
    rows = (rng.normal(size=(1000, 4)) + labels @ rng.normal(size=(3, 4))).astype(np.float32)
    ones = np.ones(len(rows))
    targets = LabelTargets.of(labels, ones, balanced=True)
    head = fitted_head(rows, targets.encode(labels), ones, targets)
    found = expit(logits_of(head, rows))
    for column, (absence, presence) in zip(range(3), targets.balance.T, strict=True):
        weights = np.where(labels[:, column], presence, absence)
        expected = optimum(standardised(rows, ones), labels[:, column], weights)[:, 1]
        np.testing.assert_allclose(found[:, column], expected, atol=2e-4)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_a_start_that_is_sure_of_what_is_wrong_takes_few_passes_to_the_optimum(
    all_are_many, monkeypatch, kind
):
    rows, classes = drawn(5, n=300)
    encoded, ones = np.eye(5, dtype=np.float32)[classes], np.ones(300)
    start = np.column_stack([np.random.default_rng(0).normal(size=(5, 12)), np.zeros(5)])
    targets = ClassTargets(5)
    if kind == "labels":
        encoded[:, 0] = 1  # in all rows
        targets = LabelTargets.of(encoded, ones, balanced=True)
    passes = []
    objective = _large_logistic._Objective.__call__
    monkeypatch.setattr(
        _large_logistic._Objective, "__call__", lambda *a: passes.append(1) or objective(*a)
    )
    found = _large_logistic.minimum(
        _scaled_rows.ScaledRows(rows, np.zeros(12), np.ones(12)),
        classes if kind == "classes" else encoded,
        ones,
        start,
        1 / (PROBE_C * 300),
        balance=getattr(targets, "balance", None),
        is_from_start=True,
        device=CPU,
    )
    monkeypatch.setattr(_continued, "_TOLERANCE", 1e-9)
    monkeypatch.setattr(_continued, "_ITERATIONS", 10_000)
    wanted = _continued._solve(
        rows.astype(float), encoded, ones, targets, start[:, :-1], start[:, -1], 1 / (PROBE_C * 300)
    )
    link = expit if kind == "labels" else partial(softmax, axis=1)
    probabilities = [
        link(rows @ weight.T + bias) for weight, bias in ((found[:, :-1], found[:, -1]), wanted)
    ]
    np.testing.assert_allclose(*probabilities, atol=1e-3)
    assert len(passes) <= 80


def test_changes_smaller_than_the_rounding_of_a_loss_are_told_by_gradients():
    rng = np.random.default_rng(0)
    curvature, point = rng.uniform(0.5, 2, 30), rng.normal(size=30)
    losses = _large_logistic._Losses(1e-6)
    told, true = [], []
    for step in (1.0, 1e-4, 1e-5, -2e-5, 0.5):
        point = point - step * curvature * point / np.linalg.norm(curvature * point)
        true.append(0.5 * curvature @ point**2)
        rounded = true[-1] + rng.uniform(-1e-7, 1e-7)
        told.append(losses.of(point, rounded, curvature * point))
    np.testing.assert_allclose(np.diff(told), np.diff(true), atol=4e-7)
    point = np.zeros(30)
    told, true = [], []
    for step in (1e-4, 1e-5, -2e-5, 1e-6):
        point = point + step * rng.normal(size=30)
        true.append(0.5 * curvature @ point**2)
        rounded = true[-1] + rng.uniform(-1e-7, 1e-7)
        told.append(losses.of(point, rounded, curvature * point))
    np.testing.assert_allclose(np.diff(told), np.diff(true), atol=1e-14)
