"""
Where to cut: score over depth
==============================

The last stage of a frozen network is the most specific to the images that it was trained with: of
digits, the rows of the stage before are better, and those of early stages far worse. Where the
stages behind the cut are trained on the task, an early cut loses nothing here: the curve is another
one, so search the depth of each strategy by itself.
"""

# %%
# Images
# ------
#
# scikit-learn's digits, 15 of each. They are rows of 64 numbers from 0 to 16.

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X, y = load_digits(return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=150, stratify=y, random_state=0)
digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "image_size": 32}

# %%
# Two searches
# ------------

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

depths = [None, -1, -2, -3]
frozen = make_pipeline(
    PretrainedFeatureTransformer("mini", **digits),
    StandardScaler(),
    LogisticRegression(max_iter=5000),
)
trained = FineTunedClassifier("mini", recipe="fast", max_epochs=15, random_state=0, **digits)
searches = {
    "frozen features + logistic regression": GridSearchCV(
        frozen,
        {
            "pretrainedfeaturetransformer__depth": depths,
            "logisticregression__C": [0.001, 0.01, 0.1],
        },
        scoring="accuracy",
        cv=4,
    ),
    "FineTunedClassifier": GridSearchCV(
        trained, {"freeze_depth": depths}, scoring="accuracy", cv=4
    ),
}

# %%
# Score over depth
# ----------------

import matplotlib.pyplot as plt

from sktransfer.inspection import DepthCurveDisplay

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for ax, (title, search) in zip(axes, searches.items(), strict=True):
    display = DepthCurveDisplay.from_grid(search.fit(X, y), ax=ax)
    ax.set_title(title, fontsize="medium")
    ax.label_outer()
    for depth, scores in zip(display.depths, display.test_scores, strict=True):
        print(f"{title:<40}{depth!s:>6}{scores.mean():>9.3f} ± {scores.std():.3f}")
plt.show()
