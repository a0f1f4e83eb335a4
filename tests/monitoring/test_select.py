import numpy as np
import pytest

from sktransfer.monitoring import select_to_label


@pytest.fixture(scope="module")
def groups():
    """Return rows of four tight groups of ten, and the number of each row's group."""
    rng = np.random.default_rng(0)
    of = np.arange(40) % 4
    return np.eye(4)[of] + rng.uniform(0, 0.01, (40, 4)), of


def test_the_most_diverse_are_one_of_each_group(groups):
    rows, of = groups
    chosen = select_to_label(rows, 4)
    assert sorted(of[chosen]) == [0, 1, 2, 3]
    assert len(np.unique(select_to_label(rows, 40))) == 40


def test_groups_that_have_labels_come_last(groups):
    rows, of = groups
    chosen = select_to_label(rows, 5, labelled=rows[[0, 1]])
    assert sorted(of[chosen[:2]]) == [2, 3]
    assert len(set(chosen.tolist())) == 5


def test_every_row_is_nearer_to_a_chosen_one_than_the_last_choice_was(groups):
    rows = np.random.default_rng(1).uniform(0.1, 1, (60, 5))
    chosen = select_to_label(rows, 10)
    scaled = np.sqrt(rows)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    distances = np.linalg.norm(scaled[:, None] - scaled[chosen], axis=2)
    last = distances[chosen[-1], :-1].min()
    assert distances.min(axis=1).max() <= last + 1e-12


def test_the_most_novel_are_unlike_the_labelled_ones(groups):
    rows, of = groups
    known = np.isin(of, [0, 1])
    chosen = select_to_label(rows, 20, by="novel", labelled=rows[known])
    assert set(of[chosen]) == {2, 3}
    # the ten most novel ones may be of one group; with candidates, both are there
    two = select_to_label(rows, 2, by="novel", labelled=rows[known], n_candidates=20)
    assert sorted(of[two]) == [2, 3]


def test_the_least_certain_have_the_least_margin(groups):
    rows, _ = groups
    probabilities = np.random.default_rng(2).dirichlet(np.ones(3), 40)
    chosen = select_to_label(rows, 6, by="uncertain", probabilities=probabilities)
    margins = np.diff(np.sort(probabilities, axis=1)[:, -2:])[:, 0]
    assert chosen.tolist() == np.argsort(margins)[:6].tolist()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 41}, "n=41 is more than the 40 rows"),
        ({"n": 0}, "'n' parameter"),
        ({"n": 2, "by": "size"}, "'by' parameter"),
        ({"n": 2, "by": "novel"}, "by='novel' needs labelled"),
        ({"n": 2, "by": "uncertain"}, "by='uncertain' needs probabilities"),
        ({"n": 2, "by": "uncertain", "probabilities": np.ones((39, 2))}, "39 rows and rows has 40"),
        ({"n": 2, "n_candidates": 9}, "no meaning with by='diverse'"),
        ({"n": 9, "by": "novel", "labelled": np.eye(4), "n_candidates": 8}, "from n=9 to the 40"),
        ({"n": 2, "labelled": np.eye(3)}, "labelled has 3 columns and rows has 4"),
    ],
)
def test_what_can_not_be_chosen_is_refused(groups, parameters, message):
    with pytest.raises(ValueError, match=message):
        select_to_label(groups[0], **parameters)
