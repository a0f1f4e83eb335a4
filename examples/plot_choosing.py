"""
Which strategy, and how many labels?
====================================

``TransferSearchCV`` tries frozen rows with simple heads first and trains stages only where that
may pay; its answer says what the best strategy gains and what it costs. ``LabelCurveDisplay``
continues the scores to more labels than there are, and says whether labelling more is worth it.
"""

# %%
# Images
# ------
#
# 15 of each of scikit-learn's digits. Few epochs keep the example short.

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X, y = load_digits(return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=150, stratify=y, random_state=0)
digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "image_size": 32}

# %%
# Which strategy
# --------------

from sktransfer import FineTunedClassifier
from sktransfer.model_selection import TransferSearchCV

search = TransferSearchCV(
    FineTunedClassifier("mini", max_epochs=12, random_state=0, **digits),
    recipes=("fast", "default"),
    freeze_depths=(-1,),
    cv=3,
    scoring="accuracy",
    random_state=0,
)
search.fit(X, y)
print(search.answer_)

# %%
# Each point is a strategy. The line is the frontier: what no other strategy beats in score and
# time.

import matplotlib.pyplot as plt

from sktransfer.inspection import StrategyDisplay

figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
StrategyDisplay.from_search(search, ax=ax)
plt.show()

# %%
# How many labels
# ---------------

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer
from sktransfer.inspection import LabelCurveDisplay

models = {
    "frozen rows": make_pipeline(
        PretrainedFeatureTransformer("mini", depth=-1, **digits),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=1000),
    ),
    "fine-tuned, fast": FineTunedClassifier(
        "mini", recipe="fast", max_epochs=12, random_state=0, **digits
    ),
}
figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
display = LabelCurveDisplay.from_estimators(
    models, X, y, n_repeats=5, scoring="accuracy", random_state=0, ax=ax
)
print(*display.answers_.values(), sep="\n")
plt.show()
