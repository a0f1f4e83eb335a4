"""No other value of a parameter makes a better recipe than the default, over three data sets.

    python benchmarks/bench_recipe.py hymenoptera cifar10.zip mobilenet_v2_0.35.safetensors

One change at a time around the defaults of ``FineTunedClassifier``, ImageNet weights, with
the last stage trained (``freeze_depth=-1``) and, for the changes that concern stages, with
the last two (-2). Three data sets, three seeds each:

- hymenoptera: 245 photographs of ants and bees to train on, 153 to test on, at 129 pixels.
  A seed is that of training, so its spread is that of training alone; one image is 0.0065.
- cifar10: 50 images of each class to train on, 500 to test on, at 97 pixels. A seed is
  also the draw of both.
- digits: scikit-learn's, 20 of each class to train on, 1,000 to test on, at 65 pixels. A
  seed is also the draw. Augmentations mirror half of the images, which makes no digits.

For each change the table has the accuracy on each data set, its difference to the
defaults with the same seed and images, means of seeds, and the standard error of that;
then the mean difference over data sets. Seconds are those of training, summed over
epochs, as a ratio to the defaults'. Activations are kept for all runs, so that views of an
image, which cost a pass of the frozen stages each, are not in the seconds; they are
counted under "passes", those at prediction included.

Claim: no change that costs no further passes, and at most half as much training again, is
better than the defaults by 0.01 and by two standard errors, in the mean over data sets.

About 25 minutes on 2 cores. Parts of it: ``--quick``, ``--seeds``, ``--data``,
``--depths``, and ``--variants lr augment`` for changes of these parameters only;
``--set name=value`` moves the defaults.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from itertools import product
from math import nan, sqrt
from pathlib import Path

from torch import nn
from tqdm import tqdm

from _data import cifar10, digits, hymenoptera
from _report import write_csv
from bench_fine_tuning import setting
from sktransfer import FineTunedClassifier

SEEDS = 3
MOST_GAIN, MOST_STANDARD_ERRORS, MOST_SECONDS = 0.01, 2, 1.5

# Values of one parameter; those that are the default already are passed over.
ONE_PARAMETER = {
    "freeze_depth": [None],
    "head": [nn.Linear, (256,)],  # a linear layer from random numbers, not from the probe
    "dropout": [0.3],
    "optimizer": ["sgd"],
    "lr": [3e-4, 1e-3, 3e-3],
    "backbone_lr_scale": [0.03, 0.1, 0.3, 1.0],
    "layer_decay": [0.7, 1.0],
    "weight_decay": [0.0, 0.01, 0.1],
    "max_epochs": [None, 10, 20, 40],
    "batch_size": [16, 64],
    "label_smoothing": [0.0, 0.1],
    "max_grad_norm": [None, 1.0],
    "batch_norm": ["frozen", "train"],
    "unfreeze_every": [None, 3],
    "training_precision": ["bfloat16"],
    "mix": [None, "mixup", "cutmix"],
}
FEWER_VIEWS, VIEWS = 4, 8  # the fewer with one trained stage only
# Parameters that mean something only together. With `lr`, the rate of the stages changes
# too; these change the balance of the two.
TOGETHER = [
    {"lr": 3e-4, "backbone_lr_scale": 0.3},
    {"lr": 3e-4, "backbone_lr_scale": 1.0},
    {"augment": None, "augment_views": None, "tta": 1},
    *(
        {"augment": augment, "augment_views": n_views}
        for augment, n_views in product(["light", "medium", "trivial"], [FEWER_VIEWS, VIEWS])
    ),
    {"augment": "light", "augment_views": FEWER_VIEWS, "tta": 4},
]
# With one stage there is no stage after it.
ONLY_WITH_TWO_STAGES = {"layer_decay"}
# What concerns the head or a batch alone is tried with one trained stage.
ALSO_WITH_TWO_STAGES = {
    "lr",
    "backbone_lr_scale",
    "max_epochs",
    "label_smoothing",
    "batch_norm",
    "unfreeze_every",
    "mix",
    "augment",
}
QUICK = {"lr", "batch_norm"}

DATA = {
    "hymenoptera": lambda files, seed: hymenoptera(files.hymenoptera, image_size=129),
    "cifar10": lambda files, seed: cifar10(
        files.cifar, image_size=97, seed=seed, n_train=50, n_test=50
    ),
    "digits": lambda files, seed: digits(image_size=65, seed=seed, n_train=20, n_test=100),
}


@dataclass(frozen=True)
class Variant:
    """Changes of the defaults, with a number of frozen stages."""

    depth: int
    changes: dict

    @property
    def name(self):
        """Return the changes as the user writes them."""
        parts = (f"{k}={getattr(v, '__name__', v)}" for k, v in self.changes.items())
        return ", ".join(parts) or "defaults"

    @property
    def parameters(self):
        """Return all that differs from the defaults."""
        return {"freeze_depth": self.depth, **self.changes}


def variants(depth, defaults, chosen):
    """Return the defaults, then the changes of the parameters in `chosen` (None: of all)."""
    changes = [{name: value} for name, values in ONE_PARAMETER.items() for value in values]
    changes = [change for change in changes + TOGETHER if not change.items() <= defaults.items()]
    wanted = []
    for change in changes:
        first = next(iter(change))
        is_for_depth = first in ONLY_WITH_TWO_STAGES | ALSO_WITH_TWO_STAGES
        if depth == -1:
            is_for_depth = first not in ONLY_WITH_TWO_STAGES
        elif change.get("augment_views") == FEWER_VIEWS:
            is_for_depth = False
        if is_for_depth and (chosen is None or first in chosen):
            wanted.append(change)
    return [Variant(depth, change) for change in [{}, *wanted]]


def run(data, weights, cache, parameters, seed):
    """Fit once; return figures."""
    classifier = FineTunedClassifier(
        weights, feature_cache=cache, random_state=seed, **{**data.reading, **parameters}
    )
    classifier.fit(data.X, data.y)
    return {
        "accuracy": float(classifier.score(data.X_test, data.y_test)),
        "seconds": sum(record["dur"] for record in classifier.history_),
        "epochs": classifier.n_iter_,
        "passes": (classifier.augment_views or 1) + classifier.tta - 1,
    }


def deviation(values):
    return statistics.stdev(values) if len(values) > 1 else nan


class Comparison:
    """Figures of a variant and of the defaults at its depth, by data set and seed."""

    def __init__(self, lines, reference):
        self.variant = lines[0]["variant"]
        self.lines, self.reference = lines, reference
        self.data = list(dict.fromkeys(line["data"] for line in lines))

    def _values(self, lines, data, what):
        return [line[what] for line in lines if line["data"] == data]

    def accuracies(self, data):
        """Return the accuracy of each seed."""
        return self._values(self.lines, data, "accuracy")

    def difference(self, data):
        """Return the mean difference to the defaults, and its standard error over seeds."""
        pairs = zip(
            self.accuracies(data), self._values(self.reference, data, "accuracy"), strict=True
        )
        differences = [own - other for own, other in pairs]
        return statistics.mean(differences), deviation(differences) / sqrt(len(differences))

    def gain(self):
        """Return the mean difference over data sets, and its standard error."""
        means, errors = zip(*map(self.difference, self.data), strict=True)
        return statistics.mean(means), sqrt(sum(error**2 for error in errors)) / len(errors)

    def passes(self):
        """Return how many passes of frozen stages more than the defaults."""
        return self.lines[0]["passes"] - self.reference[0]["passes"]

    def seconds(self):
        """Return seconds of training as a ratio to the defaults', all data sets together."""
        own, other = (
            sum(line["seconds"] for line in lines) for lines in (self.lines, self.reference)
        )
        return own / other

    def is_a_better_default(self):
        """Tell whether the claim is broken."""
        gain, error = self.gain()
        return (
            gain > MOST_GAIN
            and gain > MOST_STANDARD_ERRORS * error  # False where there is one seed
            and self.passes() <= 0
            and self.seconds() <= MOST_SECONDS
        )

    def row(self):
        """Return a row of the printed table."""
        cells = [f"{self.variant:<44}"]
        for data in self.data:
            accuracies = self.accuracies(data)
            own = f"{statistics.mean(accuracies):.3f} ±{deviation(accuracies):.3f}"
            mean, error = self.difference(data)
            cells.append(f"{own} {mean:+.3f} ±{error:.3f}")
        mean, error = self.gain()
        cells.append(f"{mean:+.4f} ±{error:.4f}")
        cells.append(f"{self.seconds():>5.2f} {self.passes():>+6}")
        return "  ".join(cells)


