from sktransfer.runtime._progress import count_passes, record


def test_only_what_passes_within_the_block_is_counted():
    record(passed=1)
    with count_passes() as counter:
        record(passed=2, kept=3)
    record(passed=4)
    assert (counter.passed, counter.kept) == (2, 3)


def test_nested_counters_count_for_themselves():
    with count_passes() as outer:
        record(passed=1)
        with count_passes() as inner:
            record(passed=2)
    assert (outer.passed, inner.passed) == (3, 2)
