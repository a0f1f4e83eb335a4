"""The picture of a cut network: a bar for each stage, by its role and its width, as inline SVG.

It stands in notebooks, in pages and in the diagrams of scikit-learn, so it has no script, no style
sheet, no identifiers and no request, and its text has the colour of the text around it.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ._text_table import count

_BAR = 38  # pixels; what follows is in pixels as well
_LEAST_HEIGHT, _MOST_HEIGHT, _HEIGHT_WITHOUT_WIDTH = 18, 66, 44
_LEAST_STEP, _PER_CHARACTER = 58, 6.6
_MIDDLE, _NAMES, _CUTS, _BOTTOM = 66, 116, 134, 142
_IMAGE_END, _START = 40, 64  # where the image ends and stages begin
_LONGEST_NAME = 16  # characters
_MOST_WIDTH, _LEAST_SCALE = 720, 0.6  # beyond, it shrinks as far as text can be read, then scrolls

# Colours of the middle, which stand on white and on black; roles are written above the bars, too
_STYLES = {
    "frozen": 'fill="#4f86c6" fill-opacity=".3" stroke="#4f86c6"',
    "trained": 'fill="#e8833a" fill-opacity=".5" stroke="#e8833a" stroke-width="2"',
}
_OTHER_STYLE = 'fill="none" stroke="#888" stroke-dasharray="4 3"'


class Bar(NamedTuple):
    """A stage, or several, in the picture; `width` and `n_params` are None where not known."""

    name: str
    role: str
    width: int | None = None
    n_params: int | None = None

    def describe(self) -> str:
        """Return its name and what is known of it, in words."""
        known = [self.role]
        if self.width is not None:
            known.append(f"width {self.width}")
        if self.n_params is not None:
            known.append(f"{count(self.n_params)} parameters")
        return f"{self.name}: {', '.join(known)}"


def stage_picture(bars: Sequence[Bar], cuts: Mapping[int, str], caption: str) -> str:
    """Return a figure of bars in a row, from the image on.

    Parameters
    ----------
    bars : sequence of Bar
        At least one.
    cuts : dict
        How many bars are before a cut, and what is written below it.
    caption : str
        A line below the picture.
    """
    names = [_short(bar.name) for bar in bars]
    words = [*names, *(bar.role for bar in bars)]
    step = max(_LEAST_STEP, _PER_CHARACTER * max(map(len, words)) + 10)
    centres = [_START + step * (position + 0.5) for position in range(len(bars))]
    end = _START + step * len(bars)
    margin = max((_PER_CHARACTER * len(text) / 2 for text in cuts.values()), default=0)
    before = [_IMAGE_END, *(centre + _BAR / 2 for centre in centres[:-1])]
    parts = [_image()]
    parts += [
        _line(left, centre - _BAR / 2, _MIDDLE)
        for left, centre in zip(before, centres, strict=True)
    ]
    parts += map(_bar, bars, names, centres, _heights(bars))
    parts += _roles(bars, step)
    parts += [_cut(_START + step * n_before, text) for n_before, text in cuts.items()]
    spoken = f"{caption}. {'; '.join(bar.describe() for bar in bars)}"
    width = round(end + margin + 4)
    return (
        f'<figure style="margin: 0.5em 0; max-width: {_MOST_WIDTH}px; overflow-x: auto">'
        f'<svg role="img" aria-label="{html.escape(spoken)}" width="{width}" '
        f'viewBox="0 0 {width} {_BOTTOM}" style="max-width: 100%; '
        f'min-width: {round(_LEAST_SCALE * width)}px; height: auto" '
        f'font-size="11" text-anchor="middle" fill="currentColor">{"".join(parts)}</svg>'
        '<figcaption style="padding: 0 0.7em; font-size: 12px; text-align: left">'
        f"{html.escape(caption)}</figcaption></figure>"
    )


def _heights(bars: Sequence[Bar]) -> list[float]:
    """Return heights by the logarithm of the width."""
    logarithms = [math.log2(bar.width) if bar.width else None for bar in bars]
    known = [value for value in logarithms if value is not None]
    if not known or min(known) == max(known):
        return [_HEIGHT_WITHOUT_WIDTH] * len(bars)
    scale = (_MOST_HEIGHT - _LEAST_HEIGHT) / (max(known) - min(known))
    return [
        _HEIGHT_WITHOUT_WIDTH if value is None else _LEAST_HEIGHT + scale * (value - min(known))
        for value in logarithms
    ]


def _image() -> str:
    """Return the sign of an image: a frame, hills and a sun."""
    return (
        f'<g fill="none" stroke="currentColor"><rect x="8" y="{_MIDDLE - 14}" width="32" '
        f'height="28" rx="2"/><path d="M9 {_MIDDLE + 10}l9-11 7 8 5-5 9 9"/>'
        f'<circle cx="31" cy="{_MIDDLE - 6}" r="3"/></g>{_text(24, _NAMES, "image")}'
    )


def _bar(bar: Bar, name: str, centre: float, height: float) -> str:
    number = "" if bar.width is None else _text(centre, _MIDDLE + 4, str(bar.width))
    return (
        f"<g><title>{html.escape(bar.describe())}</title>"
        f'<rect x="{centre - _BAR / 2:g}" y="{_MIDDLE - height / 2:g}" width="{_BAR}" '
        f'height="{height:g}" rx="3" {_STYLES.get(bar.role, _OTHER_STYLE)}/>{number}'
        f"{_text(centre, _NAMES, name)}</g>"
    )


def _roles(bars: Sequence[Bar], step: float) -> list[str]:
    """Return the name of each role, and a line over all bars in a row that have it."""
    parts, first = [], 0
    for position in range(1, len(bars) + 1):
        if position == len(bars) or bars[position].role != bars[first].role:
            left, right = _START + step * first + 5, _START + step * position - 5
            parts += [_line(left, right, 22), _text((left + right) / 2, 15, bars[first].role)]
            first = position
    return parts


def _cut(x: float, text: str) -> str:
    return (
        f'<path d="M{x:g} 8V{_CUTS - 12}" stroke="currentColor" stroke-dasharray="2 3"/>'
        f"{_text(x, _CUTS, text)}"
    )


def _line(left: float, right: float, y: float) -> str:
    return f'<path d="M{left:g} {y}H{right:g}" stroke="currentColor" stroke-opacity=".5"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:g}" y="{y}">{html.escape(text)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
