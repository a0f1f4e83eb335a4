"""
A first pipeline: diseases of leaves
====================================

A pretrained network turns images into rows of features, and a logistic regression learns the
classes from these. It is a scikit-learn pipeline, so cross-validation and all other tools work
with it, and each image passes the network once, however many folds there are.
"""

# %%
# Images and labels
# -----------------
#
# An array of images in 8 bits, and an array of names. A list of paths would do as well, and
# ``load_image_folder("photographs")`` makes one of ``photographs/<class>/<image>``.

from _drawn_images import leaves

X, y = leaves(n_of_each=30, random_state=0)
X.shape, y[:4]

# %%
# The pipeline
# ------------
#
# ``"mini"`` ships with the package. For photographs take a larger network, such as ``"resnet18"``.

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer

pipeline = make_pipeline(
    PretrainedFeatureTransformer("mini"),
    StandardScaler(),
    LogisticRegression(C=0.03, max_iter=1000),
)
pipeline

# %%
# Five folds. Each image is predicted by a model that was fitted without it. A row is computed once
# and stored; run the example again, and all rows are read.

from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from sktransfer import count_forward_passes

cv = StratifiedKFold(5, shuffle=True, random_state=0)
with count_forward_passes() as counter:
    predicted = cross_val_predict(pipeline, X, y, cv=cv)
print(f"accuracy {accuracy_score(y, predicted):.3f}")
print(f"{counter.computed} rows computed, {counter.cache_hits} read from the store")

# %%
# What it predicts
# ----------------
#
# The first leaves, and those that are predicted wrong.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

wrong = np.flatnonzero(predicted != y)[:6]
right = np.flatnonzero(predicted == y)[: 18 - len(wrong)]

figure = plt.figure(figsize=(10, 4.4), layout="constrained")
left, centre = figure.subfigures(1, 2, width_ratios=[1.7, 1])
for ax, i in zip(left.subplots(3, 6).flat, [*right, *wrong], strict=True):
    ax.imshow(X[i])
    if predicted[i] == y[i]:
        ax.set_title(y[i], fontsize=8)
    else:
        ax.set_title(f"{predicted[i]},\nis {y[i]}", fontsize=8, color="C3")
    ax.set_axis_off()

ax = centre.subplots()
ConfusionMatrixDisplay.from_predictions(y, predicted, cmap="Greens", colorbar=False, ax=ax)
ax.tick_params(axis="x", rotation=30)
plt.show()
