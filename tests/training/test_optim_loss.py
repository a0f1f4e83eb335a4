import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from sktransfer.training._config import TrainingConfig
from sktransfer.training._optim import WeightedLoss, make_loss
from sktransfer.training._targets import LabelTargets

OUTPUTS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
CLASSES = torch.tensor([0, 2])
ONE_HOT = F.one_hot(CLASSES, 3).float()
ONES = torch.ones(2)


def test_the_loss_of_classes_is_their_cross_entropy():
    loss = WeightedLoss("softmax")(OUTPUTS, (ONE_HOT, ONES))
    assert loss.item() == pytest.approx(
        log_loss(CLASSES, OUTPUTS.double().softmax(1), labels=[0, 1, 2]), rel=1e-6
    )


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "squared"])
def test_an_image_of_weight_two_is_two_images(kind):
    loss = WeightedLoss(kind, balance=np.ones((2, 3)))
    repeated = loss(OUTPUTS[[0, 0, 1]], (ONE_HOT[[0, 0, 1]], torch.ones(3)))
    weighted = loss(OUTPUTS, (ONE_HOT, torch.tensor([2.0, 1.0]) * 2 / 3))
    torch.testing.assert_close(weighted, repeated)


def test_smoothing_is_that_of_torch():
    loss = WeightedLoss("softmax", label_smoothing=0.1)(OUTPUTS, (ONE_HOT, ONES))
    torch.testing.assert_close(loss, F.cross_entropy(OUTPUTS, CLASSES, label_smoothing=0.1))


def test_smoothing_of_labels_moves_them_towards_one_half():
    smooth = WeightedLoss("sigmoid", label_smoothing=1.0, balance=np.ones((2, 3)))
    half = F.binary_cross_entropy_with_logits(OUTPUTS, torch.full((2, 3), 0.5))
    torch.testing.assert_close(smooth(OUTPUTS, (ONE_HOT, ONES)), half)


def test_balance_weighs_absence_and_presence():
    only_presence = WeightedLoss("sigmoid", balance=np.array([[0.0] * 3, [1.0] * 3]))
    expected = -F.logsigmoid(OUTPUTS[[0, 1], CLASSES]).sum() / 6
    torch.testing.assert_close(only_presence(OUTPUTS, (ONE_HOT, ONES)), expected)


def test_the_squared_error_is_a_mean_over_outputs():
    loss = WeightedLoss("squared")(OUTPUTS, (ONE_HOT, ONES))
    torch.testing.assert_close(loss, F.mse_loss(OUTPUTS, ONE_HOT))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_balance_has_the_precision_of_the_outputs(dtype):
    # MPS has no float64, and refuses a buffer in it
    targets = LabelTargets.of(ONE_HOT.numpy(), np.ones(2), balanced=True)
    loss = make_loss(targets, TrainingConfig(), dtype)
    assert {buffer.dtype for buffer in loss.buffers()} == {dtype}
    assert loss(OUTPUTS.to(dtype), (ONE_HOT.to(dtype), ONES.to(dtype))).dtype == dtype


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_positions_of_classes_have_the_loss_of_their_rows(smoothing):
    loss = WeightedLoss("softmax", label_smoothing=smoothing)
    weights = torch.tensor([2.0, 1.0])
    expected = loss(OUTPUTS, (ONE_HOT, weights))
    torch.testing.assert_close(loss(OUTPUTS, (CLASSES, weights)), expected)
