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


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("300MB", 300 * 2**20), ("1 GiB", 2**30), ("1.5g", 1.5 * 2**30), (" 20 kb ", 20 * 2**10)]
    + [("7B", 7), ("12", 12)],
)
def test_a_size_may_be_written_with_bytes_as_its_unit(text, n_bytes, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", text)
    assert read_limit() == n_bytes


@pytest.mark.parametrize("text", ["much", "-1", "1e999", "nan", "1 PB", "G", "1 Gi", "1 bit"])
def test_what_is_no_size_is_refused(text, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match=r"such as 20G, 300MB or 1 GiB, got"):
        read_limit()
