"""
Several labels an image
=======================

A table of 0 and 1 as ``y`` makes ``FineTunedClassifier`` multilabel: each column gets a
probability of its own. The names of the columns stay with the classifier, and the stages that
train are shared by all labels.
"""

# %%
# Cells, and what is seen in them
# -------------------------------
#
# A green and a red marker may shine or not; and somewhere a cell may be dividing.

import pandas as pd
from sklearn.model_selection import train_test_split

from _drawn_images import cells

X, _, markers = cells(240, random_state=1)
y = pd.DataFrame(markers, columns=["green", "red", "dividing"])
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=80, random_state=0)
y_train.mean()

# %%
# One network for all labels
# --------------------------

from sktransfer import FineTunedClassifier

classifier = FineTunedClassifier(
    "mini", recipe="fast", freeze_depth=-2, max_epochs=15, random_state=0
)
classifier.fit(X_train, y_train)
probabilities = pd.DataFrame(
    classifier.predict_proba(X_test), columns=classifier.target_names_, index=y_test.index
)

# %%
# Two labels are a colour, and easy. A cell with two nuclei is a small thing in one place, and
# harder for a small network with 160 images.

from sklearn.metrics import average_precision_score

for name in y:
    score = average_precision_score(y_test[name], probabilities[name])
    print(f"{name:<9} average precision {score:.3f}, by chance {y_test[name].mean():.3f}")

# %%
# Bars are probabilities, black frames the labels that are true.

import matplotlib.pyplot as plt
import numpy as np

colours = ["#3fa34d", "#d1495b", "#5b7de8"]
figure, axes = plt.subplots(
    2, 6, figsize=(10, 3.3), layout="constrained", gridspec_kw={"height_ratios": [2, 1]}
)
for column in range(6):
    picture, bars = axes[:, column]
    picture.imshow(X_test[column])
    picture.set_axis_off()
    bars.barh(range(3), probabilities.iloc[column], color=colours)
    true = np.flatnonzero(y_test.iloc[column])
    bars.barh(true, [1] * len(true), facecolor="none", edgecolor="black", linewidth=1.2)
    bars.set_yticks(range(3), y.columns if column == 0 else [])
    bars.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    bars.set_xlim(0, 1.03)
    bars.invert_yaxis()
    bars.spines[["top", "right"]].set_visible(False)
figure.supxlabel("Probability", fontsize="medium")
plt.show()
