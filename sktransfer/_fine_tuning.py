"""What the fine-tuned estimators share: from images and targets to a trained network."""

import copy
import numbers
import os
from dataclasses import fields
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length

from ._base import ImageEstimator, raise_failures, warn_of_failures
from ._callbacks import EpochTasks, FitTasks
from ._domains import split_domains
from ._fine_tuned_outputs import OutputsEstimator
from ._fine_tuning_checks import (
    check_adaptation,
    check_column_names,
    check_combinations,
    check_present,
    check_targets_left,
    check_views,
    column_names,
    hold_out,
    rows_to_fit,
)
from ._fine_tuning_recipe import (
    augmentation_of,
    may_be_augmented,
    recipe_of,
)
from ._stage_table import stage_table
from .extraction._extract import compacted
from .images._collection import ImageCollection
from .images._remembered import RememberedImages
from .runtime._device import one_device, resolve_device
from .runtime._device_copies import device_call
from .training._augmented import AugmentedActivations
from .training._config import TrainingConfig
from .training._continued import Continued, seen_in
from .training._data import MIXES, Replay
from .training._fit import LabelledActivations, RunOptions, fit_net
from .training._net import records
from .training._optim import OPTIMIZERS
from .training._recipe import AUTO, MIRROR, RECIPES
from .training._targets import joined

