import io
import sys

import pytest

from sktransfer.runtime import _display
from sktransfer.runtime._display import Display, SparseLines, fingerprint_display, spelled


@pytest.fixture
def clock(monkeypatch):
    """Return a list with the time in seconds, which a test moves."""
    now = [0.0]
    monkeypatch.setattr(_display.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("SKTRANSFER_PROGRESS", raising=False)


def run(clock, n=4, seconds=1.0, **options):
    with Display("backbone", n, "images", **options) as display:
        for _ in range(n):
            clock[0] += seconds
            display.update()


def test_a_short_run_shows_nothing(clock, capsys):
    run(clock)
    assert capsys.readouterr() == ("", "")


def test_a_long_run_writes_a_line_with_an_estimate_after_ten_seconds(clock, capsys):
    run(clock, n=4, seconds=5, note="2 cache hits")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == (
        "sktransfer: backbone: 2 of 4 images, 2 cache hits, 10 s so far, about 10 s left"
    )
    assert last == "sktransfer: backbone: 4 images in 20 s, 2 cache hits"


def test_a_run_that_is_asked_to_show_has_its_estimate_after_the_first_step(clock, capsys):
    run(clock, verbose=1)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "sktransfer: backbone: 1 of 4 images, 1 s so far, about 3 s left"
    assert last == "sktransfer: backbone: 4 images in 4 s"


def test_what_was_done_before_does_not_count_for_the_estimate(clock, capsys):
    with Display("backbone", 10, "images", initial=6, verbose=1) as display:
        clock[0] = 1
        display.update(1)
    assert "7 of 10 images, 1 s so far, about 3 s left" in capsys.readouterr().err


def test_a_run_of_a_day_writes_few_lines(clock, capsys):
    run(clock, n=24 * 360, seconds=10)
    assert 10 < len(capsys.readouterr().err.splitlines()) < 20


def test_a_run_that_fails_has_no_closing_line(clock, capsys):
    with pytest.raises(OSError, match="broken"), Display("backbone", 2, "images", verbose=1):
        raise OSError("broken")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("verbose", "choice"), [(-1, "auto"), (-1, "1"), (0, "0"), (1, "0"), (1, " 0 ")]
)
@pytest.mark.parametrize("is_terminal", [False, True])
def test_quiet_is_quiet(clock, capsys, monkeypatch, verbose, choice, is_terminal):
    monkeypatch.setenv("SKTRANSFER_PROGRESS", choice)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    run(clock, seconds=100, verbose=verbose)
    assert capsys.readouterr() == ("", "")


def test_the_variable_shows_at_once_what_is_no_part_of_another_run(clock, capsys, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_PROGRESS", "1")
    run(clock)
    assert "about 3 s left" in capsys.readouterr().err
    with fingerprint_display(3, verbose=1) as display:
        display.update(3)
    assert capsys.readouterr().err == ""


def test_another_value_of_the_variable_is_refused(monkeypatch):
    monkeypatch.setenv("SKTRANSFER_PROGRESS", "yes")
    with pytest.raises(ValueError, match=r"SKTRANSFER_PROGRESS must be 0 .* got 'yes'"):
        Display("backbone", 1, "images")


def test_a_terminal_gets_a_bar_and_a_log_gets_none(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Display("backbone", 2, "images", verbose=1) as display:
        display.update(2)
    drawn = capsys.readouterr().err
    assert "\r" in drawn
    assert "backbone: 100%" in drawn
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with Display("backbone", 2, "images", verbose=1) as display:
        display.update(2)
    logged = capsys.readouterr().err
    assert "\r" not in logged
    assert "\x1b" not in logged


def test_a_worker_draws_no_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(_display, "is_worker", lambda: True)
    run(clock, seconds=100)
    assert capsys.readouterr().err == ""
    run(clock, verbose=1)
    lines = capsys.readouterr().err
    assert lines.startswith("sktransfer: backbone")
    assert "\r" not in lines


def test_a_process_without_a_standard_error_stream_runs(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    run(clock, seconds=100, verbose=1)


class _Writable:
    """What a program may put in place of the standard error stream."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class _FullDisk(_Writable):
    def write(self, text):
        raise OSError("no space left on device")


def test_a_stream_that_can_only_write_gets_lines(clock, monkeypatch):
    stream = _Writable()
    monkeypatch.setattr(sys, "stderr", stream)
    run(clock, verbose=1)
    assert "4 images in 4 s" in stream.text


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_run_does_not_fail_because_its_progress_can_not_be_written(clock, monkeypatch, is_closed):
    stream = io.StringIO() if is_closed else _FullDisk()
    if is_closed:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    run(clock, seconds=100, verbose=1)


def test_intervals_between_lines_double():
    shown = []
    lines = SparseLines(10)
    for second in range(100):
        lines.show(second, lambda second=second: shown.append(second) or "")
    assert shown == [10, 20, 40, 80]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "less than 1 s"), (99, "99 s"), (240, "4 min"), (7320, "2 h 2 min")],
)
def test_a_duration_is_spelled(seconds, text):
    assert spelled(seconds) == text
