"""Pages: every value is escaped, no request is possible, and one script alone may run."""

import base64
import hashlib
import html
import os
import re
import sys
import webbrowser
from pathlib import Path

import pytest

from sktransfer._html_page import HtmlPage, render_page

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


def page(**values):
    return render_page("page.html", needed_by="The test", **{"title": "t", "kind": "k", **values})


class Report(HtmlPage):
    def html(self):
        return page(title='A "title"')


def test_values_are_escaped():
    made = page(title=HOSTILE, kind=HOSTILE)
    assert "<script" not in made
    assert "<img" not in made
    assert html.escape(HOSTILE, quote=False).replace('"', "&#34;").replace("'", "&#39;") in made


def test_the_name_of_a_file_that_is_not_utf_8_can_be_saved(tmp_path):
    class Named(HtmlPage):
        def html(self):
            return page(title=os.fsdecode(b"\xff.png"))

    Named().save(tmp_path / "report.html")
    assert "\ufffd.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_policy_allows_no_request_and_no_script():
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page())
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"] == "'none'"


def test_a_script_of_the_package_is_the_only_one_that_the_policy_allows(monkeypatch):
    texts = {"page.css": "", "some.js": 'const a = "<b>" && 1;\n'}
    monkeypatch.setattr("sktransfer._html_page._text_of", texts.__getitem__)
    made = page(script="some.js")
    (code,) = re.findall("<script>(.*?)</script>", made, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert code == texts["some.js"]
    assert f"script-src 'sha256-{digest}'" in html.unescape(made)


def test_a_page_names_no_other_file():
    made = page()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", made)
    assert "url(" not in made
    assert "@import" not in made


def test_a_value_that_is_missing_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="kind"):
        render_page("page.html", needed_by="The test", title="t")


def test_a_page_is_saved_as_it_is(tmp_path):
    Report().save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == Report().html()


def test_open_shows_a_file_that_only_the_user_can_read(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = Path(Report().open())
    assert shown == [path.as_uri()]
    assert path.read_text(encoding="utf-8") == Report().html()
    assert path.stat().st_mode & 0o077 == 0


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    (source,) = re.findall(
        r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts"', Report()._repr_html_()
    )
    assert html.unescape(source) == Report().html()


def test_without_jinja2_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ImportError, match=r"The test needs jinja2: pip install 'sktransfer\[report"
    ):
        page()
