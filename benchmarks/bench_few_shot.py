"""Heads on rows with 1 to 20 labelled images of each class.

    python benchmarks/bench_few_shot.py data mobilenet_v2_0.35.safetensors

Four data sets, in episodes of five classes (of the two of ants and bees): 1, 2, 5, 10 or 20 shots
of each class, 15 queries of each, 200 episodes, which are the same for all heads. No near-duplicate
of a query is among its shots. The rows are those of MobileNetV2 at width 0.35 with ImageNet
weights at 97 pixels, and for rubbish and USPS also of ``mini`` at 64. Each image passes each
network once. The folder has ``cifar10.zip``,
``hymenoptera/``, ``trash/`` and ``digits_shift.npz``.

- nearest mean: of rows as they are; of rows of unit length; and of rows without the mean of the
  shots and then of unit length, which is SimpleShot (arXiv 1911.04623) but for the mean, which is
  there that of the images which the network was trained on.
- LDA: of rows of unit length, with the scatter within classes and the ridge ``trace / n``; arXiv
  2402.04087 has ``trace / (n - 1)``. After a PCA of no more images than columns it is
  ``shrinkage=0.5``.
- logistic regression with C by leaving one out, from 10 shots on by five folds; 1 with one shot,
  where a class without its only image can't be learned. Of rows as for SimpleShot, as the next two;
  only with MobileNetV2.
- ridge regression with its strength by leaving one out; kNN with as many neighbours as shots, 10 at
  most, the nearer the heavier.
- the first head of ``TransferSearchCV``: a logistic regression on standardised rows, C fixed.

``--fine-tune`` fits ``FineTunedClassifier`` with its defaults to the first five episodes of two
data sets at 1, 5 and 20 shots, at 65 pixels, and the heads to the same ones.

Seconds are of the processor, for a fit and the prediction of the queries, rows given. What is fixed
(shrinkage, neighbours, C with one shot) was chosen on other episodes, of seed 100.

Claims: in the mean over data sets and networks, rows of unit length and SimpleShot are better than
the nearest mean of rows as they are at each number of shots, and LDA is better than all three from
2 shots on, than SimpleShot by more than the interval from 5 on. Eight minutes on one core, and four
for fine-tuning. ``--tasks`` chooses data sets, whose figures are put beside those of the others;
without a name the claims are checked, and the figure is drawn, from what was written.
"""

import argparse
import csv
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeClassifierCV
from sklearn.model_selection import LeaveOneOut, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from _data import cifar10, digits_shift, hymenoptera, rubbish
from _report import RESULTS, write_csv
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.hygiene import near_duplicates
from sktransfer.model_selection import FewShotSplit
from sktransfer.model_selection._heads import default_heads
from sktransfer.model_selection._row_scaler import RowScaler

BACKBONE = "MobileNetV2"
SIZES = {BACKBONE: 97, "mini": 64}
SHOTS, N_QUERY, N_EPISODES = (1, 2, 5, 10, 20), 15, 200
MINI_SETS = ("rubbish", "USPS")
ALL = ("ants and bees", "rubbish", "CIFAR-10", "USPS")
TUNED_SETS, TUNED_SHOTS, N_TUNED = ("rubbish", "USPS"), (1, 5, 20), 5
TUNED_SIZE = 65  # pixels
SEED = 0
CS, ALPHAS = (1.0, 10.0, 100.0), np.logspace(-2, 3, 6)
MEAN, UNIT, SIMPLE_SHOT = "nearest mean", "nearest mean, unit length", "SimpleShot"
LDA = "LDA"
TUNED = "FineTunedClassifier"


def data_sets(files):
    """Return images and labels by name."""
    sets = {
        "ants and bees": hymenoptera(files / "hymenoptera", None),
        "rubbish": rubbish(files / "trash", None, 0, 100),
        "CIFAR-10": cifar10(files / "cifar10.zip", None, 0, 200, 100, "test"),
        "USPS": digits_shift(files / "digits_shift.npz", "usps", None, 0, 100, 45),
    }
    return {
        name: (np.concatenate([of.X, of.X_test]), np.concatenate([of.y, of.y_test]))
        for name, of in sets.items()
    }


def groups_of(name, X, cache):
    """Return the near-duplicates of photographs; drawn digits of one class are all alike."""
    return None if name == "USPS" else near_duplicates(X, feature_cache=cache).labels


def centred(*steps):
    """Return a model of rows without the mean of the shots, and then of unit length."""
    return make_pipeline(StandardScaler(with_std=False), Normalizer(), *steps)


