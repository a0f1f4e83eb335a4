"""The skorch net that trains the stages after the cut. Only this file imports skorch."""

from collections.abc import Iterator

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EpochTimer, LRScheduler, PassthroughScoring, PrintLog
from skorch.dataset import Dataset
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ._freeze import TrainablePart
from ._param_groups import parameter_groups
from ._schedule import WarmUpAndCosine

# Small, so that one image alone costs little more than it must
_PREDICTION_BATCH = 4


class ActivationBatches:
    """Iterates over a skorch data set batch by batch; shuffles when given a generator.

    A batch is one indexing of an array, where a DataLoader would fetch and stack
    image by image; with a linear head that would be most of the time.
    """

    def __init__(self, dataset: Dataset, batch_size: int, generator: torch.Generator | None = None):
        self.dataset = dataset
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        X, y = self.dataset.X, self.dataset.y
        n = len(self.dataset)
        if self.generator is None:
            order = np.arange(n)
        else:
            order = torch.randperm(n, generator=self.generator).numpy()
        for start in range(0, n, self.batch_size):
            chosen = order[start : start + self.batch_size]
            # skorch's data sets hold no targets at prediction and want a placeholder
            targets = torch.zeros(len(chosen)) if y is None else torch.from_numpy(y[chosen])
            yield torch.from_numpy(X[chosen]), targets


class TransferNet(NeuralNet):
    """A skorch net whose learning rates and weight decay differ by part."""

    def __init__(self, *args, backbone_lr_scale=1.0, weight_decay=0.0, **kwargs):
        self.backbone_lr_scale = backbone_lr_scale
        self.weight_decay = weight_decay
        super().__init__(*args, **kwargs)

    @property
    def _default_callbacks(self):
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("print_log", PrintLog()),  # silent unless verbose
        ]

    def initialize_optimizer(self, triggered_directly=None):
        groups = parameter_groups(
            self.module_,
            lr=self.lr,
            backbone_lr_scale=self.backbone_lr_scale,
            weight_decay=self.weight_decay,
        )
        self.optimizer_ = self.optimizer(groups)
        return self

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train as skorch does, but an interrupt raises.

        skorch's own takes Ctrl-C for the wish to stop training early and returns a
        net that is half trained, and a grid search would score it.
        """
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        self.fit_loop(X, y, **fit_params)
        self.notify("on_train_end", X=X, y=y)
        return self


def make_net(
    stages: nn.Module,
    head: nn.Module,
    *,
    n_samples: int,
    lr: float,
    backbone_lr_scale: float,
    weight_decay: float,
    max_epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    verbose: int,
) -> TransferNet:
    """Return a net that is ready for ``fit(activations, labels)``.

    ``fit`` trains for exactly `max_epochs` on all samples: nothing is held out.
    """
    n_steps = max_epochs * -(-n_samples // batch_size)
    schedule = LRScheduler(policy=LambdaLR, lr_lambda=WarmUpAndCosine(n_steps), step_every="batch")
    return TransferNet(
        TrainablePart(stages, head),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=lr,
        backbone_lr_scale=backbone_lr_scale,
        weight_decay=weight_decay,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train=ActivationBatches,
        iterator_train__generator=torch.Generator().manual_seed(seed),
        iterator_valid=ActivationBatches,
        train_split=None,
        callbacks=[("schedule", schedule)],
        device=device,
        verbose=verbose,
    )


@torch.inference_mode()
def probabilities(net: TransferNet, activations: np.ndarray) -> np.ndarray:
    """Return class probabilities (n, n_classes), float64.

    Every batch has the same size, the last one filled up: another size is another
    order of summation, and a prediction would depend on its neighbours in the last
    digits.
    """
    module, logits = net.module_.eval(), []
    for start in range(0, len(activations), _PREDICTION_BATCH):
        batch = torch.from_numpy(activations[start : start + _PREDICTION_BATCH])
        n_missing = _PREDICTION_BATCH - len(batch)
        filled = torch.cat([batch, batch[-1:].expand(n_missing, *batch.shape[1:])])
        logits.append(module(filled.to(net.device))[: len(batch)].double().cpu())
    return torch.softmax(torch.cat(logits), dim=1).numpy()
