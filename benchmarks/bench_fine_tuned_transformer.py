"""Claim: with a table, cross-fitted predictions of a tuned network are better than frozen rows.

    python benchmarks/bench_fine_tuned_transformer.py
    python benchmarks/bench_fine_tuned_transformer.py --cifar cifar10.zip --weights FILE

Tasks, in which neither the image nor the table tells the class alone:

- drawn: 200 images to fit of two discs, one above the other, and 600 to test; ``mini`` at 32
  pixels. The class is 1 where (red above blue) - (blue above red) + 1.2 times a number of the
  table is positive. A quarter of the labels is not what the image says.
- cifar10, instead, with ``--cifar`` and ``--weights``: 50 images of each class to fit and to
  test at 97 pixels. The table has a noisy number for each class but the first.

What a model is fitted on, beside the table, each with the defaults of its estimator:

- table: nothing.
- frozen rows: ``PretrainedFeatureTransformer``.
- predictions: ``FineTunedTransformer``.
- predictions, unbounded: the same without the share of a uniform distribution.
- probabilities: the same, as probabilities.
- predictions, not cross-fitted: ``fit(X, y).transform(X)``, which is not cross-fitted.
- tuned rows: ``FineTunedTransformer(output="rows")``.

Claims: in the mean over seeds, and with each of three models (a logistic regression, a random
forest, nearest neighbours), the predictions are better than the frozen rows by 0.03 at least, and
better than those that are not cross-fitted. And with permuted labels, a logistic regression that
is cross-validated on the predictions is within 0.15 of chance, and above that on those that are not
cross-fitted.

Some minutes on 2 idle cores.
"""

import argparse
import statistics
import tempfile

import numpy as np
from PIL import Image, ImageDraw
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from _data import cifar10
from _report import write_csv
from sktransfer import FineTunedClassifier, FineTunedTransformer, PretrainedFeatureTransformer
from sktransfer._cross_fitting import _UNIFORM_SHARE

LEAST_GAIN, MOST_FROM_CHANCE = 0.03, 0.15
CLAIMED = ("logistic regression", "random forest", "neighbours")


