"""
How training went: losses and scores over the epochs
====================================================

With ``early_stopping=True`` a part of the images is held out, and the weights of the best epoch
are used. The curves tell whether training has converged, and whether more epochs or more images
are what is missing.
"""

# %%
# Two fifths are held out
# -----------------------

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sktransfer import FineTunedClassifier

X, y = load_digits(return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=200, stratify=y, random_state=0)
classifier = FineTunedClassifier(
    "mini",
    recipe="fast",
    freeze_depth=-2,
    early_stopping=True,
    validation_fraction=0.4,
    max_epochs=20,
    image_shape=(8, 8),
    pixel_range=(0, 16),
    random_state=0,
)
classifier.fit(X, y)
print(classifier.stages_)

# %%
# The curves
# ----------
#
# The dotted line is the epoch whose weights are used.

import matplotlib.pyplot as plt

from sktransfer.inspection import TrainingCurveDisplay

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
display = TrainingCurveDisplay.from_estimator(
    classifier, ax=axes[0], score_name="Accuracy on held-out images"
)
display.plot(axes[1], curve="score")
print(f"{classifier.n_iter_} epochs, the best is number {classifier.best_epoch_}")
plt.show()
