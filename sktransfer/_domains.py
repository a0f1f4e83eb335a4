"""The contract of skada: which images are of a source domain, and which of a target domain."""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import _num_samples

# skada's numbers where `sample_domain` is not given
SOURCE = 1
TARGET = -2

_MASKED_CLASS = -1  # a label that is not known; of numbers NaN


class DomainAwareMixin:
    """The requests of metadata that skada's base classes declare.

    A pipeline of skada passes `sample_domain` on to an estimator that requests it; from
    others it takes the rows without labels away.
    """

    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__predict = {"sample_domain": True, "allow_source": True}
    __metadata_request__score = {"sample_domain": True, "allow_source": True}


class DomainAwareClassifierMixin(DomainAwareMixin):
    """The same for classifiers with probabilities and decisions."""

    __metadata_request__predict_proba = {"sample_domain": True, "allow_source": True}
    __metadata_request__decision_function = {"sample_domain": True, "allow_source": True}


class Domains(NamedTuple):
    """Which of the rows of `fit` belong to which domain.

    Attributes
    ----------
    sample_domain : ndarray of shape (n_samples,), int64
        The number of each row's domain, above 0 for a source and below 0 for a target.
    source : ndarray of shape (n_source,), intp
        Positions of the rows of sources, in their order.
    target : ndarray of shape (n_target,), intp
        Positions of the rows of targets, in their order.
    """

    sample_domain: np.ndarray
    source: np.ndarray
    target: np.ndarray

    def source_labels(self, y: Any) -> Any:
        """Return the labels of the source, of the type of `y`; those of targets are not read."""
        if _num_samples(y) != len(self.sample_domain):
            raise ValueError(
                f"y has {_num_samples(y)} entries, X has {len(self.sample_domain)}; give one for "
                "each row, whatever value for those of targets"
            )
        return _safe_indexing(y, self.source)

    def target_in(self, positions: np.ndarray) -> np.ndarray:
        """Return which of some positions are those of targets."""
        return self.sample_domain[positions] < 0


def split_domains(
    X: Any, y: Any = None, sample_domain: Any = None, *, masks: str | None = "classes"
) -> Domains:
    """Return the positions of source and target rows in the arguments of a `fit`.

    Parameters
    ----------
    X : sequence or array of shape (n_samples, ...)
        The rows. Their number is all that is read.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        The labels. Where `sample_domain` is given nothing of them is read.
    sample_domain : int or array-like of shape (n_samples,), default=None
        Numbers of domains, above 0 for sources and below 0 for targets; one number is
        that of all rows. None takes rows with a masked label for targets, and all others
        for sources.
    masks : {"classes", "numbers", None}, default="classes"
        What a masked label is, where `sample_domain` is None: -1 among labels that are
        numbers, NaN among numbers. In more than one column all of them are. None has
        no masks: all rows are sources. Labels of text are never masked.

    Returns
    -------
    domains : Domains
        The domain of each row, and the positions.

    Raises
    ------
    ValueError
        When the number of domains is not that of the rows, or one of them is 0 or no integer.
    """
    n = _num_samples(X)
    if sample_domain is not None:
        numbers = _checked(sample_domain, n)
    elif masks is None or y is None:
        numbers = np.full(n, SOURCE, dtype=np.int64)
    else:
        numbers = np.where(_masked(y, masks), TARGET, SOURCE).astype(np.int64)
        if len(numbers) != n:
            raise ValueError(f"y has {len(numbers)} entries, X has {n}; give one for each row")
    return Domains(numbers, np.flatnonzero(numbers > 0), np.flatnonzero(numbers < 0))


def domains_to_predict(X: Any, sample_domain: Any = None, allow_source: bool = False) -> np.ndarray:
    """Return the number of the domain of each row to predict.

    Parameters
    ----------
    X : sequence or array of shape (n_samples, ...)
        The rows. Their number is all that is read.
    sample_domain : int or array-like of shape (n_samples,), default=None
        Numbers of domains. None is a target for all.
    allow_source : bool, default=False
        Whether rows of sources may be among them.

    Returns
    -------
    sample_domain : ndarray of shape (n_samples,), int64
        Above 0 for sources and below 0 for targets.

    Raises
    ------
    ValueError
        When rows of sources are among them that are not allowed; else as in
        :func:`split_domains`.
    """
    n = _num_samples(X)
    if sample_domain is None:
        return np.full(n, TARGET, dtype=np.int64)
    numbers = _checked(sample_domain, n)
    is_source = numbers > 0
    if is_source.any() and not allow_source:
        raise ValueError(
            f"sample_domain has {np.count_nonzero(is_source)} rows of sources among {n}, the "
            f"first at position {is_source.argmax()}, and allow_source=False; pass "
            "allow_source=True to predict or score them too, or leave them out"
        )
    return numbers


def _checked(sample_domain: Any, n: int) -> np.ndarray:
    """Return numbers of domains, one for each of `n` rows."""
    if np.ndim(sample_domain) == 0:
        sample_domain = np.full(n, sample_domain)
    numbers = check_array(
        sample_domain, ensure_2d=False, dtype="numeric", input_name="sample_domain"
    )
    if numbers.ndim != 1:
        raise ValueError(
            f"sample_domain must have one number for each row, got the shape {numbers.shape}"
        )
    if len(numbers) != n:
        raise ValueError(f"sample_domain has {len(numbers)} entries, X has {n}; give one each row")
    is_bad = (numbers == 0) | (numbers != np.round(numbers))
    if is_bad.any():
        position = is_bad.argmax()
        raise ValueError(
            "sample_domain must be integers, above 0 for sources and below 0 for targets, got "
            f"{numbers[position]} at position {position}"
        )
    return numbers.astype(np.int64)


def _masked(y: Any, masks: str) -> np.ndarray:
    """Return which rows have no label."""
    if issparse(y):
        y = y.toarray()
    values = np.array(y, dtype=object) if isinstance(y, (list, tuple)) else np.asarray(y)
    if values.dtype.kind == "O":  # "-1" is a label of text, and not a mask
        is_mask = np.frompyfunc(_is_mask_of[masks], 1, 1)(values).astype(bool)
    elif values.dtype.kind not in "iuf":
        is_mask = np.zeros(values.shape, dtype=bool)
    elif masks == "classes":
        is_mask = values == _MASKED_CLASS
    else:
        is_mask = np.isnan(values)
    return is_mask.all(axis=tuple(range(1, is_mask.ndim)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


_is_mask_of = {
    "classes": lambda value: _is_number(value) and value == _MASKED_CLASS,
    "numbers": lambda value: _is_number(value) and value != value,
}
