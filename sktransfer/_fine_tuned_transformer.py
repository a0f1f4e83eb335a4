"""A network fine-tuned on ``y`` as a transformer, cross-fitted for the next model."""

import warnings

import numpy as np
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
    clone,
    is_classifier,
)
from sklearn.utils import Bunch, _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_method_params, check_is_fitted

from ._callbacks import CallbackSupportMixin, FitTasks, without_callbacks
from ._cross_fitting import checked_folds, for_a_fold, values_of, width_of
from ._documentation_link import DocumentationLinkMixin
from ._fine_tuned_classifier import FineTunedClassifier
from ._fine_tuned_regressor import FineTunedRegressor
from ._stage_diagram import visual_block
from .exceptions import UnreadableImageWarning

_CLASSES = ("binary", "multiclass", "multilabel-indicator")
_NUMBERS = ("continuous", "continuous-multioutput")


class FineTunedTransformer(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    DocumentationLinkMixin,
    CallbackSupportMixin,
    BaseEstimator,
):
    """Transform images to predictions or rows of a network that is fine-tuned on `y`.

    Any scikit-learn model can be fitted on the output, also beside other columns, such as
    numbers and categories in a ``ColumnTransformer``.

    A network predicts the images that it was trained on far better than others. A model
    that is fitted on such predictions gives them too much weight, and other columns too
    little. So `fit_transform` is cross-fitted, as in scikit-learn's ``TargetEncoder``: the
    images are split into `cv` folds, and the output of each image is that of a network
    that was trained on the other folds. `transform` uses a network that was trained on
    all images.

    .. note::
        ``fit(X, y).transform(X)`` does not equal ``fit_transform(X, y)``. The next model
        must be fitted on the latter, as ``Pipeline`` does.

    Parameters
    ----------
    estimator : FineTunedClassifier or FineTunedRegressor, default=None
        What is trained, with its backbone and all that concerns images and training. It
        is cloned. None is a :class:`FineTunedClassifier` with its defaults where `y` holds
        classes, and a :class:`FineTunedRegressor` where it holds numbers. Whole numbers
        are classes: for counts and ages, give a regressor.
    output : {"predictions", "rows"}, default="predictions"
        The output for an image. "predictions": the log-odds of each class or label, of the
        second class alone where there are two; or the predicted numbers. "rows": the row of
        features that the head of the network reads.
    cv : int, cross-validation generator or iterable, default=5
        Folds of `fit_transform`; each image must be in one test fold. A number is that
        of shuffled folds, stratified where `y` holds classes. More folds take longer, and
        their networks are nearer to the one of all images. Images that are not
        independent, such as several of one patient or duplicates, belong in one fold:
        ``GroupKFold()`` with `groups`, or ``DuplicateGroups(X)``.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds, and of training where that of `estimator` is None.

    Attributes
    ----------
    estimator_ : FineTunedClassifier or FineTunedRegressor
        The network that was trained on all images.
    n_features_out_ : int
        Number of columns.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    PretrainedFeatureTransformer : Rows of a network that is not trained. Side by side in
        a ``ColumnTransformer`` or ``FeatureUnion``, a model has both.
    FineTunedClassifier : The network as the model itself.
    sklearn.preprocessing.TargetEncoder : Cross-fitting for categories.

    Notes
    -----
    `fit_transform` trains ``cv + 1`` networks. The activations of the frozen stages are
    stored, so that an image, and each of its views that are stored, passes these once; with
    ``feature_cache=None`` in the `estimator` it passes them for each network.

    Predictions are few columns with the same meaning in every network. Probabilities are
    mixed with 3 percent of a uniform distribution before their log-odds are taken, which
    bounds them: a network is often surer of an image than it is right.

    Rows are hundreds of columns. Those of two folds come from two networks, which differ
    after training although they start from the same weights; and beside so many columns a
    linear model gives little weight to the few of a table. Gradient boosting, which can
    combine single columns of both, may do better with them.

    A cross-validation of a model on the output of `fit_transform` is biased, as with all
    stacking: the labels of its test images have trained networks of other folds.
    Cross-validate the pipeline as a whole.

    Where ``on_error="skip"`` in the `estimator`, images that can't be read are left out
    of training, and become rows of NaN.

    References
    ----------
    D. H. Wolpert, "Stacked generalization", Neural Networks 5, 1992.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.compose import make_column_transformer
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktransfer import FineTunedClassifier, FineTunedTransformer
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> classifier = FineTunedClassifier("mini", recipe="fast", max_epochs=5, **digits)
    >>> tuned = FineTunedTransformer(classifier, cv=2, random_state=0)
    >>> table = np.column_stack([X, np.arange(len(y)) % 7])  # pixels, and a number
    >>> columns = make_column_transformer(
    ...     (tuned, slice(0, 64)), ("passthrough", [64]), verbose_feature_names_out=False
    ... )
    >>> model = make_pipeline(columns, LogisticRegression())
    >>> model.fit(table[:200], y[:200]).score(table[200:], y[200:]) > 0.9
    True
    >>> columns.get_feature_names_out().tolist()
    ['finetunedtransformer_0', 'finetunedtransformer_1', 'finetunedtransformer_2', 'x64']
    """

    _parameter_constraints: dict = {
        "estimator": [FineTunedClassifier, FineTunedRegressor, None],
        "output": [StrOptions({"predictions", "rows"})],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, *, output="predictions", cv=5, random_state=None):
        self.estimator = estimator
        self.output = output
        self.cv = cv
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **params):
        """Train a network on all images.

        Its `transform` of the same images is not for fitting another model: use
        `fit_transform`.

        Parameters
        ----------
        X : sequence of images
            As in :meth:`FineTunedClassifier.fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Labels or numbers.
        **params : dict
            `sample_weight` for the `fit` of the `estimator`. With scikit-learn's metadata
            routing, the `estimator` asks for it with ``set_fit_request``.

        Returns
        -------
        self : FineTunedTransformer
            The fitted transformer.

        Raises
        ------
        TypeError, ValueError
            When a parameter is not allowed, or `y` is not of the kind of the `estimator`.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        self._forget()
        tasks = FitTasks(self, 1, X, y, params.get("sample_weight"))
        y, kind = _checked_targets(y)
        network, _ = self._unfitted(kind)
        of_fit = self._routed("fit", params).estimator.fit
        with tasks.sub_estimator("fit", network):
            network.fit(X, y, **of_fit)
        self._set_fitted(network)
        tasks.end()
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X, y, **params):
        """Train a network on all images and one for each fold; return output of the latter.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            As in `fit`.
        **params : dict
            `sample_weight` as in `fit`, and `groups` for the `split` of `cv`.

        Returns
        -------
        values : ndarray of shape (n_images, `n_features_out_`), float32
            For each image, the output of a network that was trained without it.

        Raises
        ------
        TypeError, ValueError
            As in `fit`; and when `cv` does not hold each image out once, or leaves a class
            without an image to train on.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        self._forget()
        y, kind = _checked_targets(y)
        X, y = indexable(X, y)
        network, seed = self._unfitted(kind)
        routed = self._routed("fit_transform", params)
        folds = checked_folds(
            self.cv,
            X,
            y,
            is_stratified=is_classifier(network) and kind in ("binary", "multiclass"),
            seed=seed,
            weights=routed.estimator.fit.get("sample_weight"),
            split=routed.splitter.split,
        )
        # first, so that what is wrong with an image is reported with its position in X
        tasks = FitTasks(self, 1 + len(folds), X, y, routed.estimator.fit.get("sample_weight"))
        of_all = clone(network)
        with tasks.sub_estimator("fit", of_all):
            of_all.fit(X, y, **routed.estimator.fit)
        network = for_a_fold(network, of_all)
        if y.ndim == 2 and y.shape[1] == 1:  # the fit of all images has warned of it
            y = y.ravel()
        values = np.empty((len(y), width_of(of_all, self.output)), dtype=np.float32)
        for train, test in folds:
            of_fit = _check_method_params(X, routed.estimator.fit, train)
            fitted = clone(network)
            # as it has of these
            with warnings.catch_warnings(), tasks.sub_estimator("fold", fitted):
                warnings.simplefilter("ignore", UnreadableImageWarning)
                fitted.fit(_safe_indexing(X, train), y[train], **of_fit)
                values[test] = values_of(fitted, _safe_indexing(X, test), self.output)
        self._set_fitted(of_all)
        tasks.end()
        return values

    def transform(self, X):
        """Return the output of the network that was trained on all images.

        Parameters
        ----------
        X : sequence of images
            As in `fit`. Not the images of `fit`: see `fit_transform`.

        Returns
        -------
        values : ndarray of shape (n_images, `n_features_out_`), float32

        Raises
        ------
        ImageReadError
            Lists every image that can't be read, with position, path and cause.

        Warns
        -----
        UnreadableImageWarning
            The same list, where the `estimator` has ``on_error="skip"``.
        """
        check_is_fitted(self)
        return values_of(self.estimator_, X, self._output)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored, as scikit-learn's API has it.

        Returns
        -------
        names : ndarray of str
            ``finetunedtransformer_ants`` and so on for the predictions of classes, that of
            the second alone where there are two; else ``finetunedtransformer0`` and so on.
        """
        check_is_fitted(self)
        if self._output != "predictions" or not is_classifier(self.estimator_):
            return super().get_feature_names_out(input_features)
        classes = self.estimator_.classes_
        named = classes[-1:] if self.n_features_out_ == 1 else classes
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}_{label}" for label in named], dtype=object)

    def get_metadata_routing(self):
        """Return what is asked for: by the `fit` of `estimator` and the `split` of `cv`.

        Returns
        -------
        routing : MetadataRouter
        """
        estimator = FineTunedClassifier() if self.estimator is None else self.estimator
        to_fit = MethodMapping().add(caller="fit", callee="fit")
        to_fit.add(caller="fit_transform", callee="fit")
        to_split = MethodMapping().add(caller="fit_transform", callee="split")
        router = MetadataRouter(owner=self).add(estimator=estimator, method_mapping=to_fit)
        return router.add(splitter=self.cv, method_mapping=to_split)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")  # what `fit` sets last

    def __getstate__(self):
        return without_callbacks(super().__getstate__(), is_fitted=self.__sklearn_is_fitted__())

    def _sk_visual_block_(self):
        network = getattr(self, "estimator_", self.estimator)
        if network is None:
            return visual_block("single", self)
        name = "estimator_" if hasattr(self, "estimator_") else "estimator"
        return visual_block("parallel", [network], names=[f"{name}: {type(network).__name__}"])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        estimator = FineTunedClassifier() if self.estimator is None else self.estimator
        tags.input_tags = get_tags(estimator).input_tags
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self):
        return self.n_features_out_

    # what is trained, and on which images

    def _forget(self):
        """Delete what an earlier fit learned: one that fails leaves nothing fitted."""
        for name in [name for name in vars(self) if name.endswith("_") or name == "_output"]:
            delattr(self, name)

    def _set_fitted(self, network):
        self._output = self.output
        self.n_features_out_ = width_of(network, self.output)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))
        self.estimator_ = network

    def _unfitted(self, kind):
        """Return the estimator to train for a kind of `y`, and the seed of this fit."""
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if self.estimator is not None:
            network = clone(self.estimator)
        elif kind in _CLASSES:
            network = FineTunedClassifier()
        elif kind in _NUMBERS:
            network = FineTunedRegressor()
        else:
            raise ValueError(
                f"y is {kind}, and must hold one label an image, a matrix of 0 and 1, or numbers; "
                "where whole numbers are meant as numbers, set estimator=FineTunedRegressor(...)"
            )
        adapt = getattr(network, "adapt", None)
        if adapt is not None:  # held-out images are of the source, and `transform` gets targets
            raise ValueError(
                f"adapt={adapt!r} of the estimator has no place in FineTunedTransformer, whose "
                "folds hold out labelled images; set adapt=None"
            )
        if network.random_state is None:  # one seed for all folds
            network.set_params(random_state=seed)
        return network, seed

    def _routed(self, method, params):
        """Return the metadata for the `fit` of the estimator and the `split` of the splitter."""
        if _routing_enabled():
            routed = process_routing(self, method, **params)
        else:
            groups = params.pop("groups", None)
            split = Bunch(split={"groups": groups})
            routed = Bunch(estimator=Bunch(fit=params), splitter=split)
        if {"X_val", "y_val"} & routed.estimator.fit.keys():
            raise ValueError(
                "X_val can't be given to FineTunedTransformer: the network of each fold holds out "
                "images of its own; leave it out, and set validation_fraction= of the estimator"
            )
        if "sample_domain" in routed.estimator.fit:
            raise ValueError(
                "sample_domain can't be given to FineTunedTransformer, whose folds hold out "
                "labelled images; leave it out, and pass images of the source alone"
            )
        return routed


def _checked_targets(y):
    """Return `y` as an array, and what scikit-learn says it is."""
    if y is None:
        raise ValueError("FineTunedTransformer requires y to be passed, but the target y is None")
    y = y.toarray() if issparse(y) else np.asarray(y)
    return y, type_of_target(y, input_name="y")
