"""
An image and a table
====================

In a ``ColumnTransformer`` a column of images becomes columns of numbers, beside those of the
table. ``FineTunedTransformer`` trains a network on ``y`` and is cross-fitted: the next model sees
each image as predicted by a network that was not trained on it, so it does not trust the images
too much.
"""

# %%
# Plates that break
# -----------------
#
# Whether a plate of metal breaks under load depends on its defect, which a photograph shows, and on
# its thickness and alloy, which it does not.

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from _drawn_images import plates

X, kind = plates({"good": 110, "scratch": 60, "pits": 60, "crack": 60}, random_state=0)
rng = np.random.default_rng(0)
table = pd.DataFrame(
    {
        "photo": list(X),
        "thickness": rng.uniform(2, 6, len(X)),
        "alloy": rng.choice(["A", "B"], len(X)),
    }
)
weakness = pd.Series(kind).map({"good": -3, "scratch": -1.5, "pits": 1.5, "crack": 3})
weakness += 1.8 * (4 - table["thickness"]) + 1.2 * (table["alloy"] == "B")
breaks = (rng.logistic(size=len(X)) < weakness).astype(int)
train, test, y_train, y_test = train_test_split(table, breaks, test_size=0.4, random_state=0)
table.drop(columns="photo").assign(breaks=breaks).head(3)

# %%
# Three models
# ------------

from operator import itemgetter

from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sktransfer import FineTunedClassifier, FineTunedTransformer

network = FineTunedClassifier(
    "mini", recipe="fast", freeze_depth=-2, max_epochs=12, image_size=48, random_state=0
)
numbers = (StandardScaler(), ["thickness"])
categories = (OneHotEncoder(drop="first"), ["alloy"])
tuned = FineTunedTransformer(network, cv=3, random_state=0)
photo = (make_pipeline(tuned, StandardScaler()), "photo")
models = {
    "table": make_pipeline(make_column_transformer(numbers, categories), LogisticRegression()),
    "photo": make_pipeline(FunctionTransformer(itemgetter("photo")), network),
    "both": make_pipeline(
        make_column_transformer(photo, numbers, categories), LogisticRegression()
    ),
}
probabilities = {}
for name, model in models.items():
    probabilities[name] = model.fit(train, y_train).predict_proba(test)[:, 1]
    print(f"{name:<6} AUC {roc_auc_score(y_test, probabilities[name]):.3f}")

# %%
# A diagram of the whole; click on it for the parameters.

models["both"]

# %%
# Left, the curves of the three models. Right, what the network says of a photograph, and the
# thickness: neither tells alone what breaks.

import matplotlib.pyplot as plt
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.metrics import RocCurveDisplay

says = models["both"][0].transform(test)[:, 0]

figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for name, of_breaking in probabilities.items():
    RocCurveDisplay.from_predictions(y_test, of_breaking, name=name, ax=axes[0])
axes[0].set(xlabel="False positive rate", ylabel="True positive rate")

for value, label in enumerate(["holds", "breaks"]):
    chosen = y_test == value
    axes[1].scatter(test["thickness"][chosen], says[chosen], s=22, alpha=0.8, label=label)
for i, place in ((np.argmax(says), (2.6, 2.75)), (np.argmin(says), (2.6, -2.6))):
    axes[1].add_artist(
        AnnotationBbox(
            OffsetImage(test["photo"].iloc[i], zoom=0.6),
            (test["thickness"].iloc[i], says[i]),
            xybox=place,
            pad=0.1,
            arrowprops={"arrowstyle": "-", "color": "0.4"},
        )
    )
axes[1].set(xlabel="Thickness in mm", ylabel="Log-odds of the network, scaled", ylim=(-3.4, 3.5))
axes[1].legend(loc="lower right", ncols=2)
plt.show()