_COUNT = Interval(numbers.Integral, 1, None, closed="left")
_POSITIVE = Interval(numbers.Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(numbers.Real, 0, None, closed="left")


class FineTunedEstimator(OutputsEstimator):
    """Base of the estimators that train the last stages of a network, and a head.

    A subclass says what targets are: `_check_targets` and `_fit_targets`.
    """

    _cut_parameter = "freeze_depth"

    _parameter_constraints: dict = {
        **ImageEstimator._parameter_constraints,
        "recipe": [StrOptions(set(RECIPES))],
        "freeze_depth": [numbers.Integral, str, None],
        "head": [StrOptions({"linear"}), tuple, list, callable],
        "dropout": [Interval(numbers.Real, 0, 1, closed="left"), StrOptions({AUTO})],
        "optimizer": [StrOptions(set(OPTIMIZERS)), type],
        "optimizer_params": [dict, None],
        "lr": [_POSITIVE],
        "backbone_lr_scale": [_NOT_NEGATIVE],
        "layer_decay": [Interval(numbers.Real, 0, 1, closed="right")],
        "weight_decay": [_NOT_NEGATIVE],
        "max_epochs": [_COUNT, None],
        "batch_size": [_COUNT, StrOptions({"auto"})],
        "max_grad_norm": [_POSITIVE, StrOptions({AUTO}), None],
        "batch_norm": [StrOptions({"frozen", "train"})],
        "unfreeze_every": [_COUNT, None],
        "training_precision": [StrOptions({"float32", "bfloat16"})],
        "augment": [str, callable, None],
        "augment_views": [_COUNT, StrOptions({AUTO}), None],
        "mix": [StrOptions(set(MIXES)), None],
        "mix_alpha": [_POSITIVE],
        "probe_weight": [Interval(numbers.Real, 0, 1, closed="left"), StrOptions({AUTO})],
        "tta": [_COUNT, StrOptions({AUTO, MIRROR})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "n_iter_no_change": [_COUNT],
        "checkpoint_dir": [str, os.PathLike, None],
        "replay": [Interval(numbers.Integral, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "callbacks": [list, tuple, None],
        "net_params": [dict, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "random_state": ["random_state"],
    }

    _learned = (
        *ImageEstimator._learned,
        "_backbone",
        "_first_augment",
        "_fitted_digests",
        "_structure",
        "_targets",
        "_replay",
        "_n_seen",
        "_seen",
        "_is_multilabel",
        "_is_one_number",
        "_n_outputs",
    )

    _first_augment: str | None
    _fitted_digests: np.ndarray  # of the images of all calls so far
    _targets: Any  # Targets of the kind that the subclass makes

    # what a subclass says of its targets

    def _check_targets(self, y, *, reset, classes=None):
        """Return checked targets (n,) or (n, n_outputs); with `reset`, learn what they are."""
        raise NotImplementedError

    def _fit_targets(self, y, weights):
        """Return what turns checked targets into rows of numbers for the network."""
        raise NotImplementedError

    def _fit_class_weights(self, y, weights):
        """Return the weights of the classes in the loss, from the fitted images, or None."""
        return None

    def _weigh(self, y, weights, class_weights, title):
        """Return the weights of images in the loss: their own times those of their classes."""
        if class_weights is None:
            return weights
        weights = weights * class_weights[y]
        if not weights.any():
            raise ValueError(
                f"class_weight={self.class_weight!r} gives the weight 0 to all images of {title}; "
                "leave these images out, or give a class that they have a weight above 0"
            )
        return weights

    def _check_left_over(self, y, left):
        """Raise when too few images are left for a fit; `left` are positions in `y`."""

    def _strata(self, y):
        """Return the classes by which held-out images are stratified, or None."""
        return None

    # fit

    def _check_named_targets(self, y, *, reset, title="y", classes=None):
        """Return checked targets, and check or learn the names of their columns."""
        names = column_names(y)
        check_present(y, title)
        if not reset:
            check_column_names(names, getattr(self, "target_names_", None), title)
        y = self._check_targets(y, reset=reset, classes=classes)
        if reset and names is not None and y.ndim == 2:
            self.target_names_ = names
        return y

    @device_call()  # the frozen stages go to a device once for all random views
    def _fit(
        self,
        X,
        y,
        sample_weight=None,
        X_val=None,
        y_val=None,
        *,
        sample_domain=None,
        is_continued,
        is_partial=False,
        classes=None,
    ):
        if not is_continued:
            self._forget()  # also where a check fails
        check_combinations(self, X_val, y_val)
        adapt = getattr(self, "adapt", None)
        check_adaptation(self, adapt, is_continued or is_partial)
        domains = None
        if sample_domain is not None or adapt is not None:
            domains = split_domains(X, y, sample_domain)
        given = X, y, sample_weight
        rows = rows_to_fit(*given, domains, adapt)
        if domains is not None:  # labels of the target are shown to no callback either
            given = rows.X, rows.y, rows.weights
        n_tasks = 2 + self.early_stopping + (adapt is not None)
        tasks = FitTasks(self, n_tasks, *given)
        y, weights = rows.y, rows.weights
        images: ImageCollection | RememberedImages = self._validate_images(
            rows.X, reset=not is_continued
        )
        y = self._check_named_targets(y, reset=not is_continued, classes=classes)
        labelled: Any = np.arange(rows.n_labelled)
        if adapt is None:
            check_consistent_length(images, y)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if not is_continued:
            self._load_network()
        if may_be_augmented(self):  # several views of each image, of pixels that are decoded once
            images = RememberedImages(images)
        if is_continued:  # it goes on with what the first fit found
            augment = self._augment_now()
        else:
            augment = augmentation_of(self, images.take(labelled), y, weights)
            self._first_augment = augment
        recipe = recipe_of(self, augment)
        if is_continued:
            recipe["probe_weight"] = self.net_.module_.probe_weight
        check_views(self, augment, recipe["augment_views"])
        self.recipe_ = recipe
        config = self._training_config()

        view = self._view(0, seed)
        sides = [(labelled, view)]
        holds_out = self.early_stopping and X_val is None
        if holds_out:
            split = hold_out(len(y), self.validation_fraction, seed, self._strata(y))
            sides = [(split[0], view), (split[1], None)]
        if adapt is not None:
            sides.append((np.arange(rows.n_labelled, len(images)), view))
        digests, ((activations, train), *others) = self._read(images, sides, rows, tasks)
        self._check_left_over(y, train)
        if adapt is not None:
            check_targets_left(adapt, len(others[-1][1]))
        if self.mix == "cutmix" and activations.ndim != 4:
            raise ValueError(
                f"mix='cutmix' needs activations with height and width at the cut, and at "
                f"freeze_depth={self.freeze_depth} they have the shape {activations.shape[1:]}; "
                "freeze fewer stages, or use mix='mixup'"
            )
        if not is_continued:
            self._targets = self._fit_targets(y[train], weights[train])
            # of all calls: the number of images, and what there was of each class
            self._n_seen, self._seen = 0, np.zeros((2, self._targets.n_outputs), dtype=bool)
        class_weights = self._fit_class_weights(y[train], weights[train])
        training = LabelledActivations(
            self._views(images.take(train), activations, seed),
            self._targets.encode(y[train]),
            self._weigh(y[train], weights[train], class_weights, "y"),
            weights[train],
        )
        validation = target = None
        if holds_out:
            held_activations, held_out = others[0]
            validation = LabelledActivations(
                AugmentedActivations.fixed(held_activations),
                self._targets.encode(y[held_out]),
                self._weigh(y[held_out], weights[held_out], class_weights, "what is held out of y"),
                weights[held_out],
            )
        elif X_val is not None:
            validation = self._given_validation(X_val, y_val, class_weights, tasks)

        if adapt is not None:
            of_target, positions = others[-1]
            target = self._views(images.take(positions), of_target, seed)

        # A copy is trained: a continued fit that fails leaves the estimator unchanged.
        start = copy.deepcopy(self.net_.module_ if is_continued else self._trained_stages())
        columns = (activations, training.encoded, training.weights, training.counts)
        old = getattr(self, "_replay", None) if is_partial else None
        if is_continued:
            start = Continued(start, self._seen, old is not None and len(old) == self._n_seen)
            if old is not None:
                training = _with_old(training, old)
        options = self._run_options(seed, EpochTasks(tasks, self._fitted_with))
        net = fit_net(start, config, self._targets, training, validation, options, target)
        n = self._targets.n_outputs
        self._n_seen, self._seen = self._n_seen + len(train), self._seen | seen_in(columns[1], n)
        if is_continued:
            digests = np.concatenate([self._fitted_digests, digests])
        self._fitted_digests = np.unique(digests, axis=0)
        self._replay = None
        if self.replay:
            self._replay = Replay.draw(self.replay, *columns, seed=seed, old=old)
        trained = net.module_.stages.state_dict()
        if trained:
            self._trained_stages().load_state_dict(trained)
        self.net_ = net
        self.device_ = str(options.device)
        self.stages_ = stage_table(self._backbone, self.freeze_depth_, head=net.module_.head)
        self.history_ = records(net)
        if validation is not None:
            assert net.best_ is not None  # as validation is for early stopping
            self.best_epoch_ = net.best_.epoch
        elif is_continued:
            self.__dict__.pop("best_epoch_", None)  # that of another fit
        self.n_iter_ = len(self.history_)
        tasks.end()
        return self

    def _training_config(self):
        """Return the parameters that say how to train."""
        choices = {
            field.name: self.recipe_.get(field.name, getattr(self, field.name))
            for field in fields(TrainingConfig)
            if hasattr(self, field.name)
        }
        recipe = RECIPES[self.recipe]
        choices |= {"n_steps": recipe.n_steps, "most_epochs": recipe.most_epochs}
        if not self.early_stopping:
            choices["n_iter_no_change"] = None
        return TrainingConfig(**choices)

    def _read(self, images, sides, rows, tasks):
        """Return digests of what can be read, and activations and positions for each side.

        `sides` are positions among the images, and a view of them. `rows` says which positions
        `images` had in ``X``.
        """
        extracted = [
            (self._extract_at_cut(images.take(positions), view, tasks), positions)
            for positions, view in sides
        ]
        failures = sorted(
            failure._replace(position=int(rows.positions[positions[failure.position]]))
            for extraction, positions in extracted
            for failure in extraction.failures
        )
        if self.on_error == "raise":
            raise_failures(failures, rows.n_given)
        warn_of_failures(failures, rows.n_given, "left out of fit")
        digests, read = [], []
        for extraction, positions in extracted:
            bad = [failure.position for failure in extraction.failures]
            good = np.delete(np.arange(len(positions)), bad)
            digests.append(extraction.digests[good])
            read.append((compacted(extraction.values, good), positions[good]))
        return np.concatenate(digests), read

    def _given_validation(self, X_val, y_val, class_weights, tasks):
        images = self._validate_images(X_val, reset=False)
        y_val = self._check_named_targets(y_val, reset=False, title="y_val")
        check_consistent_length(images, y_val)
        extraction = self._extract_at_cut(images, tasks=tasks)
        raise_failures(extraction.failures, len(images))
        counts = np.ones(len(y_val))
        return LabelledActivations(
            AugmentedActivations.fixed(extraction.values),
            self._targets.encode(y_val),
            self._weigh(y_val, counts, class_weights, "y_val"),
            counts,
        )

    def _run_options(self, seed, watcher):
        """Return the device, seed, checkpoint and callbacks of a fit."""
        # without a seed of the user, a repeated fit has the same name
        random_state = None if self.random_state is None else seed
        view = self._view(0, seed)
        return RunOptions(
            device=one_device(resolve_device(self.device)),
            seed=seed,
            checkpoint_dir=self.checkpoint_dir,
            checkpoint_choices={
                "backbone": self.backbone_spec_.digest,
                "freeze_depth": self.freeze_depth_,
                "random_state": random_state,
                "augment": self.recipe_["augment"],
                "augmentation": None if view is None else view.augmentation.name,
                "augment_views": self.recipe_["augment_views"],
            },
            callbacks=list(self.callbacks or ()),
            net_params=self.net_params,
            watcher=watcher,
            verbose=self.verbose,
        )


def _with_old(training, old):
    """Return new images followed by replayed ones, which are not augmented again."""
    return LabelledActivations(
        training.views.concatenated_with(old.activations),
        joined(training.encoded, old.targets),
        np.concatenate([training.weights, old.weights]),
        np.concatenate([training.counts, old.counts]),
    )
