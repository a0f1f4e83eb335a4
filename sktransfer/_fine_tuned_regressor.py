"""A pretrained network whose last stages are trained, as a scikit-learn regressor."""

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils.validation import _check_y

from ._domains import DomainAwareMixin
from ._fine_tuning import FineTunedEstimator
from .training._targets import NumberTargets


class FineTunedRegressor(DomainAwareMixin, RegressorMixin, MultiOutputMixin, FineTunedEstimator):
    """Predict numbers from images with a pretrained network whose last stages are trained.

    The network is cut at `freeze_depth`: the stages ``stages[:freeze_depth]`` are
    frozen, those after it and a new head are trained, by the squared error. An image
    passes the frozen stages once; its activation is stored, and every epoch, fold and
    candidate of a grid search reads it.

    Targets are standardised inside; predictions are in their own unit.

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
    recipe : {"fast", "default", "thorough"}, default="default"
        Time against accuracy, in one word: the values of the parameters that are
        ``"auto"``, and the number of steps. "fast" trains the last stages, up to 0.5 of
        the network's multiplications; "default" up to 0.6 of them, in twice as many steps;
        "thorough" the whole network, in four times as many.
    freeze_depth : int, "auto" or None, default="auto"
        Which stages are frozen, read as a slice: ``stages[:freeze_depth]``. None
        freezes all of them and trains the head alone, a linear one with the penalty of the
        linear model that it starts from. -1 trains the last stage as well, 0 trains the
        whole network. ``"auto"`` trains the last stages that take the
        recipe's share of the multiplications of a forward pass.
    head : "linear", tuple of int or callable, default="linear"
        What follows the pooled activation, standardised by the training images:
        one linear layer, which starts from a fitted ridge regression; hidden
        layers of these widths before it; or a function
        ``(n_in, n_out) -> nn.Module``.
    dropout : float or "auto", default="auto"
        Share of the values that are dropped before each linear layer of the head.
        ``"auto"`` is 0.
    optimizer : {"adamw", "adam", "sgd"} or class, default="adamw"
        The optimizer; "sgd" has Nesterov's momentum of 0.9. A class of
        ``torch.optim`` that takes groups of parameters.
    optimizer_params : dict, default=None
        Further arguments of the optimizer, for example ``{"betas": (0.9, 0.99)}``.
    lr : float, default=1e-3
        Largest learning rate of the head. It rises over the first tenth of the
        steps and falls to zero along half a cosine.
    backbone_lr_scale : float, default=0.5
        Learning rate of the last stage, as a share of `lr`.
    layer_decay : float, default=1.0
        Learning rate of a trained stage, as a share of that of the stage after it.
    weight_decay : float, default=0.01
        Decay of the weights of layers. Biases and the scales of normalisation
        don't decay.
    max_epochs : int, default=None
        Times that each image is seen. None is as many as make 400 steps, from 5 to 200
        ("fast": 200 steps, to 100; "thorough": 800 steps, to 200); 30 where only a linear
        head trains. A linear head on rows of more than 2^24 values in all is solved by blocks:
        None is then 1, an epoch that measures the loss and changes nothing, but 30 with
        `mix`.
    batch_size : int or "auto", default="auto"
        Images in a step of training. ``"auto"`` is 32, and all images at once where
        only a linear head trains, whose optimum is unique.
    max_grad_norm : float, "auto" or None, default="auto"
        Gradients are scaled down to this norm over all parameters. None leaves
        them as they are. ``"auto"`` is 2, and None where only the head trains.
    batch_norm : {"frozen", "train"}, default="frozen"
        Whether batch normalisation in trained stages uses the statistics of the
        pretrained network, or those of each batch, whose running means it learns. Scale
        and shift train either way. In frozen stages nothing changes.
    unfreeze_every : int, default=None
        Gradual unfreezing: the head trains alone for this many epochs, then the
        last stage with it for as many, then the one before, down to the cut.
        None trains all of them from the start.
    training_precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the trained stages during training; "bfloat16" is mixed
        precision.
    augment : {"crop", "light", "medium", "trivial"}, callable, "auto" or None, default="auto"
        Random changes of the training images: crops; flips as well; colours as well;
        TrivialAugmentWide; or a transform, such as those of
        ``torchvision.transforms.v2``, that takes a uint8 tensor (3, H, W). Images to
        predict are not changed at random; `tta` says whether they are mirrored. ``"auto"`` is
        None: a crop at another scale changes what many numbers measure, such as sizes, counts
        and distances.
    augment_views : int, "auto" or None, default="auto"
        Number of random views of each image whose activations are stored: frozen stages
        cost that many forward passes an image. None draws a new view in each epoch, and
        stores none of them. Files are decoded once for all views, as long as their pixels
        take at most 512 MiB of memory. ``"auto"`` is 8 where images are augmented, and None
        where no stage is frozen.
    mix : {"mixup", "cutmix"}, default=None
        Mix images of a batch, and their targets: weighted means, or a rectangle of
        one in the other. At the cut, so activations are mixed where stages are frozen;
        "cutmix" needs activations with height and width there.
    mix_alpha : float, default=0.2
        Shares are drawn from Beta(mix_alpha, mix_alpha): the larger, the more mixed.
    tta : int, "mirror" or "auto", default="auto"
        Test-time augmentation: predictions are means over the image itself and
        ``tta - 1`` random views of it, or over the image and its mirror image. Each view
        is a forward pass. ``"auto"`` is "mirror" where training images are mirrored, and
        else 1.
    probe_weight : float or "auto", default="auto"
        Share of the linear probe in the predictions, where stages train: the stages as
        they were before training and the linear model that the head starts from are a
        second network, with this share of the predicted numbers. It costs a second pass
        through the trained stages in prediction, and a second copy of them in memory and in
        pickles.
        ``"auto"`` is 0.
    early_stopping : bool, default=False
        Whether to hold images out, to stop when the loss on them gets no lower for
        `n_iter_no_change` epochs, and to use the weights of the best epoch.
    validation_fraction : float, default=0.1
        Share of the images that early stopping holds out, unless
        `fit` is given ``X_val`` and ``y_val``.
    n_iter_no_change : int, default=10
        Epochs of patience of early stopping.
    checkpoint_dir : str or path-like, default=None
        Folder for the state of a fit after each epoch. A `fit` that was interrupted
        and is called again, with the same parameters, images and targets, is resumed
        from there and ends with the same weights. The file is deleted when the fit is
        done. Functions and objects among the parameters, such as a `head` or
        `callbacks`, are compared by their code and by the values that they hold. What
        callbacks have learned is not saved.
    replay : int, default=0
        Number of training images whose activations the estimator holds. `partial_fit`
        trains on them and on the new images, so that the network does not forget the
        old ones. They are drawn from all images seen so far, each with the same
        chance. They are pickled with the estimator. Without them (0), targets are learned
        as the new images have them, whatever the old ones had.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the last fit, as `partial_fit` does but
        without `replay`; `history_` and `n_iter_` are those of the new fit.
    callbacks : list, default=None
        Callbacks of skorch, instances or pairs of name and instance.
    net_params : dict, default=None
        Further arguments of ``skorch.NeuralNet``, for example ``{"compile": True}``.
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
        What happens when images of `fit` can't be read: an error that lists all of
        them, or they are left out, with a warning. `predict` raises in any case.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. ``"auto"`` is a GPU where
        there is one. Without a number, all GPUs of one model pass images through the frozen
        network; in a worker process, the one that it has.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the frozen stages. ``"auto"`` is bfloat16 where the hardware
        has it and rows keep their direction: on a few drawn images, rows in bfloat16
        and in float32 have a cosine of at least 0.999.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.
    feature_cache : str, path-like, list of these, or None, default="auto"
        Where activations are stored: ``"auto"`` is the user's cache folder, or the
        folder in the environment variable ``SKTRANSFER_CACHE``; a path is that folder.
        Of a list, such as ``["/shared/prebuilt", "auto"]``, all are read and the last
        one is written to. None stores nothing beyond one `fit`.
    random_state : int, RandomState instance or None, default=None
        Seed of the order of the images, of views that are not stored, of dropout and
        mixing, of the choice of held-out images, and of a head that starts at random.
    verbose : int, default=0
        1 shows progress; 0 shows it only when it takes long; -1 never; 2 prints a line for
        each epoch. The environment variable ``SKTRANSFER_PROGRESS`` sets it for all
        estimators: 1 shows it at once, 0 never.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net of the trained stages and the head. Its input is the
        activations at the cut.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``lr`` of the head, ``dur`` in
        seconds, and ``valid_loss`` and ``valid_score`` where images were held out.
        ``pandas.DataFrame(history_)`` is a table.
    n_iter_ : int
        Epochs that were trained.
    best_epoch_ : int
        The epoch, from 1, whose weights are used; only with `early_stopping`.
    backbone_spec_ : BackboneSpec
        What training started from: architecture, digest of the weights, numbers
        of the input, names of the stages, source and licence.
    freeze_depth_ : int
        Number of stages in ``stages[:freeze_depth]``.
    recipe_ : dict
        The values of the parameters that may be ``"auto"``, as this fit used them.
    stages_ : tuple of (name, role, n_params, width)
        Each stage and the head, "frozen" or "trained", its number of parameters, and the
        width of its activation. It prints as a table, and a notebook draws it in the diagram.
    precision_ : str
        Arithmetic of the frozen stages, "float32" or "bfloat16". Decided at `fit`: a
        fitted estimator reads the same activations on other hardware.
    device_ : str
        The device that `fit` ran on: "cpu", "cuda", "cuda:1", "mps". It is a record: later
        calls, and a process that loads the estimator, find their own by `device`.
    image_size_ : int
        Side of the square that the network sees, in pixels.
    target_names_ : ndarray of shape (n_outputs,)
        Column names of the targets; only when `y` is a DataFrame whose column names are
        strings. `predict` returns the columns in this order. Later targets in a DataFrame
        must have the same columns.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    PretrainedFeatureTransformer : Rows of features for any scikit-learn model. Try
        that with a ridge regression first.
    FineTunedClassifier : The same for classes and labels. Its documentation says more
        about training.

    Notes
    -----
    A fitted regressor holds its whole network and pickles with it, as arrays: without
    optimizer and device. A callable as `head` is called again where it is loaded. A
    `fit` that fails or is interrupted leaves it not fitted.

    Where only a linear head trains (``freeze_depth=None``), an image of weight 2 is
    the same as two images. Where stages train, in random batches, this is true on
    average.

    References
    ----------
    A. Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022, arXiv 2202.10054: the head starts from a probe.

    Examples
    --------
    How many of the pixels of a digit are ink:

    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedRegressor
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> y = (X > 8).mean(axis=1)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> regressor = FineTunedRegressor("mini", recipe="fast", random_state=0, **digits)
    >>> regressor.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.5
    True
    """

    def __init__(
        self,
        backbone="resnet18",
        *,
        backbone_params=None,
        weights="default",
        recipe="default",
        freeze_depth="auto",
        head="linear",
        dropout="auto",
        optimizer="adamw",
        optimizer_params=None,
        lr=1e-3,
        backbone_lr_scale=0.5,
        layer_decay=1.0,
        weight_decay=0.01,
        max_epochs=None,
        batch_size="auto",
        max_grad_norm="auto",
        batch_norm="frozen",
        unfreeze_every=None,
        training_precision="float32",
        augment="auto",
        augment_views="auto",
        mix=None,
        mix_alpha=0.2,
        tta="auto",
        probe_weight="auto",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        checkpoint_dir=None,
        replay=0,
        warm_start=False,
        callbacks=None,
        net_params=None,
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
        self.recipe = recipe
        self.freeze_depth = freeze_depth
        self.head = head
        self.dropout = dropout
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr = lr
        self.backbone_lr_scale = backbone_lr_scale
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.max_grad_norm = max_grad_norm
        self.batch_norm = batch_norm
        self.unfreeze_every = unfreeze_every
        self.training_precision = training_precision
        self.augment = augment
        self.augment_views = augment_views
        self.mix = mix
        self.mix_alpha = mix_alpha
        self.tta = tta
        self.probe_weight = probe_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.checkpoint_dir = checkpoint_dir
        self.replay = replay
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.net_params = net_params
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
    def fit(self, X, y, sample_weight=None, *, sample_domain=None, X_val=None, y_val=None):
        """Train the stages after the cut and a new head.

        Parameters
        ----------
        X : sequence of images
            A list, tuple, 1-D object array, Series or one-column DataFrame whose
            cells are paths, URLs, bytes, PIL images, ``{"bytes", "path"}`` dicts or arrays
            ``(H, W)`` or ``(H, W, 3)``; an array ``(n, H, W, C)`` or ``(n, H, W)``; a
            torch tensor ``(n, C, H, W)``; or, with `image_shape`, a 2-D array of
            flattened rows.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Numbers.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images. An image of weight 0 is left out.
        sample_domain : int or array-like of shape (n_images,), default=None
            Numbers of domains, above 0 for sources and below 0 for targets, as skada has
            them. Images of targets are left out, and their numbers are not read. None is a
            source for all.
        X_val : sequence of images, default=None
            Images that `early_stopping` validates on, instead of a held-out share.
        y_val : array-like, default=None
            Their numbers.

        Returns
        -------
        self : FineTunedRegressor
            The fitted regressor.

        Raises
        ------
        TypeError, ValueError
            When a parameter is not what it can be, or not together with another one, or
            `X` and `y` differ in length.
        WeightsError
            When the weights don't fit, are damaged or can't be loaded.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        is_continued = self.warm_start and self.__sklearn_is_fitted__()
        if is_continued:
            self._check_that_it_can_go_on()
        return self._fit(
            X,
            y,
            sample_weight,
            X_val,
            y_val,
            sample_domain=sample_domain,
            is_continued=is_continued,
        )

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Continue training on new images and on `replay` old ones.

        The first call trains a new network. In later calls, a linear head is first solved
        again for the new and the replayed images, with a penalty on the distance to the
        coefficients that it has, and none on its intercept: it learns a shift of the
        targets in one call, and keeps what these images say nothing about. Where old and
        new images contradict each other, it learns what lies between them; without
        `replay`, what the new ones say. Where a linear head alone trains and `replay`
        holds all images of the calls before, a call gives what `fit` gives on all of
        them. Other heads are trained from the weights that they have, and the first call
        learns the unit of the targets for them: later targets must be of its size.

        Each call trains for `max_epochs`, with a schedule of its own. One that fails leaves
        the network as it was.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Numbers.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.

        Returns
        -------
        self : FineTunedRegressor
            The regressor.
        """
        is_continued = self.__sklearn_is_fitted__()
        if is_continued:
            self._check_that_it_can_go_on()
        return self._fit(X, y, sample_weight, is_continued=is_continued, is_partial=True)

    def predict(self, X, sample_domain=None, *, allow_source=False):
        """Return the numbers of each image.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        sample_domain : int or array-like of shape (n_images,), default=None
            Numbers of domains, above 0 for sources and below 0 for targets. None is a
            target for all.
        allow_source : bool, default=False
            Whether images of sources may be among them; else they are an error.

        Returns
        -------
        numbers : ndarray of shape (n_images,) or (n_images, n_outputs), float64
            In the unit of `y`, and of its shape.

        Raises
        ------
        ValueError
            When images of sources are among them that are not allowed.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        views = [
            self._targets.decode(values)
            for values in self._outputs_of_views(X, sample_domain, allow_source)
        ]
        numbers = np.mean(views, axis=0)
        return numbers[:, 0] if self._is_one_number else numbers

    def score(self, X, y, sample_weight=None, *, sample_domain=None, allow_source=False):
        """Return the coefficient of determination R², the mean of all numbers.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Their numbers.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.
        sample_domain : int or array-like of shape (n_images,), default=None
            Numbers of domains, above 0 for sources and below 0 for targets. None is a
            target for all.
        allow_source : bool, default=False
            Whether images of sources may be among them; else they are an error.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            When images of sources are among them that are not allowed.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        predicted = self._predicted_to_score(X, sample_domain, allow_source)
        return r2_score(y, predicted, sample_weight=sample_weight)

    # targets

    def _check_targets(self, y, *, reset, classes=None):
        if y is None:
            raise ValueError("FineTunedRegressor requires y to be passed, but the target y is None")
        y = _check_y(y, multi_output=True, y_numeric=True, estimator=self)
        if reset:
            self._is_one_number = y.ndim == 1
            self._n_outputs = 1 if y.ndim == 1 else y.shape[1]
        y = y.reshape(len(y), -1).astype(np.float64)
        if y.shape[1] != self._n_outputs:
            raise ValueError(
                f"y has {y.shape[1]} outputs, the regressor was fitted with {self._n_outputs}"
            )
        return y

    def _fit_targets(self, y, weights):
        return NumberTargets.of(y, weights)
