"""Pseudo-labels, recalibration and adapted networks against skada's adapters on the same rows.

    python benchmarks/bench_adaptation.py data mobilenet_v2_0.35.safetensors [--only TASK ...]
                                          [--parts PART ...] [--figure docs/...png]

Rows of MobileNetV2 at width 0.35 and 97 pixels. Labels of a source, none of a target; the accuracy
on that target, over five seeds with a 95 % interval. The folder has ``digits_shift.npz``,
``cifar10.zip`` and ``hymenoptera``.

- mnist-usps, usps-mnist: 2,000 digits of MNIST, drawn, and the 2,007 of USPS.
- digits-usps: 1,500 of scikit-learn's digits, drawn, to USPS.
- cifar-noise, cifar-blur, cifar-contrast: 100 images of each class to as many others, changed.
- insects: 200 photographs of ants and bees, drawn, to 120 others as drawings of their edges.

Part "rows": a logistic regression of the source alone; on rows standardised domain by domain;
with skada's CORAL, subspace alignment and OT mapping before it, with and without that;
pseudo-labels, of which one of five settings is chosen by label-free scorers, and once by the
target's labels; one and three labelled target images a class; and as the ceiling the labels of
the target, cross-validated. Part "recalibrated": rows of backbones recalibrated with 32 images
of each domain. "tuned": FineTunedClassifier with `adapt="mcc"`: its head alone, the recipe "fast"
with and without, and the default recipe on MNIST and USPS. "traps": a target of half the classes,
and recalibration with three corruptions at once.

Claims: MNIST to USPS and back, pseudo-labels reach 0.82 and 0.72, and the best method 0.88
and 0.80. On each corruption of CIFAR-10, recalibration with 32 images is above frozen
statistics in five of five seeds. Seconds are those of fit and predict on stored rows; forward
passes are images that pass where nothing is stored. What is run replaces its lines in the CSV,
and the claims are asserted on all of it: tasks and parts can be run one by one. "tuned" is run
on request alone, because its fits take half an hour; the others take about as long on an idle
core. The seconds of the CSV are of one that was shared.
"""

import argparse
import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from skada import CORALAdapter, OTMappingAdapter, SubspaceAlignmentAdapter, make_da_pipeline
from skada.metrics import PredictionEntropyScorer, SoftNeighborhoodDensity
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from _data import cifar10, corrupted, hymenoptera
from _report import RESULTS, write_csv
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer.domain_adaptation import PseudoLabelClassifier, recalibrate_backbone
from sktransfer.domain_adaptation._domain_rows import DomainRows

IMAGE_SIZE = 97
SEEDS = range(5)
N_RECALIBRATION = 32
N_MNIST, N_DIGITS, N_CIFAR, N_INSECTS = 200, 150, 100, (100, 60)  # of each class
CORRUPTIONS = ("noise", "blur", "contrast")
TASKS = (
    "mnist-usps",
    "usps-mnist",
    "digits-usps",
    *(f"cifar-{kind}" for kind in CORRUPTIONS),
    "insects",
)
CLAIMED = {"mnist-usps": (0.82, 0.88), "usps-mnist": (0.72, 0.80)}
NAME = "bench_adaptation"
COLUMNS = ("part", "task", "method", "seed", "accuracy", "seconds", "forward_passes", "chosen")


def logistic():
    return LogisticRegression(C=0.01, tol=1e-3, max_iter=300)


@dataclass(frozen=True)
class Task:
    """Labelled images of a source, and images of a target whose labels are for scores alone."""

    X: np.ndarray
    y: np.ndarray
    X_target: np.ndarray
    y_target: np.ndarray
    clean: np.ndarray | None = None  # the target before it was changed


def drawn(y, n, rng):
    return np.concatenate(
        [rng.choice(np.flatnonzero(y == label), n, replace=False) for label in np.unique(y)]
    )


def edges(paths):
    """Return photographs as drawings: dark edges on white."""
    images = np.empty(len(paths), dtype=object)
    for i, path in enumerate(paths):
        with Image.open(path) as opened:
            image = opened.convert("L")
        image.thumbnail((400, 400))
        lines = image.filter(ImageFilter.FIND_EDGES)
        images[i] = np.asarray(ImageOps.invert(ImageOps.autocontrast(lines)).convert("RGB"))
    return images


