"""Places and texts of the drawings in the error findings."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ._activation_maps import ActivationMap
from ._error_scores import Bin, by_quality, clearly_worse, interval, is_enough, percent
from ._findings import Findings

_N_COLOURS, _N_SHAPES = 8, 4  # of the map: 32 classes that can be told apart

_MAP = (1000, 620)  # units of the drawing
_CHART = (320, 240)
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 22, 12, 34  # margins of charts

_OVERLAY_SIDE = 28  # pixels to which a map of a few places is smoothed
_MOST_OPAQUE = 0.7
# vermilion speaks for what is predicted, blue for the other class (Okabe and Ito)
_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)

_QUALITIES = (
    ("size", "Size", "Pixels of the shorter side", "{:.0f}"),
    ("sharpness", "Sharpness", "Deviation of the Laplacian; little in blurred pictures", "{:.1f}"),
    ("brightness", "Brightness", "Mean grey level; 0 is black, 1 is white", "{:.2f}"),
)  # fmt: skip


def _x(share: float) -> float:
    return round(_LEFT + share * (_CHART[0] - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * (_CHART[1] - _TOP - _BOTTOM), 1)


def _points(bins: Sequence[Bin], xs: Sequence[float], low: float) -> list[dict[str, Any]]:
    def y(share: float) -> float:
        return _y((share - low) / (1 - low))

    return [
        {
            "x": _x(x),
            "y": y(one.accuracy.value),
            "top": y(one.accuracy.high),
            "bottom": y(max(low, one.accuracy.low)),
            "n": one.accuracy.n,
            "says": f"{percent(one.accuracy.value)} right of {one.accuracy.n}, "
            f"{interval(one.accuracy)}",
        }
        for one, x in zip(bins, xs, strict=True)
    ]


def calibration_chart(findings: Findings) -> dict[str, Any]:
    bins = findings.bins
    points = _points(bins, [one.x for one in bins], 0.0)
    for point, one in zip(points, bins, strict=True):
        point["says"] = f"confidence {percent(one.x)}: {point['says']}"
    return {
        "size": _CHART,
        "points": points,
        "line": (_x(0), _y(0), _x(1), _y(1)),
        "ticks": [(_x(t), _y(t), f"{t:.0%}") for t in (0, 0.25, 0.5, 0.75, 1)],
        "frame": (_x(0), _y(1), _x(1), _y(0)),
        "error": percent(findings.calibration_error),
        "rows": [
            (
                f"{one.low:.0%} to {one.high:.0%}",
                one.accuracy.n,
                percent(one.x),
                percent(one.accuracy.value),
                interval(one.accuracy),
            )
            for one in bins
        ],
    }


def quality_charts(findings: Findings) -> list[dict[str, Any]]:
    """Return a chart of the accuracy over each quality in which the images differ."""
    charts: list[dict[str, Any]] = []
    all_values = [
        np.array([np.nan if p is None else getattr(p, name) for p in findings.pictures])
        for name, *_ in _QUALITIES
    ]
    all_bins = [by_quality(values, findings.right) for values in all_values]
    n_bins = sum(map(len, all_bins))
    for (_, title, unit, number), values, bins in zip(
        _QUALITIES, all_values, all_bins, strict=True
    ):
        if not bins:
            known = values[np.isfinite(values)]
            middle = number.format(np.median(known)) if known.size else "unknown"
            says = "About the same in all images" if is_enough(known) else "Too few images"
            says = f"{says} (median {middle})"
            charts.append({"title": title, "unit": unit, "points": [], "says": says})
            continue
        lowest = min(one.accuracy.low for one in bins)
        low = float(np.floor(min(lowest, findings.accuracy.value) * 10) / 10)
        low = min(low, 0.9)
        xs = (np.arange(len(bins)) + 0.5) / len(bins)
        ends = [f"{number.format(one.low)} to {number.format(one.high)}" for one in bins]
        points = _points(bins, xs.tolist(), low)
        for point, end in zip(points, ends, strict=True):
            point["says"] = f"{end}: {point['says']}"
        worse = clearly_worse(bins, findings.accuracy.value, n_bins)
        finding = "No part is clearly worse than the whole."
        if worse:
            one = min(worse, key=lambda part: part.accuracy.value)
            end = ends[bins.index(one)]
            finding = (
                f"Less accurate at {end}: {percent(one.accuracy.value)} ({interval(one.accuracy)}) "
                f"against {percent(findings.accuracy.value)} overall."
            )
        ticks = [low, (1 + low) / 2, 1.0]
        charts.append(
            {
                "title": title,
                "unit": unit,
                "size": _CHART,
                "points": points,
                "overall": _y((findings.accuracy.value - low) / (1 - low)),
                "ticks": [(_y((t - low) / (1 - low)), f"{t:.0%}") for t in ticks],
                "edges": [
                    (_x(k / len(bins)), number.format(edge))
                    for k, edge in enumerate([*(one.low for one in bins), bins[-1].high])
                ],
                "frame": (_x(0), _y(1), _x(1), _y(0)),
                "finding": finding,
                "is_worse": bool(worse),
            }
        )
    return charts


def map_chart(findings: Findings) -> dict[str, Any]:
    places, labels = findings.map.places, findings.labels[findings.shown]
    wrong = ~findings.right[findings.shown]
    width, height = _MAP
    marks: list[dict[str, Any]] = []
    for i in np.flatnonzero(np.isfinite(places).all(axis=1)).tolist():
        k = int(labels[i])
        marks.append(
            {
                "i": i,
                "x": round(20 + float(places[i, 0]) * (width - 40), 1),
                "y": round(20 + (1 - float(places[i, 1])) * (height - 40), 1),
                "class": k,
                "colour": k % _N_COLOURS,
                "shape": k // _N_COLOURS % _N_SHAPES,
                "is_wrong": bool(wrong[i]),
            }
        )
    marks.sort(key=lambda mark: mark["is_wrong"])  # drawn last, on top
    present = sorted({mark["class"] for mark in marks})
    return {
        "size": _MAP,
        "marks": marks,
        "method": {"tsne": "t-SNE", "pca": "the first two principal components"}[
            findings.map.method
        ],
        "is_tsne": findings.map.method == "tsne",
        "classes": [
            {
                "k": k,
                "name": findings.names[k],
                "colour": k % _N_COLOURS,
                "shape": k // _N_COLOURS % 4,
            }
            for k in present
        ],
        "n_left_out": len(findings.labels) - len(marks),
    }


def overlay(found: ActivationMap) -> str:
    """Return a transparent picture of a map, as a data URI."""
    largest = float(np.abs(found.values).max())
    values = found.values / largest if largest > 0 else np.zeros_like(found.values)
    image = Image.fromarray(values.astype(np.float32))
    smooth = image.resize((_OVERLAY_SIDE, _OVERLAY_SIDE), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth), -1, 1)
    pixels = np.empty((*strength.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, _FOR, _AGAINST)
    pixels[..., 3] = np.round(255 * _MOST_OPAQUE * np.abs(strength))
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode("ascii")
