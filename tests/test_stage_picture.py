import re
from xml.etree import ElementTree

from sktransfer._stage_picture import Bar, stage_picture

BARS = [Bar("stem", "frozen", 16, 1200), Bar("block", "trained", 64), Bar("head", "trained", 3)]


def drawn(bars=BARS, cuts=None, caption="a network"):
    """Return the picture as parsed XML, and its texts."""
    figure = ElementTree.fromstring(stage_picture(bars, cuts or {}, caption))
    return figure, [text.text for text in figure.iter("text")]


def test_each_bar_has_its_name_and_its_width():
    _, texts = drawn([*BARS, Bar("last", "unused")])
    assert texts[:8] == ["image", "16", "stem", "64", "block", "3", "head", "last"]


def test_a_role_is_written_once_over_all_bars_in_a_row_that_have_it():
    _, texts = drawn()
    assert texts[-2:] == ["frozen", "trained"]
    _, texts = drawn([*BARS, Bar("last", "frozen")])
    assert texts[-3:] == ["frozen", "trained", "frozen"]


def test_roles_are_told_by_more_than_colour():
    figure, _ = drawn([Bar("a", "frozen"), Bar("b", "trained"), Bar("c", "unused")])
    bars = [group.find("rect") for group in figure.find("svg") if group.find("title") is not None]
    assert len({(bar.get("stroke-width"), bar.get("stroke-dasharray")) for bar in bars}) == 3


def test_wider_stages_are_higher():
    figure, _ = drawn()
    bars = [group.find("rect") for group in figure.find("svg") if group.find("title") is not None]
    heights = [float(bar.get("height")) for bar in bars]
    assert sorted(heights) == [heights[2], heights[0], heights[1]]


def test_a_cut_is_after_the_bars_before_it():
    figure, texts = drawn(cuts={1: "depth 1"})
    assert texts[-1] == "depth 1"
    xs = {text.text: float(text.get("x")) for text in figure.iter("text")}
    assert xs["stem"] < xs["depth 1"] < xs["block"]


def test_screen_readers_hear_everything_in_one_sentence():
    figure, _ = drawn()
    svg = figure.find("svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == (
        "a network. stem: frozen, width 16, 1.20 k parameters; block: trained, width 64; "
        "head: trained, width 3"
    )


def test_long_names_are_short_in_the_picture_and_whole_in_the_tooltip():
    name = "features.denseblock3.denselayer24"
    figure, texts = drawn([Bar(name, "frozen")])
    assert "features.denseb…" in texts
    assert next(figure.iter("title")).text.startswith(name)


def test_hostile_words_are_escaped():
    hostile = '</svg><script>"&'
    figure, texts = drawn([Bar(hostile, hostile, 1)], {1: hostile}, hostile)
    assert texts.count(hostile) == 3
    assert figure.find("figcaption").text == hostile
    assert not list(figure.iter("script"))


def test_it_loads_nothing_and_has_no_identifiers():
    picture = stage_picture(BARS, {1: "depth 1"}, "a network")
    for unwanted in ("<script", "<style", "http", "url(", "href", "src=", " id="):
        assert unwanted not in picture
    assert len(picture) < 3000


def test_many_stages_scroll_and_stay_large_enough_to_read():
    figure, _ = drawn([Bar(f"blocks.{i}", "frozen", 384) for i in range(60)])
    svg = figure.find("svg")
    assert re.search(r"max-width: \d+px; overflow-x: auto", figure.get("style"))
    least = int(re.search(r"min-width: (\d+)px", svg.get("style"))[1])
    assert 0.59 < least / int(svg.get("width")) < 1
    assert re.search(r"max-width: 100%", svg.get("style"))
