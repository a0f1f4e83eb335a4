"""
Counting cells: regression
==========================

Rows of a network and ridge regression predict numbers from images, here how many cells there are.
The depth matters: a count is in the activations of the middle stages, and the last stage, which
was trained to tell kinds of objects, has lost a part of it.
"""

# %%
# Cells under a microscope, and their number
# ------------------------------------------

from _drawn_images import cells

X, counts, _ = cells(200, random_state=0)

# %%
# A depth by cross-validation
# ---------------------------
#
# One forward pass gives the rows of all depths, so the search passes each image once.

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import DepthCurveDisplay, PretrainedFeatureTransformer

model = Pipeline(
    [
        ("rows", PretrainedFeatureTransformer("mini")),
        ("scale", StandardScaler()),
        ("ridge", RidgeCV(np.logspace(-1, 5, 13))),
    ]
)
search = GridSearchCV(
    model,
    {"rows__depth": [None, -1, -2, -3, -4]},
    scoring="neg_mean_absolute_error",
    cv=5,
)
search.fit(X, counts)
print(f"depth {search.best_params_['rows__depth']}: wrong by {-search.best_score_:.2f} cells")

# %%
# Each image as predicted without it
# ----------------------------------
#
# Its depth alone was chosen with all images, so errors are a little too small; a search inside
# ``cross_val_predict`` would choose it anew in each fold.

import matplotlib.pyplot as plt
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

predicted = cross_val_predict(search.best_estimator_, X, counts, cv=5)

figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
DepthCurveDisplay.from_grid(search, ax=axes[0])
axes[0].set_title("Where to cut", fontsize="medium")

ax = axes[1]
ax.axline((10, 10), slope=1, color="0.6", linestyle="--", linewidth=1)
ax.scatter(counts, predicted, s=14, alpha=0.6)
for count, place in ((3, (5.5, 21)), (12, (13, 27)), (24, (22.5, 11))):
    i = np.flatnonzero(counts == count)[0]
    ax.add_artist(
        AnnotationBbox(
            OffsetImage(X[i], zoom=0.6),
            (counts[i], predicted[i]),
            xybox=place,
            pad=0.1,
            arrowprops={"arrowstyle": "-", "color": "0.4"},
        )
    )
ax.set(xlabel="Cells in the image", ylabel="Predicted", xlim=(0, 28), ylim=(0, 31))
ax.set_title("Each image predicted without it", fontsize="medium")
plt.show()
