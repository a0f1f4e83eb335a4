"""A frozen backbone as a scikit-learn transformer."""

import numbers

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._base import ImageEstimator, raise_failures, warn_of_failures
from ._callbacks import FitTasks
from ._onnx_export import write_onnx
from ._stage_table import stage_table
from .backbones._stages import POOLINGS
from .runtime._device import resolve_device


class PretrainedFeatureTransformer(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageEstimator
):
    """Turn images into rows of features with a frozen, pretrained network.

    The network is cut at a depth: an image passes the stages ``stages[:depth]``,
    and the last activation is pooled to a row. Nothing is learned from the
    images. Each row is computed once and stored: folds, candidates of a grid
    search, other estimators and later runs read it from the store of activations. One
    forward pass gives the rows of all stage ends, so a search over `depth` passes each
    image once. Without a store the image passes the stages up to `depth` only.

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
    depth : int, tuple of int, or None, default=None
        Which stages are used, read as a slice: ``stages[:depth]``. None is all of
        them, -1 all but the last, 0 none (the pixels themselves). A tuple such as
        ``(-2, -1, None)`` gives the rows of several depths side by side, from one
        forward pass.
    pooling : {"auto", "avg", "max", "gem", "cls", "flatten"}, default="auto"
        How the activation becomes a row: average, maximum, generalised mean,
        class token, or every value. ``"auto"`` with all stages is what the network
        feeds its last linear layer: its own pooling, and the norms or hidden layers
        after it (ConvNeXt, MaxViT, VGG and others have some). With fewer
        stages it is the network's own kind of pooling alone: the class token where
        its head reads that, else the average.
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
    on_error : {"raise", "nan"}, default="raise"
        What happens when images, missing values included, can't be read: an error that
        lists all of them, or rows of NaN and a warning with that list.
    batch_size : int or "auto", default="auto"
        Images that pass the network at once. ``"auto"`` suits the device. A batch
        is halved when the device's memory runs out.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. ``"auto"`` is a GPU where
        there is one. Without a number, all GPUs of one model pass images through the frozen
        network; in a worker process, the one that it has.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the network. ``"auto"`` is bfloat16 where the hardware has it
        and rows keep their direction: on a few drawn images, rows in bfloat16 and in
        float32 have a cosine of at least 0.999. Rows are returned as float32 either way;
        those of a network in bfloat16 have 8 significant bits, and take half the disk.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.
    feature_cache : str, path-like, list of these, or None, default="auto"
        Where rows are stored: ``"auto"`` is the user's cache folder, or the folder
        in the environment variable ``SKTRANSFER_CACHE``; a path is that folder. Of a
        list, such as ``["/shared/prebuilt", "auto"]``, all are read and the last one is
        written to. None stores nothing.
    verbose : int, default=0
        1 shows progress; 0 shows it only when it takes long; -1 never. The environment
        variable ``SKTRANSFER_PROGRESS`` sets it for all estimators: 1 shows it at once, 0
        never.

    Attributes
    ----------
    backbone_spec_ : BackboneSpec
        What was used: architecture, digest of the weights, numbers of the input,
        names of the stages, source and licence.
    depth_ : int, or tuple of int
        Number of stages in ``stages[:depth]``; one number for each where `depth` is a
        tuple.
    stages_ : tuple of (name, role, n_params, width)
        Each stage, "frozen" or "unused", its number of parameters, and the width of its
        activation, None where an unused stage was not computed. It prints as a table, and
        a notebook draws it in the diagram.
    pooling_ : str
        The pooling that was used; ``"head"`` is the network's own, with the layers
        after it.
    precision_ : str
        The arithmetic that was used, "float32" or "bfloat16". Decided at `fit`: a fitted
        transformer computes the same rows on other hardware.
    device_ : str
        The device that `fit` found for images to pass the network on: "cpu", "cuda",
        "cuda:1", "mps". It is a record: later calls, and a process that loads the
        transformer, find their own by `device`.
    image_size_ : int
        Side of the square that the network sees, in pixels.
    n_features_out_ : int
        Values in a row.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    FineTunedClassifier : Trains the last stages as well. Try the rows of this
        transformer with a linear model first: with a few dozen images a class
        that is hard to beat, and takes seconds.

    Notes
    -----
    A row depends on its image alone, not on the rest of `X`: the network is in
    evaluation mode, batch normalisation included.

    A fitted transformer pickles without weights; they are loaded again where the
    pickle is used, and must be the same. See `to_onnx` for a file that needs neither
    them nor Python.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> transformer = PretrainedFeatureTransformer(
    ...     "mini", image_shape=(8, 8), pixel_range=(0, 16), feature_cache=None
    ... )
    >>> pipeline = make_pipeline(transformer, LogisticRegression(max_iter=1000))
    >>> pipeline.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.95
    True
    >>> transformer.transform(X[:5]).shape
    (5, 256)
    """

    _parameter_constraints: dict = {
        **ImageEstimator._parameter_constraints,
        "depth": [numbers.Integral, str, tuple, list, None],
        "pooling": [StrOptions(set(POOLINGS))],
        "on_error": [StrOptions({"raise", "nan"})],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    _cut_parameter = "depth"
    _role_after_the_cut = "unused"

    def __init__(
        self,
        backbone="resnet18",
        *,
        backbone_params=None,
        weights="default",
        depth=None,
        pooling="auto",
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
        self.backbone_params = backbone_params
        self.weights = weights
        self.depth = depth
        self.pooling = pooling
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
    def fit(self, X, y=None):
        """Find the backbone and check the parameters; no image passes the network.

        Parameters
        ----------
        X : sequence of images
            A list, tuple, 1-D object array, Series or one-column DataFrame whose
            cells are paths, URLs, bytes, PIL images, ``{"bytes", "path"}`` dicts or arrays
            ``(H, W)`` or ``(H, W, 3)``; an array ``(n, H, W, C)`` or ``(n, H, W)``; a
            torch tensor ``(n, C, H, W)``; or, with `image_shape`, a 2-D array of
            flattened rows.
        y : None
            Ignored.

        Returns
        -------
        self : PretrainedFeatureTransformer
            The fitted transformer.

        Raises
        ------
        TypeError, ValueError
            When the type or value of a parameter is not allowed, or `X` holds no images.
        WeightsError
            When the weights don't fit, are damaged or can't be loaded.
        """
        tasks = FitTasks(self, 0, X, y)
        self._learn(X)
        tasks.end()
        return self

    def _learn(self, X):
        self._validate_images(X, reset=True)
        self._fit_backbone()

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Fit, and return the rows of `X`; like ``fit(X).transform(X)``.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        y : None
            Ignored.

        Returns
        -------
        rows : ndarray of shape (n_images, `n_features_out_`), float32
        """
        tasks = FitTasks(self, 1, X, y)
        self._learn(X)
        rows = self._rows_of(X, tasks)
        tasks.end()
        return rows

    def transform(self, X):
        """Return one row of features per image.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Returns
        -------
        rows : ndarray of shape (n_images, `n_features_out_`), float32

        Raises
        ------
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
            The rows of the other images are stored.

        Warns
        -----
        UnreadableImageWarning
            The same list, with ``on_error="nan"``.
        """
        check_is_fitted(self)
        return self._rows_of(X)

    def _rows_of(self, X, tasks=None):
        images = self._validate_images(X, reset=False)
        extraction = self._extract(
            images,
            self._reloaded_backbone(),
            self._plan,
            None if self.batch_size == "auto" else self.batch_size,
            tasks=tasks,
        )
        if self.on_error == "raise":
            raise_failures(extraction.failures, len(images))
        warn_of_failures(extraction.failures, len(images), "rows of NaN")
        return self._with_nan_rows(extraction)

    def to_onnx(self, path):
        """Write the transformer as a file of ONNX, preprocessing included.

        The file takes ``images``, an array (n, height, width, 3) of 8-bit RGB pixels of
        any height and width, and gives ``features``, an array (n, `n_features_out_`),
        float32. Before it is written it is run with onnxruntime on drawn images, and
        compared with this transformer. Needs the extra ``sktransfer[onnx]``.

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
        OSError
            When the file can't be written.
        RuntimeError
            When torch can't express the network in ONNX.
        WeightsError
            When the weights have changed since `fit`, or can't be loaded.

        Notes
        -----
        The network computes in float32: rows of `transform` in bfloat16 differ by
        rounding. The resizing is that of `transform`, pixel by pixel. The steps before
        it are left to the caller:
        reading the file, turning it upright, and `pixel_range`.
        """
        check_is_fitted(self)
        write_onnx(
            path,
            [_SideBySide(self._reloaded_backbone(), self._plan)],
            "features",
            self.backbone_spec_,
            self.image_size_,
        )

    def _with_nan_rows(self, extraction):
        rows = extraction.values
        if len(extraction.failures) == len(rows):  # no image told the width
            rows = np.empty((len(rows), self.n_features_out_), dtype=np.float32)
        rows[[failure.position for failure in extraction.failures]] = np.nan
        return rows

    def _fit_backbone(self):
        backbone, input_spec = self._load_backbone()
        depths, is_several = self._depths(), isinstance(self.depth, (tuple, list))
        counts = [backbone.depth(depth, "depth") for depth in depths]
        pooling = backbone.pooling(self.pooling)
        self._widths = tuple(backbone.width(count, pooling, input_spec) for count in counts)
        self._plan = self._fitted_plan(backbone, input_spec, counts, pooling)
        self.depth_ = tuple(counts) if is_several else counts[0]
        self.pooling_ = self._plan.pooling
        self.precision_ = self._plan.precision
        self.device_ = str(resolve_device(self.device))
        self.n_features_out_ = sum(self._widths)
        self.image_size_ = input_spec.size
        self.stages_ = stage_table(backbone, max(counts), rest="unused", pooling=pooling)
        self.backbone_spec_ = backbone.spec

    def _depths(self):
        if not isinstance(self.depth, (tuple, list)):
            return [self.depth]
        if not self.depth:
            raise ValueError(
                "depth must not be empty; use None for all stages, an int, or a tuple of them "
                f"such as (-1, None), got {self.depth!r}"
            )
        return list(self.depth)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored, as scikit-learn's API has it.

        Returns
        -------
        names : ndarray of str
            ``pretrainedfeaturetransformer0`` and so on; where `depth` is a tuple,
            ``pretrainedfeaturetransformer_layer4_0``, with the name of the last stage
            before each row.
        """
        check_is_fitted(self)
        if not isinstance(self.depth_, tuple):
            return super().get_feature_names_out(input_features)
        prefix = type(self).__name__.lower()
        ends = ["pixels", *self.backbone_spec_.stages]
        names = [
            f"{prefix}_{ends[count]}_{i}"
            for count, width in zip(self.depth_, self._widths, strict=True)
            for i in range(width)
        ]
        return np.asarray(names, dtype=object)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "backbone_spec_")  # what `fit` sets last

    @property
    def _n_features_out(self):
        return self.n_features_out_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.on_error == "nan"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class _SideBySide(nn.Module):
    """8-bit images to the rows of one depth, or of several side by side, for export."""

    def __init__(self, backbone, plan):
        super().__init__()
        self.rows = nn.ModuleList(backbone.frozen(depth, plan.pooling) for depth in plan.depths)

    def forward(self, images):
        return torch.cat([rows(images) for rows in self.rows], dim=1)
