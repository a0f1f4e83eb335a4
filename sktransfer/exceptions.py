"""Errors and warnings of sktransfer, each with one meaning."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sklearn.exceptions import InconsistentVersionWarning as _InconsistentVersionWarning


class ImageFailure(NamedTuple):
    """One image that can't be read: its position in ``X``, its source, and the cause."""

    position: int
    source: str
    reason: str

    def __str__(self) -> str:
        return f"X[{self.position}] {self.source}: {self.reason}"


class ImageReadError(ValueError):
    """Images of ``X`` can't be read.

    Attributes
    ----------
    failures : tuple of ImageFailure
        Every image of the call that can't be read: ``position`` in ``X``,
        ``source`` (its path, or what it is), ``reason``.
    """

    _SHOWN = 10  # lines of the message; `failures` holds all

    def __init__(self, failures: Sequence[ImageFailure], n_images: int):
        self.failures = tuple(ImageFailure(*failure) for failure in failures)
        self.n_images = n_images
        super().__init__(self.failures, n_images)

    def __str__(self) -> str:
        lines = [f"{len(self.failures)} of {self.n_images} images can't be read:"]
        reasons = {failure.reason for failure in self.failures}
        if len(reasons) == 1 and len(self.failures) > self._SHOWN:
            lines[0] = f"{lines[0]} {reasons.pop()}"  # one mistake, made for all
        lines += [f"  {failure}" for failure in self.failures[: self._SHOWN]]
        left = len(self.failures) - self._SHOWN
        if left > 0:
            lines.append(f"  ... and {left} more (see the attribute `failures`)")
        if len(self.failures) < self.n_images:  # else it is no matter of single images
            lines.append(
                "Positions are those in the X of this call, which may be a fold. Leave these "
                "images out: sktransfer.hygiene.check_images(X) finds them in all of X"
            )
        return "\n".join(lines)


class UnreadableImageWarning(UserWarning):
    """Images can't be read and were left out, or became rows of NaN."""


class WeightsError(ValueError):
    """Weights don't fit the architecture, are damaged, or can't be read safely."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """Weights are not on this machine and can't be downloaded."""


class FeatureCacheWarning(UserWarning):
    """The feature cache can't do all it should: it is full, damaged, too small, or read-only."""


class GpuWaitWarning(UserWarning):
    """A process waits for a GPU that another one uses, and goes on waiting."""


class SlowFitWarning(UserWarning):
    """A fit takes minutes, as its first steps tell; a search takes that for each candidate."""


class InconsistentVersionWarning(_InconsistentVersionWarning):
    """An estimator is loaded by another version of sktransfer than saved it.

    A subclass of scikit-learn's warning of that name, so that one filter matches both.

    Attributes
    ----------
    estimator_name : str
    saved, installed : dict
        Versions by package: those that the estimator was saved with, and those here.
    """

    def __init__(self, estimator_name: str, saved: Mapping[str, str], installed: Mapping[str, str]):
        self.saved = dict(saved)
        self.installed = dict(installed)
        super().__init__(
            estimator_name=estimator_name,
            current_sklearn_version=installed["scikit-learn"],
            original_sklearn_version=saved.get("scikit-learn", "unknown"),
        )

    def __str__(self) -> str:
        differences = ", ".join(
            f"{package} {self.saved.get(package, 'unknown')} (here {here})"
            for package, here in self.installed.items()
            if self.saved.get(package) != here
        )
        return (
            f"{self.estimator_name} was saved with {differences}. It may not load, or predict "
            "otherwise than it did; save it again with this version, or load it with the old one"
        )


class DecodeError(Exception):
    """One image can't be read; the message is the cause. Callers add its position."""
