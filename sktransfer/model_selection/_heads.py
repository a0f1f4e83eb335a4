"""The models that are fitted to rows, by name; the first two are quick."""

from collections.abc import Mapping

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.validation import has_fit_parameter

_MAX_ITER = 1000
_N_NEIGHBOURS = 10
# With so few images of each class a discriminant analysis is quick, and its scores are among the
# best (benchmarks/bench_few_shot.py).
_FEW_OF_A_CLASS = 20
# Inverse strengths of the penalty on standardised rows, the best one in the mean first
_C = (0.01, 0.001, 0.1, 1.0)
_ALPHAS = np.logspace(0, 5, 11)


class Heads(Mapping[str, BaseEstimator]):
    """Models by name, in the order in which they are tried.

    Parameters
    ----------
    models : dict of str to estimator
    without_scaling : set of str
        Names of the models whose rows are not standardised.
    """

    def __init__(
        self, models: Mapping[str, BaseEstimator], without_scaling: frozenset[str] = frozenset()
    ):
        self._models = dict(models)
        self._without_scaling = without_scaling

    def __getitem__(self, name: str) -> BaseEstimator:
        return self._models[name]

    def __iter__(self):
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def that_take_weights(self) -> "Heads":
        """Return those whose `fit` takes weights of images."""
        taking = {n: m for n, m in self.items() if has_fit_parameter(m, "sample_weight")}
        return Heads(taking, self._without_scaling)

    def is_scaled(self, name: str) -> bool:
        """Return whether the rows of a model are standardised."""
        return name not in self._without_scaling


def default_heads(is_classifier: bool, is_multilabel: bool, n_classes: int, n_images: int) -> Heads:
    """Return the models for classes, labels or numbers.

    Parameters
    ----------
    is_classifier, is_multilabel : bool
    n_classes : int
        Number of classes; of labels and numbers 1.
    n_images : int
        Images of a fit.
    """
    n_of_a_class = n_images / n_classes
    n_neighbours = max(1, int(min(_N_NEIGHBOURS, n_of_a_class)))
    nearest = {"n_neighbors": n_neighbours, "metric": "cosine"}
    if not is_classifier:
        models = {"ridge": RidgeCV(_ALPHAS), "kNN": KNeighborsRegressor(**nearest)}
        return Heads(models, frozenset({"kNN"}))
    linear = {
        f"logistic regression C={C:g}": LogisticRegression(C=C, max_iter=_MAX_ITER) for C in _C
    }
    first, *others = linear.items()
    knn = KNeighborsClassifier(**nearest)
    if is_multilabel:
        models = {
            first[0]: OneVsRestClassifier(first[1]),
            "kNN": knn,
            **{name: OneVsRestClassifier(model) for name, model in others},
        }
        return Heads(models, frozenset({"kNN"}))
    if n_of_a_class <= 1:  # variation within classes is not known
        return Heads({first[0]: first[1], "kNN": knn, **dict(others)}, frozenset({"kNN"}))
    of_unit_length = make_pipeline(Normalizer(), _discriminant_analysis(shrinkage=0.5))
    quick, later = {"kNN": knn}, {"LDA of unit length": of_unit_length}
    if n_of_a_class <= _FEW_OF_A_CLASS:
        quick, later = later, quick
    # rows of one scale: the distance to a mean, and between two rows, is that of the network
    return Heads(
        {
            first[0]: first[1],
            **quick,
            # with a covariance that is the same in all directions
            "nearest mean": _discriminant_analysis(shrinkage=1.0),
            **later,
            "LDA": _discriminant_analysis(covariance_estimator=LedoitWolf()),
            **dict(others),
        },
        frozenset({"nearest mean", "kNN", "LDA of unit length"}),
    )


def _discriminant_analysis(**parameters) -> BaseEstimator:
    """Return a linear discriminant analysis in the span of the images.

    Where they are fewer than columns, it is the same model in a twentieth of the time.
    """
    model = LinearDiscriminantAnalysis(solver="lsqr", **parameters)
    return make_pipeline(PCA(random_state=0), model)
