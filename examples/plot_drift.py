"""
Drift: ten weeks in which a pen runs dry
========================================

``DriftMonitor`` compares the images of each week with a reference, by tests that are wrong about
a week without drift at most as often as ``level`` says. Digits get fainter from the sixth week
on, by four percent of the ink a week; the monitor says when that begins to matter, and shows in
what.
"""

# %%
# A model, and what it will be compared with
# ------------------------------------------
#
# 400 of scikit-learn's digits are trained on, and 400 others are the reference.

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import shuffle

from sktransfer import PretrainedFeatureTransformer
from sktransfer.monitoring import DriftMonitor

X, y = shuffle(*load_digits(return_X_y=True), random_state=0)
transformer = PretrainedFeatureTransformer("mini", image_shape=(8, 8), pixel_range=(0, 16))
model = make_pipeline(transformer, LogisticRegression(max_iter=1000))
model.fit(X[:400], y[:400])
# at most one week in a hundred without drift is called drift
monitor = DriftMonitor(level=0.01).fit(X[400:800], y[400:800], estimator=model)

# %%
# Week after week
# ---------------

weeks, inks = range(1, 11), []
for week in weeks:
    start = 800 + (week - 1) * 60
    inks.append(1 - 0.04 * max(0, week - 5))
    report = monitor.update(X[start : start + 60] * inks[-1], f"week {week}")
    print(f"week {week}: {report.verdict}")

# %%
# What was found
# --------------
#
# ``report.save("drift.html")`` writes a page with all tests and the most novel images.

import matplotlib.pyplot as plt

figure = monitor.plot().figure_
plt.show()

# %%
# One digit of each week: what drifts is hard to see.

figure, axes = plt.subplots(1, 10, figsize=(8, 1.3), layout="constrained")
for ax, week, ink in zip(axes, weeks, inks, strict=True):
    ax.imshow(X[800 + (week - 1) * 60].reshape(8, 8) * ink, cmap="gray_r", vmin=0, vmax=16)
    ax.set_title(f"week {week}", fontsize=7)
    ax.set(xticks=[], yticks=[])
plt.show()
