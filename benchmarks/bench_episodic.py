"""Episodic training of a backbone does not beat plain training on the same images.

    python benchmarks/bench_episodic.py cifar10.zip

A ResNet-18 with half of its channels (timm's, random weights at the start) is trained on the
images of six classes of CIFAR-10, 5,000 of each, at 32 pixels, three ways. The images in a step,
the steps, the augmentation, the optimizer and the schedule are the same:

- plain: cross-entropy over the six classes.
- episodic: the loss of prototypical networks (arXiv 1703.05175). A step is an episode of the six
  classes with 5 shots of each; the logits of the other 27 of each are the negative squared
  distances to the class means of the shots.
- both: the first half of the steps plain, the rest episodic, with the cosine in place of the
  distance and a learned scale, as in Meta-Baseline (arXiv 2003.04390).

Each seed has another split of the classes and other weights at the start. The pooled rows are
scored on test images of the four other classes, 4-way at 1 and 5 shots, 200 episodes of 15
queries of each class, which are the same for all three: nearest mean as it is ("mean"), and with
centring and unit length ("simpleshot"). "random" is the network before training.

Claim: the episodic network is not better than the plain one by more than the interval of the
paired differences, with its better head, at any of the shots. Six minutes on one core.
"""

import argparse
import time
import warnings
from itertools import product

import numpy as np
import timm
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from _report import write_csv
from sktransfer.model_selection import FewShotSplit
from train_mini import normalise, read_cifar

SIZE = 32  # pixels
N_TRAINED_ON = 6
SHOTS, QUERIES = 5, 27  # of each class in a step
BATCH_SIZE = N_TRAINED_ON * (SHOTS + QUERIES)
PEAK_LR, WEIGHT_DECAY = 2e-3, 0.05
WAYS = ("plain", "episodic", "both")
N_EPISODES, N_QUERY = 200, 15
HEADS = {
    "mean": (),
    "simpleshot": (StandardScaler(with_std=False), Normalizer()),
}


def network():
    return timm.create_model("resnet18", channels=[32, 64, 128, 256], num_classes=N_TRAINED_ON)


