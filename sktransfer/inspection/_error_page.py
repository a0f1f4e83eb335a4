"""What the template of the error report writes: texts, numbers, and places in drawings."""

from typing import Any

import numpy as np

from ..hygiene._duplicates import DuplicateSet
from ..hygiene._label_issues import LabelIssue
from ._error_charts import calibration_chart, map_chart, overlay, quality_charts
from ._error_scores import interval, loss_of_frequencies, most_confused, percent
from ._findings import Findings

_MOST_IN_MATRIX = 20  # classes
_STRONG_SHARE = 0.1  # of a row, from which on the largest confusion has the full colour
_N_CONFUSIONS = 8
_LONGEST_NAME = 60  # characters of a path that are shown


def page_values(findings: Findings, about: str) -> dict[str, Any]:
    """Return the values of the template for an `ErrorReport`."""
    cards = _Cards(findings)
    names, n_listed = findings.names, findings.choices.n_listed
    telling = findings.telling_duplicates
    return {
        "title": findings.choices.title,
        "kind": "Error report" if findings.choices.title != "Error report" else "sktransfer",
        "about": about,
        "lead": _lead(findings),
        "tiles": _tiles(findings),
        "by_class": _class_rows(findings),
        "matrix": _matrix(findings),
        "confusions": [
            (names[i], names[j], n) for i, j, n in most_confused(findings.confusion, _N_CONFUSIONS)
        ],
        "losses": [cards.of(i) for i in findings.highest_losses],
        "has_maps": bool(findings.activation_maps),
        "why_no_maps": findings.why_no_maps,
        "issues": [_issue_card(findings, cards, issue) for issue in findings.doubtful],
        "n_issues": len(findings.label_issues),
        "n_likely_listed": sum(issue in findings.label_issues for issue in findings.doubtful),
        "duplicates": [_duplicate_set(findings, cards, found) for found in telling[:n_listed]],
        "n_duplicates": len(findings.duplicates),
        "n_telling": len(telling),
        "calibration": calibration_chart(findings),
        "qualities": quality_charts(findings),
        "map": map_chart(findings),
        "rows_name": findings.rows.name,
        "data": cards.data(),
    }


class _Cards:
    """The images of the page: what is written beside each picture."""

    def __init__(self, findings: Findings):
        self._findings = findings
        self._names = findings.names
        sources = findings.sources
        self._is_named = len(set(sources)) > len(sources) / 2

    def of(self, position: int) -> dict[str, Any]:
        """Return what a card shows of an image."""
        findings, position = self._findings, int(position)
        picture = findings.pictures[position]
        labels, predicted = findings.labels, findings.predicted
        chance = findings.probabilities[position]
        source = findings.sources[position] if self._is_named else ""
        label, other = self._names[labels[position]], self._names[predicted[position]]
        is_right = labels[position] == predicted[position]
        return {
            "position": position,
            "thumbnail": None if picture is None else picture.thumbnail,
            "label": label,
            "predicted": other,
            "is_right": bool(is_right),
            "of_label": percent(chance[labels[position]]),
            "of_predicted": percent(chance[predicted[position]]),
            "name": _shortened(source),
            "source": source or f"image {position}",
            "alt": f"Image {position}, labelled {label}, predicted {other}",
            "overlay": self._overlay(position),
        }

    def _overlay(self, position: int) -> dict[str, Any] | None:
        findings = self._findings
        found, picture = findings.activation_maps.get(position), findings.pictures[position]
        if found is None or picture is None:
            return None
        left, top, width, height = found.box(picture.width, picture.height)
        return {
            "uri": overlay(found),
            "style": f"left:{left:.2%};top:{top:.2%};width:{width:.2%};height:{height:.2%}",
        }

    def data(self) -> dict[str, Any]:
        """Return what the script reads: the images that have a thumbnail."""
        findings = self._findings
        labels, predicted = findings.labels, findings.predicted
        images = []
        for position in findings.shown.tolist():
            card = self.of(position)
            picture = card["thumbnail"]
            images.append(
                [
                    position,
                    None if picture is None else picture.uri,
                    0 if picture is None else picture.width,
                    0 if picture is None else picture.height,
                    int(labels[position]),
                    int(predicted[position]),
                    card["of_label"],
                    card["of_predicted"],
                    card["name"],
                ]
            )
        return {"classes": self._names, "images": images}


# texts


def _lead(findings: Findings) -> list[str]:
    names, n, n_right = findings.names, len(findings.right), int(findings.right.sum())
    share = percent(findings.accuracy.value)
    sentences = [
        f"{n_right:,} of {n:,} images are classified correctly: {share}, "
        f"with an interval of 95% from {interval(findings.accuracy)}."
    ]
    confused = most_confused(findings.confusion, 1)
    if confused:
        i, j, times = confused[0]
        images = "image is" if times == 1 else "images are"
        sentences.append(
            f"The most frequent confusion: {times} {images} labelled {names[i]} and predicted as "
            f"{names[j]}."
        )
    n_issues = len(findings.label_issues)
    if n_issues:
        labels = "label is" if n_issues == 1 else "labels are"
        sentences.append(
            f"{n_issues} {labels} likely wrong by confident learning: look at these before you "
            "change one."
        )
    return sentences


