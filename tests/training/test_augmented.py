import numpy as np

from sktransfer.training._augmented import AugmentedActivations


def test_fixed_views_take_turns_and_are_extracted_once():
    asked = []

    def extract(number):
        asked.append(number)
        return np.full((2, 1), number)

    views = AugmentedActivations(extract, 3)
    assert [int(views.of_epoch(epoch)[0, 0]) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert asked == [0, 1, 2]
    assert len(list(views.for_the_head_start())) == 3


def test_fresh_views_are_new_in_each_epoch_and_one_at_a_time_is_held():
    views = AugmentedActivations(lambda number: np.full((2, 1), number), None)
    assert [int(views.of_epoch(epoch)[0, 0]) for epoch in range(4)] == [0, 1, 2, 3]
    assert len(views._held) == 1


def test_a_head_starts_from_several_fresh_views_where_they_cost_no_forward_pass():
    views = AugmentedActivations(lambda number: np.full((2, 1), number), None, n_at_start=3)
    assert [int(view[0, 0]) for view in views.for_the_head_start()] == [0, 1, 2]


def test_views_can_be_followed_by_other_images():
    views = AugmentedActivations(lambda number: np.full((2, 1), number), 2).concatenated_with(
        np.array([[9]])
    )
    assert views.of_epoch(1).ravel().tolist() == [1, 1, 9]
