import threading

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._locking import own_random_state
from sktransfer.training._config import TrainingConfig
from sktransfer.training._head import Standardise, TrainablePart, make_head
from sktransfer.training._inference import outputs
from sktransfer.training._net import make_net
from sktransfer.training._optim import make_loss
from sktransfer.training._saved_net import net_state, restored_net
from sktransfer.training._targets import ClassTargets

CPU = torch.device("cpu")
TARGETS = ClassTargets(2)
X = np.random.default_rng(0).random((5, 6), dtype=np.float32)


def saved(head):
    """Return a net that is not trained, and its state."""
    with torch.random.fork_rng(devices=[]):
        module = make_head(head, 6, 2, 0.2 if head == (4,) else 0.0)
    part = TrainablePart(nn.Identity(), nn.Sequential(Standardise(X.mean(0), X.std(0)), module))
    config = TrainingConfig()
    net = make_net(
        part.eval(),
        make_loss(TARGETS, config),
        config,
        n_epochs=1,
        batch_size=5,
        seed=0,
        device=CPU,
    ).initialize()
    return net, net_state(net)


@pytest.mark.parametrize("head", ["linear", (4,), nn.Linear])
def test_a_restored_net_has_the_outputs_of_the_saved_one(head):
    net, state = saved(head)
    restored = restored_net(state, nn.Identity(), head, TARGETS)
    assert not restored.module_.training
    np.testing.assert_array_equal(outputs(restored.module_, X, CPU), outputs(net.module_, X, CPU))


@pytest.mark.parametrize("head", ["linear", (4,), nn.Linear])
def test_restoring_leaves_the_random_state_of_torch_as_it_was(head):
    _, state = saved(head)
    before = torch.get_rng_state()
    restored_net(state, nn.Identity(), head, TARGETS)
    assert torch.get_rng_state().equal(before)


def test_restoring_a_built_in_head_does_not_wait_for_a_training_in_another_thread():
    _, state = saved((4,))
    restored = []
    thread = threading.Thread(
        target=lambda: restored.append(restored_net(state, nn.Identity(), (4,), TARGETS))
    )
    with own_random_state(seed=0):
        before = torch.get_rng_state()
        thread.start()
        thread.join()
        assert torch.get_rng_state().equal(before)
    assert len(restored) == 1
