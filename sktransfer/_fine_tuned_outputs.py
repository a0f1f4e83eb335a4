"""What a fine-tuned estimator makes of images: activations at the cut, and outputs of views."""

import json

import torch
from sklearn.utils.validation import check_is_fitted

from ._base import raise_failures
from ._domains import domains_to_predict
from ._fine_tuned_network import NetworkEstimator
from ._fine_tuning_checks import check_views
from ._fine_tuning_recipe import SEED_OF_KEPT_VIEWS
from ._onnx_export import MeanWithMirrored, write_onnx
from .images._augment import MIRRORED, AugmentedView, make_augmentation
from .images._collection import ImageCollection
from .images._remembered import RememberedImages
from .runtime._device import one_device, resolve_device
from .runtime._device_copies import device_call
from .runtime._gpu_lock import gpu_lock
from .runtime._threads import torch_threads_of_a_worker
from .training._adaptation import outputs_by_domain
from .training._augmented import AugmentedActivations
from .training._inference import device_of
from .training._recipe import MIRROR, N_VIEWS, is_auto
from .training._targets import prediction_of

_MIRROR_IMAGE = AugmentedView(MIRRORED, 0, SEED_OF_KEPT_VIEWS)


class OutputsEstimator(NetworkEstimator):
    """Base of the estimators that compute outputs of a trained network for views of images."""

    def to_onnx(self, path):
        """Write the estimator as a file of ONNX, preprocessing included.

        The file takes ``images``, an array (n, height, width, 3) of 8-bit RGB pixels of
        any height and width. It gives an array (n, n_outputs), float32: of a classifier
        ``probabilities``, in the order of the ``classes`` in the file's metadata, and of
        a regressor ``numbers``. `target_names_` are in the metadata as ``target_names``.
        Before it is written it is run with onnxruntime on drawn images, and compared with
        this estimator. Needs the extra ``sktransfer[onnx]``.

        Parameters
        ----------
        path : str or path-like
            The file to write; its name must end in ``.onnx``. A file of that name is
            replaced.

        Raises
        ------
        ImportError
            When the extra is not installed.
        ValueError
            When the name has another ending, or the network is too large for ONNX.
        FileNotFoundError
            When there is no such folder.
        RuntimeError
            When torch can't express the network in ONNX.

        Notes
        -----
        The frozen stages compute in float32: where `precision_` is "bfloat16",
        predictions differ by rounding. Mirror images are part of the file where they are
        part of `predict`; random views (`tta`) are not. The resizing is that of `predict`,
        pixel by pixel. The steps before it are left to the caller: reading the file,
        turning it upright, and `pixel_range`.
        """
        check_is_fitted(self)
        frozen = self._backbone.frozen(self.freeze_depth_, self._plan.pooling)
        network = torch.nn.Sequential(frozen, self.net_.module_, prediction_of(self._targets))
        classes, names = getattr(self, "classes_", None), getattr(self, "target_names_", None)
        metadata = {} if classes is None else {"classes": json.dumps(classes.tolist(), default=str)}
        if names is not None:
            metadata["target_names"] = json.dumps(names.tolist())
        write_onnx(
            path,
            [network if self._tta_now() != MIRROR else MeanWithMirrored(network)],
            "numbers" if classes is None else "probabilities",
            self.backbone_spec_,
            self.image_size_,
            metadata,
        )

    # views

    def _view(self, number, seed):
        """Return a random view of the images; None where they are not augmented."""
        augmentation = make_augmentation(self._augment_now())
        if augmentation is None:
            return None
        if self.recipe_["augment_views"] is not None:
            seed = SEED_OF_KEPT_VIEWS
        return AugmentedView(augmentation, number, seed)

    def _augment_now(self):
        """Return what `augment` is now: `tta` may be set after the fit."""
        return self._first_augment if is_auto(self.augment) else self.augment

    def _views(self, images, first, seed):
        """Return the views of images that can be read; `first` is the first of them."""
        if self.recipe_["augment"] is None:
            return AugmentedActivations.fixed(first)

        def extract(number):
            values = first
            if number > 0:
                extraction = self._extract_at_cut(images, self._view(number, seed))
                raise_failures(extraction.failures, len(images))  # could be read a moment ago
                values = extraction.values
            if number + 1 == self.recipe_["augment_views"]:
                images.forget()  # it was the last view
            return values

        # where nothing is frozen, views are pixels, and cost no forward pass
        n_at_start = 1 if self.freeze_depth_ else N_VIEWS
        return AugmentedActivations(
            extract,
            self.recipe_["augment_views"],
            n_at_start,
            # one without a name may draw from random states that training draws from
            may_overlap=self._view(0, seed).key() is not None,
        )

    def _extract_at_cut(self, images, view=None, tasks=None):
        """Return what the trained stages read; with all stages frozen, pooled rows."""
        return self._extract(
            images,
            self._backbone,
            self._plan,
            view=view,
            # a view that is used once is not stored
            keep=view in (None, _MIRROR_IMAGE) or self.recipe_["augment_views"] is not None,
            tasks=tasks,
        )

    def _tta_now(self):
        """Return what `tta` is now, "auto" resolved: it may be set after the fit."""
        return self.recipe_["tta"] if is_auto(self.tta) else self.tta

    def _views_to_predict(self):
        """Return the views that a prediction is the mean of; the first is the image itself."""
        tta = self._tta_now()
        if tta == MIRROR:
            return [None, _MIRROR_IMAGE]
        return [None, *(self._view(number, SEED_OF_KEPT_VIEWS) for number in range(1, tta))]

    def _predicted_to_score(self, X, sample_domain, allow_source):
        if sample_domain is None:  # a subclass may predict from images alone
            return self.predict(X)
        return self.predict(X, sample_domain, allow_source=allow_source)

    def _outputs_of_views(self, X, sample_domain=None, allow_source=False):
        """Yield the network's outputs (n, n_outputs) for the views that are predicted."""
        check_is_fitted(self)
        numbers = None
        if sample_domain is not None:
            numbers = domains_to_predict(X, sample_domain, allow_source)
        check_views(self, self._augment_now(), self.recipe_["augment_views"])
        images: ImageCollection | RememberedImages = self._validate_images(X, reset=False)
        views = self._views_to_predict()
        if len(views) > 1:  # of pixels that are decoded once
            images = RememberedImages(images)
        with device_call():
            for view in views:
                extraction = self._extract_at_cut(images, view)
                raise_failures(extraction.failures, len(images))
                device = one_device(resolve_device(self.device))
                device = device_of(self.net_.module_, device)
                with gpu_lock(device), torch_threads_of_a_worker():
                    of_view = outputs_by_domain(
                        self.net_.module_, extraction.values, device, numbers
                    )
                yield of_view
