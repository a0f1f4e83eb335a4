"""A search that finds the strategy: pixels, rows with a head, or fine-tuning."""

import copy
import numbers
from collections.abc import Mapping
from time import perf_counter

import numpy as np
from joblib import effective_n_jobs
from sklearn import get_config
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, indexable
from sklearn.utils._param_validation import Interval
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._documentation_link import DocumentationLinkMixin
from .._fine_tuning import FineTunedEstimator
from ..training._recipe import RECIPES
from ._folds import folds_of
from ._heads import Heads, default_heads
from ._limits import Limits
from ._schedule import Schedule
from ._strategies import Strategies, short_names
from ._strategy_table import answer, strategy_table
from ._trials import Trials


class TransferSearchCV(DocumentationLinkMixin, BaseSearchCV):
    """Find the strategy: raw pixels, frozen rows with a linear model, or fine-tuning.

    Strategies are cross-validated in rounds, the cheap ones first, and what can't win any
    more is dropped. It is a search as scikit-learn's are: the best strategy is fitted to all
    images, and predicts.

    Parameters
    ----------
    estimator : FineTunedClassifier or FineTunedRegressor
        Its parameters say which network is used, how images are read, where rows are stored
        and how networks are trained. `recipe` and `freeze_depth` are replaced.
    backbones : list of str or path-like, default=None
        The networks to try. None is that of `estimator`.
    depths : sequence of int and None, default=None
        Depths whose rows are tried, read as slices. None is every stage. All come from one
        forward pass of each image.
    heads : dict of str to estimator, default=None
        Models of the rows by name, the two quickest first. Rows are standardised for them.
        None is, for classes, logistic regressions with four values of C, up to 10 nearest
        neighbours, the nearest mean and two discriminant analyses with shrinkage (LDA), of
        which that of rows of unit length is among the quick ones where a fit has up to 20 images
        of a class, else the neighbours; for labels the first two; for numbers ridge
        regression and nearest neighbours.
    pixels : bool, default=True
        Whether the first of the heads is tried on raw pixels, resized to 32 x 32.
    recipes : sequence of {"fast", "default", "thorough"}, \
default=("fast", "default", "thorough")
        Recipes of fine-tuning, the cheapest first. An empty one tries no fine-tuning.
    freeze_depths : sequence of int, "auto" and None, default=(-1, "auto", 0)
        Where networks are cut for fine-tuning, from most stages frozen to fewest. ``"auto"``
        is that of the recipe.
    max_time : float, default=None
        Seconds after which no further strategy is tried, the fit of the best one included.
        Fine-tuning that would take longer than what is left, as far as the fits before it
        tell, is not tried. A fit under way is not stopped. None is no limit.
    max_fits : int, default=None
        Most fits to folds; at least the number of folds. None is no limit.
    n_std_errors : float, default=2.0
        A strategy is dropped where the mean of its differences to the best one over the
        folds is below zero by more than this many standard errors. None drops nothing: all
        strategies are tried, as far as the limits allow.
    scoring : str, callable, list, tuple or dict, default=None
        As in :class:`~sklearn.model_selection.GridSearchCV`. Of several metrics, that of
        `refit` compares strategies.
    n_jobs : int, default=None
        Fits at the same time, of strategies that are tried in one round.
    refit : bool, str or callable, default=True
        As in :class:`~sklearn.model_selection.GridSearchCV`.
    cv : int, splitter or iterable of (train, test), default=5
        An int is that many folds, shuffled, in the proportions of the classes, and without
        a group in two of them where `fit` is given groups. All strategies get the same folds.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds, where `cv` is an int. Training has that of `estimator`.
    verbose : int, default=0
        As in :class:`~sklearn.model_selection.GridSearchCV`.
    pre_dispatch : int or str, default="2*n_jobs"
        As in :class:`~sklearn.model_selection.GridSearchCV`.
    error_score : "raise" or float, default=nan
        As in :class:`~sklearn.model_selection.GridSearchCV`.
    return_train_score : bool, default=False
        As in :class:`~sklearn.model_selection.GridSearchCV`.

    Attributes
    ----------
    answer_ : str
        The best frozen strategy, and what fine-tuning adds for how many times the time.
    strategies_ : StrategyTable
        What was tried, with scores, times and forward passes, and what was not, and why. It
        prints as a table; ``to_frame()`` is a pandas DataFrame.
    search_time_ : float
        Seconds of the whole fit.
    n_fits_ : int
        Fits to folds.
    cv_results_ : dict of ndarray
        As in :class:`~sklearn.model_selection.GridSearchCV`, with the name of each
        ``strategy``.
    best_estimator_ : Pipeline
        The best strategy, fitted to all images; its last step is named "model". Only with
        `refit`.
    best_score_ : float
        Its mean score over the folds. It is the largest of many, so it is too high: score on
        images that the search has not seen.
    best_params_ : dict
        The steps of the best strategy, not fitted.
    best_index_ : int
        Its position in `cv_results_`.
    scorer_ : callable or dict
        The scorer, or those of several metrics by name.
    n_splits_ : int
        Number of folds.
    refit_time_ : float
        Seconds of the fit to all images. Only with `refit`.
    multimetric_ : bool
        Whether there are several metrics.
    classes_ : ndarray of shape (n_classes,)
        Labels. Only of a classifier, with `refit`.
    n_features_in_ : int
        Columns of `X`; only for 2-D arrays of flattened rows and DataFrames.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Tries a grid of your own, and all of it.
    sktransfer.inspection.StrategyDisplay : Draws score against time.

    Notes
    -----
    The rounds, in which "worse" is by paired comparison (`n_std_errors`):

    1. The first head on raw pixels, and two quick heads on the rows of each depth.
    2. The other heads, at depths where the quick ones are not worse than the best.
    3. Fine-tuning, for backbones that have such a depth, from the first recipe and the first
       cut on. One step further is the next recipe at the same cut, or the next cut with the
       same recipe; the cheapest step is tried first. There is no step from a strategy that is
       worse than the best, or not the best fine-tuning of its backbone so far; and none to the
       third recipe where the second gained no more than one standard error on the best of
       pixels and frozen rows.

    Folds share most of their training images, so standard errors over folds are somewhat too
    small.

    Rows are stored as they are computed (`feature_cache` of `estimator`): a search that was
    interrupted and is started again passes no image through a network of which the rows are
    stored. With ``feature_cache=None`` or ``pixel_range="fit"`` each fit passes its images.

    ``sample_weight`` goes to all fits; heads that take no weights are left out then. A fit
    raises on images that can't be read, also with ``on_error="skip"``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.model_selection import TransferSearchCV
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> classifier = FineTunedClassifier("mini", image_shape=(8, 8), pixel_range=(0, 16))
    >>> search = TransferSearchCV(
    ...     classifier, depths=(None, -1), recipes=(), cv=3, random_state=0
    ... )
    >>> search.fit(X[:60], y[:60]).score(X[60:160], y[60:160]) > 0.9
    True
    >>> search.strategies_[0].status
    'best'
    """

    _parameter_constraints: dict = {
        **BaseSearchCV._parameter_constraints,
        "backbones": ["array-like", None],
        "depths": ["array-like", None],
        "heads": [Mapping, None],
        "pixels": ["boolean"],
        "recipes": ["array-like"],
        "freeze_depths": ["array-like"],
        "max_time": [Interval(numbers.Real, 0, None, closed="neither"), None],
        "max_fits": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "n_std_errors": [Interval(numbers.Real, 0, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        *,
        backbones=None,
        depths=None,
        heads=None,
        pixels=True,
        recipes=("fast", "default", "thorough"),
        freeze_depths=(-1, "auto", 0),
        max_time=None,
        max_fits=None,
        n_std_errors=2.0,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=5,
        random_state=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=float("nan"),
        return_train_score=False,
    ):
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.backbones = backbones
        self.depths = depths
        self.heads = heads
        self.pixels = pixels
        self.recipes = recipes
        self.freeze_depths = freeze_depths
        self.max_time = max_time
        self.max_fits = max_fits
        self.n_std_errors = n_std_errors
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        of_estimator = get_tags(self.estimator)
        tags.input_tags = copy.deepcopy(of_estimator.input_tags)
        tags.target_tags = copy.deepcopy(of_estimator.target_tags)
        return tags

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Try strategies on folds of the images, and fit the best one to all of them.

        Parameters
        ----------
        X : sequence of images
            As in the `fit` of the estimator.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Labels or numbers.
        **params : dict of str to object
            ``groups`` goes to the splitter, ``sample_weight`` to the fits; other ones where
            metadata routing sends them.

        Returns
        -------
        self : TransferSearchCV
            The fitted search.

        Raises
        ------
        TypeError, ValueError
            When a parameter is not allowed, or `X` or `y` don't suit the estimator; when
            every fit failed.
        WeightsError
            When the weights of a backbone can't be loaded.
        ImageReadError
            Lists every image that can't be read, with position, path and cause.
        """
        start = perf_counter()
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self._check_choices()
        X, y = self._checked(X, y)
        is_weighted, split_params = self._routed(params)
        folds = folds_of(
            self.cv,
            X,
            y,
            split_params,
            is_classifier=is_classifier(self.estimator),
            random_state=self.random_state,
        )
        if self.max_fits is not None and self.max_fits < len(folds):
            raise ValueError(
                f"max_fits={self.max_fits} is less than the {len(folds)} folds, so that no "
                f"strategy can be tried; use max_fits={len(folds)} or more, or fewer folds"
            )
        # scikit-learn's search over a pipeline whose steps are what is searched
        search = copy.copy(self)
        search.estimator = Pipeline([("model", self.estimator)])
        search.cv = folds
        search._images = X
        search._strategies = self._make_strategies(y, folds, is_weighted)
        params = {name: value for name, value in params.items() if name != "groups"}
        super(TransferSearchCV, search).fit(X, y, **params)
        for name, value in vars(search).items():
            if name.endswith("_") and not name.startswith("_"):
                setattr(self, name, value)
        self.search_time_ = perf_counter() - start
        return self

    @property
    def transform(self):
        """Not there: most of the models that are tried have none.

        That of a discriminant analysis with the solver "lsqr" would only raise.
        """
        raise AttributeError(
            "TransferSearchCV has no transform: it chooses models that predict; see best_estimator_"
        )

    def _run_search(self, evaluate_candidates):
        strategies, n_at_once = self._strategies, effective_n_jobs(self.n_jobs)
        # of the folds that `fit` has listed; scikit-learn 1.6 sets n_splits_ after this only
        limits = Limits(self.max_time, self.max_fits, len(self.cv), n_at_once, bool(self.refit))
        trials = Trials(evaluate_candidates, limits, self.refit, n_at_once == 1)
        template = self.estimator.steps[0][1]
        backbones = [template.backbone] if self.backbones is None else self.backbones
        Schedule(trials, self.n_std_errors).run(
            strategies.pixels() if self.pixels else None,
            [
                strategies.of_backbone(*of, self.depths, self.recipes, self.freeze_depths)
                for of in zip(backbones, short_names(backbones), strict=True)
            ],
            self._images,
        )
        self.strategies_ = strategy_table(trials, trials.metric, self.n_std_errors)
        self.answer_ = answer(trials)
        self.n_fits_ = limits.n_fits

    def _check_choices(self):
        if not isinstance(self.estimator, FineTunedEstimator):
            raise TypeError(
                "estimator must be a FineTunedClassifier or a FineTunedRegressor, whose "
                f"parameters say how images are read; got {type(self.estimator).__name__}"
            )
        unknown = [recipe for recipe in self.recipes if recipe not in RECIPES]
        if unknown:
            raise ValueError(
                f"recipes must be of {', '.join(map(repr, RECIPES))}, got {unknown[0]!r}"
            )
        for name in ("backbones", "heads", "freeze_depths"):
            value = getattr(self, name)
            is_needed = name != "freeze_depths" or len(self.recipes) > 0
            if value is not None and len(value) == 0 and is_needed:
                raise ValueError(f"{name} must not be empty; use None for the default")
        if (
            not self.pixels
            and not len(self.recipes)
            and self.depths is not None
            and not self.depths
        ):
            raise ValueError(
                "nothing is left to try: pixels=False, depths and recipes are empty; give one of "
                "them"
            )

    def _checked(self, X, y):
        """Check both as the estimator does it; one column of `y` becomes a 1-D array."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        (X,), (y,) = indexable(X), indexable(y)
        estimator = clone(self.estimator)
        estimator._validate_images(X, reset=True)
        estimator._check_named_targets(y, reset=True)
        check_consistent_length(X, y)
        return X, column_or_1d(y) if np.ndim(y) == 2 and np.shape(y)[1] == 1 else y

    def _routed(self, params):
        """Return whether images have weights, and what goes to the splitter."""
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **params)
            return bool(routed.estimator.fit), routed.splitter.split
        unknown = params.keys() - {"groups", "sample_weight"}
        if unknown:
            raise TypeError(
                f"fit takes groups and sample_weight, got {sorted(unknown)[0]!r}; other "
                "parameters need metadata routing: "
                "sklearn.set_config(enable_metadata_routing=True)"
            )
        return params.get("sample_weight") is not None, {"groups": params.get("groups")}

    def _make_strategies(self, y, folds, is_weighted):
        smallest = min((train for train, _ in folds), key=len)
        n_images = len(smallest)
        if self.heads is None:
            is_multilabel = type_of_target(y) == "multilabel-indicator"
            is_classes = is_classifier(self.estimator) and not is_multilabel
            # of the fit: an episode may have a few of all classes
            n_classes = len(np.unique(np.asarray(y)[smallest])) if is_classes else 1
            heads = default_heads(is_classifier(self.estimator), is_multilabel, n_classes, n_images)
        else:
            heads = Heads(self.heads)
        if is_weighted:
            heads = heads.that_take_weights()
        return Strategies(self.estimator, heads, n_images, is_weighted)

    def _get_routed_params_for_fit(self, params):
        routed = super()._get_routed_params_for_fit(params)
        of_fit = routed.estimator.fit
        if not get_config()["enable_metadata_routing"] and "sample_weight" in of_fit:
            # a pipeline takes it by the name of the step
            of_fit["model__sample_weight"] = of_fit.pop("sample_weight")
        return routed
