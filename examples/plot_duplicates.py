"""
Duplicates, and what they do to a score
=======================================

A microscope takes several frames of one field of cells. Where one is in training and another in
the test fold, the score tells how well fields are recognised, and not how well dividing cells
are; ``near_duplicates`` finds such frames, and ``DuplicateGroups`` makes folds that none of them
crosses.
"""

# %%
# Three frames of each field
# --------------------------
#
# The stage moves by a few pixels, and the dyes fade.

import numpy as np
from PIL import Image

from _drawn_images import cells


def next_frame(image, rng):
    left, top = rng.integers(0, 4, 2)
    moved = Image.fromarray(image).crop((left, top, left + 93, top + 93)).resize((96, 96))
    pixels = np.asarray(moved) * rng.uniform(0.85, 0.95) + rng.normal(0, 3, image.shape)
    return pixels.clip(0, 255).astype(np.uint8)


rng = np.random.default_rng(0)
fields, _, markers = cells(80, random_state=0)
X = np.concatenate([fields, *([next_frame(image, rng) for image in fields] for _ in range(2))])
y = np.tile(np.where(markers[:, 2], "dividing", "resting"), 3)
order = rng.permutation(len(X))
X, y = X[order], y[order]

# %%
# Find them
# ---------

from sktransfer.hygiene import near_duplicates

duplicates = near_duplicates(X)
print(duplicates)

# %%
# Scores with and without
# -----------------------
#
# The nearest image decides, or a logistic regression. Shuffled folds put frames of one field on
# both sides.

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer
from sktransfer.hygiene import DuplicateGroups, leakage_report

rows = PretrainedFeatureTransformer("mini", depth=-1)
models = {
    "nearest image": make_pipeline(rows, StandardScaler(), KNeighborsClassifier(1)),
    "logistic regression": make_pipeline(
        rows, StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)
    ),
}
folds = {
    "shuffled folds": StratifiedKFold(5, shuffle=True, random_state=0),
    "folds of DuplicateGroups": DuplicateGroups(X),
}
scores = {
    name: [cross_val_score(model, X, y, cv=cv).mean() for model in models.values()]
    for name, cv in folds.items()
}
print(leakage_report(X, y, folds["shuffled folds"], estimator=models["nearest image"]))

# %%
# Some of the sets, and the scores.

import matplotlib.pyplot as plt

figure = plt.figure(figsize=(10, 3.9), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.5, 1])
axes = left.subplots(4, 6)
for column, duplicate_set in enumerate(list(duplicates)[:8]):
    for row in range(3):
        # two blocks of four sets, one below the other
        axes.flat[column * 3 + row].imshow(X[duplicate_set.positions[row]])
for ax in axes.flat:
    ax.set_axis_off()
left.suptitle("Eight of the sets that were found", fontsize="medium")

ax = right.subplots()
for offset, (name, values) in zip((-0.2, 0.2), scores.items(), strict=True):
    bars = ax.bar(np.arange(2) + offset, values, width=0.38, label=name)
    ax.bar_label(bars, fmt="%.2f", padding=2)
ax.set_xticks(range(2), models)
ax.set(ylabel="Mean accuracy", ylim=(0, 1.4))
ax.legend(loc="upper center")
ax.spines[["top", "right"]].set_visible(False)
plt.show()