def models():
    """Return new models by name. The strength of the linear one is searched for."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}
    return {
        "logistic regression": GridSearchCV(linear, strengths, cv=3),
        "random forest": RandomForestClassifier(300, random_state=0),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(10)),
        "gradient boosting": HistGradientBoostingClassifier(
            max_iter=50, max_leaf_nodes=8, random_state=0
        ),
    }


def draw_pair(red_is_above, rng):
    """Draw a red and a blue disc, one above the other."""
    image = Image.fromarray(rng.integers(0, 120, (32, 32, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    heights = 8 + rng.integers(-3, 4), 24 + rng.integers(-3, 4)
    colours = [(220, 60, 60), (60, 60, 220)]
    for y, colour in zip(heights, colours if red_is_above else colours[::-1], strict=True):
        x = rng.integers(5, 27)
        pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
    return np.asarray(image)


def drawn(seed):
    """Return images, table and labels, to fit and to test, and parameters of the backbone."""
    rng, n, n_fit = np.random.default_rng(seed), 800, 200
    is_above, number = rng.integers(0, 2, n), rng.normal(size=(n, 1))
    y = (2 * is_above - 1 + 1.2 * number[:, 0] > 0).astype(int)
    X = np.stack([draw_pair(value, rng) for value in is_above])
    fit, test = slice(n_fit), slice(n_fit, n)
    reading = {"backbone": "mini", "image_size": 32}
    return (X[fit], number[fit], y[fit]), (X[test], number[test], y[test]), reading


def cifar(seed, archive, weights):
    """Return the same of CIFAR-10, with a table that is drawn."""
    data = cifar10(archive, image_size=97, seed=seed, n_train=50, n_test=50)
    rng, classes = np.random.default_rng(seed), np.unique(data.y)
    parts = []
    for X, y in ((data.X, data.y), (data.X_test, data.y_test)):
        table = 1.5 * (y[:, None] == classes[1:]) + rng.normal(size=(len(y), len(classes) - 1))
        parts.append((X, table, y))
    return *parts, {"backbone": weights, **data.reading}


def without_share(values, n_classes):
    """Return the probabilities of which the predictions are log-odds."""
    n_alternatives = max(n_classes, 2)
    mixed = expit(values.astype(np.float64)) - _UNIFORM_SHARE / n_alternatives
    return np.clip(mixed / (1 - _UNIFORM_SHARE), 1e-6, 1 - 1e-6)


def rows_of(fit, test, reading, cache, seed):
    """Return the rows to fit and to test, by name of the method."""
    (X, _, y), (X_test, _, _) = fit, test
    frozen = PretrainedFeatureTransformer(feature_cache=cache, **reading)
    classifier = FineTunedClassifier(feature_cache=cache, **reading)
    tuned = FineTunedTransformer(classifier, random_state=seed)
    predicted, not_cross_fitted = tuned.fit_transform(X, y), tuned.transform(X)
    tested = tuned.transform(X_test)
    n_classes = len(np.unique(y))
    plain, plain_tested = (without_share(values, n_classes) for values in (predicted, tested))
    rows = FineTunedTransformer(classifier, output="rows", random_state=seed)
    return {
        "table": (np.empty((len(X), 0)), np.empty((len(X_test), 0))),
        "frozen rows": (frozen.fit_transform(X), frozen.transform(X_test)),
        "predictions": (predicted, tested),
        "predictions, unbounded": (logit(plain), logit(plain_tested)),
        "probabilities": (plain, plain_tested),
        "predictions, not cross-fitted": (not_cross_fitted, tested),
        "tuned rows": (rows.fit_transform(X, y), rows.transform(X_test)),
    }


def score_models(task, seed, fit, test, reading, cache):
    """Return a line for each method and model."""
    lines = []
    for method, (rows, rows_tested) in rows_of(fit, test, reading, cache, seed).items():
        for name, model in models().items():
            if name == "gradient boosting" and len(np.unique(fit[2])) > 2 and rows.shape[1] > 100:
                continue  # an hour
            model.fit(np.hstack([rows, fit[1]]), fit[2])
            score = model.score(np.hstack([rows_tested, test[1]]), test[2])
            lines.append(
                {"task": task, "seed": seed, "rows": method, "model": name, "accuracy": score}
            )
    return lines


def score_random_labels(seed, fit, reading, cache):
    """Return lines of models that are cross-validated on predictions of permuted labels."""
    X, _, y = fit
    y = np.random.default_rng(seed).permutation(y)
    tuned = FineTunedTransformer(
        FineTunedClassifier(feature_cache=cache, **reading), random_state=seed
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    lines = []
    for method, rows in (
        ("predictions", tuned.fit_transform(X, y)),
        ("predictions, not cross-fitted", tuned.transform(X)),
    ):
        score = cross_val_score(linear, rows, y).mean()
        lines.append(
            {
                "task": "random labels",
                "seed": seed,
                "rows": method,
                "model": "logistic regression",
                "accuracy": score,
            }
        )
    return lines


def mean(lines, **where):
    """Return the mean accuracy of some lines; None where there are none."""
    some = [line["accuracy"] for line in lines if where.items() <= line.items()]
    return statistics.mean(some) if some else None


def print_table(lines, task):
    here = [line for line in lines if line["task"] == task]
    names = list(dict.fromkeys(line["model"] for line in here))
    print(f"\n{task}: mean accuracy\n{'':<24}" + "".join(f"{name:>22}" for name in names))
    for method in dict.fromkeys(line["rows"] for line in here):
        means = [mean(here, rows=method, model=name) for name in names]
        cells = ["" if value is None else f"{value:.3f}" for value in means]
        print(f"{method:<24}" + "".join(f"{cell:>22}" for cell in cells))


def check_claims(lines, task):
    """Raise where a claim is broken."""
    for model in CLAIMED:
        ours, frozen, leaking = (
            mean(lines, task=task, rows=rows, model=model)
            for rows in ("predictions", "frozen rows", "predictions, not cross-fitted")
        )
        assert ours >= frozen + LEAST_GAIN, (model, ours, frozen)
        assert ours > leaking, (model, ours, leaking)
    if task == "drawn":
        ours, leaking = (
            mean(lines, task="random labels", rows=rows)
            for rows in ("predictions", "predictions, not cross-fitted")
        )
        assert abs(ours - 0.5) < MOST_FROM_CHANCE < leaking - 0.5, (ours, leaking)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cifar", help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("--weights", help="self-describing file of MobileNetV2 at width 0.35")
    arguments = parser.parse_args()
    task = "cifar10" if arguments.cifar else "drawn"
    lines = []
    with tempfile.TemporaryDirectory() as cache:
        for seed in range(arguments.seeds):
            if task == "drawn":
                fit, test, reading = drawn(seed)
                lines += score_random_labels(seed, fit, reading, cache)
            else:
                fit, test, reading = cifar(seed, arguments.cifar, arguments.weights)
            lines += score_models(task, seed, fit, test, reading, cache)
    write_csv(f"bench_fine_tuned_transformer_{task}", lines)
    for part in dict.fromkeys(line["task"] for line in lines):
        print_table(lines, part)
    check_claims(lines, task)


if __name__ == "__main__":
    main()
