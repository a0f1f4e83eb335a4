"""
Few labels: which head on the same rows?
========================================

With few labels, what is drawn to be labelled matters as much as the head: compare heads over many
draws. ``FewShotSplit`` draws them, for scikit-learn's own tools, and since the rows of an image are
computed once, 360 fits take seconds.
"""

# %%
# Images and heads
# ----------------

from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from _drawn_images import leaves
from sktransfer import PretrainedFeatureTransformer

X, y = leaves(n_of_each=60, random_state=0)
rows = PretrainedFeatureTransformer("mini", depth=-1)
heads = {
    "nearest mean": make_pipeline(rows, Normalizer(), NearestCentroid()),
    "discriminant analysis": make_pipeline(
        rows, Normalizer(), PCA(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
    ),
    "logistic regression": make_pipeline(
        rows, StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)
    ),
}

# %%
# Episodes
# --------
#
# 20 times, ``k_shot`` leaves of each class are drawn to train on, and 30 others of each are
# predicted. All heads get the same draws.

from sklearn.model_selection import cross_val_score

from sktransfer.model_selection import FewShotSplit

n_labels = [2, 3, 5, 10, 20, 30]
scores = {name: [] for name in heads}
for n in n_labels:
    episodes = FewShotSplit(n_way=None, k_shot=n, n_query=30, n_episodes=20, random_state=0)
    for name, model in heads.items():
        scores[name].append(cross_val_score(model, X, y, cv=episodes))

# %%
# Draws of few images differ a lot, and one would tell nothing; the differences of two heads on the
# same draws tell which is better.

import numpy as np

for name in ("discriminant analysis", "logistic regression"):
    gains = np.array(scores[name]) - np.array(scores["nearest mean"])
    half = 1.96 * gains.std(axis=1, ddof=1) / np.sqrt(gains.shape[1])
    for n, gain, error in zip(n_labels, gains.mean(axis=1), half, strict=True):
        print(f"{n:2} labels of each, {name}: {gain:+.3f} ± {error:.3f} on the nearest mean")

# %%
# Lines are means, bands hold eight of ten draws.

import matplotlib.pyplot as plt

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
