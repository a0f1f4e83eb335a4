"""A pretrained network whose last stages are trained, as a scikit-learn classifier."""

import numbers

import numpy as np
from scipy.sparse import issparse
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d

from ._domains import DomainAwareClassifierMixin
from ._fine_tuning import FineTunedEstimator
from .training._adaptation import LOSSES
from .training._targets import ClassTargets, LabelTargets


class FineTunedClassifier(DomainAwareClassifierMixin, ClassifierMixin, FineTunedEstimator):
    """Classify images with a pretrained network whose last stages are trained.

    The network is cut at `freeze_depth`: the stages ``stages[:freeze_depth]`` are
    frozen, those after it and a new head are trained. An image passes the frozen
    stages once; its activation is stored, and every epoch, fold and candidate of a
    grid search reads it.

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
    recipe : {"fast", "default", "thorough"}, default="default"
        Time against accuracy, in one word: the values of the parameters that are
        ``"auto"``, and the number of steps. "fast" trains the last stages, up to 0.5 of
        the network's multiplications, on the images as they are; "default" up to 0.6 of
        them, on eight random views of each image; "thorough" the whole network, on a new
        view in each epoch, with twice as many steps.
    freeze_depth : int, "auto" or None, default="auto"
        Which stages are frozen, read as a slice: ``stages[:freeze_depth]``. None
        freezes all of them and trains the head alone, a linear one with the penalty of the
        linear model that it starts from. -1 trains the last stage as well, 0 trains the
        whole network. ``"auto"`` trains the last stages that take the
        recipe's share of the multiplications of a forward pass.
    head : "linear", tuple of int or callable, default="linear"
        What follows the pooled activation, standardised by the training images:
        one linear layer, which starts from a fitted logistic regression; hidden
        layers of these widths before it; or a function
        ``(n_in, n_out) -> nn.Module``.
    dropout : float or "auto", default="auto"
        Share of the values that are dropped before each linear layer of the head.
        ``"auto"`` is 0.3 where stages train, and 0 where only the head does, or where
        `head` is a callable.
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
        `label_smoothing` or `mix`.
    batch_size : int or "auto", default="auto"
        Images in a step of training. ``"auto"`` is 32, and all images at once where
        only a linear head trains, whose optimum is unique.
    label_smoothing : float or "auto", default="auto"
        Share of each target that is spread over all classes. ``"auto"`` is 0.1, which
        makes probabilities mean what they say, and 0 where only a linear head trains.
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
        "light" where mirrored images are predicted as well as others by linear models on
        frozen rows, which takes two forward passes
        an image, and else "crop"; with the recipe "fast" and where only the head trains
        it is None.
    augment_views : int, "auto" or None, default="auto"
        Number of random views of each image whose activations are stored: frozen stages
        cost that many forward passes an image. None draws a new view in each epoch, and
        stores none of them. Files are decoded once for all views, as long as their pixels
        take at most 512 MiB of memory. ``"auto"`` is 8, and None where no stage is frozen.
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
        second network, with this share of the logits. It costs a second pass through the
        trained stages in prediction, and a second copy of them in memory and in pickles.
        ``"auto"`` is 0.3 with a linear head, and 0 with the recipe "fast" and with
        another head.
    early_stopping : bool, default=False
        Whether to hold images out, to stop when the loss on them gets no lower for
        `n_iter_no_change` epochs, and to use the weights of the best epoch.
    validation_fraction : float, default=0.1
        Share of the images that early stopping holds out, in the
        proportions of the classes (of multilabel targets at random), unless
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
    class_weight : dict or "balanced", default=None
        Weights of classes, by label. ``"balanced"`` gives each class the same sum,
        computed on the images that are fitted; with multilabel targets, it balances
        presence and absence of each label.
    adapt : {"mcc"}, default=None
        Adapt to the images of a target domain, which have no labels: `fit` takes them with
        those of the source, told apart by `sample_domain`. "mcc" is minimum class confusion:
        a loss that is least where the network is sure of the class of each of these images.
        Rows of sources and rows of targets are standardised by statistics of their own, all
        sources together and all targets together. A step takes a batch of each of the two, so
        an epoch takes about twice as long.
    adapt_weight : float, default=1.0
        What this loss is multiplied by. At 0 the standardisation alone adapts.
    replay : int, default=0
        Number of training images whose activations the estimator holds. `partial_fit`
        trains on them and on the new images, so that the network does not forget the
        old ones. They are drawn from all images seen so far, each with the same
        chance, but all images of a rare class are taken before a common class gets
        more. They are pickled with the estimator. Without them (0), old classes are
        forgotten in part, and where stages train nearly as a whole.
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
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; with multilabel targets, the columns' numbers, of which
        `target_names_` are the names.
    net_ : skorch.NeuralNet
        The fitted net of the trained stages and the head. Its input is the
        activations at the cut.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``lr`` of the head, ``dur`` in
        seconds, and ``valid_loss`` and ``valid_score`` where images were held out; with
        `adapt` also ``adapt_loss``.
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
    target_names_ : ndarray of shape (n_labels,)
        Column names of multilabel targets; only when `y` is a DataFrame whose column
        names are strings. `predict` returns the columns in this order. Later targets in
        a DataFrame must have the same columns.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    PretrainedFeatureTransformer : Rows of features for any scikit-learn model. Try
        that first: with few images a class it is hard to beat, and takes seconds.
    FineTunedRegressor : The same for numbers.

    Notes
    -----
    A fitted classifier holds its whole network and pickles with it, as arrays: without
    optimizer and device. A callable as `head` is called again where it is loaded. A
    `fit` that fails or is interrupted leaves it not fitted.

    With `adapt`, labels are needed of the source alone: classes, the held-out images of
    `early_stopping`, `sample_weight` and `class_weight` are of the source. Classes should be
    about as frequent in both domains, and all images of the target of one kind. Images to
    predict are standardised as those of the target, unless `sample_domain` says source.

    Where only a linear head trains (``freeze_depth=None``), an image of weight 2 is
    the same as two images. Where stages train, in random batches, this is true on
    average.

    References
    ----------
    A. Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022, arXiv 2202.10054: the head starts from a probe.

    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019,
    arXiv 1711.05101.

    Y. Jin et al., "Minimum class confusion for versatile domain adaptation", ECCV 2020,
    arXiv 1912.03699: `adapt`. The standardisation by domain is after Y. Li et al., "Revisiting
    batch normalization for practical domain adaptation", arXiv 1603.04779.

    J. Howard, S. Ruder, "Universal language model fine-tuning for text
    classification", ACL 2018, arXiv 1801.06146: `layer_decay`, `unfreeze_every`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> classifier = FineTunedClassifier("mini", recipe="fast", random_state=0, **digits)
    >>> classifier.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.95
    True
    >>> classifier.predict_proba(X[:5]).shape
    (5, 3)
    """

    classes_: np.ndarray

    _parameter_constraints: dict = {
        **FineTunedEstimator._parameter_constraints,
        "label_smoothing": [Interval(numbers.Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "adapt": [StrOptions(set(LOSSES)), None],
        "adapt_weight": [Interval(numbers.Real, 0, None, closed="left")],
    }

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
        label_smoothing="auto",
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
        class_weight=None,
        adapt=None,
        adapt_weight=1.0,
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
        self.label_smoothing = label_smoothing
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
        self.class_weight = class_weight
        self.adapt = adapt
        self.adapt_weight = adapt_weight
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
        y : array-like of shape (n_images,) or (n_images, n_labels)
            Labels: strings, integers or booleans. A matrix of 0 and 1 is multilabel.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images. An image of weight 0 is left out.
        sample_domain : int or array-like of shape (n_images,), default=None
            Numbers of domains, above 0 for sources and below 0 for targets, as skada has
            them. Labels of targets are not read; their images are left out, or adapted to
            with `adapt`. None is a source for all, but with `adapt` a target where `y` is
            -1.
        X_val : sequence of images, default=None
            Images that `early_stopping` validates on, instead of a held-out share; with `adapt`
            of the source.
        y_val : array-like, default=None
            Their labels.

        Returns
        -------
        self : FineTunedClassifier
            The fitted classifier.

        Raises
        ------
        TypeError, ValueError
            When a parameter is not allowed, or not in combination with another one;
            `X` and `y` differ in length, `y` has one class only, or fewer than two images
            are of the target to `adapt` to.
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
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Continue training on new images and on `replay` old ones.

        The first call trains a new network. In later calls, a linear head is first solved
        again for the new and the replayed images, with a penalty on the distance to the
        coefficients that it has: it learns classes that come for the first time in one
        call, and keeps what these images say nothing about. Where a linear head alone
        trains and `replay` holds all images of the calls before, a call gives what `fit`
        gives on all of them. Other heads are trained from the weights that they have.

        Each call trains for `max_epochs`, with a schedule of its own. One that fails leaves
        the network as it was.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_labels)
            Labels, of classes that the first call named.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call may have; needed in the first call, where `y` does
            not hold all of them.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.

        Returns
        -------
        self : FineTunedClassifier
            The classifier.

        Raises
        ------
        ValueError
            When `y` has a class that the first call did not name; else as in `fit`.
        """
        is_continued = self.__sklearn_is_fitted__()
        if is_continued:
            self._check_that_it_can_go_on()
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' can't be computed in partial_fit, which sees some of the "
                "images; give the weights as a dict, or sample_weight"
            )
        return self._fit(
            X, y, sample_weight, is_continued=is_continued, is_partial=True, classes=classes
        )

    def decision_function(self, X, sample_domain=None, *, allow_source=False):
        """Return a score for each class: logarithms of odds or of probabilities.

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
        decision : ndarray of shape (n_images,) or (n_images, n_classes), float64
            For two classes the log-odds of the second; for more the logarithms of
            probabilities; for labels the log-odds of each.

        Raises
        ------
        ValueError
            When images of sources are among them that are not allowed.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        yes, no = self._log_probabilities(X, sample_domain, allow_source)
        if self._is_multilabel:
            return yes - no
        return yes[:, 1] - yes[:, 0] if len(self.classes_) == 2 else yes

    def predict_proba(self, X, sample_domain=None, *, allow_source=False):
        """Return the probability of each class, or of each label.

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
        probabilities : ndarray of shape (n_images, n_classes), float64
            Columns in the order of `classes_`.

        Raises
        ------
        ValueError
            When images of sources are among them that are not allowed.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        return np.exp(self._log_probabilities(X, sample_domain, allow_source)[0])

    def _log_probabilities(self, X, sample_domain, allow_source):
        """Return logarithms of probabilities for and against, means over views."""
        views = [
            self._targets.log_probabilities(logits)
            for logits in self._outputs_of_views(X, sample_domain, allow_source)
        ]
        return logsumexp(views, axis=0) - np.log(len(views))

    def predict(self, X, sample_domain=None, *, allow_source=False):
        """Return the most probable label of each image, or all labels more likely than not.

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
        labels : ndarray of shape (n_images,) or (n_images, n_labels)
            Of the type of the labels in `fit`.

        Raises
        ------
        ValueError
            When images of sources are among them that are not allowed.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        yes, no = self._log_probabilities(X, sample_domain, allow_source)
        if self._is_multilabel:
            return (yes > no).astype(np.intp)
        return self.classes_[np.argmax(yes, axis=1)]

    def score(self, X, y, sample_weight=None, *, sample_domain=None, allow_source=False):
        """Return the share of images that are predicted right, all their labels included.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_labels)
            Their labels.
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
        return accuracy_score(y, predicted, sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # targets

    def _check_targets(self, y, *, reset, classes=None):
        if y is None:
            raise ValueError(
                "FineTunedClassifier requires y to be passed, but the target y is None"
            )
        if issparse(y):
            y = y.toarray()
        y = np.asarray(y)
        assert_all_finite(y, input_name="y")
        is_multilabel = type_of_target(y, input_name="y") == "multilabel-indicator"
        if not is_multilabel:
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if is_multilabel and not np.isin(y, [0, 1]).all():
            raise ValueError(
                "y is a matrix, so multilabel, and must hold 0 and 1 only, got "
                f"{np.unique(y)[:5].tolist()}"
            )
        if (
            not reset
            and classes is not None
            and not np.array_equal(np.unique(classes), self.classes_)
        ):
            raise ValueError(
                f"classes={np.asarray(classes).tolist()} are not those of the first call, "
                f"{self.classes_.tolist()}; leave classes out"
            )
        if is_multilabel and self.adapt is not None:
            raise ValueError(
                f"adapt={self.adapt!r} needs one label an image, and y is a matrix; set adapt=None"
            )
        if reset:
            self._is_multilabel = is_multilabel
            self.classes_ = self._learn_classes(y, classes)
        if is_multilabel != self._is_multilabel:
            raise ValueError(
                "y must be of the kind that the classifier was fitted with: "
                + ("a matrix of 0 and 1" if self._is_multilabel else "one label an image")
            )
        return self._positions(y)

    def _learn_classes(self, y, classes):
        if self._is_multilabel:
            return np.arange(y.shape[1])
        classes = np.unique(y if classes is None else classes)
        if len(classes) < 2:
            raise ValueError(
                f"y has one class only, {classes.tolist()[0]!r}; FineTunedClassifier needs at "
                "least 2 classes"
            )
        return classes

    def _positions(self, y):
        """Return the positions of labels among the classes."""
        if self._is_multilabel:
            if y.shape[1] != len(self.classes_):
                raise ValueError(
                    f"y has {y.shape[1]} labels, the classifier was fitted with "
                    f"{len(self.classes_)}"
                )
            return y
        # by the labels themselves: in an array "2" and 2 may become equal
        position_of = {label: position for position, label in enumerate(self.classes_.tolist())}
        unknown = sorted({label for label in y.tolist() if label not in position_of}, key=repr)
        if unknown:
            names = ", ".join(repr(name) for name in unknown)
            raise ValueError(
                f"y has classes that the classifier does not know: {names}; it was fitted with "
                f"{self.classes_.tolist()}. Name all of them in the first call of partial_fit with "
                "classes=, or fit anew"
            )
        return np.array([position_of[label] for label in y.tolist()], dtype=np.intp)

    def _fit_targets(self, y, weights):
        if self._is_multilabel:
            if isinstance(self.class_weight, dict):
                raise ValueError(
                    f"class_weight={self.class_weight!r} has no meaning for multilabel targets; "
                    "use 'balanced', None, or sample_weight"
                )
            return LabelTargets.of(y, weights, balanced=self.class_weight is not None)
        return ClassTargets(len(self.classes_))

    def _fit_class_weights(self, y, weights):
        if self.class_weight is None or self._is_multilabel:
            return None
        if isinstance(self.class_weight, dict):
            return self._weights_of_classes()
        present = np.bincount(y, weights, minlength=len(self.classes_))
        balanced = weights.sum() / (np.count_nonzero(present) * np.where(present, present, 1))
        return np.where(present, balanced, 1.0)  # 1 for a class that has no image here

    def _weights_of_classes(self):
        """Return the weights in the dict; 1 for a class that it does not name."""
        unknown = set(self.class_weight) - set(self.classes_.tolist())
        values = [self.class_weight.get(label, 1) for label in self.classes_.tolist()]
        if unknown or min(values) < 0 or max(values) <= 0:
            raise ValueError(
                f"class_weight={self.class_weight!r} must have the classes "
                f"{self.classes_.tolist()} as keys, and weights of 0 or more, not all of them 0"
            )
        return np.array(values, dtype=np.float64)

    def _check_left_over(self, y, left):
        if self._is_multilabel:
            return
        gone = np.setdiff1d(y, y[left])
        if gone.size:
            names = ", ".join(repr(name) for name in self.classes_[gone].tolist())
            raise ValueError(
                f"no image of the classes {names} is left to train on; see the warning before for "
                "each image that can't be read, and its cause"
            )

    def _strata(self, y):
        return None if self._is_multilabel else y
