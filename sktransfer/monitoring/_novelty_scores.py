"""How unlike the fitted rows a row is.

Each model scores the fitted rows as well, each of them left out: its score is that of a model
which was fitted on the others. A threshold that is set on these scores holds for new rows.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

# Of each covariance, the part that is replaced by a multiple of the identity. With few images a
# class, in hundreds of dimensions, the directions of least variance are those of the sample;
# chosen on CIFAR-10 with 60 and 200 images of each of six classes, where 0.5 to 0.95 are alike.
_SHRINKAGE = 0.8


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return the signed square roots of the values, each row of length 1.

    Activations have few large values and many small ones; the square root makes them count
    alike (F. Perronnin et al., "Improving the Fisher kernel for large-scale image
    classification", ECCV 2010).
    """
    return normalize(np.sign(rows) * np.sqrt(np.abs(rows)))


class NearestNeighbourScores:
    """Minus the mean distance to the nearest fitted rows, all of them normalised.

    Parameters
    ----------
    n_neighbors : int
        How many; at most as many as there are other rows.
    """

    def __init__(self, n_neighbors: int):
        self.n_neighbors = n_neighbors

    def fit(self, rows: np.ndarray) -> np.ndarray:
        """Fit on `rows` (n, n_features); return the score of each, left out."""
        n_nearest = min(self.n_neighbors, len(rows) - 1)
        # In many dimensions trees have nothing to prune.
        self._index = NearestNeighbors(n_neighbors=n_nearest, algorithm="brute")
        self._index.fit(normalised(rows))
        distances, _ = self._index.kneighbors()  # without a query, a row is no neighbour of itself
        return -distances.mean(axis=1, dtype=np.float64)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the score (n,) of each row: the lower, the more unlike the fitted ones."""
        distances, _ = self._index.kneighbors(normalised(rows))
        return -distances.mean(axis=1, dtype=np.float64)


class _Gaussian:
    """Rows about their means: squared distances by one covariance, with and without a row.

    The covariance is ``weight`` times the sum of the outer products of the rows, and ``ridge``
    in each direction. Both stay as they are when a row is left out, so what is left is a
    downdate of rank one.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, weight: float, ridge: float):
        self.counts = np.bincount(labels)
        self.weight, self.ridge = weight, ridge
        self.means = _means(rows, labels)
        self.directions, variances = _principal(rows - self.means[labels], weight)
        # what the inverse has along them beyond that of the ridge alone
        self.gains = 1 / (variances + ridge) - 1 / ridge
        self.of_means = np.einsum("ij,ij->i", self.means, self._times_inverse(self.means))

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Return the squared distances (n, n_means)."""
        times_inverse = self._times_inverse(rows)
        own = np.einsum("ij,ij->i", rows, times_inverse)
        return own[:, None] - 2 * times_inverse @ self.means.T + self.of_means

    def distances_left_out(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the squared distances (n, n_means) of the fitted rows, each left out.

        By the formula of Sherman and Morrison. Where the row is the only one of its mean,
        there is no such mean without it: the distance is infinite.
        """
        distances = self.distances(rows)
        own = np.arange(len(rows)), labels
        n = self.counts[labels].astype(np.float64)
        is_only = n == 1
        grow = n / np.where(is_only, 1, n - 1)  # of the distance to its own mean, without it
        deviation = rows - self.means[labels]
        times_inverse = self._times_inverse(deviation)
        length = np.einsum("ij,ij->i", deviation, times_inverse)
        removed = np.where(is_only, 0, self.weight * grow)
        gain = removed / np.maximum(1 - removed * length, np.finfo(np.float64).tiny)
        along = np.einsum("ij,ij->i", rows, times_inverse)[:, None] - times_inverse @ self.means.T
        left_out = distances + gain[:, None] * along**2
        left_out[own] = np.where(is_only, np.inf, grow**2 * (length + gain * length**2))
        return left_out

    def _times_inverse(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows times the inverse of the covariance."""
        return rows / self.ridge + (rows @ self.directions * self.gains) @ self.directions.T


class MahalanobisScores:
    """Minus the Mahalanobis distance to the nearest class, relative to that to all rows or not.

    The squared distance to the mean of a class, with one covariance for all classes; and the same
    less the squared distance to the mean of all rows: what is unusual in any image does not
    count, and only what tells the classes apart is left. Both covariances are regularised
    alike, so that the differences between them are those between the classes.

    Parameters
    ----------
    only_relative : bool
        Whether the score is the relative distance alone, or the sum of both, each in units
        of its standard deviation over the fitted rows.
    """

    def __init__(self, only_relative: bool):
        self.only_relative = only_relative

    def fit(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Fit on `rows` of classes 0 to n - 1; return the score of each row, left out."""
        rows = normalised(rows.astype(np.float64))
        together = np.zeros(len(rows), dtype=np.intp)
        variance = ((rows - _means(rows, labels)[labels]) ** 2).mean()
        # rows that do not differ within any class have no scale: then any distance will do
        ridge = _SHRINKAGE * max(float(variance), np.finfo(np.float64).eps)
        weight = (1 - _SHRINKAGE) / len(rows)
        self._classes = _Gaussian(rows, labels, weight, ridge)
        self._all = _Gaussian(rows, together, weight, ridge)
        nearest = self._classes.distances_left_out(rows, labels).min(axis=1)
        relative = nearest - self._all.distances_left_out(rows, together)[:, 0]
        self._units = [max(float(of.std()), np.finfo(np.float64).eps) for of in (nearest, relative)]
        return self._joined(nearest, relative)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the score (n,) of each row: the lower, the more unlike the fitted ones."""
        rows = normalised(rows.astype(np.float64))
        nearest = self._classes.distances(rows).min(axis=1)
        return self._joined(nearest, nearest - self._all.distances(rows)[:, 0])

    def _joined(self, nearest: np.ndarray, relative: np.ndarray) -> np.ndarray:
        if self.only_relative:
            return -relative
        return -(nearest / self._units[0] + relative / self._units[1])


def _means(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, labels, rows)
    return sums / counts[:, None]


def _principal(deviations: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions, as columns, in which rows deviate, and ``weight`` times their sums."""
    if len(deviations) < deviations.shape[1]:
        _, lengths, directions = np.linalg.svd(deviations, full_matrices=False)
        return directions.T, weight * lengths**2
    values, directions = np.linalg.eigh(weight * (deviations.T @ deviations))
    return directions, np.maximum(values, 0)
