"""
Fine-tuning in a grid search
============================

``GridSearchCV`` searches the depth of the cut and the learning rate, as it searches the
parameters of any other classifier. What is frozen is computed once for each image and depth, so
learning rates and folds add the training of the last stages, and no further pass through the
frozen ones.
"""

# %%
# Defects of rolled metal
# -----------------------

from _drawn_images import plates

X, y = plates({"good": 25, "scratch": 25, "pits": 25, "crack": 25}, random_state=0)

# %%
# The grid
# --------
#
# A depth is read as a slice: stages ``[:freeze_depth]`` are frozen. None is all of them, and trains
# a head alone; -1 trains the last stage too. Small images and few epochs keep the example short.

from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sktransfer import FineTunedClassifier, count_forward_passes

classifier = FineTunedClassifier(
    "mini", recipe="fast", image_size=48, max_epochs=12, random_state=0
)
search = GridSearchCV(
    classifier,
    {"freeze_depth": [None, -1, -2], "lr": [3e-4, 1e-3, 3e-3]},
    scoring="accuracy",
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
)
with count_forward_passes() as counter:
    search.fit(X, y)
n_fits = 3 * len(search.cv_results_["params"]) + 1
print(f"best: {search.best_params_}, accuracy {search.best_score_:.3f}")
print(f"{n_fits} fits of {len(X)} images: {counter.computed} activations were computed,")
print(f"and {counter.cache_hits} read from the store")

# %%
# What was trained, as a table; a notebook draws it too.

search.best_estimator_.stages_

# %%
# Scores of all candidates
# ------------------------

import matplotlib.pyplot as plt
import numpy as np

results = search.cv_results_
scores = np.reshape(results["mean_test_score"], (3, 3))
seconds = np.reshape(results["mean_fit_time"], (3, 3))

figure, (pictures, ax) = plt.subplots(
    1, 2, figsize=(9, 3.8), width_ratios=[1, 1.25], layout="compressed"
)
one_of_each = [X[np.flatnonzero(y == kind)[0]] for kind in ("good", "scratch", "pits", "crack")]
pictures.imshow(np.vstack([np.hstack(one_of_each[:2]), np.hstack(one_of_each[2:])]))
pictures.set_title("good, scratch, pits, crack", fontsize="medium")
pictures.set_axis_off()

image = ax.imshow(scores, cmap="viridis")
ax.set_xticks(range(3), ["0.0003", "0.001", "0.003"])
ax.set_yticks(range(3), ["None\n(head alone)", "-1", "-2"])
ax.set(xlabel="lr", ylabel="freeze_depth")
for (row, column), score in np.ndenumerate(scores):
    ax.text(
        column,
        row,
        f"{score:.2f}\n{seconds[row, column]:.1f} s",
        ha="center",
        va="center",
        color="black" if image.norm(score) > 0.6 else "white",
    )
figure.colorbar(image, label="Mean accuracy over 3 folds")
plt.show()
