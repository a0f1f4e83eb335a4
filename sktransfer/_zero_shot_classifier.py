"""An image-text model as a scikit-learn classifier: classes by their names or prompts."""

import json
import numbers

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)
from torch import nn

from ._base import ImageEstimator, raise_failures, warn_of_failures
from ._callbacks import FitTasks
from ._onnx_export import write_onnx
from ._stage_table import stage_table
from ._zero_shot_labels import discriminant_scores, weights_of
from ._zero_shot_prompts import checked_templates, labels_of, prompts_of
from .backbones._text_tower import class_vectors, templates_of
from .runtime._device import one_device, resolve_device
from .runtime._device_copies import device_call
from .runtime._gpu_lock import gpu_lock


def _was_trained_with_a_sigmoid(estimator):
    check_is_fitted(estimator)
    if estimator.logit_bias_ is None:
        raise AttributeError(
            f"backbone={estimator.backbone!r} was trained with a softmax over classes, so it has "
            "no probability of one class by itself; use predict_proba"
        )
    return True


class ZeroShotClassifier(ClassifierMixin, ImageEstimator):
    """Classify images by the names of classes, with an image-text model and few or no labels.

    The names are put into templates such as ``"a photo of a {}."``. The text tower of the
    model makes a vector of each prompt, and the mean of a class's vectors is compared with
    the embedding of an image. No label is needed.

    With labels, the scores of a shrinkage discriminant analysis of the embeddings are added.
    The weights of both are chosen on images that are left out, so that labels that say little
    leave the prompts as they are.

    Parameters
    ----------
    backbone : str or path-like, default="openclip:ViT-B-32"
        A model of open_clip: ``"openclip:NAME"``, ``"openclip:hf-hub:USER/MODEL"``,
        ``"openclip:local-dir:PATH"``, or the path of a self-describing ``.safetensors`` file
        that holds both towers. Needs the extra ``sktransfer[clip]``.
    classes : sequence of labels, or dict, default=None
        The classes. Of a sequence, the labels are the names, with spaces for underscores. A
        dict maps each label to a name, or to a list of prompts that are used as they are.
        None is the labels in `y`.
    templates : {"simple", "imagenet"} or sequence of str or callable, default="simple"
        Where names are put: texts with ``{}``, or functions of the name. ``"simple"`` is
        open_clip's ``SIMPLE_IMAGENET_TEMPLATES``, 7 of them; ``"imagenet"`` its
        ``OPENAI_IMAGENET_TEMPLATES``, 80 of them, which take 80 passes of the text tower for
        each class. ``["{}"]`` is the name alone.
    backbone_params : dict, default=None
        Changes of the model's configuration: ``image_size``, or open_clip's ``vision_cfg``,
        ``text_cfg``, ``embed_dim`` and others.
    weights : str, path-like or None, default="default"
        ``"default"`` is the first that open_clip lists for the model; or one of its names, such
        as ``"laion2b_s34b_b79k"``; or the path of a checkpoint of both towers
        (``.safetensors``, or ``.pt`` read without running code). None is random weights.
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
        What happens when labelled images can't be read: an error that lists all of them, or
        a fit without them and a warning with that list.
    batch_size : int or "auto", default="auto"
        Images that pass the network at once. ``"auto"`` suits the device.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. ``"auto"`` is a GPU where
        there is one. Without a number, all GPUs of one model pass images through the frozen
        network; in a worker process, the one that it has.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the image tower, as in :class:`PretrainedFeatureTransformer`.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.
    feature_cache : str, path-like, list of these, or None, default="auto"
        Where embeddings are stored: ``"auto"`` is the user's cache folder, or the folder
        in the environment variable ``SKTRANSFER_CACHE``; a path is that folder. Of a
        list, such as ``["/shared/prebuilt", "auto"]``, all are read and the last one is
        written to. None stores nothing.
    verbose : int, default=0
        1 shows progress; 0 shows it only when it takes long; -1 never. The environment
        variable ``SKTRANSFER_PROGRESS`` sets it for all estimators: 1 shows it at once, 0
        never.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted, as scikit-learn's scorers expect them.
    class_vectors_ : ndarray of shape (n_classes, n_features), float32
        The unit vector of each class's prompts.
    logit_scale_ : float
        The scale that the model has learned for cosines.
    logit_bias_ : float or None
        The bias of a model that was trained with a sigmoid (SigLIP); None for others.
    text_weight_ : float
        The weight of the logits by prompts; 1.0 without labels.
    label_weight_ : float
        The weight of the scores by labels; 0.0 without labels.
    coef_ : ndarray of shape (n_classes, n_features), float32
        With `intercept_`, the linear scores of embeddings of unit length.
    intercept_ : ndarray of shape (n_classes,), float32
    backbone_spec_ : BackboneSpec
        What was used: architecture, digest of the image tower's weights, numbers of the
        input, names of the stages, source and licence.
    stages_ : tuple of (name, role, n_params, width)
        The stages of the image tower, with their numbers of parameters and the widths of
        their activations. It prints as a table, and a notebook draws it in the diagram.
    precision_ : str
        The arithmetic that was used, "float32" or "bfloat16".
    device_ : str
        The device that `fit` found for images to pass the network on: "cpu", "cuda",
        "cuda:1", "mps". It is a record: later calls, and a process that loads the
        classifier, find their own by `device`.
    image_size_ : int
        Side of the square that the network sees, in pixels.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame in `fit`.

    See Also
    --------
    PretrainedFeatureTransformer : The embeddings alone; with many labels, rows for any head.
    FineTunedClassifier : Trains stages of the image tower.

    Notes
    -----
    `predict_proba` is the softmax of the logits, scale x cosine, for every model. A model that
    was trained with a sigmoid has a probability of each class by itself, the sigmoid of scale x
    cosine + bias, which `predict_match_proba` returns. Where exactly one of the classes is
    right, as scikit-learn's classifiers take it, these probabilities are proportional to
    p / (1 - p), and that is the softmax of the logits again.

    `fit` loads the text tower, and keeps the vectors of the classes only: 4 bytes x classes x
    width, twice. A pickle holds these and no network; the image tower is loaded again where
    the pickle is used, and must be the same.

    All classes are equally probable before an image is seen, whatever their shares in `y`.

    open_clip states no licences of weights. `backbone_spec_.licence` is what is known here:
    those of MobileCLIP are for research only. See the page of the weights for others.

    References
    ----------
    .. [1] Radford et al., Learning Transferable Visual Models From Natural Language
       Supervision, arXiv 2103.00020.
    .. [2] Zhai et al., Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343.
    .. [3] Wang et al., A Hard-to-Beat Baseline for Training-Free CLIP-Based Adaptation,
       arXiv 2402.04087.

    Examples
    --------
    A tiny model with random weights, so that nothing is downloaded. Its prompts are worth
    nothing; the labels are:

    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import ZeroShotClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> tiny = {
    ...     "embed_dim": 128,
    ...     "vision_cfg": {"layers": 1, "width": 128, "patch_size": 4, "image_size": 32},
    ...     "text_cfg": {"layers": 1, "width": 64, "heads": 1},
    ... }
    >>> classifier = ZeroShotClassifier(
    ...     "openclip:ViT-B-32",
    ...     classes={0: "zero", 1: "one", 2: "two"},
    ...     templates=["the digit {}", "a handwritten {}"],
    ...     backbone_params=tiny,
    ...     weights=None,
    ...     image_shape=(8, 8),
    ...     pixel_range=(0, 16),
    ...     feature_cache=None,
    ... )
    >>> classifier.fit().predict_proba(X[:5]).shape
    (5, 3)
    >>> classifier.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.9
    True
    """

    _learned = (*ImageEstimator._learned, "_has_seen_images")

    _parameter_constraints: dict = {
        **ImageEstimator._parameter_constraints,
        "classes": [dict, "array-like", None],
        "templates": [str, "array-like"],
        "on_error": [StrOptions({"raise", "skip"})],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        backbone="openclip:ViT-B-32",
        classes=None,
        *,
        templates="simple",
        backbone_params=None,
        weights="default",
        image_size=None,
        image_shape=None,
        pixel_range=None,
        on_error="raise",
        batch_size="auto",
        device="auto",
        precision="auto",
        n_jobs=None,
        feature_cache="auto",
        verbose=0,
    ):
        self.backbone = backbone
        self.classes = classes
        self.templates = templates
        self.backbone_params = backbone_params
        self.weights = weights
        self.image_size = image_size
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.on_error = on_error
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.feature_cache = feature_cache
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        """Make the vectors of the classes; with labels, weigh them against the prompts.

        Parameters
        ----------
        X : sequence of images, default=None
            A list, tuple, 1-D object array, Series or one-column DataFrame whose
            cells are paths, URLs, bytes, PIL images, ``{"bytes", "path"}`` dicts or arrays
            ``(H, W)`` or ``(H, W, 3)``; an array ``(n, H, W, C)`` or ``(n, H, W)``; a
            torch tensor ``(n, C, H, W)``; or, with `image_shape`, a 2-D array of
            flattened rows. Without `y` no image passes the network.
        y : array-like of shape (n_images,), default=None
            Labels, among `classes`. Some classes may have none.

        Returns
        -------
        self : ZeroShotClassifier
            The fitted classifier.

        Raises
        ------
        ImportError
            When open_clip, or what the model's tokenizer needs, is not installed.
        TypeError, ValueError
            When the type or value of a parameter is not allowed, there are neither `classes`
            nor `y`, or `y` has labels that are not in `classes`.
        WeightsError
            When the weights don't fit, are damaged or can't be loaded.
        ImageReadError
            Lists every labelled image that can't be read, with position, path and cause.
        """
        self._forget()
        tasks = FitTasks(self, 0 if y is None else 1, X, y)
        images = self._given_images(X, y)
        labels, y = self._checked_labels(y)
        vectors = self._vectors_of(labels)
        self._fit_image_tower()
        self.class_vectors_ = vectors.vectors.copy()  # other fits share the vectors that are kept
        self.logit_scale_, self.logit_bias_ = vectors.scale, vectors.bias
        self.text_weight_, self.label_weight_ = 1.0, 0.0
        coef = self.logit_scale_ * vectors.vectors.astype(np.float64)
        intercept = np.zeros(len(labels))
        if y is not None:
            check_consistent_length(images, y)
            rows, y = self._labelled_rows(images, y, tasks)
            text, by_labels = rows @ coef.T, discriminant_scores(rows, y, len(labels))
            self.text_weight_, self.label_weight_ = weights_of(text, by_labels, rows, y)
            coef = self.text_weight_ * coef + self.label_weight_ * by_labels.coef
            intercept = self.label_weight_ * by_labels.intercept
        self.coef_, self.intercept_ = coef.astype(np.float32), intercept.astype(np.float32)
        self.classes_ = labels
        tasks.end()
        return self

    def decision_function(self, X):
        """Return the score of each class, whose softmax is `predict_proba`.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_images,) or (n_images, n_classes), float64
            Logits, without the bias of a sigmoid; for two classes their difference, the
            log-odds of the second.

        Raises
        ------
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X):
        """Return the probability of each class, given that one of them is right.

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
        return softmax(self._scores(X), axis=1)

    @available_if(_was_trained_with_a_sigmoid)
    def predict_match_proba(self, X):
        """Return the probability that an image matches the prompts of a class, of each by itself.

        For models that were trained with a sigmoid (SigLIP). Rows do not sum to one: none or
        several of the classes may match. Labels play no part.

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
        cosines = self._unit_rows(X) @ self.class_vectors_.T.astype(np.float64)
        return expit(self.logit_scale_ * cosines + self.logit_bias_)

    def predict(self, X):
        """Return the label of the class with the highest score.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_images,)

        Raises
        ------
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        best = np.argmax(self._scores(X), axis=1)
        return self.classes_[best]

    def to_onnx(self, path):
        """Write the classifier as a file of ONNX, preprocessing included.

        The file takes ``images``, an array (n, height, width, 3) of 8-bit RGB pixels of any
        height and width, and gives ``probabilities``, (n, n_classes), float32, in the order of
        the ``classes`` in the file's metadata. It holds the image tower and no text tower.
        Before it is written it is run with onnxruntime on drawn images, and compared with this
        classifier. Needs the extra ``sktransfer[onnx]``.

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
        RuntimeError
            When torch can't express the network in ONNX.
        WeightsError
            When the weights have changed since `fit`, or can't be loaded.
        """
        check_is_fitted(self)
        backbone = self._reloaded_backbone()
        (depth,) = self._plan.depths
        write_onnx(
            path,
            [
                backbone.frozen(depth, self._plan.pooling),
                _Probabilities(self.coef_, self.intercept_),
            ],
            "probabilities",
            self.backbone_spec_,
            self.image_size_,
            {"classes": json.dumps(self.classes_.tolist(), default=str)},
        )

    # fit

    def _given_images(self, X, y):
        if X is not None:
            images = self._validate_images(X, reset=True)
            self._has_seen_images = True
            return images
        if y is not None:
            raise ValueError("y is given without X; give the images that the labels are of")
        if isinstance(self.pixel_range, str):
            raise ValueError("pixel_range='fit' needs X in fit; give it, or a range as numbers")
        self._pixel_range = self._resolve_pixel_range(None)
        self._has_seen_images = False
        return None

    def _checked_labels(self, y):
        """Return the labels of the classes, sorted, and the position of each of `y` among them."""
        if y is None and self.classes is None:
            raise ValueError(
                "without classes, ZeroShotClassifier requires y to be passed, but the target y is "
                "None; give the names of the classes, or labels"
            )
        labels = None if self.classes is None else labels_of(self.classes)
        if y is None:
            return labels, None
        y = column_or_1d(y, warn=True)
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        # None equals itself, NaN does not, and of pandas' NA neither is True
        missing = [
            position
            for position, label in enumerate(y.tolist())
            if label is None or (label == label) is not True
        ]
        if missing:
            raise ValueError(
                f"y has no label at {len(missing)} of {len(y)} positions, the first is "
                f"{missing[0]}; leave out the images that have none"
            )
        check_classification_targets(y)
        if labels is None:
            labels = np.unique(y)
            if len(labels) < 2:
                raise ValueError(
                    f"y has one class only, {labels.tolist()[0]!r}; give all of them as classes"
                )
        # by the labels themselves: in an array "2" and 2 may become equal
        position_of = {label: position for position, label in enumerate(labels.tolist())}
        unknown = sorted({label for label in y.tolist() if label not in position_of}, key=repr)
        if unknown:
            names = ", ".join(repr(label) for label in unknown)
            raise ValueError(
                f"y has labels that are not in classes: {names}; classes are {labels.tolist()}"
            )
        return labels, np.array([position_of[label] for label in y.tolist()], dtype=np.intp)

    def _vectors_of(self, labels):
        templates = checked_templates(self.templates)
        if isinstance(templates, str):
            templates = templates_of(templates)
        classes = labels if self.classes is None else self.classes
        prompts = prompts_of(classes, labels, templates)
        device = one_device(resolve_device(self.device))
        tower = self.backbone, self.backbone_params, self.weights
        with device_call(device):
            return class_vectors(*tower, prompts, device, gpu_lock(device))

    def _fit_image_tower(self):
        backbone, input_spec = self._load_backbone()
        depth, pooling = len(backbone.stages), backbone.pooling("auto")
        backbone.width(depth, pooling, input_spec)  # an error for an image size it does not take
        self._plan = self._fitted_plan(backbone, input_spec, (depth,), pooling)
        self.precision_ = self._plan.precision
        self.device_ = str(resolve_device(self.device))
        self.image_size_ = input_spec.size
        self.stages_ = stage_table(backbone, depth, pooling=pooling)
        self.backbone_spec_ = backbone.spec

    def _labelled_rows(self, images, y, tasks):
        """Return unit rows of the images that can be read, and their labels."""
        extraction = self._extracted(images, tasks)
        if self.on_error == "raise":
            raise_failures(extraction.failures, len(images))
        warn_of_failures(extraction.failures, len(images), "left out of fit")
        bad = [failure.position for failure in extraction.failures]
        if len(bad) == len(images):
            raise ValueError("no labelled image can be read; see the warning before")
        good = np.delete(np.arange(len(images)), bad)
        return _unit(extraction.values[good]), y[good]

    # prediction

    def _scores(self, X):
        rows = self._unit_rows(X)
        return rows @ self.coef_.T.astype(np.float64) + self.intercept_

    def _unit_rows(self, X):
        check_is_fitted(self)
        images = self._validate_images(
            X if self._has_seen_images else self._without_names(X), reset=False
        )
        extraction = self._extracted(images)
        raise_failures(extraction.failures, len(images))
        return _unit(extraction.values)

    def _without_names(self, X):
        """Return a frame as an array or a column: without images, `fit` learned no names."""
        if not hasattr(X, "columns"):
            return X
        if self._is_rows_of_numbers(X):
            return X.to_numpy()
        return X[X.columns[0]] if len(X.columns) == 1 else X

    def _extracted(self, images, tasks=None):
        return self._extract(
            images,
            self._reloaded_backbone(),
            self._plan,
            None if self.batch_size == "auto" else self.batch_size,
            tasks=tasks,
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "classes_")  # what `fit` sets last

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.classes is None
        return tags


class _Probabilities(nn.Module):
    """Embeddings to the probabilities of classes, for export."""

    def __init__(self, coef, intercept):
        super().__init__()
        self.register_buffer("coef", torch.from_numpy(coef))
        self.register_buffer("intercept", torch.from_numpy(intercept))

    def forward(self, rows):
        rows = nn.functional.normalize(rows.float(), dim=1)
        return (rows @ self.coef.T + self.intercept).softmax(dim=1)


def _unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
