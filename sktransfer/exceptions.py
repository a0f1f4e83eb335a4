"""Errors and warnings of sktransfer, each with one meaning."""

from collections.abc import Sequence
from typing import NamedTuple


class ImageFailure(NamedTuple):
    """One image that can't be read: where it stands in ``X``, what it is, and why."""

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
        return "\n".join(lines)


class UnreadableImageWarning(UserWarning):
    """Images can't be read and were left out, or became rows of NaN, as asked."""


class WeightsError(ValueError):
    """Weights don't fit the architecture, are damaged, or can't be read safely."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """Weights are neither on this machine nor to be had by download."""


class FeatureCacheWarning(UserWarning):
    """The store of activations can't be used; the work goes on without it."""
