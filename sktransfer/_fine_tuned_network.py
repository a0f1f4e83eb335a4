"""The network of a fine-tuned estimator: loaded, cut, saved, and written as a backbone."""

import copy
from dataclasses import asdict
from types import SimpleNamespace

import torch
from sklearn.utils.validation import check_is_fitted

from ._base import ImageEstimator
from .backbones._registry import rebuild_backbone
from .backbones._weights import arrays_of, checked_file_to_write, write_backbone_file
from .training._adaptation import TARGET, set_domain
from .training._recipe import RECIPES, auto_depth, is_auto
from .training._saved_net import net_state, restored_net

# What a fit that continues another one can't change.
_STRUCTURE = (
    "backbone",
    "backbone_params",
    "weights",
    "freeze_depth",
    "head",
    "dropout",
    "batch_norm",
    "probe_weight",
    "image_size",
    "adapt",
)


class NetworkEstimator(ImageEstimator):
    """Base of the estimators that have a network whose last stages and head are trained."""

    def save_backbone(self, path):
        """Write the tuned network, without its head, as a self-describing file.

        The file works as ``backbone=`` of either estimator: what was tuned on one
        task is the backbone of the next.

        Parameters
        ----------
        path : str or path-like
            The file to write; its name must end in ``.safetensors``. A file of that
            name is replaced.

        Raises
        ------
        ValueError
            When the name has another ending.
        FileNotFoundError
            When there is no such folder.
        """
        check_is_fitted(self)
        path = checked_file_to_write(path)
        spec = self.backbone_spec_
        write_backbone_file(
            path,
            self._backbone.model.state_dict(),
            {
                "architecture": spec.architecture,
                "params": dict(spec.params),
                "input": asdict(spec.input.at(self.image_size_)),
                "head": False,
                "source": f"fine-tuned with sktransfer from {spec.name}: {spec.source}",
                "licence": spec.licence,
            },
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "n_iter_")  # what `fit` sets last

    # The network is saved as arrays and plain values: every serializer can write them, they
    # hold no device, and skops loads them without a type of torch to trust.
    def __getstate__(self):
        state = super().__getstate__()
        backbone, net = state.pop("_backbone", None), state.pop("net_", None)
        if net is not None:
            state["_network"] = {"backbone": arrays_of(backbone.model), **net_state(net)}
        return state

    def __setstate__(self, state):
        state = dict(state)
        network = state.pop("_network", None)
        super().__setstate__(state)
        if network is not None:
            rebuilt = rebuild_backbone(self.backbone_spec_, network["backbone"])
            self._backbone = rebuilt.fresh(self.freeze_depth_)
            stages = copy.deepcopy(self._trained_stages())
            self.net_ = restored_net(network, stages, self._structure["head"], self._targets)

    # the network

    def _load_network(self):
        pristine, input_spec = self._load_backbone()
        self.backbone_spec_ = pristine.spec
        self.image_size_ = input_spec.size
        pristine.width(len(pristine.stages), pristine.pooling("auto"), input_spec)  # fits the size?
        if is_auto(self.freeze_depth):
            share = RECIPES[self.recipe].trained_share
            self.freeze_depth_ = auto_depth(pristine.costs(pristine.spec.input), share)
        else:
            self.freeze_depth_ = pristine.depth(self.freeze_depth, "freeze_depth")
        all_frozen = self.freeze_depth_ == len(pristine.stages)
        self._plan = self._fitted_plan(
            pristine,
            input_spec,
            [self.freeze_depth_],
            pristine.pooling("auto") if all_frozen else None,
        )
        self.precision_ = self._plan.precision
        self._backbone = pristine.fresh(self.freeze_depth_)
        self._structure = {name: getattr(self, name) for name in _STRUCTURE if hasattr(self, name)}

    def _check_that_it_can_go_on(self):
        """Raise when parameters that shape the network were set since the last fit."""
        for name, before in self._structure.items():
            if getattr(self, name) != before:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} was {before!r} when training began, and "
                    "training can't go on with another network; set it back, or fit a clone with "
                    "warm_start=False"
                )

    def _trained_stages(self):
        if self.freeze_depth_ == len(self._backbone.stages):
            return torch.nn.Identity()
        return self._backbone.rest(self.freeze_depth_, self._backbone.pooling("auto"))

    def _fitted_with(self, module, n_epochs):
        """Return the attributes of an estimator that is fitted with a copy of a module."""
        module = copy.deepcopy(getattr(module, "_orig_mod", module)).cpu().eval()
        set_domain(module, TARGET)
        net = SimpleNamespace(module_=module)
        return {"_backbone": self._backbone, "net_": net, "n_iter_": n_epochs}
