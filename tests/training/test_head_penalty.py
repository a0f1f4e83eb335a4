"""The penalty of a linear head that trains alone: with it, its start is its optimum."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Freezer
from torch import nn

from sktransfer import FineTunedClassifier
from sktransfer.training._config import TrainingConfig
from sktransfer.training._continued import seen_in, solve_again
from sktransfer.training._head import TrainablePart, start_head
from sktransfer.training._optim import make_loss
from sktransfer.training._targets import ClassTargets, LabelTargets, NumberTargets

TARGETS = {
    "two classes": (ClassTargets(2), 1),
    "three classes": (ClassTargets(3), 1),
    "labels": (LabelTargets(np.array([[1.0, 0.5], [1.0, 3.0]])), 2),
    "number": (NumberTargets(np.array([3.0]), np.array([2.0])), 1),
    "numbers": (NumberTargets(np.array([3.0, -1.0]), np.array([2.0, 1.0])), 2),
}


def problem(targets, columns, seed):
    """Return rows, encoded targets and weights of 60 images."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 4)).astype(np.float32)
    signal = rows @ rng.normal(size=(4, columns)) + rng.normal(size=(60, columns))
    if isinstance(targets, ClassTargets):
        y = np.digitize(signal.ravel(), np.linspace(-1, 1, targets.n_outputs - 1))
    else:
        y = signal > 0 if isinstance(targets, LabelTargets) else signal
    return rows, targets.encode(y), rng.uniform(0.5, 2, 60)


def gradients(part, rows, encoded, weights, targets):
    """Return the largest gradient of the mean loss, and of what is minimised."""
    loss = make_loss(targets, TrainingConfig(), torch.float64)
    given = torch.from_numpy(encoded), torch.from_numpy(weights / weights.mean())
    loss(part(torch.from_numpy(rows)), given).backward()
    of_loss = max(parameter.grad.abs().max().item() for parameter in part.head.parameters())
    part.add_penalty_to_gradients()
    return of_loss, max(parameter.grad.abs().max().item() for parameter in part.head.parameters())


@pytest.mark.parametrize(("targets", "columns"), TARGETS.values(), ids=TARGETS)
def test_the_start_of_a_head_alone_has_the_least_penalised_loss(targets, columns):
    rows, encoded, weights = problem(targets, columns, seed=0)
    head, penalty = start_head(TrainingConfig(), rows, encoded, weights, np.ones(60), targets)
    part = TrainablePart(nn.Identity(), head.double(), penalty=penalty)
    of_loss, of_both = gradients(part, rows, encoded, weights, targets)
    assert of_loss > 1e-3
    assert of_both < 1e-2 * of_loss


@pytest.mark.parametrize(("targets", "columns"), TARGETS.values(), ids=TARGETS)
def test_a_head_that_is_solved_again_has_the_least_penalised_loss(targets, columns):
    rows, encoded, weights = problem(targets, columns, seed=0)
    head, _ = start_head(TrainingConfig(), rows, encoded, weights, np.ones(60), targets)
    seen = seen_in(encoded)
    rows, encoded, weights = problem(targets, columns, seed=1)
    head = head.double()
    penalty = solve_again(head, rows, encoded, weights, targets, seen)
    part = TrainablePart(nn.Identity(), head, penalty=penalty)
    of_loss, of_both = gradients(part, rows, encoded, weights, targets)
    assert of_loss > 1e-3
    assert of_both < 1e-2 * of_loss


def head_alone(**parameters):
    return FineTunedClassifier(
        "mini", freeze_depth=None, image_size=32, device="cpu", random_state=0, **parameters
    )


def size_of(fitted):
    *_, linear = fitted.net_.module_.head.modules()
    return linear.weight.abs().max().item()


def test_a_head_alone_with_dropout_is_penalised_too(shapes):
    X, y = shapes
    start = size_of(head_alone(lr=1e-9).fit(X, y))
    assert size_of(head_alone(dropout=0.1, lr=0.01, max_epochs=100).fit(X, y)) < 3 * start


def test_part_of_a_head_may_be_fixed_by_a_callback(shapes):
    X, y = shapes
    start = head_alone(lr=1e-9).fit(X, y)
    fixed = head_alone(lr=0.1, callbacks=[Freezer("head.1.0.weight")]).fit(X, y)
    (weight, bias), (same_weight, other_bias) = (
        fitted.net_.module_.parameters() for fitted in (start, fixed)
    )
    assert torch.allclose(weight, same_weight, atol=1e-6)
    assert not torch.allclose(bias, other_bias, atol=1e-6)


def test_no_penalty_is_left_after_a_fit(shapes):
    X, y = shapes
    fitted = head_alone().fit(X, y)
    assert fitted.net_.module_.penalty is None
    assert fitted.partial_fit(X, y).net_.module_.penalty is None