def task_of(name, files, seed):
    rng = np.random.default_rng(seed)
    kind, _, change = name.partition("-")
    if kind == "cifar":
        data = cifar10(files / "cifar10.zip", IMAGE_SIZE, seed, N_CIFAR, N_CIFAR)
        changed = corrupted(data.X_test, change, seed)
        return Task(data.X, data.y, changed, data.y_test, data.X_test)
    if kind == "insects":
        data = hymenoptera(files / "hymenoptera", IMAGE_SIZE)
        is_photograph = ~np.char.endswith(data.X.astype(str), ".gif")
        X, y = data.X[is_photograph], data.y[is_photograph]
        train, test = drawn(y, N_INSECTS[0], rng), drawn(data.y_test, N_INSECTS[1], rng)
        return Task(X[train], y[train], edges(data.X_test[test]), data.y_test[test])
    arrays = np.load(files / "digits_shift.npz")
    mnist, usps = ((arrays[d], arrays[f"{d}_labels"]) for d in ("mnist", "usps"))
    if kind == "digits":
        X, y = load_digits(return_X_y=True)
        chosen = drawn(y, N_DIGITS, rng)
        images = (X[chosen].reshape(-1, 8, 8) / 16).astype(np.float32)
        return Task(images, y[chosen], *usps)
    chosen = drawn(mnist[1], N_MNIST, rng)
    mnist = mnist[0][chosen], mnist[1][chosen]
    return Task(*mnist, *usps) if kind == "mnist" else Task(*usps, *mnist)


class Rows:
    """Rows of images by a backbone, from one store for all tasks."""

    def __init__(self, weights, folder):
        self.weights, self.folder = weights, Path(folder)

    def of(self, X, backbone=None):
        transformer = PretrainedFeatureTransformer(
            backbone or self.weights, image_size=IMAGE_SIZE, feature_cache=self.folder / "rows"
        )
        return transformer.fit_transform(X)

    def recalibrated(self, X, some):
        """Return rows of `X` by a backbone with the statistics of some images."""
        path = self.folder / "recalibrated.safetensors"
        recalibrate_backbone(self.weights, some, path, image_size=IMAGE_SIZE)
        return self.of(X, path)


class Lines:
    """Lines of the CSV, each with its accuracy on the target and its seconds."""

    def __init__(self, part, task, seed):
        self.of_all = {"part": part, "task": task, "seed": seed}
        self.lines = []

    def add(self, method, accuracy, seconds, forward_passes, chosen=""):
        line = {
            **self.of_all,
            "method": method,
            "accuracy": round(float(accuracy), 4),
            "seconds": round(seconds, 2),
            "forward_passes": forward_passes,
            "chosen": chosen,
        }
        self.lines.append({name: line[name] for name in COLUMNS})
        of = f"{self.of_all['task']:<15} {self.of_all['seed']}"
        print(f"{of} {method:<28} {accuracy:.3f} {seconds:6.1f} s {chosen}", flush=True)


def adapted(estimator, source, y, target):
    """Return the predictions of an estimator that has seen the target without labels."""
    X = np.concatenate([source, target])
    domain = np.repeat([1, -2], [len(source), len(target)])
    # labels of the target are hidden from every method in the same way
    labels = np.concatenate([y, np.full(len(target), -1)])
    estimator.fit(X, labels, sample_domain=domain)
    return estimator.predict(target, sample_domain=np.full(len(target), -2))


def standardised():
    return PseudoLabelClassifier(logistic(), n_iter=0, n_components=None)


