"""A device whose copies are noted, and data to train on."""

import numpy as np
import torch

from sktransfer.training import _adaptation, _data, _inference, _net, _resident
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._data import TrainingSet


class Copies:
    """A device that is not the host, though it is: its copies are noted.

    Those in steps, which are none where a batch is there, are noted apart.
    """

    def __init__(self, monkeypatch, free=2**30):
        self.shapes, self.in_steps = [], []
        for module in (_resident, _data, _net, _inference, _adaptation):
            if hasattr(module, "is_host"):
                monkeypatch.setattr(module, "is_host", lambda device: False)
            if hasattr(module, "moved"):
                monkeypatch.setattr(
                    module, "moved", self._moved_in_step if module is _net else self.moved
                )
        monkeypatch.setattr(_resident, "free_bytes", lambda device: free)

    def moved(self, tensor, device):
        self.shapes.append(tuple(tensor.shape))
        return tensor.to(device)

    def _moved_in_step(self, tensor, device):
        self.in_steps.append(tuple(tensor.shape))
        return tensor.to(device)


def training_set(n=40, seed=0, views=None):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[(X[:, 0] > 0).astype(int)]
    views = views or AugmentedActivations.fixed(X)
    return TrainingSet(views, targets, rng.uniform(0.5, 2, n), np.ones(n))


def assert_same(net, expected):
    for found, wanted in zip(net.module_.parameters(), expected.module_.parameters(), strict=True):
        assert torch.equal(found, wanted)
    for name in ("train_loss", "valid_loss", "valid_score"):
        np.testing.assert_allclose(net.history[:, name], expected.history[:, name], rtol=1e-6)