def _tiles(findings: Findings) -> list[tuple[str, str, str]]:
    right, balanced = findings.right, findings.balanced_accuracy
    knows_nothing = loss_of_frequencies(findings.labels)
    gap = float(findings.probabilities.max(axis=1).mean() - right.mean())
    lean = "too confident" if gap > 0 else "too careful"
    tiles = [
        ("Accuracy", percent(findings.accuracy.value), interval(findings.accuracy)),
        ("Balanced accuracy", percent(balanced.value), interval(balanced)),
        ("Errors", f"{int((~right).sum()):,}", f"of {len(right):,} images"),
        ("Log loss", f"{findings.losses.mean():.3f}", f"{knows_nothing:.3f} without looking"),
        (
            "Calibration error",
            percent(findings.calibration_error),
            f"{abs(gap) * 100:.1f} points {lean} on average",
        ),
        ("Labels likely wrong", f"{len(findings.label_issues):,}", "listed below"),
    ]
    if findings.predictions.folds is not None:
        by_fold = [
            right[findings.predictions.folds == fold].mean()
            for fold in np.unique(findings.predictions.folds)
        ]
        spread = f"folds from {percent(min(by_fold))} to {percent(max(by_fold))}"
        tiles[0] = (tiles[0][0], tiles[0][1], f"{tiles[0][2]}; {spread}")
    return tiles


def _shortened(source: str) -> str:
    """Return the end of a path: the name of the file and of its folder."""
    end = "/".join(source.replace("\\", "/").split("/")[-2:])
    return end if len(end) <= _LONGEST_NAME else "…" + end[1 - _LONGEST_NAME :]


# tables and lists


def _class_rows(findings: Findings) -> list[dict[str, Any]]:
    scores = sorted(
        findings.class_scores,
        key=lambda one: (np.isnan(one.recall.value), one.recall.value, one.position),
    )
    return [
        {
            "name": findings.names[one.position],
            "n": one.recall.n,
            "recall": one.recall,
            "recall_text": percent(one.recall.value),
            "recall_interval": interval(one.recall) if one.recall.n else "no image",
            "precision_text": percent(one.precision.value),
            "precision_interval": interval(one.precision) if one.precision.n else "none predicted",
        }
        for one in scores
    ]


def _matrix(findings: Findings) -> dict[str, Any]:
    """Return the cells of the classes; of many classes, of those with the most errors."""
    names, confusion = findings.names, findings.confusion
    wrong = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * confusion.diagonal()
    chosen = np.arange(len(names))
    if len(names) > _MOST_IN_MATRIX:
        chosen = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_IN_MATRIX])
    rows = []
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    of_wrong = shares[np.ix_(chosen, chosen)] - np.diag(shares.diagonal()[chosen])
    # a colour for the largest confusion, however rare; but a few in a hundred stay pale
    largest = max(float(of_wrong.max()), _STRONG_SHARE)
    for i in chosen.tolist():
        n_label = int(confusion[i].sum())
        cells = [
            {
                "label": i,
                "predicted": j,
                "n": int(confusion[i, j]),
                "share": f"{shares[i, j] / (1 if i == j else largest):.3f}",
                "is_right": i == j,
                "says": f"{confusion[i, j]} labelled {names[i]}, predicted {names[j]}",
            }
            for j in chosen.tolist()
        ]
        rows.append({"name": names[i], "n": n_label, "cells": cells})
    return {
        "names": [names[i] for i in chosen.tolist()],
        "rows": rows,
        "n_left_out": len(names) - len(chosen),
    }


def _issue_card(findings: Findings, cards: _Cards, issue: LabelIssue) -> dict[str, Any]:
    return {
        "is_likely": issue.position in {one.position for one in findings.label_issues},
        **cards.of(issue.position),
        "overlay": None,
        "suggested": str(issue.suggested),
        "probability": percent(issue.probability),
        "neighbours": percent(issue.neighbours),
        "score": f"{issue.score:.2f}",
    }


def _duplicate_set(findings: Findings, cards: _Cards, found: DuplicateSet) -> dict[str, Any]:
    members = [{**cards.of(i), "overlay": None} for i in found.positions]
    labels = {card["label"] for card in members}
    return {
        "members": members[:12],
        "n_more": max(0, len(members) - 12),
        "is_equal": found.equal,
        "is_different": len(labels) > 1,
        "cosine": None if found.cosine is None else f"{found.cosine:.2f}",
    }
