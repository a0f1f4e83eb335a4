import pytest

from sktransfer.runtime._progress import count_forward_passes, count_passes, record


def test_only_what_passes_within_the_block_is_counted():
    record(computed=1)
    with count_forward_passes() as counter:
        record(computed=2, cache_hits=3)
    record(computed=4)
    assert (counter.computed, counter.cache_hits) == (2, 3)


def test_nested_counters_count_for_themselves():
    with count_forward_passes() as outer:
        record(computed=1)
        with count_forward_passes() as inner:
            record(computed=2)
    assert (outer.computed, inner.computed) == (3, 2)


def test_an_inner_counter_with_equal_numbers_does_not_end_the_outer_one():
    with count_forward_passes() as outer:
        with count_forward_passes():
            record(computed=1)
        record(computed=2)
    assert outer.computed == 3


def test_the_former_name_warns_and_counts_as_before():
    with pytest.warns(FutureWarning, match="use count_forward_passes"):
        counting = count_passes()
    with counting as counter:
        record(computed=2, cache_hits=3)
    assert (counter.passed, counter.kept) == (2, 3)


def test_a_counter_that_ends_leaves_one_of_the_same_counts_open():
    with count_forward_passes() as outer:
        with count_forward_passes():
            pass
        record(computed=3)
    assert outer.computed == 3
