"""Rows of several domains made comparable: each domain standardised, all reduced together."""

import numpy as np
from sklearn.decomposition import PCA

# Principal components with n_components="auto": the within-class covariance that follows is
# estimated from as many rows as there are for each.
_ROWS_A_COMPONENT = 16
_MOST, _LEAST = 256, 16


class DomainRows:
    """Standardise the rows of each domain by themselves, and reduce all rows together.

    Parameters
    ----------
    standardize : bool
        False leaves means and deviations as they are.
    n_components : int, "auto" or None
        Principal components of all rows; None is no reduction.
    """

    def __init__(self, standardize: bool, n_components: int | str | None):
        self._standardize = standardize
        self._n_components = n_components
        self._pca: PCA | None = None
        # mean and deviation by the number of a domain, and of all sources and all targets
        self._by_number: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._of_sources: tuple[np.ndarray, np.ndarray]
        self._of_targets: tuple[np.ndarray, np.ndarray]

    def fit_transform(self, X: np.ndarray, sample_domain: np.ndarray) -> np.ndarray:
        """Learn from rows (n_samples, n_features) of all domains, and return them changed."""
        found, counts = np.unique(sample_domain, return_counts=True)
        if self._standardize and counts.min() < 2:
            raise ValueError(
                f"the domain {found[counts.argmin()]} has one row, and so no deviation to "
                "standardise it by; give two rows of it at least, better some dozens, or the "
                "number of a domain that is like it, or set standardize=False"
            )
        self._by_number = {int(number): _moments(X[sample_domain == number]) for number in found}
        sources, targets = X[sample_domain > 0], X[sample_domain < 0]
        self._of_sources = _moments(sources if len(sources) else X)
        self._of_targets = _moments(targets if len(targets) else X)
        rows = self._standardized(X, sample_domain)
        n_components = self._n_to_keep(*X.shape)
        if n_components < X.shape[1]:
            # neither solver draws numbers
            solver = "covariance_eigh" if len(X) > X.shape[1] else "full"
            self._pca = PCA(n_components, svd_solver=solver)
            rows = self._pca.fit_transform(rows)
        return rows

    def transform(self, X: np.ndarray, sample_domain: np.ndarray | None) -> np.ndarray:
        """Return rows as those of `fit` were changed.

        `sample_domain` of None is a target for all, whichever. A number that was not fitted
        is standardised as all fitted sources or all fitted targets together.
        """
        if sample_domain is None:
            rows = (X - self._of_targets[0]) / self._of_targets[1] if self._standardize else X
        else:
            rows = self._standardized(X, sample_domain)
        return rows if self._pca is None else self._pca.transform(rows)

    def _standardized(self, X: np.ndarray, sample_domain: np.ndarray) -> np.ndarray:
        if not self._standardize:
            return X
        rows = np.empty_like(X)
        for number in np.unique(sample_domain):
            together = self._of_sources if number > 0 else self._of_targets
            mean, deviation = self._by_number.get(int(number), together)
            here = sample_domain == number
            rows[here] = (X[here] - mean) / deviation
        return rows

    def _n_to_keep(self, n_samples: int, n_features: int) -> int:
        if self._n_components is None:
            return n_features
        if self._n_components == "auto":
            wanted = min(_MOST, max(_LEAST, n_samples // _ROWS_A_COMPONENT))
        else:
            wanted = int(self._n_components)
        return min(wanted, n_samples, n_features)


def _moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each column; a constant column has deviation 1."""
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    # rounding alone makes the deviation of a constant column of large numbers larger than 0
    is_constant = deviation <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
    return mean, np.where(is_constant, 1.0, deviation)
