"""A classifier that labels the rows of a target domain by itself, the surest ones first."""

import numbers

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, column_or_1d
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .._documentation_link import DocumentationLinkMixin
from .._domains import (
    DomainAwareClassifierMixin,
    Domains,
    domains_to_predict,
    split_domains,
)
from ._domain_rows import DomainRows
from ._prototypes import DiscriminantPrototypes


class PseudoLabelClassifier(
    DomainAwareClassifierMixin,
    ClassifierMixin,
    MetaEstimatorMixin,
    DocumentationLinkMixin,
    BaseEstimator,
):
    """Classify rows of a target domain, given labels of a source domain.

    The rows of each domain are standardised by themselves. A classifier that was fitted on the
    source labels the target; of each class the surest share of these pseudo-labels is
    kept, and the classifier is fitted again on the source and on what was kept. The share grows
    from iteration to iteration until all target rows are in.

    The labels of target rows are never read.

    Parameters
    ----------
    estimator : classifier with `predict_proba`, default=None
        It is cloned and fitted in each iteration. None is the nearest class mean in the
        space of a linear discriminant analysis with shrinkage, on rows of length 1. A
        logistic regression with a strong penalty does as well where classes overlap.
    n_iter : int, default=10
        Iterations. 0 has no pseudo-labels: the classifier of the source, on rows that are
        standardised domain by domain.
    standardize : bool, default=True
        Whether the rows of each domain get mean 0 and deviation 1 in each column. False is
        for rows that have been made comparable before.
    n_components : int, "auto" or None, default="auto"
        Principal components of all rows together, to which they are reduced; more than there
        are columns is no reduction. ``"auto"`` is one for 16 rows, from 16 to 256. None is no
        reduction.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of the source, sorted.
    estimator_ : classifier
        That of the last iteration, on standardised and reduced rows.
    n_iter_ : int
        Iterations that were made: 0 where there are no target rows.
    n_components_ : int
        Columns of the rows that `estimator_` was fitted on.
    target_positions_ : ndarray of shape (n_target,), dtype intp
        Positions of the target rows in the `X` of `fit`.
    pseudo_labels_ : ndarray of shape (n_target,)
        Labels of the target rows on which `estimator_` was fitted; of the source's classifier
        with ``n_iter=0``.
    confidences_ : ndarray of shape (n_target,), dtype float64
        Probability of each pseudo-label, by the classifier of the iteration before.
    n_selected_ : ndarray of shape (`n_iter_`, n_classes), dtype int64
        Target rows of each class that were kept in each iteration.
    n_changed_ : ndarray of shape (`n_iter_`,), dtype int64
        Pseudo-labels that differ from those of the iteration before, 0 in the first.
    n_features_in_ : int
        Columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame whose column names are strings.

    See Also
    --------
    recalibrate_backbone : Adapts the batch norms of the network that makes the rows.
    sklearn.semi_supervised.SelfTrainingClassifier : For labelled and unlabelled rows of
        one domain.

    Notes
    -----
    What is known of a target row is its standardisation, by the mean and the deviation of
    the target rows in `fit`. `predict` takes rows for those of the target unless
    `sample_domain` says otherwise. Rows of a domain that was not in `fit` are standardised as all
    of its kind, sources or targets, and not by themselves: the prediction of a row
    does not depend on the others.

    Standardising each domain by itself supposes that the classes have about the same shares
    in both. So do the shares that are kept, which are those of the pseudo-labels.

    Pseudo-labels make a good start better and a bad one worse: where the source's classifier is
    right for less than half of the target, they may cost accuracy. No label-free score says for
    sure which it is. Compare with ``n_iter=0`` on a few labelled target rows.

    With the default estimator the fit is deterministic; one of 4,000 rows of 1,280 columns takes
    two seconds on a core.

    References
    ----------
    Q. Wang, T. P. Breckon, "Unsupervised domain adaptation via structured prediction based
    selective pseudo-labeling", AAAI 2020, arXiv 1911.07982. The classifier is a discriminant
    analysis here and not a locality preserving projection, and no clusters are matched.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.domain_adaptation import PseudoLabelClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.permutation(np.arange(180) % 3)
    >>> X = rng.normal(size=(180, 5)) + 4 * np.eye(5)[y]
    >>> sample_domain = np.repeat([1, -1], 90)
    >>> is_target = sample_domain < 0
    >>> X[is_target] = 3 * X[is_target] + 20  # the same classes, seen by another camera
    >>> classifier = PseudoLabelClassifier().fit(X, y, sample_domain=sample_domain)
    >>> float(classifier.score(X[is_target], y[is_target])) > 0.9
    True

    Without `sample_domain`, rows of the label -1 are the target:

    >>> masked = np.where(is_target, -1, y)
    >>> same = PseudoLabelClassifier().fit(X, masked).predict(X[is_target])
    >>> np.array_equal(same, classifier.predict(X[is_target]))
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict_proba"]), None],
        "n_iter": [Interval(numbers.Integral, 0, None, closed="left")],
        "standardize": ["boolean"],
        "n_components": [
            Interval(numbers.Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
    }

    def __init__(self, estimator=None, *, n_iter=10, standardize=True, n_components="auto"):
        self.estimator = estimator
        self.n_iter = n_iter
        self.standardize = standardize
        self.n_components = n_components

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_domain=None):
        """Fit on labelled rows of sources and on unlabelled rows of targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of all domains.
        y : array-like of shape (n_samples,)
            Labels of the sources, of two classes at least. Entries of target rows may have any
            value and are not read.
        sample_domain : array-like of shape (n_samples,), default=None
            The number of each row's domain, above 0 for a source and below 0 for a target.
            None takes rows of the label -1 for the target. Labels of -1 and one other value
            are two classes, and all rows are of the source.

        Returns
        -------
        self : PseudoLabelClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            When a parameter is not allowed, `X` has values that are not finite, there are no
            rows of a source, these have fewer than two classes, or a domain that is standardised
            has one row.
        """
        if y is None:
            raise ValueError(
                "PseudoLabelClassifier requires y to be passed, but the target y is None; give "
                "labels of the source, and any value for rows of the target"
            )
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        domains, labels = _checked_labels(X, y, sample_domain)
        self.classes_, labels = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"the source has one class, {self.classes_.tolist()[0]!r}; a classifier needs two "
                "at least"
            )
        self._rows = DomainRows(self.standardize, self.n_components)
        rows = self._rows.fit_transform(X, domains.sample_domain)
        self.n_components_ = rows.shape[1]
        self.target_positions_ = domains.target
        self._learn(rows[domains.source], labels, rows[domains.target])
        return self

    def predict_proba(self, X, sample_domain=None, allow_source=False):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        sample_domain : int or array-like of shape (n_samples,), default=None
            Numbers of domains, as in `fit`. None is the target for all.
        allow_source : bool, default=False
            Whether rows of sources may be among them.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns are those of `classes_`.

        Raises
        ------
        ValueError
            When rows of sources are among them that are not allowed.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        if sample_domain is not None:
            sample_domain = domains_to_predict(X, sample_domain, allow_source)
        return self.estimator_.predict_proba(self._rows.transform(X, sample_domain))

    def predict(self, X, sample_domain=None, allow_source=False):
        """Return the class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        sample_domain : int or array-like of shape (n_samples,), default=None
            As in `predict_proba`.
        allow_source : bool, default=False
            As in `predict_proba`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            When rows of sources are among them that are not allowed.
        """
        probabilities = self.predict_proba(X, sample_domain, allow_source)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X, y, sample_weight=None, sample_domain=None, allow_source=False):
        """Return the accuracy on labelled rows, of the target unless `sample_domain` differs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        sample_domain : int or array-like of shape (n_samples,), default=None
            As in `predict_proba`.
        allow_source : bool, default=False
            As in `predict_proba`.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            When rows of sources are among them that are not allowed.
        """
        predicted = self.predict(X, sample_domain, allow_source)
        return accuracy_score(y, predicted, sample_weight=sample_weight)

    def _learn(self, source, labels, target):
        """Fit `estimator_`, and set what is known of its iterations."""
        template = DiscriminantPrototypes() if self.estimator is None else self.estimator
        n_classes = len(self.classes_)
        self.n_iter_ = self.n_iter if len(target) else 0
        self.n_selected_ = np.zeros((self.n_iter_, n_classes), dtype=np.int64)
        self.n_changed_ = np.zeros(self.n_iter_, dtype=np.int64)
        self.estimator_ = clone(template).fit(source, self.classes_[labels])
        pseudo, self.confidences_ = self._pseudo_labels(target)
        for i in range(self.n_iter_):
            if i:
                before = pseudo
                pseudo, self.confidences_ = self._pseudo_labels(target)
                self.n_changed_[i] = np.count_nonzero(pseudo != before)
            kept = _surest(pseudo, self.confidences_, n_classes, (i + 1) / self.n_iter_)
            self.n_selected_[i] = np.bincount(pseudo[kept], minlength=n_classes)
            self.estimator_ = clone(template).fit(
                np.concatenate([source, target[kept]]),
                self.classes_[np.concatenate([labels, pseudo[kept]])],
            )
        self.pseudo_labels_ = self.classes_[pseudo]

    def _pseudo_labels(self, target):
        """Return the position of each target row's class, and its probability."""
        if not len(target):
            return np.empty(0, dtype=np.intp), np.empty(0)
        probabilities = self.estimator_.predict_proba(target)
        return probabilities.argmax(axis=1), probabilities.max(axis=1)


