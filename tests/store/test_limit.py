import pytest

from sktransfer.store._limit import format_size, read_limit


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0"), (1000, "1000"), (2**20, "1M"), (1.05 * 2**30, "1.1G"), (333 * 2**20, "340M")],
)
def test_a_size_is_written_as_the_variable_takes_it_and_not_rounded_down(
    n_bytes, text, monkeypatch
):
    assert format_size(n_bytes) == text
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", text)
    assert read_limit() >= n_bytes
