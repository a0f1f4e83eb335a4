"""A pretrained network whose last stages are trained, as a scikit-learn classifier."""

import copy
import numbers
import os
from dataclasses import asdict

import numpy as np
import torch
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from ._image_estimator import ImageEstimator, raise_failures, warn_of_failures
from .backbones._file import write_backbone_file
from .runtime._device import resolve_device
from .training._net import make_net, probabilities
from .training._probe import pooled_rows, start_head


class FineTunedClassifier(ClassifierMixin, ImageEstimator):
    """Classify images with a pretrained network whose last stages are trained.

    The network is cut at `freeze_depth`: the stages ``stages[:freeze_depth]`` are
    frozen, those after it and a new head are trained. An image passes the frozen
    stages once; its activation is kept and serves every epoch, fold and candidate
    of a grid search.

    Frozen means frozen: no parameter and no buffer of a frozen stage changes by
    one bit, batch-norm statistics included.

    Parameters
    ----------
    backbone : str or path-like, default="resnet18"
        A name from :func:`list_backbones`, or the path of a self-describing
        ``.safetensors`` file. ``"mini"`` ships with the package, for trying and
        testing; the weights of the others are downloaded at the first fit.
    backbone_params : dict, default=None
        Arguments of the architecture's constructor, for example
        ``{"width_mult": 0.35}``.
    weights : str, path-like or None, default="default"
        ``"default"`` is the best that the backbone's source offers; or the name
        of weights such as ``"IMAGENET1K_V1"``; or the path of a state dict
        (``.safetensors``, or ``.pth`` read without running code). None is random
        weights, the same ones each time.
    freeze_depth : int, default=-1
        Which stages are frozen, read as a slice: ``stages[:freeze_depth]``. None
        freezes all of them and trains the head alone, -1 trains the last stage as
        well, 0 trains the whole network.
    head : "linear", tuple of int or callable, default="linear"
        What follows the pooled activation, standardised by the training images:
        one linear layer, which starts from a fitted logistic regression; hidden
        layers of these widths before it; or a function
        ``(n_in, n_out) -> nn.Module``.
    lr : float, default=1e-3
        Largest learning rate of the head. It rises over the first tenth of the
        steps and falls to zero along half a cosine.
    backbone_lr_scale : float, default=0.1
        Learning rate of the trained stages, as a share of `lr`.
    weight_decay : float, default=0.01
        Decay of the weights of layers, decoupled as in AdamW. Biases and the
        scales of normalisation don't decay.
    max_epochs : int, default=20
        Times that each image is seen.
    batch_size : int, default=32
        Images in a step of training.
    image_size : int, default=None
        Side of the square that the network sees, in pixels. None is what the
        weights were trained with.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
        One of them may be -1.
    pixel_range : tuple of float or "fit", default=None
        The values ``(low, high)`` of arrays that mean black and white; a value
        outside is an error. None is 0 to 255 for integers and 0 to 1 for floats.
        ``"fit"`` is the range of the arrays seen in `fit`; values beyond it are
        cut off. Images are resized in 8 bits.
    on_error : {"raise", "skip"}, default="raise"
        What becomes of an image of `fit` that can't be read: an error that lists all
        of them, or it is left out, with a warning. `predict` raises in any case.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. ``"auto"`` is a GPU where
        there is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the frozen stages. ``"auto"`` is bfloat16 where the hardware
        has it and the network bears it: on a few drawn images its rows keep a cosine
        of 0.999 with those in float32. Training is in float32.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.
    feature_cache : str, path-like or None, default="auto"
        Where activations are kept: ``"auto"`` is the user's cache folder, or the
        folder in the environment variable ``SKTRANSFER_CACHE``; a path is that
        folder; None keeps nothing beyond one `fit`.
    random_state : int, RandomState instance or None, default=None
        Seed of the order of the images, of dropout, and of the head where it
        starts at random.
    verbose : int, default=0
        1 shows progress and a line for each epoch; 0 shows progress only when it
        takes long.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    net_ : skorch.NeuralNet
        The fitted net of the trained stages and the head. Its input is the
        activations at the cut.
    history_ : skorch.history.History
        One record an epoch.
    n_iter_ : int
        Epochs that were trained.
    backbone_spec_ : BackboneSpec
        What training started from: architecture, digest of the weights, numbers
        of the input, names of the stages, source and licence.
    freeze_depth_ : int
        Number of stages in ``stages[:freeze_depth]``.
    image_size_ : int
        Side of the square that the network sees, in pixels.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    PretrainedFeatureTransformer : Rows of features for any scikit-learn model. Try
        that first: with few images a class it is hard to beat, and takes seconds.

    Notes
    -----
    A fitted classifier holds its whole network and pickles with it. A `fit` that
    fails or is interrupted leaves it not fitted. `fit` takes no ``sample_weight``.

    Batch normalisation in trained stages keeps the statistics of the pretrained
    network; its scale and shift train.

    References
    ----------
    A. Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022, arXiv 2202.10054: the head starts from a probe.

    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019,
    arXiv 1711.05101.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> classifier = FineTunedClassifier(
    ...     "mini", image_shape=(8, 8), pixel_range=(0, 16), feature_cache=None, random_state=0
    ... )
    >>> classifier.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.95
    True
    >>> classifier.predict_proba(X[:5]).shape
    (5, 3)
    """

    _parameter_constraints: dict = {
        **ImageEstimator._parameter_constraints,
        "freeze_depth": [numbers.Integral, None],
        "head": [StrOptions({"linear"}), tuple, list, callable],
        "lr": [Interval(numbers.Real, 0, None, closed="neither")],
        "backbone_lr_scale": [Interval(numbers.Real, 0, None, closed="left")],
        "weight_decay": [Interval(numbers.Real, 0, None, closed="left")],
        "max_epochs": [Interval(numbers.Integral, 1, None, closed="left")],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "on_error": [StrOptions({"raise", "skip"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone="resnet18",
        *,
        backbone_params=None,
        weights="default",
        freeze_depth=-1,
        head="linear",
        lr=1e-3,
        backbone_lr_scale=0.1,
        weight_decay=0.01,
        max_epochs=20,
        batch_size=32,
        image_size=None,
        image_shape=None,
        pixel_range=None,
        on_error="raise",
        device="auto",
        precision="auto",
        n_jobs=None,
        feature_cache="auto",
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.backbone_params = backbone_params
        self.weights = weights
        self.freeze_depth = freeze_depth
        self.head = head
        self.lr = lr
        self.backbone_lr_scale = backbone_lr_scale
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.image_size = image_size
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.on_error = on_error
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.feature_cache = feature_cache
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Train the stages after the cut and a new head.

        Parameters
        ----------
        X : sequence of images
            A list, tuple, 1-D object array, Series or one-column DataFrame whose
            cells are paths, bytes, PIL images, ``{"bytes", "path"}`` dicts or arrays
            ``(H, W)`` or ``(H, W, 3)``; an array ``(n, H, W, C)`` or ``(n, H, W)``; a
            torch tensor ``(n, C, H, W)``; or, with `image_shape`, a 2-D array of
            flattened rows.
        y : array-like of shape (n_images,)
            Labels: strings, integers or booleans.

        Returns
        -------
        self : FineTunedClassifier
            The fitted classifier.

        Raises
        ------
        TypeError, ValueError
            When a parameter is not what it can be, `X` and `y` differ in length,
            or `y` has one class only.
        WeightsError
            When the weights don't fit, are damaged or can't be had.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        _validate_head(self.head)
        images = self._validate_images(X, reset=True)
        labels = self._validate_labels(images, y)
        seed = check_random_state(self.random_state).randint(2**31 - 1)

        pristine, input_spec = self._load_backbone()
        self.backbone_spec_ = pristine.spec
        self.image_size_ = input_spec.size
        self.freeze_depth_ = pristine.depth(self.freeze_depth, "freeze_depth")
        pristine.width(len(pristine.stages), pristine.pooling("auto"), input_spec)  # fits the size?
        self._backbone = pristine.fresh(self.freeze_depth_)

        extraction = self._extract_at_cut(images)
        if self.on_error == "raise":
            raise_failures(extraction)
        warn_of_failures(extraction, "left out of fit")
        activations, labels = self._without_failures(extraction, labels)
        device = resolve_device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            # a copy, which may live on a GPU; the backbone stays on the CPU
            stages = copy.deepcopy(self._trained_stages())
            rows = pooled_rows(stages, activations, device)
            net = make_net(
                stages,
                start_head(self.head, rows, labels, len(self.classes_)),
                n_samples=len(labels),
                lr=self.lr,
                backbone_lr_scale=self.backbone_lr_scale,
                weight_decay=self.weight_decay,
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                seed=seed,
                device=device,
                verbose=self.verbose,
            )
            net.fit(activations, labels)
        self._trained_stages().load_state_dict(net.module_.stages.state_dict())
        self.net_ = net
        self.history_ = net.history
        self.n_iter_ = len(self.history_)
        return self

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_images, n_classes), float64
            Columns in the order of `classes_`.

        Raises
        ------
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        check_is_fitted(self)
        images = self._validate_images(X, reset=False)
        extraction = self._extract_at_cut(images)
        raise_failures(extraction)
        return probabilities(self.net_, extraction.values)

    def predict(self, X):
        """Return the most probable label of each image.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_images,)
            Of the kind that `fit` was given.

        Raises
        ------
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]

    def save_backbone(self, path):
        """Write the tuned network, without its head, as a self-describing file.

        The file works as ``backbone=`` of either estimator: what was tuned on one
        task is the backbone of the next.

        Parameters
        ----------
        path : str or path-like
            Where the file goes; its name must end in ``.safetensors``.

        Raises
        ------
        ValueError
            When the name has another ending.
        OSError
            When the file can't be written.
        """
        check_is_fitted(self)
        if not os.fspath(path).endswith(".safetensors"):
            raise ValueError(f"path must end in '.safetensors', got {os.fspath(path)!r}")
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"path={os.fspath(path)!r}: there is no folder {folder}")
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

    def _validate_labels(self, images, y):
        if y is None:
            raise ValueError(
                "FineTunedClassifier requires y to be passed, but the target y is None"
            )
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_consistent_length(images, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_.tolist()[0]!r}; FineTunedClassifier needs "
                "at least 2 classes"
            )
        return labels.astype(np.int64)

    def _without_failures(self, extraction, labels):
        """Return activations and labels of what could be read: some of each class."""
        bad = [failure.position for failure in extraction.failures]
        left = np.delete(labels, bad)
        gone = np.setdiff1d(labels, left)
        if gone.size:
            names = ", ".join(repr(name) for name in self.classes_[gone].tolist())
            raise ValueError(
                f"no image of the classes {names} can be read; see the warning before for each "
                "image and its cause"
            )
        return (np.delete(extraction.values, bad, axis=0) if bad else extraction.values), left

    def _extract_at_cut(self, images):
        """Return what the trained stages read; with all stages frozen, pooled rows."""
        all_frozen = self.freeze_depth_ == len(self._backbone.stages)
        return self._extract(
            images,
            self._backbone,
            self.backbone_spec_.input.at(self.image_size_),
            self.freeze_depth_,
            self._backbone.pooling("auto") if all_frozen else None,
        )

    def _trained_stages(self):
        if self.freeze_depth_ == len(self._backbone.stages):
            return torch.nn.Identity()
        return self._backbone.rest(self.freeze_depth_, self._backbone.pooling("auto"))


def _validate_head(head):
    if isinstance(head, (tuple, list)) and not all(
        isinstance(width, numbers.Integral) and width > 0 for width in head
    ):
        raise ValueError(f"head must be 'linear', widths > 0 or a callable, got {head!r}")