def _surest(pseudo, confidences, n_classes, share):
    """Return the positions of the surest share of each class, rounded up."""
    kept = []
    for k in range(n_classes):
        members = np.flatnonzero(pseudo == k)
        # 0.3 * 10 is more than 3 in floats
        n = int(np.ceil(share * len(members) - 1e-9))
        kept.append(members[np.argsort(-confidences[members], kind="stable")[:n]])
    return np.concatenate(kept)


def _checked_labels(X, y, sample_domain) -> tuple[Domains, np.ndarray]:
    """Return which rows are of which domain, and the labels of the source."""
    if not hasattr(y, "__getitem__"):  # no entry can be left unread
        y = np.asarray(y)
    domains = split_domains(X, y, sample_domain)
    labels = _of_classes(domains.source_labels(y)) if len(domains.source) else np.empty(0)
    if sample_domain is None and len(domains.target) and len(np.unique(labels)) == 1:
        # as many write two classes
        domains = split_domains(X, y, masks=None)
        labels = _of_classes(domains.source_labels(y))
    if not len(labels):
        raise ValueError(
            "no row is of a source: all have a sample_domain below 0, or the label -1; give rows "
            "with labels"
        )
    return domains, labels


def _of_classes(labels):
    labels = column_or_1d(labels, warn=True)
    if labels.dtype.kind == "O" and not any(isinstance(label, str) for label in labels):
        labels = np.array(labels.tolist())  # numbers, beside which the target had other objects
    labels = check_array(labels, ensure_2d=False, dtype=None, input_name="y")
    check_classification_targets(labels)
    return labels