def compare(lines, depth):
    """Print a table of all variants at a depth; return the comparisons."""
    here = [line for line in lines if line["freeze_depth"] == depth]
    names = list(dict.fromkeys(line["variant"] for line in here))
    by_name = {name: [line for line in here if line["variant"] == name] for name in names}
    comparisons = [Comparison(by_name[name], by_name["defaults"]) for name in names]
    print(f"\nfreeze_depth={depth}: accuracy ± deviation, difference ± standard error")
    header = [f"{'':<44}", *(f"{data:<27}" for data in comparisons[0].data)]
    print("  ".join([*header, f"{'mean difference':<15}", " time passes"]))
    for comparison in comparisons:
        print(comparison.row())
    return comparisons


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hymenoptera", type=Path, help="folder {train,val}/{ants,bees}")
    parser.add_argument("cifar", type=Path, help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("weights", help="self-describing file of MobileNetV2 at width 0.35")
    parser.add_argument("--quick", action="store_true", help="one seed, few variants")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--depths", nargs="+", type=int, choices=[-1, -2], default=[-1, -2])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=sorted({*ONE_PARAMETER, "augment"}),
        help="parameters to change; default: all",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="move a default, such as --set lr=0.002",
    )
    parser.add_argument("--name", default="bench_recipe", help="of the table in results/")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds = 1
        arguments.variants = arguments.variants or QUICK

    moved = dict(arguments.settings)
    defaults = {**FineTunedClassifier().get_params(), **moved}
    todo = [v for depth in arguments.depths for v in variants(depth, defaults, arguments.variants)]
    runs = list(product(arguments.data, range(arguments.seeds), todo))
    lines, data, drawn = [], None, None
    with tempfile.TemporaryDirectory() as cache, tqdm(total=len(runs), unit="fit") as bar:
        for data_name, seed, variant in runs:
            if drawn != (data_name, seed):
                drawn, data = (data_name, seed), DATA[data_name](arguments, seed)
            bar.set_postfix_str(f"{data_name}, seed {seed}, {variant.depth}, {variant.name}")
            figures = run(data, arguments.weights, cache, {**moved, **variant.parameters}, seed)
            lines.append(
                {
                    "freeze_depth": variant.depth,
                    "variant": variant.name,
                    "data": data_name,
                    "seed": seed,
                    **figures,
                }
            )
            bar.update()

    comparisons = [c for depth in arguments.depths for c in compare(lines, depth)]
    settings = " ".join(f"{name}={value}" for name, value in moved.items())
    write_csv(arguments.name, [{**line, "settings": settings} for line in lines])
    better = [c.row() for c in comparisons if c.is_a_better_default()]
    assert not better, "\n".join(["better than the defaults:", *better])


if __name__ == "__main__":
    main()
