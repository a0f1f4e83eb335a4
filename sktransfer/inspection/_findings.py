"""What an error report says of images and of their predictions, found once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from ..hygiene._duplicates import Duplicates, DuplicateSet, duplicates_of
from ..hygiene._label_issues import LabelIssue, issues_of, label_support
from ..images._collection import ImageReference
from ._activation_maps import ActivationMap, NoMaps, activation_maps, is_free
from ._error_scores import by_class, calibration, losses, overall
from ._pictures import read_pictures
from ._predictions import Predictions
from ._rows import Rows, centred_unit_rows, map_of

# Hashes of duplicates differ in at most as many bits, and rows, their mean taken off, have
# at least this cosine: then the scale of a network's rows has no effect, nor what all have
# in common. Copies of photographs that are brighter, smaller, cropped by a little or saved
# again have it; of pictures of 32 pixels that were enlarged, some have less.
_MAX_DISTANCE = 12
_MIN_COSINE = 0.8
_MAX_DISTANCE_ALONE = 4  # bits, where there are no rows
_N_MAPS = 12  # highest losses of which it is drawn where the network looked


@dataclass(frozen=True)
class Choices:
    """What the user chose; the parameters of `ErrorReport` explain the fields."""

    title: str
    groups: np.ndarray | None
    map_method: str
    activation_maps: int | str
    n_listed: int
    max_pictures: int
    thumbnail_size: int
    n_threads: int | None


class Findings:
    """Scores, lists and pictures of one set of images.

    Parameters
    ----------
    predictions : Predictions
    images : sequence of ImageReference
    given : object
        The images as the user passed them.
    rows : Rows
    choices : Choices
    """

    def __init__(
        self,
        predictions: Predictions,
        images: Sequence[ImageReference],
        given: Any,
        rows: Rows,
        choices: Choices,
    ):
        self.predictions, self.rows, self.choices = predictions, rows, choices
        self.labels, self.predicted = predictions.labels, predictions.predicted
        self.probabilities = predictions.probabilities
        self.right = self.labels == self.predicted
        self.names = [str(name) for name in predictions.classes.tolist()]
        self.sources = [image.describe() for image in images]

        self.losses = losses(self.labels, self.probabilities)
        self.accuracy, self.balanced_accuracy = overall(self.labels, self.predicted, choices.groups)
        self.confusion = confusion_matrix(
            self.labels, self.predicted, labels=range(len(self.names))
        )
        self.class_scores = by_class(self.confusion)
        self.bins, self.calibration_error = calibration(self.probabilities.max(axis=1), self.right)

        support = label_support(self.labels, self.probabilities, rows.values, choices.groups)
        of = images, predictions.classes, self.labels, support
        self.label_issues = issues_of(*of)
        self.doubtful: tuple[LabelIssue, ...] = issues_of(*of, n_least=choices.n_listed)[
            : choices.n_listed
        ]
        wrong = np.flatnonzero(~self.right)
        self.highest_losses = wrong[np.argsort(-self.losses[wrong], kind="stable")]
        self.highest_losses = self.highest_losses[: choices.n_listed]

        self.shown = self._chosen_to_show()
        self.pictures = read_pictures(
            images, self.shown.tolist(), choices.thumbnail_size, choices.n_threads
        )
        self.duplicates = self._duplicates(images)
        self.telling_duplicates = self._telling_duplicates()
        self._show_duplicates(images)
        self.map = map_of(rows.values[self.shown], choices.map_method)
        self.activation_maps, self.why_no_maps = self._activation_maps(given)
        # a report that is kept holds no network
        self.predictions = replace(predictions, models=[])

    def _chosen_to_show(self) -> np.ndarray:
        """Return the positions of the images with a thumbnail, in ascending order."""
        n = len(self.losses)
        rank = np.full(n, 2.0) + np.random.default_rng(0).random(n)
        rank[~self.right] = 1.0
        rank[[issue.position for issue in self.doubtful]] = 0.0
        rank[self.highest_losses] = 0.0
        order = np.lexsort((-self.losses, rank))
        return np.sort(order[: self.choices.max_pictures])

    def _duplicates(self, images: Sequence[ImageReference]) -> Duplicates:
        """Find near-duplicates in what was read and in the rows: nothing is computed again."""
        digests, hashes, unread, known = [], {}, [], set()
        for position, picture in enumerate(self.pictures):
            if picture is None:
                unread.append(position)
                digests.append(position.to_bytes(8))  # shorter than a digest: equal to none
                continue
            digests.append(picture.digest)
            if picture.digest not in known:
                hashes[position] = picture.hash
                known.add(picture.digest)
        rows_at, distance = None, _MAX_DISTANCE_ALONE
        if self.rows.is_of_images:
            rows_at, distance = centred_unit_rows(self.rows.values), _MAX_DISTANCE
        return duplicates_of(images, digests, hashes, unread, rows_at, distance, _MIN_COSINE)

    def _telling_duplicates(self) -> list[DuplicateSet]:
        """Return the sets with different labels, then those of which some are right."""
        different, across = [], []
        for found in self.duplicates:
            where = list(found.positions)
            if len(set(self.labels[where].tolist())) > 1:
                different.append(found)
            elif len(set(self.right[where].tolist())) > 1:
                across.append(found)
        return different + across

    def _show_duplicates(self, images: Sequence[ImageReference]) -> None:
        """Read the thumbnails of the listed duplicates that have none yet."""
        listed = self.telling_duplicates[: self.choices.n_listed]
        missing = sorted(
            i
            for i in {i for found in listed for i in found.positions} - set(self.shown.tolist())
            if self.pictures[i] is not None
        )
        again = read_pictures(
            [images[i] for i in missing],
            range(len(missing)),
            self.choices.thumbnail_size,
            self.choices.n_threads,
        )
        for position, picture in zip(missing, again, strict=True):
            self.pictures[position] = picture

    def _activation_maps(self, given: Any) -> tuple[dict[int, ActivationMap], str | None]:
        """Return maps by position, and why there are none."""
        asked = self.choices.activation_maps
        if isinstance(asked, str):  # "auto"
            asked = _N_MAPS if is_free(self.predictions) else 0
        positions = self.highest_losses[:asked].tolist()
        if not positions:
            return {}, None
        try:
            return activation_maps(self.predictions, given, positions), None
        except NoMaps as error:
            return {}, str(error)
