"""Single changes to the default recipe, by name.

`VARIANTS` are parameters of FineTunedClassifier. `OTHER_FITS` are functions of a classifier with
the default recipe, the data, the backbone and the folder of the store, and return a fitted
estimator.
"""

import copy
import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from threadpoolctl import threadpool_limits

from sktransfer import PretrainedFeatureTransformer
from sktransfer.backbones._registry import load_backbone
from sktransfer.training._probe import PROBE_C


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


class Contrast(Callback):
    """Supervised contrast of the rows of a batch (arXiv 2004.11362), as Bi-Tuning adds it."""

    def __init__(self, weight, temperature=0.1):
        self.weight = weight
        self.temperature = temperature

    def on_grad_computed(self, net, batch=None, **kwargs):
        activations, (targets, _) = batch
        rows = F.normalize(net.module_.stages(activations), dim=1)
        labels = targets.argmax(1)
        apart = ~torch.eye(len(labels), dtype=torch.bool)
        alike = (labels[:, None] == labels) & apart
        similarities = (rows @ rows.T / self.temperature).masked_fill(~apart, -torch.inf)
        log_shares = torch.log_softmax(similarities, dim=1).masked_fill(~alike, 0)
        has_one = alike.any(1)
        losses = -log_shares.sum(1)[has_one] / alike.sum(1)[has_one]
        (self.weight * losses.mean()).backward()
        torch.nn.utils.clip_grad_norm_(net.module_.parameters(), net.config.max_grad_norm)


def soup_of_three(classifier, data, backbone, cache):
    """Average the weights of three fits that start from one probe (arXiv 2203.05482)."""
    seeds = [classifier.random_state + 100 * k for k in range(3)]
    fits = [copy.copy(classifier).set_params(random_state=k).fit(data.X, data.y) for k in seeds]
    states = [fitted.net_.module_.state_dict() for fitted in fits]
    with torch.no_grad():
        for name, value in states[0].items():
            if value.is_floating_point():
                value.copy_(torch.stack([state[name] for state in states]).mean(0))
    return fits[0]


def rows_of_all_depths(classifier, data, backbone, cache):
    """Fit a logistic regression to the rows of all stages (Head2Toe, arXiv 2201.03529)."""
    depths = (*range(1, len(load_backbone(backbone).stages)), None)
    rows = PretrainedFeatureTransformer(
        backbone, depth=depths, feature_cache=cache, **data.reading
    ).fit_transform(data.X)
    grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with threadpool_limits(1, "blas"):
        C = GridSearchCV(model, grid, cv=5).fit(rows, data.y).best_params_["logisticregression__C"]
    return make_pipeline(
        PretrainedFeatureTransformer(backbone, depth=depths, feature_cache=cache, **data.reading),
        StandardScaler(),
        LogisticRegression(C=C, max_iter=1000),
    ).fit(data.X, data.y)


def more_pixels(classifier, data, backbone, cache):
    """Predict at more pixels than in training (FixRes, arXiv 1906.06423)."""
    fitted = classifier.fit(data.X, data.y)
    larger = fitted._plan.input.at(fitted.image_size_ + 32)
    fitted._plan = dataclasses.replace(fitted._plan, input=larger)
    fitted.image_size_ = larger.size
    return fitted


class WithTemperature:
    """A fitted classifier, its logits divided by the temperature that suits its probe.

    The temperature is the one of least log loss for the probe's logits out of fold.
    """

    def __init__(self, fitted, data, backbone, cache):
        self.fitted, self.classes_ = fitted, fitted.classes_
        rows = PretrainedFeatureTransformer(backbone, feature_cache=cache, **data.reading)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=500))
        n_folds = min(5, np.unique(data.y, return_counts=True)[1].min())
        with threadpool_limits(1, "blas"):
            out_of_fold = cross_val_predict(
                probe, rows.fit_transform(data.X), data.y, cv=int(n_folds), method="predict_proba"
            )
        logs = np.log(np.maximum(out_of_fold, 1e-12))
        found = minimize_scalar(
            lambda t: log_loss(data.y, softmax(logs / np.exp(t), axis=1)), bounds=(-2, 2)
        )
        self.temperature_ = float(np.exp(found.x))

    def predict_proba(self, X):
        logs = np.log(np.maximum(self.fitted.predict_proba(X), 1e-12))
        return softmax(logs / self.temperature_, axis=1)


def temperature_of_the_probe(classifier, data, backbone, cache):
    """Divide logits by the probe's temperature (arXiv 1706.04599)."""
    return WithTemperature(classifier.fit(data.X, data.y), data, backbone, cache)


OTHER_FITS = {
    "temperature of the probe": temperature_of_the_probe,
    "soup of three seeds": soup_of_three,
    "rows of all depths": rows_of_all_depths,
    "32 more pixels in prediction": more_pixels,
}

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
    "tta=1": {"tta": 1},
    "tta=4": {"tta": 4},
    "probe_weight=0": {"probe_weight": 0.0},
    "probe_weight=0.2": {"probe_weight": 0.2},
    "probe_weight=0.5": {"probe_weight": 0.5},
    "probe_weight=0, tta=1": {"probe_weight": 0.0, "tta": 1},
    "contrast, 0.3": {"callbacks": [Contrast(0.3)]},
    "contrast, one stage more": {"callbacks": [Contrast(0.3)], "freeze_depth": -1},
}