def row_lines(name, seed, task, rows):
    lines = Lines("rows", name, seed)
    codes = np.unique(task.y)
    y, y_target = (np.searchsorted(codes, labels) for labels in (task.y, task.y_target))
    source, target = rows.of(task.X), rows.of(task.X_target)
    n, n_target = len(source), len(target)
    n_passes = n + n_target

    def timed(method, predict, passes=n_passes, seconds=0.0, chosen=""):
        start = time.perf_counter()
        accuracy = np.mean(predict() == y_target)
        lines.add(method, accuracy, seconds + time.perf_counter() - start, passes, chosen)
        return accuracy

    def of_source(target):
        model = make_pipeline(StandardScaler(), logistic()).fit(source, y)
        return model.predict(target)

    timed("source only", lambda: of_source(target))
    timed("standardised", lambda: adapted(standardised(), source, y, target))
    pseudo_label_lines(timed, source, y, target, y_target)

    # skada's adapters take a second each on 256 columns, and minutes on 1,280
    domain = np.repeat([1, -2], [n, n_target])
    both = np.concatenate([source, target]).astype(np.float64)
    by_source = StandardScaler().fit(source).transform(both)
    for suffix, prepared in (
        ("", DomainRows(False, "auto").fit_transform(by_source, domain)),
        (", standardised", DomainRows(True, "auto").fit_transform(both, domain)),
    ):
        for title, adapter in (
            ("CORAL", CORALAdapter()),
            ("subspace alignment", SubspaceAlignmentAdapter(random_state=0)),
            ("OT mapping", OTMappingAdapter()),
        ):
            model = make_da_pipeline(adapter, logistic())
            timed(
                f"skada {title}{suffix}",
                lambda model=model, prepared=prepared: adapted(
                    model, prepared[:n], y, prepared[n:]
                ),
            )

    for n_labels in (1, 3):
        labelled(lines, n_labels, source, y, target, y_target, seed, n_passes)
    start = time.perf_counter()
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), logistic())
    accuracy = cross_val_score(model, target, y_target, cv=folds).mean()
    lines.add("target labels", accuracy, time.perf_counter() - start, n_target)
    return lines.lines


def recalibrated_lines(name, seed, task, rows):
    """Return lines of rows by one backbone for each domain."""
    lines = Lines("recalibrated", name, seed)
    rng = np.random.default_rng(seed)
    codes = np.unique(task.y)
    y, y_target = (np.searchsorted(codes, labels) for labels in (task.y, task.y_target))
    start = time.perf_counter()
    source, target = (
        rows.recalibrated(X, X[rng.permutation(len(X))[:N_RECALIBRATION]])
        for X in (task.X, task.X_target)
    )
    before = time.perf_counter() - start
    n_passes = len(source) + len(target) + 2 * N_RECALIBRATION
    for method, predict in (
        ("", lambda: make_pipeline(StandardScaler(), logistic()).fit(source, y).predict(target)),
        (", standardised", lambda: adapted(standardised(), source, y, target)),
        (", pseudo-labels", lambda: adapted(PseudoLabelClassifier(), source, y, target)),
    ):
        start = time.perf_counter()
        accuracy = np.mean(predict() == y_target)
        seconds = before + time.perf_counter() - start
        lines.add(f"recalibrated{method}", accuracy, seconds, n_passes)
    return lines.lines


def pseudo_label_lines(timed, source, y, target, y_target):
    """Add lines of settings of pseudo-labels, and of those that scorers choose."""
    X = np.concatenate([source, target])
    domain = np.repeat([1, -2], [len(source), len(target)])
    masked = np.concatenate([y, np.full(len(target), -1)])
    fitted, total = {}, 0.0
    for title, model in (
        ("pseudo-labels, n_iter=0", PseudoLabelClassifier(n_iter=0)),
        ("pseudo-labels, n_iter=5", PseudoLabelClassifier(n_iter=5)),
        ("pseudo-labels", PseudoLabelClassifier()),
        ("pseudo-labels, n_iter=20", PseudoLabelClassifier(n_iter=20)),
        ("pseudo-labels, logistic", PseudoLabelClassifier(logistic())),
    ):
        start = time.perf_counter()
        fitted[title] = model.fit(X, masked, sample_domain=domain)
        seconds = time.perf_counter() - start
        total += seconds
        timed(title, lambda model=model: model.predict(target), seconds=seconds)
    for title, scorer in (
        ("entropy", PredictionEntropyScorer()),
        ("neighbourhood density", SoftNeighborhoodDensity()),
    ):
        scores = {n: scorer(model, X, masked, sample_domain=domain) for n, model in fitted.items()}
        best = max(scores, key=scores.get)
        predict = fitted[best].predict
        timed(f"chosen by {title}", lambda p=predict: p(target), seconds=total, chosen=best)
    scores = {name: np.mean(m.predict(target) == y_target) for name, m in fitted.items()}
    best = max(scores, key=scores.get)
    predict = fitted[best].predict
    timed("chosen by target labels", lambda: predict(target), seconds=total, chosen=best)


