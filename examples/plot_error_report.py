"""
What a classifier gets wrong
============================

``ErrorReport`` is a page for those who know the images: confusions, highest losses, calibration,
and labels that are likely wrong. Here six labels were made wrong: each image is predicted by a
model that was not fitted on it, and these six are among the labels with the least support.
"""

# %%
# Leaves, six of which have a wrong label
# ---------------------------------------

import numpy as np

from _drawn_images import leaves

X, true = leaves(n_of_each=40, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.choice(len(X), 6, replace=False)
y = true.copy()
y[wrong] = [rng.choice([kind for kind in np.unique(true) if kind != label]) for label in y[wrong]]

# %%
# The report
# ----------

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer
from sktransfer.inspection import ErrorReport

pipeline = make_pipeline(
    PretrainedFeatureTransformer("mini", depth=(-2, -1, None)),
    StandardScaler(),
    LogisticRegression(C=0.01, max_iter=1000),
)
report = ErrorReport.from_cv(pipeline, X, y, title="Diseases of leaves")
print(report.label_issues)

# %%
# The twelve labels with the least support. Thick frames are those that were made wrong here.

import matplotlib.pyplot as plt

lowest = report.to_frame().sort_values("label_score").head(12)
figure, axes = plt.subplots(2, 6, figsize=(10, 4.2), layout="constrained")
for ax, image in zip(axes.flat, lowest.itertuples(), strict=True):
    ax.imshow(X[image.position])
    ax.set_title(f"label {image.label}\npredicted {image.predicted}", fontsize=9)
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        is_wrong = image.position in wrong
        side.set(color="C3" if is_wrong else "0.7", linewidth=4 if is_wrong else 1)
plt.show()

# %%
# The page itself
# ---------------
#
# In a notebook it shows itself, ``report.save("report.html")`` writes it to one file, and
# ``report.open()`` shows it in the browser.

report
