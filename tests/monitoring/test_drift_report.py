import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def report(monitor, draw):
    X, _ = draw(60, 3, [0.7, 0.3, 0.0])
    return monitor.compare([*map(Image.fromarray, X[:58]), *(255 - X[58:])])


def test_it_prints_the_verdict_and_a_line_for_each_test(report):
    lines = repr(report).splitlines()
    assert lines[0] == report.verdict
    assert lines[1].startswith("60 new images, 120 of reference; AUC ")
    assert len(lines) == 3 + len(report)


def test_a_table_has_a_row_for_each_test(report):
    frame = report.to_frame()
    assert list(frame.columns) == [
        "family",
        "what",
        "reference",
        "new",
        "effect",
        "p_value",
        "is_drift",
    ]
    assert frame["effect"].between(0, 1).all()
    assert frame["p_value"].between(0, 1).all()
    assert (frame["is_drift"] == (frame["p_value"] <= 0.05) & (frame["effect"] >= 0.1)).all()


def test_the_page_holds_the_verdict_the_tests_the_shares_and_the_pictures(report, tmp_path):
    page = report.html()
    assert report.verdict in page
    assert page.count('src="data:image/') == len(report.most_novel)
    for share in report.class_shares:
        assert f"<td>{share.label}</td>" in page
    assert page.count("<td>drift</td>") == sum(test.is_drift for test in report)
    assert "http" not in page.split("</head>")[1]
    report.save(tmp_path / "drift.html")
    assert (tmp_path / "drift.html").read_text(encoding="utf-8") == page


def test_names_of_files_are_escaped(monitor, draw, tmp_path):
    folder = tmp_path / "<b>bold"
    folder.mkdir()
    paths = []
    for i, image in enumerate(draw(5, 1)[0]):
        paths.append(str(folder / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    page = monitor.compare(paths).html()
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page


def test_without_jinja2_the_extra_is_named(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"DriftReport.html needs jinja2.*sktransfer\[report\]"):
        report.html()


def test_the_verdict_names_the_largest_differences(report):
    largest = max((test for test in report if test.is_drift), key=lambda test: test.effect)
    assert f"({largest.effect:.2f})" in report.verdict
    assert np.isfinite(largest.effect)
