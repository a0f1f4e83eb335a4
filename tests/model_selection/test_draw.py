import numpy as np
import pytest

from sktransfer.model_selection._draw import draw, round_ends


def test_any_number_of_the_first_images_has_the_proportions_of_the_classes():
    classes = np.repeat([0, 1, 2], [600, 300, 100])
    positions, ends = draw(classes, np.arange(1000), None)
    assert sorted(positions) == list(range(1000))
    assert ends.tolist() == list(range(1, 1001))
    for n in (50, 250, 500):
        shares = np.bincount(classes[positions[:n]], minlength=3) / n
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.03)


def test_groups_are_drawn_whole_and_stand_together():
    groups = np.random.default_rng(1).integers(0, 40, 300)
    groups = np.unique(groups, return_inverse=True)[1]
    positions, ends = draw(None, groups, 120)
    drawn = groups[positions]
    assert 110 < len(positions) <= 120
    assert np.isin(groups, drawn).sum() == len(positions)
    assert len(set(drawn)) == len(ends)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        assert len(set(drawn[start:end])) == 1


def test_a_draw_is_the_same_every_time_and_no_mere_prefix():
    once, again = (draw(None, np.arange(200), 50).positions for _ in range(2))
    assert once.tolist() == again.tolist()
    assert once.tolist() != list(range(50))


def test_a_group_larger_than_all_images_that_may_be_drawn_is_passed_over():
    groups = np.repeat([0, 1, 2], [50, 5, 4])
    assert set(groups[draw(None, groups, 10).positions]) == {1, 2}
    with pytest.raises(ValueError, match=r"max_images=3 is less than.*smallest group has 4"):
        draw(None, groups, 3)


@pytest.mark.parametrize(
    ("n_images", "n_classes", "expected"),
    [
        (2000, 2, [500, 1000, 2000]),
        (1000, 2, [500, 1000]),
        (900, 2, [900]),
        (2000, 50, [1000, 2000]),  # 20 images of each class
    ],
)
def test_rounds_double_and_the_first_is_not_too_small(n_images, n_classes, expected):
    assert round_ends(np.arange(1, n_images + 1), n_classes) == expected


def test_rounds_end_where_groups_end():
    ends = np.cumsum(np.full(50, 61))
    assert round_ends(ends, 2) == [25 * 61, 50 * 61]  # a quarter of the groups are too few