def labelled(lines, n_labels, source, y, target, y_target, seed, n_passes):
    """Add some labelled target rows of each class to the source; score the others."""
    start = time.perf_counter()
    given = drawn(y_target, n_labels, np.random.default_rng(seed))
    rows = DomainRows(True, None).fit_transform(
        np.concatenate([source, target]).astype(np.float64),
        np.repeat([1, -2], [len(source), len(target)]),
    )
    rows, target_rows = rows[: len(source)], rows[len(source) :]
    # together the labelled ones of the target weigh half as much as the source
    weights = np.repeat([1.0, len(source) / (2 * len(given))], [len(source), len(given)])
    model = logistic().fit(
        np.concatenate([rows, target_rows[given]]),
        np.concatenate([y, y_target[given]]),
        sample_weight=weights,
    )
    others = np.setdiff1d(np.arange(len(target)), given)
    accuracy = model.score(target_rows[others], y_target[others])
    lines.add(f"{n_labels} labels a class", accuracy, time.perf_counter() - start, n_passes)


def tuned_lines(name, seed, task, rows):
    """Return a line for each `adapt` of FineTunedClassifier, and for none."""
    lines = Lines("tuned", name, seed)
    X = np.empty(len(task.X) + len(task.X_target), dtype=object)
    for i, image in enumerate([*task.X, *task.X_target]):  # of two sizes, or of one
        X[i] = image
    domain = np.repeat([1, -2], [len(task.X), len(task.X_target)])
    codes = np.unique(task.y)
    masked = np.concatenate([np.searchsorted(codes, task.y), np.full(len(task.X_target), -1)])
    y_target = np.searchsorted(codes, task.y_target)
    settings = TUNED | (TUNED_BY_DEFAULT if name in ("mnist-usps", "usps-mnist") else {})
    for method, parameters in settings.items():
        classifier = FineTunedClassifier(
            rows.weights,
            image_size=IMAGE_SIZE,
            feature_cache=rows.folder / "activations",
            random_state=seed,
            **parameters,
        )
        start = time.perf_counter()
        classifier.fit(X, masked, sample_domain=domain)
        predicted = classifier.predict(X[domain < 0])
        seconds = time.perf_counter() - start
        lines.add(method, np.mean(predicted == y_target), seconds, len(X))
    return lines.lines


TUNED = {
    "mcc, head alone": {"adapt": "mcc", "freeze_depth": None},
    "no adapt, fast": {"adapt": None, "recipe": "fast"},
    "mcc, fast": {"adapt": "mcc", "recipe": "fast"},
}
# one view of an image more for each epoch: minutes a fit
TUNED_BY_DEFAULT = {"mcc, default": {"adapt": "mcc"}}


