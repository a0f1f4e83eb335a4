"""A model card: what a fitted model is, what it was trained on, and how it was tested."""

import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils._param_validation import HasMethods, validate_params
from sklearn.utils.validation import check_is_fitted

from ..hygiene import LabelIssues, LeakageReport

_LIBRARIES = ("sktransfer", "scikit-learn", "torch", "torchvision", "skorch")
# a text as `repr` writes it
_QUOTED = re.compile(r"""'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)\"""")
# as the Hugging Face Hub spells licences that weights come with; others are "other"
_LICENCES = {"apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "mit"}


@validate_params(
    {
        "estimator": [HasMethods("predict")],
        "y": ["array-like", None],
        "data": [str, None],
        "scores": [Mapping, None],
        "leakage": [LeakageReport, None],
        "labels": [LabelIssues, None],
        "intended_use": [str, None],
        "title": [str, None],
    },
    prefer_skip_nested_validation=True,
)
def model_card(
    estimator,
    y=None,
    *,
    data=None,
    scores=None,
    leakage=None,
    labels=None,
    intended_use=None,
    title=None,
):
    """Describe a fitted model in Markdown with a head of YAML, as the Hugging Face Hub reads it.

    Whatever is not given is said to be unknown: a card without scores says that there are
    none. Nothing is computed, and no image is read. Of absolute paths the last part
    alone is shown.

    Parameters
    ----------
    estimator : fitted estimator
        One of sktransfer, or a pipeline or a search that has one or several.
    y : array-like of shape (n_images,), default=None
        The targets that it was fitted with, for the number of images of each class.
    data : str, default=None
        A sentence or more on the images: where they are from, who labelled them, what they
        don't show.
    scores : mapping of str to array-like, default=None
        What `sklearn.model_selection.cross_validate` returns: each ``test_*`` is shown by fold,
        with mean and standard deviation.
    leakage : LeakageReport, default=None
        That of `sktransfer.hygiene.leakage_report`.
    labels : LabelIssues, default=None
        That of `sktransfer.hygiene.label_issues`.
    intended_use : str, default=None
        What the model is for, and what it must not be used for.
    title : str, default=None
        The name of the model; by default the class of the estimator that predicts.

    Returns
    -------
    card : str
        For a file ``README.md``, or for `huggingface_hub.ModelCard`.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        When the estimator is not fitted.
    ValueError
        When it has no estimator of sktransfer, or `scores` have no ``test_*``.

    See Also
    --------
    ErrorReport : What a classifier gets wrong, as a page.

    Notes
    -----
    The licence in the head is that of the weights which the model started from, as their
    source states it; one that the Hub has no name for is ``other``. Whether a model that
    was trained with them, on your images, may be given away is for you to decide.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_validate
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.inspection import model_card
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:100], y[:100]
    >>> classifier = FineTunedClassifier(
    ...     "mini", freeze_depth=None, image_shape=(8, 8), pixel_range=(0, 16), random_state=0
    ... )
    >>> scores = cross_validate(classifier, X, y, cv=2)
    >>> card = model_card(classifier.fit(X, y), y, scores=scores, data="Handwritten digits.")
    >>> print(card[card.index("# Fine"):].splitlines()[0])
    # FineTunedClassifier
    """
    fitted = getattr(estimator, "best_estimator_", estimator)
    check_is_fitted(fitted)
    networks = list(_networks(fitted))
    if not networks:
        raise ValueError(
            f"estimator must have an estimator of sktransfer that is fitted, got {estimator!r}"
        )
    measured = {} if scores is None else _test_scores(scores)
    title = title or type(_last_step(fitted)).__name__
    parts = [
        _head(fitted, networks, measured, title),
        f"# {title}\n",
        _section("Use", intended_use),
        "## Model\n",
        *(_network_table(network) for network in networks),
        f"```python\n{_source(fitted)}\n```\n",
        _section("Training images", data, _target_table(fitted, y)),
        "## Scores\n",
        _score_table(measured) or "Unknown: the card was written without scores.\n",
        _section(
            "Duplicates between training and test images",
            _headline(leakage),
        ),
        _section("Labels", _headline(labels)),
        "## Versions\n",
        _table(("package", "version"), [(name, version(name)) for name in _LIBRARIES]),
        f"Python {platform.python_version()}, {platform.system()}.\n",
    ]
    return "\n".join(part for part in parts if part)


def _networks(estimator, seen=None):
    """Yield the fitted estimators with a network, from the first step to the last."""
    seen = set() if seen is None else seen
    if id(estimator) in seen:
        return
    seen.add(id(estimator))
    if isinstance(estimator, (list, tuple)):
        for part in estimator:
            yield from _networks(part, seen)
    elif hasattr(estimator, "backbone_spec_"):
        yield estimator
    elif isinstance(estimator, BaseEstimator):
        for value in vars(estimator).values():
            yield from _networks(value, seen)


def _last_step(estimator):
    return _last_step(estimator[-1]) if hasattr(estimator, "steps") else estimator


def _test_scores(scores):
    measured = {
        name.removeprefix("test_"): np.asarray(values, dtype=float)
        for name, values in scores.items()
        if name.startswith("test_")
    }
    if not measured:
        raise ValueError(
            "scores must have a key that begins with 'test_', as cross_validate returns them, got "
            f"{', '.join(map(repr, scores)) or 'none'}"
        )
    return measured


def _head(fitted, networks, measured, title):
    """Return the YAML; a string of JSON is one of YAML."""
    kind = "image-classification" if is_classifier(fitted) else "other"
    licences = dict.fromkeys(network.backbone_spec_.licence for network in networks)
    lines = ["---", "library_name: sktransfer"]
    names = {name if name in _LICENCES else "other" for name in map(str.lower, licences)}
    lines.append(f"license: {names.pop() if len(names) == 1 else 'other'}")
    if lines[-1].endswith("other"):
        stated = " and ".join(licence or "not stated" for licence in licences)
        lines.append(f"license_name: {json.dumps(stated)}")
    tags = ["sktransfer", "scikit-learn", "transfer-learning"]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    if is_classifier(fitted):
        lines.append(f"pipeline_tag: {kind}")
    if measured:
        lines += [
            "model-index:",
            f"- name: {json.dumps(title)}",
            "  results:",
            "  - task:",
            f"      type: {kind}",
            "    dataset:",
            "      type: private",
            "      name: cross-validation",
            "    metrics:",
        ]
        for name, values in measured.items():
            lines += [f"    - type: {json.dumps(name)}", f"      value: {_plain(values.mean())}"]
    return "\n".join([*lines, "---", ""])


def _plain(value):
    return json.dumps(round(float(value), 6) if np.isfinite(value) else None)


def _network_table(network):
    spec = network.backbone_spec_
    rows = [
        ("estimator", type(network).__name__),
        ("backbone", _without_folder(spec.name)),
        ("architecture", _without_folder(spec.architecture)),
        ("weights", _without_folder(spec.weights or "random")),
        ("source of the weights", _without_folder(spec.source) or "not stated"),
        ("licence of the weights", spec.licence or "not stated"),
        ("digest of architecture and weights", spec.digest),
        ("pixels a side", getattr(network, "image_size_", spec.input.size)),
        ("stages", ", ".join(spec.stages)),
    ]
    if hasattr(network, "freeze_depth_"):
        trained = spec.stages[network.freeze_depth_ :]
        rows.append(("stages that were trained", ", ".join(trained) or "none; the head alone"))
    if hasattr(network, "depth_"):
        rows.append(("depth of the rows", network.depth_))
    if hasattr(network, "precision_"):
        rows.append(("precision of the frozen stages", network.precision_))
    if hasattr(network, "device_"):
        rows.append(("device of the fit", network.device_))
    for name, value in getattr(network, "recipe_", {}).items():
        rows.append((name, value))
    return _table(("", ""), rows)


def _source(fitted):
    """Return the parameters that differ from the defaults, as scikit-learn prints them."""
    source = fitted.__repr__(N_CHAR_MAX=10_000).replace("```", "'''")
    return _QUOTED.sub(lambda found: f"'{_without_folder(found[1] or found[2] or '')}'", source)


def _without_folder(text):
    """Return a text; of an absolute path its last part, as folders tell who made the card."""
    source, folder, text = text.rpartition("local-dir:")  # of a source such as timm
    if folder:
        return f"{source}{folder}{_without_folder(text)}"
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name
    return text


def _target_table(fitted, y):
    if y is None:
        return None
    y = np.asarray(y)
    if is_classifier(fitted) and y.ndim == 1:
        classes, counts = np.unique(y, return_counts=True)
        rows = list(zip(classes, counts, strict=True))
        return f"{len(y)} images.\n\n{_table(('class', 'images'), rows)}"
    if is_regressor(fitted) and y.ndim == 1:
        quantiles = np.quantile(y.astype(float), [0, 0.25, 0.5, 0.75, 1])
        names = ("least", "lower quartile", "median", "upper quartile", "largest")
        rows = [(name, f"{value:.6g}") for name, value in zip(names, quantiles, strict=True)]
        return f"{len(y)} images.\n\n{_table(('target', ''), rows)}"
    return f"{len(y)} images.\n"


def _headline(report):
    # a report without a finding has length 0
    return None if report is None else f"{str(report).splitlines()[0]}."


def _score_table(measured):
    if not measured:
        return None
    rows = [
        (
            name,
            f"{values.mean():.4f}",
            f"{values.std(ddof=1):.4f}" if len(values) > 1 else "",
            ", ".join(f"{value:.4f}" for value in values),
        )
        for name, values in measured.items()
    ]
    return _table(("score", "mean", "standard deviation", "folds"), rows)


def _section(title, *texts):
    told = [str(text).strip() for text in texts if text]
    return f"## {title}\n\n" + ("\n\n".join(told) if told else "Unknown.") + "\n"


def _table(header, rows):
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value):
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
