"""Episodes: a few labelled images of each class to learn from, and others to score."""

import numbers
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples, column_or_1d

# Orders of the images that are tried for an episode before groups are said to forbid it
_N_TRIES = 100


class FewShotSplit(BaseCrossValidator):
    """Draw episodes of few-shot learning: some classes, and few labelled images of each.

    A splitter for ``cv=`` of scikit-learn. Each split is an episode: its training images are
    the shots, its test images the queries, and both are of the same `n_way` classes.

    Parameters
    ----------
    n_way : int, default=None
        Classes of an episode, drawn for each anew. None is all classes.
    k_shot : int, default=5
        Training images of each class.
    n_query : int, default=15
        Test images of each class. So an accuracy is the mean of the classes' recalls.
    n_episodes : int, default=200
        Number of splits.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. With an int each call of `split` gives the same episodes.

    See Also
    --------
    sklearn.model_selection.StratifiedShuffleSplit : Draws in the proportions of the classes.
    sktransfer.hygiene.near_duplicates : Its `labels` are groups for `split`.

    Notes
    -----
    The mean of the scores has the 95 percent interval ``1.96 * scores.std(ddof=1) /
    sqrt(n_episodes)`` on both sides. It holds for other episodes of the same images. That the
    images themselves are a sample is not in it: episodes share them, however many there are.
    Two models are compared by the interval of their differences on the same episodes, which is
    smaller than that of either.

    All orders of the images are equally likely. With `groups` an image is passed over as a shot
    where its group would leave too few queries.

    Stored rows make episodes cheap: in all of them an image passes the network once.

    References
    ----------
    O. Vinyals et al., "Matching networks for one shot learning", 2016
    (https://arxiv.org/abs/1606.04080).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sktransfer.model_selection import FewShotSplit
    >>> X, y = load_digits(return_X_y=True)
    >>> episodes = FewShotSplit(n_way=5, k_shot=1, n_episodes=50, random_state=0)
    >>> scores = cross_val_score(LogisticRegression(), X, y, cv=episodes)
    >>> half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    >>> print(f"{scores.mean():.2f} ± {half:.2f}")
    0.73 ± 0.03
    """

    # `groups` goes to `split` without a request, as to scikit-learn's splitters of groups
    __metadata_request__split = {"groups": True}

    _parameter_constraints: dict = {
        "n_way": [Interval(numbers.Integral, 2, None, closed="left"), None],
        "k_shot": [Interval(numbers.Integral, 1, None, closed="left")],
        "n_query": [Interval(numbers.Integral, 1, None, closed="left")],
        "n_episodes": [Interval(numbers.Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, n_way=None, k_shot=5, n_query=15, n_episodes=200, random_state=None):
        self.n_way = n_way
        self.k_shot = k_shot
        self.n_query = n_query
        self.n_episodes = n_episodes
        self.random_state = random_state
        validate_parameter_constraints(
            self._parameter_constraints, dict(vars(self)), caller_name=type(self).__name__
        )

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return the number of episodes.

        Parameters
        ----------
        X, y, groups : object, default=None
            Not used; here for compatibility.

        Returns
        -------
        n_splits : int
        """
        return self.n_episodes

    def split(self, X, y, groups=None):
        """Yield the positions of shots and queries, episode by episode.

        Parameters
        ----------
        X : sequence of images
            Anything with a length.
        y : array-like of shape (n_images,)
            Classes.
        groups : array-like of shape (n_images,), default=None
            Groups of images, such as near-duplicates, patients or cameras: no group has both a
            shot and a query in an episode, of whatever classes.

        Yields
        ------
        train, test : ndarray of int
            Positions in `X` of ``n_way * k_shot`` shots and ``n_way * n_query`` queries.

        Raises
        ------
        ValueError
            When `y` are no classes, when there are fewer classes than `n_way`, when a class has
            too few images, or when groups leave no queries.
        TypeError
            When `y` or `groups` are strings and others.
        """
        labels, members = self._classes_of(X, y)
        n_images = _num_samples(y)
        pool = _Pool(labels, members, _numbers_of_groups(groups, n_images))
        pool.check(self.k_shot, self.n_query)
        random = check_random_state(self.random_state)
        n_way = len(labels) if self.n_way is None else self.n_way
        for _ in range(self.n_episodes):
            ways = random.permutation(len(labels))[:n_way]
            train, test = pool.episode(ways, self.k_shot, self.n_query, random)
            yield random.permutation(train), random.permutation(test)

    def _classes_of(self, X, y) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the classes, and the positions of the images of each."""
        if y is None:
            raise ValueError("FewShotSplit draws images of each class: y must not be None")
        _check_sortable(y, "y")
        if (kind := type_of_target(y)) not in ("binary", "multiclass"):
            raise ValueError(f"FewShotSplit draws images of each class: y is {kind}, not classes")
        y = column_or_1d(y)
        if _num_samples(X) != len(y):
            raise ValueError(f"X has {_num_samples(X)} images, and y {len(y)} labels")
        labels, numbers_ = np.unique(y, return_inverse=True)
        least = 2 if self.n_way is None else self.n_way
        if len(labels) < least:
            shown = ", ".join(map(str, labels[:10]))
            raise ValueError(
                f"n_way={self.n_way} needs {least} classes, and y has {len(labels)} ({shown}); "
                "use a smaller n_way, or images of more classes"
            )
        return labels, [np.flatnonzero(numbers_ == number) for number in range(len(labels))]


def _numbers_of_groups(groups: Any, n_images: int) -> np.ndarray:
    """Return the groups as numbers from 0; without groups each image is one."""
    if groups is None:
        return np.arange(n_images)
    if _num_samples(groups) != n_images:
        raise ValueError(f"y has {n_images} labels, and groups has {_num_samples(groups)}")
    if np.shape(groups) not in ((n_images,), (n_images, 1)):
        raise ValueError(f"groups must be one for each image, got shape {np.shape(groups)}")
    _check_sortable(groups, "groups")
    return np.unique(column_or_1d(groups), return_inverse=True)[1]


def _check_sortable(values: Any, name: str) -> None:
    """Raise where some are strings and others are not, which have no order."""
    values = np.asarray(values)
    kinds = {type(value) for value in values.flat} if values.dtype == object else set()
    is_string = [issubclass(kind, str) for kind in kinds]
    if any(is_string) and not all(is_string):
        shown = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"{name} must be all strings or all numbers, got {shown}")


class _Pool:
    """The images that episodes are drawn from.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
    members : list of ndarray
        Positions of the images of each class.
    groups : ndarray of shape (n_images,)
        Numbers of groups from 0.
    """

    def __init__(self, labels: np.ndarray, members: Sequence[np.ndarray], groups: np.ndarray):
        self._labels, self._members, self._groups = labels, members, groups
        self._class_of = np.empty(len(groups), dtype=int)
        for number, positions in enumerate(members):
            self._class_of[positions] = number
        order = np.argsort(groups, kind="stable")
        self._of_group = np.split(order, np.cumsum(np.bincount(groups))[:-1])

    def check(self, k_shot: int, n_query: int) -> None:
        """Raise where a class has too few images for an episode, or its groups are too large."""
        for label, positions in zip(self._labels, self._members, strict=True):
            if len(positions) < k_shot + n_query:
                raise ValueError(
                    f"class {label!s} has {len(positions)} images, and an episode needs "
                    f"k_shot + n_query = {k_shot} + {n_query} of each class; use smaller numbers, "
                    "or leave the class out"
                )
            # which numbers of images whole groups can have together
            sums, sizes = 1, np.unique(self._groups[positions], return_counts=True)[1]
            for size in sizes.tolist():
                sums |= sums << size
            if not any(sums >> n & 1 for n in range(k_shot, len(positions) - n_query + 1)):
                raise ValueError(
                    f"class {label!s} has {len(positions)} images in {len(sizes)} groups, which "
                    f"can't be divided into k_shot={k_shot} and n_query={n_query} without a group "
                    "in both; use smaller numbers, or leave the class out"
                )

    def episode(
        self, ways: np.ndarray, k_shot: int, n_query: int, random: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of shots and queries of some classes.

        Raises
        ------
        ValueError
            When groups leave no queries in any order that was tried.
        """
        for _ in range(_N_TRIES):
            drawn = self._try(ways, k_shot, n_query, random)
            if drawn is not None:
                return drawn
        shown = ", ".join(str(self._labels[way]) for way in ways[:10])
        raise ValueError(
            f"groups leave no episode of k_shot={k_shot} and n_query={n_query} without a group in "
            f"both, in {_N_TRIES} draws of the classes {shown}; use smaller numbers, or groups "
            "with fewer images"
        )

    def _try(
        self, ways: np.ndarray, k_shot: int, n_query: int, random: Any
    ) -> tuple[np.ndarray, np.ndarray] | None:
        orders = [random.permutation(self._members[way]) for way in ways]
        left = {int(way): len(self._members[way]) for way in ways}  # that are in no shot's group
        used: set[int] = set()
        shots = []
        for order in orders:
            taken = list(self._shots(order, k_shot, n_query, used, left))
            if len(taken) < k_shot:
                return None
            shots += taken
        of_shots = np.fromiter(used, dtype=int)
        queries = [order[~np.isin(self._groups[order], of_shots)][:n_query] for order in orders]
        return np.array(shots), np.concatenate(queries)

    def _shots(
        self, order: np.ndarray, k_shot: int, n_query: int, used: set[int], left: dict[int, int]
    ) -> Iterator[int]:
        """Yield the first images whose groups leave enough queries of all classes."""
        n = 0
        for position in order:
            group = int(self._groups[position])
            if group not in used:
                lost = Counter(self._class_of[self._of_group[group]].tolist())
                after = {way: left[way] - n_lost for way, n_lost in lost.items() if way in left}
                if min(after.values()) < n_query:
                    continue
                used.add(group)
                left.update(after)
            yield position
            n += 1
            if n == k_shot:
                return
