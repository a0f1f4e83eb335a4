"""
Few labels: which head on the same rows?
========================================

With few labels, what is drawn to be labelled matters as much as the head: compare heads over many
draws. scikit-learn's own tools do that, and since the rows of an image are computed once, 240
fits take seconds.
"""

# %%
# Images and heads
# ----------------

from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from _drawn_images import leaves
from sktransfer import PretrainedFeatureTransformer

X, y = leaves(n_of_each=60, random_state=0)
rows = PretrainedFeatureTransformer("mini", depth=-1)
heads = {
    "nearest mean": make_pipeline(rows, StandardScaler(), NearestCentroid()),
    "logistic regression": make_pipeline(
        rows, StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)
    ),
}

# %%
# Learning curves
# ---------------
#
# 20 times, a few leaves of each class are drawn to train on, and 120 others are predicted. Draws of
# few images differ a lot: one draw would tell nothing.

from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

n_labels = [2, 3, 5, 10, 20, 30]
scores = {name: [] for name in heads}
for n in n_labels:
    draws = StratifiedShuffleSplit(20, train_size=4 * n, test_size=120, random_state=0)
    for name, model in heads.items():
        scores[name].append(cross_val_score(model, X, y, cv=draws))

# %%
# Lines are means, bands hold eight of ten draws.

import matplotlib.pyplot as plt
import numpy as np

figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for name, values in scores.items():
    values = np.array(values)
    (line,) = ax.plot(n_labels, values.mean(axis=1), marker="o", label=name)
    low, high = np.quantile(values, [0.1, 0.9], axis=1)
    ax.fill_between(n_labels, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
ax.set_xscale("log")
ax.set_xticks(n_labels, n_labels)
ax.minorticks_off()
ax.set(xlabel="Labelled leaves per class", ylabel="Accuracy on 120 other leaves")
ax.grid(alpha=0.3)
ax.legend(loc="lower right")

for i, kind in enumerate(np.unique(y)):
    inset = ax.inset_axes([0.03 + 0.115 * i, 0.76, 0.11, 0.2])
    inset.imshow(X[np.flatnonzero(y == kind)[0]])
    inset.set_title(kind, fontsize=7, pad=2)
    inset.set_axis_off()
plt.show()
