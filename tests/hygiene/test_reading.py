import numpy as np

from sktransfer.hygiene import check_images
from sktransfer.runtime import _display


def test_reading_that_takes_long_says_how_long(monkeypatch, capsys):
    monkeypatch.delenv("SKTRANSFER_PROGRESS", raising=False)
    X = list(np.random.default_rng(0).integers(0, 255, (80, 32, 32, 3), dtype=np.uint8))
    check_images(X)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_display, "_SECONDS_BEFORE_PROGRESS", 0.0)
    check_images(X)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("sktransfer: reading: 32 of 80 images")
    assert last.startswith("sktransfer: reading: 80 images in")