def augmented(images):
    """Return images in [0, 1], mirrored, zoomed and shifted at random, at SIZE pixels."""
    n = len(images)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = torch.empty(n).uniform_(0.75, 1.05) * torch.where(torch.rand(n) < 0.5, 1, -1)
    theta[:, 1, 1] = torch.empty(n).uniform_(0.75, 1.05)
    theta[:, :, 2] = torch.empty(n, 2).uniform_(-0.15, 0.15)
    grid = F.affine_grid(theta, (n, 3, SIZE, SIZE), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return (images * torch.empty(n, 1, 1, 1).uniform_(0.7, 1.3)).clamp(0, 1)


def pooled(model, batch):
    """Return the rows (n, width) of images in [0, 1]."""
    batch = normalise(batch).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model.forward_features(batch)
    return maps.float().mean((2, 3))


def prototype_logits(rows, scale=None):
    """Return the logits of the queries and their classes; images come class by class."""
    rows = rows.view(N_TRAINED_ON, SHOTS + QUERIES, -1)
    means, queries = rows[:, :SHOTS].mean(1), rows[:, SHOTS:].flatten(0, 1)
    if scale is None:
        logits = -torch.cdist(queries, means).square()
    else:
        logits = scale * F.normalize(queries) @ F.normalize(means).T
    return logits, torch.arange(N_TRAINED_ON).repeat_interleave(QUERIES)


def train(way, images, labels, n_steps, seed):
    """Return a trained network; `labels` are numbers from 0."""
    torch.manual_seed(seed)
    model = network().to(memory_format=torch.channels_last).train()
    scale = torch.nn.Parameter(torch.tensor(10.0))
    members = torch.stack([torch.nonzero(labels == c)[:, 0] for c in range(N_TRAINED_ON)])
    optimizer = torch.optim.AdamW([*model.parameters(), scale], PEAK_LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, n_steps)
    started = time.process_time()
    for step in range(n_steps):
        # as many of each class in all ways
        places = torch.rand(members.shape).argsort(1)[:, : SHOTS + QUERIES]
        chosen = members.gather(1, places).flatten()
        rows = pooled(model, augmented(images[chosen].float() / 255))
        if way == "plain" or (way == "both" and step < n_steps // 2):
            loss = F.cross_entropy(model.fc(rows), labels[chosen], label_smoothing=0.1)
        else:
            logits, expected = prototype_logits(rows, scale if way == "both" else None)
            loss = F.cross_entropy(logits, expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            seconds = time.process_time() - started
            print(
                f"  {way} {step + 1}/{n_steps}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True
            )
    return model, time.process_time() - started


@torch.no_grad()
def rows_of(model, images):
    model.eval()
    rows = []
    for start in range(0, len(images), 500):
        batch = images[start : start + 500].float() / 255
        batch = F.interpolate(batch, size=SIZE, mode="bilinear", align_corners=False)
        rows.append(pooled(model, batch))
    return torch.cat(rows).numpy().astype(np.float64)


def accuracies(rows, y, k_shot):
    """Return the accuracy of each head in each episode."""
    episodes = FewShotSplit(None, k_shot, N_QUERY, N_EPISODES, random_state=0)
    scores = {name: [] for name in HEADS}
    for train_on, test in episodes.split(rows, y):
        for name, steps in HEADS.items():
            # NearestCentroid warns of columns without spread within classes, as with one shot
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                head = make_pipeline(*steps, NearestCentroid()).fit(rows[train_on], y[train_on])
            scores[name].append(head.score(rows[test], y[test]))
    return {name: np.array(of) for name, of in scores.items()}


def interval(values):
    """Return half of the 95 percent interval of the mean."""
    return 1.96 * values.std(ddof=1) / np.sqrt(len(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", help="zip of CIFAR-10 as JPEG files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits, classes = read_cifar(arguments.cifar)
    (images, labels), (new, new_labels) = splits["train"], splits["test"]
    lines, scores = [], {}
    for seed in arguments.seeds:
        order = np.random.default_rng(seed).permutation(len(classes))
        known, held_out = order[:N_TRAINED_ON], order[N_TRAINED_ON:]
        print(f"seed {seed}: held out {', '.join(classes[c] for c in held_out)}", flush=True)
        of_known = np.flatnonzero(np.isin(labels, known))
        of_held_out = np.flatnonzero(np.isin(new_labels, held_out))
        numbers = torch.from_numpy(np.argsort(order))[labels[of_known]]
        for way in ("random", *WAYS):
            if way == "random":
                torch.manual_seed(seed)
                model, seconds = network(), 0.0
            else:
                model, seconds = train(way, images[of_known], numbers, arguments.steps, seed)
            rows, y = rows_of(model, new[of_held_out]), new_labels[of_held_out].numpy()
            for k_shot in (1, 5):
                for head, of in accuracies(rows, y, k_shot).items():
                    scores[seed, way, k_shot, head] = of
                    line = {
                        "seed": seed,
                        "training": way,
                        "shots": k_shot,
                        "head": head,
                        "accuracy": round(float(of.mean()), 4),
                        "interval": round(float(interval(of)), 4),
                        "cpu_seconds": round(seconds, 1),
                    }
                    lines.append(line)
                    print(line, flush=True)
            write_csv("bench_episodic", lines)

    for way, k_shot in product(WAYS[1:], (1, 5)):
        differences = []
        for seed in arguments.seeds:
            best = {
                w: max((scores[seed, w, k_shot, head] for head in HEADS), key=np.mean)
                for w in ("plain", way)
            }
            differences.append(best[way] - best["plain"])
            mean, half = differences[-1].mean(), interval(differences[-1])
            print(f"{way} - plain, seed {seed}, {k_shot} shots: {mean:+.4f} ± {half:.4f}")
        of_all = np.concatenate(differences)
        if way == "episodic":
            assert of_all.mean() <= interval(of_all), (k_shot, of_all.mean())


if __name__ == "__main__":
    main()
