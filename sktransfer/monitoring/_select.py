"""Which images to label: the most diverse, the most novel, or the least certain."""

import numbers

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_array

from ._novelty_detector import NoveltyDetector
from ._novelty_scores import normalised

_BY = ("diverse", "novel", "uncertain")


@validate_params(
    {
        "rows": ["array-like"],
        "n": [Interval(numbers.Integral, 1, None, closed="left")],
        "by": [StrOptions(set(_BY))],
        "labelled": ["array-like", None],
        "probabilities": ["array-like", None],
        "n_candidates": [Interval(numbers.Integral, 1, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)
def select_to_label(rows, n, *, by="diverse", labelled=None, probabilities=None, n_candidates=None):
    """Return the positions of the rows that are most worth a label.

    Parameters
    ----------
    rows : array-like of shape (n_samples, n_features)
        Rows of images without labels, such as
        :class:`~sktransfer.PretrainedFeatureTransformer` returns.
    n : int
        How many to choose, at most as many as there are rows.
    by : {"diverse", "novel", "uncertain"}, default="diverse"
        ``"diverse"`` covers the rows: each next one is the one that is farthest from those
        that are labelled or chosen (k-centre greedy). ``"novel"`` are those farthest
        from their nearest `labelled` rows. ``"uncertain"`` are those whose two likeliest
        classes are nearest to each other in probability.
    labelled : array-like of shape (n_labelled, n_features), default=None
        Rows of the images that have labels; needed by ``"novel"``. ``"diverse"`` without
        them starts at the row that is nearest to the mean of all.
    probabilities : array-like of shape (n_samples, n_classes), default=None
        Predicted probabilities of the rows; needed by ``"uncertain"``.
    n_candidates : int, default=None
        Choose the most diverse `n` of this many most novel or least certain ones: those that
        are most alike otherwise come together. None is `n`, so that diversity does not count.

    Returns
    -------
    positions : ndarray of shape (n,), dtype int64
        Positions in `rows`, in the order of choice.

    Raises
    ------
    ValueError
        When a parameter is not allowed or is missing for `by`, or numbers do not fit.

    See Also
    --------
    NoveltyDetector : The scores of ``"novel"``.

    Notes
    -----
    Rows are normalised as in :class:`NoveltyDetector`. Equal distances are decided by
    position; the choice is deterministic. It takes `n` passes over the rows.

    References
    ----------
    O. Sener, S. Savarese, "Active learning for convolutional neural networks: a core-set
    approach", ICLR 2018, arXiv 1708.00489.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.monitoring import select_to_label
    >>> rows = np.array([[1, 0], [0.99, 0.01], [0, 1], [0.02, 0.98], [-1, 0.1]])
    >>> select_to_label(rows, 2, labelled=[[1, 0]])
    array([4, 3])
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9], [0.4, 0.6]]
    >>> select_to_label(rows, 2, by="uncertain", probabilities=probabilities)
    array([2, 4])
    """
    rows = check_array(rows, dtype=[np.float32, np.float64], input_name="rows")
    if n > len(rows):
        raise ValueError(f"n={n} is more than the {len(rows)} rows there are")
    if labelled is not None:
        labelled = check_array(labelled, dtype=[np.float32, np.float64], input_name="labelled")
        if labelled.shape[1] != rows.shape[1]:
            raise ValueError(
                f"labelled has {labelled.shape[1]} columns and rows has {rows.shape[1]}; pass rows "
                "of one network"
            )
    if by == "diverse":
        if n_candidates is not None:
            raise ValueError(
                "n_candidates chooses among the most novel or least certain rows, and has no "
                "meaning with by='diverse'"
            )
        return _diverse(rows, n, labelled)
    n_candidates = n if n_candidates is None else n_candidates
    if not n <= n_candidates <= len(rows):
        raise ValueError(
            f"n_candidates={n_candidates} must be from n={n} to the {len(rows)} rows there are"
        )
    scores = _novelty(rows, labelled) if by == "novel" else _uncertainty(rows, probabilities)
    candidates = np.argsort(-scores, kind="stable")[:n_candidates]
    if n_candidates == n:
        return candidates
    return candidates[_diverse(rows[candidates], n, labelled)]


def _novelty(rows, labelled):
    if labelled is None or len(labelled) < 2:
        raise ValueError("by='novel' needs labelled, two rows at least, to be unlike of")
    return -NoveltyDetector().fit(labelled).score_samples(rows)


def _uncertainty(rows, probabilities):
    if probabilities is None:
        raise ValueError(
            "by='uncertain' needs probabilities, those of a classifier's predict_proba"
        )
    probabilities = check_array(probabilities, input_name="probabilities", ensure_min_features=2)
    if len(probabilities) != len(rows):
        raise ValueError(
            f"probabilities has {len(probabilities)} rows and rows has {len(rows)}; give one for "
            "each"
        )
    two = np.sort(probabilities, axis=1)[:, -2:]
    return two[:, 0] - two[:, 1]


def _diverse(rows, n, labelled):
    """Return `n` positions, each next one farthest from those before it."""
    rows = normalised(rows)
    if labelled is None:
        first = int(np.argmin(np.linalg.norm(rows - rows.mean(axis=0), axis=1)))
        chosen = [first]
        distances = np.linalg.norm(rows - rows[first], axis=1)
    else:
        chosen = []
        _, distances = pairwise_distances_argmin_min(rows, normalised(labelled))
    distances[chosen] = -1  # never again
    while len(chosen) < n:
        farthest = int(np.argmax(distances))
        chosen.append(farthest)
        np.minimum(distances, np.linalg.norm(rows - rows[farthest], axis=1), out=distances)
        distances[farthest] = -1
    return np.array(chosen, dtype=np.int64)
