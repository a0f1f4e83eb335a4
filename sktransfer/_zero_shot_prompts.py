"""The texts of classes: names put into templates, or prompts that are given as they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

TEMPLATES = ("simple", "imagenet")  # names of open_clip's lists


def labels_of(classes: Any) -> np.ndarray:
    """Return the labels in sorted order, as scikit-learn's scorers expect them.

    Raises
    ------
    TypeError, ValueError
        When `classes` holds no labels, one twice, or labels of several kinds.
    """
    if isinstance(classes, (str, bytes)) or not hasattr(classes, "__iter__"):
        raise TypeError(
            "classes must be a sequence of labels, or a dict of labels and their names or prompts, "
            f"got {classes!r}"
        )
    given = list(classes)
    if len(given) < 2:
        raise ValueError(f"classes must hold at least 2 labels, got {given!r}")
    kinds = {str if isinstance(label, str) else type(label) for label in given}
    labels = np.array(given) if len(kinds) == 1 else None
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "US" + "biuf":
        raise TypeError(f"classes must hold strings, or numbers of one kind, got {given!r}")
    found = np.unique(labels)
    if len(found) < len(given):
        raise ValueError(f"classes must hold each label once, got {given!r}")
    return found


def prompts_of(
    classes: Any, labels: np.ndarray, templates: Sequence[str | Callable[[str], str]]
) -> tuple[tuple[str, ...], ...]:
    """Return the prompts of each label, in the order of the labels.

    A name is put into every template. A list of prompts is used as it is.

    Raises
    ------
    TypeError, ValueError
        When a name or a prompt is no text.
    """
    named = _named(classes, labels)
    return tuple(
        tuple(_filled(template, name) for template in templates)
        if isinstance(name, str)
        else _checked_prompts(label, name)
        for label, name in zip(labels.tolist(), named, strict=True)
    )


def checked_templates(templates: Any) -> str | tuple[str | Callable[[str], str], ...]:
    """Return the name of a list of open_clip's, or the templates; or raise."""
    if isinstance(templates, str):
        if templates in TEMPLATES:
            return templates
        allowed = ", ".join(repr(name) for name in TEMPLATES)
        raise ValueError(
            f"templates must be {allowed} or a sequence of templates, got {templates!r}; one "
            f"template is a sequence too: [{templates!r}]"
        )
    if not hasattr(templates, "__iter__"):
        raise TypeError(f"templates must be a name or a sequence, got {templates!r}")
    found = tuple(templates)
    if not found:
        raise ValueError("templates must not be empty; ['{}'] is the name alone")
    for template in found:
        if not callable(template) and not isinstance(template, str):
            raise TypeError(f"templates must hold strings or functions, got {template!r}")
        if isinstance(template, str) and "{}" not in template:
            raise ValueError(f"a template must hold '{{}}', where the name goes, got {template!r}")
    return found


def _named(classes: Any, labels: np.ndarray) -> list[Any]:
    """Return what stands for each label: a name, or a list of prompts."""
    if not isinstance(classes, Mapping):
        return [_text(label) for label in labels.tolist()]
    return [classes[label] for label in labels.tolist()]


def _text(label: Any) -> str:
    """Return a label as the name of its class; folders have underscores for spaces."""
    return str(label).replace("_", " ")


def _filled(template: str | Callable[[str], str], name: str) -> str:
    text = template(name) if callable(template) else template.replace("{}", name)
    if not isinstance(text, str):
        raise TypeError(f"a template must return a str, got {text!r} for {name!r}")
    return text


def _checked_prompts(label: Any, prompts: Any) -> tuple[str, ...]:
    is_list = isinstance(prompts, (list, tuple)) and all(isinstance(p, str) for p in prompts)
    if not is_list or not prompts:
        raise TypeError(
            f"classes[{label!r}] must be a name, which goes into the templates, or a list of "
            f"prompts, which are used as they are; got {prompts!r}"
        )
    return tuple(prompts)