def heads(k_shot, with_search_of_c):
    """Return the models of rows by name."""
    n_neighbours = min(k_shot, 10)
    first = next(iter(default_heads(True, False, 2, 10).values()))
    models = {
        MEAN: NearestCentroid(),
        UNIT: make_pipeline(Normalizer(), NearestCentroid()),
        SIMPLE_SHOT: centred(NearestCentroid()),
        "kNN": centred(KNeighborsClassifier(n_neighbours, weights="distance")),
        "ridge": centred(RidgeClassifierCV(ALPHAS)),
        "first of the search": make_pipeline(RowScaler(), first),
    }
    if k_shot > 1:
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
        models[LDA] = make_pipeline(Normalizer(), PCA(), lda)
    if with_search_of_c and k_shot > 1:
        cv = LeaveOneOut() if k_shot <= 5 else StratifiedKFold(5)
        by_folds = LogisticRegressionCV(
            Cs=CS,
            cv=cv,
            scoring="accuracy",
            max_iter=1000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        models["logistic regression"] = centred(PCA(), by_folds)
    elif with_search_of_c:
        models["logistic regression"] = centred(LogisticRegression(C=1.0, max_iter=1000))
    return models


def drawn(y, groups, k_shot, n_episodes):
    """Return the first episodes; their draws do not depend on how many there are."""
    split = FewShotSplit(min(5, len(set(y))), k_shot, N_QUERY, n_episodes, SEED)
    return split.split(y, y, groups)


def episodes(name, backbone, rows, y, groups, shots, n_episodes):
    """Return the accuracies (n_episodes,) and the seconds of a task by shots and head."""
    scores, seconds = {}, {}
    for k_shot in shots:
        models = heads(k_shot, backbone == BACKBONE)
        for train, test in drawn(y, groups, k_shot, n_episodes):
            for head, model in models.items():
                started = time.process_time()
                with warnings.catch_warnings():
                    # NearestCentroid, of columns that do not vary within classes
                    warnings.filterwarnings("ignore", "self.within_class", UserWarning)
                    warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
                    model.fit(rows[train], y[train])
                accuracy = model.score(rows[test], y[test])
                key = backbone, name, k_shot, head
                scores.setdefault(key, []).append(accuracy)
                seconds[key] = seconds.get(key, 0) + time.process_time() - started
    return (
        {key: np.array(of) for key, of in scores.items()},
        {key: of / n_episodes for key, of in seconds.items()},
    )


def fine_tuned(name, X, y, weights, groups, cache):
    """Return accuracies and seconds of fine-tuned networks, and of the heads in the same."""
    reading = {"image_size": TUNED_SIZE, "feature_cache": cache, "verbose": -1}
    rows = PretrainedFeatureTransformer(weights, **reading).fit_transform(X).astype(float)
    scores, seconds = episodes(name, BACKBONE, rows, y, groups, TUNED_SHOTS, N_TUNED)
    for k_shot in TUNED_SHOTS:
        key = BACKBONE, name, k_shot, TUNED
        started, accuracies = time.process_time(), []
        for train, test in drawn(y, groups, k_shot, N_TUNED):
            model = FineTunedClassifier(weights, random_state=0, **reading)
            accuracies.append(model.fit(X[train], y[train]).score(X[test], y[test]))
        scores[key] = np.array(accuracies)
        seconds[key] = (time.process_time() - started) / N_TUNED
        print(key, scores[key].mean().round(4), round(seconds[key], 1), flush=True)
    return scores, seconds


def half(values):
    """Return half of the 95 percent interval of the mean."""
    return 1.96 * values.std(ddof=1) / np.sqrt(len(values))


def lines_of(scores, seconds):
    """Return a line for each head, with its gains on two others in the same episodes."""
    lines = []
    for (backbone, name, k_shot, head), of in scores.items():
        line = {
            "backbone": backbone,
            "data": name,
            "shots": k_shot,
            "head": head,
            "episodes": len(of),
            "accuracy": round(float(of.mean()), 4),
            "interval": round(float(half(of)), 4),
        }
        for column, other in (("gain_on_mean", MEAN), ("gain_on_simpleshot", SIMPLE_SHOT)):
            gain = of - scores[backbone, name, k_shot, other]
            line[column] = round(float(gain.mean()), 4)
            line[f"{column}_interval"] = round(float(half(gain)), 4)
        line["cpu_seconds"] = round(seconds[backbone, name, k_shot, head], 5)
        lines.append(line)
    return lines


def write(csv_name, lines):
    """Write lines beside those of other data sets that an earlier run has written."""
    tasks = {(line["backbone"], line["data"]) for line in lines}
    earlier = read(csv_name) if (RESULTS / f"{csv_name}.csv").exists() else []
    others = [
        {key: line[key] for key in lines[0]}
        for line in earlier
        if (line["backbone"], line["data"]) not in tasks
    ]
    write_csv(csv_name, [*others, *lines])


def read(csv_name):
    with (RESULTS / f"{csv_name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def score_heads(name, X, y, weights, cache):
    """Score the heads in all episodes of a data set, and write the figures."""
    groups = groups_of(name, X, cache)
    for backbone, size in SIZES.items():
        if backbone == "mini" and name not in MINI_SETS:
            continue
        transformer = PretrainedFeatureTransformer(
            weights if backbone == BACKBONE else backbone,
            image_size=size,
            feature_cache=cache,
            verbose=-1,
        )
        with count_forward_passes() as counter:
            rows = transformer.fit_transform(X).astype(float)
        found = episodes(name, backbone, rows, y, groups, SHOTS, N_EPISODES)
        print(f"{name}, {backbone}: {len(X)} images, {counter.computed} passes", flush=True)
        write("bench_few_shot", lines_of(*found))


def check(lines):
    """Print the means over data sets and networks, and assert the claims."""
    means = {}
    for k_shot in SHOTS:
        for head in heads(k_shot, True):
            of = [line for line in lines if (line["shots"], line["head"]) == (str(k_shot), head)]
            for what in ("accuracy", "gain_on_mean", "gain_on_simpleshot"):
                means[k_shot, head, what] = np.mean([float(line[what]) for line in of])
            # the data sets are given: the interval is that of the episodes
            intervals = [float(line["gain_on_simpleshot_interval"]) for line in of]
            means[k_shot, head, "interval"] = np.linalg.norm(intervals) / len(of)
            figures = [means[k_shot, head, what] for what in ("accuracy", "gain_on_mean")]
            print(f"{k_shot:>3} shots  {head:<26}", *(f"{figure:+.4f}" for figure in figures))
    for k_shot in SHOTS:
        for head in (UNIT, SIMPLE_SHOT):
            assert means[k_shot, head, "gain_on_mean"] > 0, (k_shot, head)
        if k_shot > 1:
            assert means[k_shot, LDA, "accuracy"] > means[k_shot, UNIT, "accuracy"], k_shot
            least = means[k_shot, LDA, "interval"] if k_shot >= 5 else 0
            assert means[k_shot, LDA, "gain_on_simpleshot"] > least, k_shot


def draw(path):
    """Draw the accuracies of the heads over the shots, one panel for each data set."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    lines = [line for line in read("bench_few_shot") if line["backbone"] == BACKBONE]
    names = list(dict.fromkeys(line["data"] for line in lines))
    shown = [LDA, "logistic regression", SIMPLE_SHOT, UNIT, MEAN, "kNN"]
    figure, axes = plt.subplots(1, len(names), figsize=(11, 3.4), layout="constrained")
    for ax, name in zip(axes, names, strict=True):
        for i, head in enumerate(shown):
            of = [line for line in lines if (line["data"], line["head"]) == (name, head)]
            k_shot = [int(line["shots"]) for line in of]
            mean, interval = (
                np.array([float(line[what]) for line in of]) for what in ("accuracy", "interval")
            )
            ax.plot(k_shot, mean, marker="o", markersize=3, color=f"C{i}", label=head)
            ax.fill_between(k_shot, mean - interval, mean + interval, color=f"C{i}", alpha=0.15)
        ax.set(title=name, xscale="log", xlabel="shots", xticks=SHOTS, xticklabels=SHOTS)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, help="folder of the data sets")
    parser.add_argument("weights", help="self-describing file with ImageNet weights")
    parser.add_argument("--tasks", nargs="*", help="names of data sets; default: all")
    parser.add_argument("--fine-tune", action="store_true", help="the part with fine-tuning")
    parser.add_argument("--figure", type=Path, help="where the figure goes (.png)")
    arguments = parser.parse_args()
    tasks = arguments.tasks
    if tasks is None:
        tasks = TUNED_SETS if arguments.fine_tune else ALL
    sets = data_sets(arguments.files)
    with tempfile.TemporaryDirectory() as cache:
        for name in tasks:
            X, y = sets[name]
            if arguments.fine_tune:
                groups = groups_of(name, X, cache)
                found = fine_tuned(name, X, y, arguments.weights, groups, cache)
                write("bench_few_shot_fine_tuned", lines_of(*found))
            else:
                score_heads(name, X, y, arguments.weights, cache)
    lines = read("bench_few_shot")
    if not arguments.fine_tune and len({line["data"] for line in lines}) == len(ALL):
        check(lines)
    if arguments.figure:
        draw(arguments.figure)


if __name__ == "__main__":
    main()
