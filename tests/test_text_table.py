"""Tables in terminals and notebooks."""

from dataclasses import dataclass

from sktransfer._text_table import Table, html_table, table


@dataclass
class Line:
    name: str
    score: float


class Lines(Table[Line]):
    _record = Line

    def _headline(self):
        return f"{len(self)} of <them>"


def test_texts_are_escaped_and_numbers_stand_at_the_right():
    shown = html_table(("name", "n"), [("<b>&", "12"), ("x", None)], caption="a < b")
    assert "<td>&lt;b&gt;&amp;</td><td class=number>12</td>" in shown
    assert "<td>x</td><td class=number>-</td>" in shown
    assert "<caption>a &lt; b</caption>" in shown


def test_a_report_shows_a_screen_and_says_how_many_are_left():
    shown = Lines([Line(f"<{i}>", i / 3) for i in range(25)])._repr_html_()
    assert shown.count("<td>&lt;") == 20
    assert "<td class=number>0.333</td>" in shown
    assert "25 of &lt;them&gt;" in shown
    assert "... and 5 more" in shown


def test_an_empty_report_shows_its_headline():
    shown = Lines([])._repr_html_()
    assert "0 of &lt;them&gt;" in shown
    assert "<th" not in shown


def test_columns_of_text_are_aligned():
    assert table(("a", "n"), [("x", "1"), ("long", "12")]) == "a      n\nx      1\nlong  12"
