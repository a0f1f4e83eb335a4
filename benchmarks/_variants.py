"""Single changes to the default recipe, by name: parameters of FineTunedClassifier."""

import copy

import torch
from skorch.callbacks import Callback


class DecayToStart(Callback):
    """L2-SP, decoupled: each step moves stages towards where they started (arXiv 1802.01483)."""

    def __init__(self, strength):
        self.strength = strength

    def on_train_begin(self, net, **kwargs):
        parameters = net.module_.stages.parameters()
        self.start_ = {id(value): value.detach().clone() for value in parameters}

    def on_batch_end(self, net, training=False, **kwargs):
        if not training:
            return
        with torch.no_grad():
            for group in net.optimizer_.param_groups:
                for value in group["params"]:
                    if id(value) in self.start_:
                        value.lerp_(self.start_[id(value)], group["lr"] * self.strength)


class Interpolation(Callback):
    """WiSE-FT: the weights of the end, averaged with those of the start (arXiv 2109.01903)."""

    def __init__(self, alpha):
        self.alpha = alpha

    def on_train_begin(self, net, **kwargs):
        self.start_ = copy.deepcopy(net.module_.state_dict())

    def on_train_end(self, net, **kwargs):
        with torch.no_grad():
            for name, value in net.module_.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.lerp(self.start_[name], value, self.alpha))


VARIANTS = {
    "head alone": {"freeze_depth": None},
    "one stage less trains": {"freeze_depth": 1},  # added to the default depth
    "one stage more trains": {"freeze_depth": -1},
    "augment=None": {"augment": None},
    "augment_views=4": {"augment_views": 4},
    "augment_views=16": {"augment_views": 16},
    "augment_views=None": {"augment_views": None},  # a new view in each epoch
    "augment='light'": {"augment": "light"},
    "augment='medium'": {"augment": "medium"},
    "dropout=0": {"dropout": 0.0},
    "label_smoothing=0": {"label_smoothing": 0.0},
    "label_smoothing=0.05": {"label_smoothing": 0.05},
    "lr=0.002": {"lr": 2e-3},
    "lr=0.0005": {"lr": 5e-4},
    "backbone_lr_scale=1": {"backbone_lr_scale": 1.0},
    "backbone_lr_scale=0.2": {"backbone_lr_scale": 0.2},
    "layer_decay=0.7": {"layer_decay": 0.7},
    "max_grad_norm=None": {"max_grad_norm": None},
    "max_grad_norm=1": {"max_grad_norm": 1.0},
    "max_grad_norm=4": {"max_grad_norm": 4.0},
    "decay to the start, 10": {"callbacks": [DecayToStart(10)]},
    "interpolation, 0.85": {"callbacks": [Interpolation(0.85)]},
    "batch_norm='train'": {"batch_norm": "train"},
    "mix='mixup'": {"mix": "mixup"},
    "early_stopping=True": {"early_stopping": True},
    "tta=4": {"tta": 4},
}