def trap_lines(name, seed, task, rows):
    """Return lines of a target with half the classes, and of mixed corruptions."""
    if not name.startswith("cifar"):
        return []
    lines = Lines("traps", name, seed)
    rng = np.random.default_rng(seed)
    codes, y = np.unique(task.y, return_inverse=True)
    y_target = np.searchsorted(codes, task.y_target)
    half = np.isin(y_target, rng.choice(len(codes), len(codes) // 2, replace=False))
    source, target = rows.of(task.X), rows.of(task.X_target)

    def drawn_from(X):
        return X[rng.permutation(len(X))[:N_RECALIBRATION]]

    def add(method, predicted, true):
        lines.add(method, np.mean(predicted == true), 0.0, 0)

    def of_source(source, target):
        return make_pipeline(StandardScaler(), logistic()).fit(source, y).predict(target)

    own = rows.recalibrated(task.X, drawn_from(task.X))
    whole = rows.recalibrated(task.X_target, drawn_from(task.X_target))
    add("half the classes: source only", of_source(source, target[half]), y_target[half])
    for title, estimator in (
        ("standardised", standardised()),
        ("pseudo-labels", PseudoLabelClassifier()),
    ):
        with_all = adapted(estimator, source, y, target)[half]
        add(f"half the classes: {title} with all", with_all, y_target[half])
        predicted = adapted(estimator, source, y, target[half])
        add(f"half the classes: {title} with these", predicted, y_target[half])
    add("half the classes: recalibrated with all", of_source(own, whole[half]), y_target[half])
    changed = rows.recalibrated(task.X_target[half], drawn_from(task.X_target[half]))
    add("half the classes: recalibrated with these", of_source(own, changed), y_target[half])
    add("recalibrated by its corruption", of_source(own, whole), y_target)
    some = drawn_from(task.clean)
    mixed = [corrupted(some[i::3], kind, seed) for i, kind in enumerate(CORRUPTIONS)]
    changed = rows.recalibrated(task.X_target, np.concatenate(mixed))
    add("recalibrated by three corruptions", of_source(own, changed), y_target)
    return lines.lines


PARTS = {
    "rows": row_lines,
    "recalibrated": recalibrated_lines,
    "tuned": tuned_lines,
    "traps": trap_lines,
}


def merged(lines):
    """Return these lines, and those of earlier runs that they do not replace."""
    path = RESULTS / f"{NAME}.csv"
    new = {(line["part"], line["task"]) for line in lines}
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [
                {name: line[name] for name in COLUMNS}
                for line in csv.DictReader(file)
                if (line["part"], line["task"]) not in new
            ]
    order = {(part, task): i for i, (part, task) in enumerate((p, t) for p in PARTS for t in TASKS)}
    return sorted([*kept, *lines], key=lambda line: order[line["part"], line["task"]])


def accuracies(lines, task, method):
    """Return the accuracies of a method by seed."""
    return {
        int(line["seed"]): float(line["accuracy"])
        for line in lines
        if line["task"] == task and line["method"] == method
    }


def report(lines):
    for part in PARTS:
        for method in dict.fromkeys(line["method"] for line in lines if line["part"] == part):
            cells = []
            for task in TASKS:
                values = list(accuracies(lines, task, method).values())
                if len(values) > 1:
                    width = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
                    cells.append(f"{np.mean(values):.3f} ± {width:.3f}")
                else:
                    cells.append(" " * 13)
            print(f"{method:<40}", "  ".join(cells))


SHOWN = {
    "source only": "C7",
    "standardised": "C0",
    "skada CORAL, standardised": "C4",
    "recalibrated": "C1",
    "recalibrated, standardised": "C3",
    "pseudo-labels": "C2",
    "mcc, head alone": "C6",
    "mcc, fast": "C5",
    "3 labels a class": "C9",
    "target labels": "k",
}


def figure(lines, path):
    """Draw the accuracies of some methods on each task, with their intervals."""
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    for i, (method, colour) in enumerate(SHOWN.items()):
        label: str | None = method
        for place, task in enumerate(TASKS):
            values = list(accuracies(lines, task, method).values())
            if len(values) < 2:
                continue
            width = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
            axes.errorbar(
                place + (i - len(SHOWN) / 2) * 0.09,
                np.mean(values),
                width,
                color=colour,
                marker="_" if method == "target labels" else "o",
                markersize=10 if method == "target labels" else 5,
                linestyle="none",
                label=label,
            )
            label = None  # once in the legend
    axes.set_xticks(range(len(TASKS)), [task.replace("-", "\nto ", 1) for task in TASKS])
    axes.set_ylabel("accuracy on the target")
    axes.grid(axis="y", alpha=0.3)
    drawn.legend(loc="outside upper center", ncols=3, frameon=False)
    drawn.savefig(path, dpi=110)


def check(lines):
    """Assert the claims on what has been run."""
    for task, (least, least_of_best) in CLAIMED.items():
        methods = dict.fromkeys(
            line["method"] for line in lines if line["task"] == task and line["part"] != "traps"
        )
        means = {m: np.mean(list(accuracies(lines, task, m).values())) for m in methods}
        if "pseudo-labels" not in means:
            continue
        assert means["pseudo-labels"] >= least, (task, means)
        unfair = {
            "target labels",
            "chosen by target labels",
            "1 labels a class",
            "3 labels a class",
        }
        best = max(means[m] for m in means if m not in unfair)
        assert best >= least_of_best, (task, means)
    for kind in CORRUPTIONS:
        frozen = accuracies(lines, f"cifar-{kind}", "source only")
        changed = accuracies(lines, f"cifar-{kind}", "recalibrated")
        for seed in frozen.keys() & changed.keys():
            accuracy = frozen[seed]
            assert changed[seed] > accuracy, (kind, seed, accuracy, changed[seed])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, help="folder of the data sets")
    parser.add_argument("weights", help="self-describing file with ImageNet weights")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=("rows", "recalibrated", "traps")
    )
    parser.add_argument("--figure", type=Path, help="where the figure goes (.png)")
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(arguments.weights, folder)
        for name in arguments.only:
            for seed in SEEDS:
                task = task_of(name, arguments.files, seed)
                for part in arguments.parts:
                    lines += PARTS[part](name, seed, task, rows)
    lines = merged(lines)
    write_csv(NAME, lines)
    report(lines)
    if arguments.figure:
        figure(lines, arguments.figure)
    check(lines)


if __name__ == "__main__":
    main()
