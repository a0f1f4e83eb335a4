"""
Rare defects: probabilities, costs and a threshold
==================================================

One plate in ten has a defect. ``class_weight="balanced"`` finds more of them and reports
probabilities that are far too high; calibration mends these, and the threshold follows from what
errors cost. All three are scikit-learn's, and the rows of the images are computed once for all.
"""

# %%
# Plates of rolled metal
# ----------------------

import numpy as np
from sklearn.model_selection import train_test_split

from _drawn_images import plates

kinds = {"good": 900, "scratch": 34, "pits": 33, "crack": 33}
X, kind = plates(kinds, random_state=0)
y = (kind != "good").astype(int)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
print(f"{y_train.sum()} of {len(y_train)} plates to train on have a defect")

# %%
# Probabilities
# -------------

from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer

balanced = make_pipeline(
    PretrainedFeatureTransformer("mini", depth=-1),
    StandardScaler(),
    LogisticRegression(C=1e-3, class_weight="balanced", max_iter=1000),
)
models = {
    "balanced": balanced,
    "balanced, calibrated": CalibratedClassifierCV(balanced, method="sigmoid", cv=5),
}
for name, model in models.items():
    defect = model.fit(X_train, y_train).predict_proba(X_test)[:, 1]
    print(
        f"{name:<21} mean probability {defect.mean():.3f}, Brier loss "
        f"{brier_score_loss(y_test, defect):.3f}, average precision "
        f"{average_precision_score(y_test, defect):.3f}"
    )

# %%
# The threshold
# -------------
#
# A defect that is delivered costs 20 times as much as a good plate that is looked at once more.

from sklearn.metrics import confusion_matrix, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV


def gain(y, predicted):
    (_, false_alarms), (missed, _) = confusion_matrix(y, predicted, labels=[0, 1])
    return -(20 * missed + false_alarms) / len(y)


tuned = TunedThresholdClassifierCV(
    models["balanced, calibrated"], scoring=make_scorer(gain), cv=5, store_cv_results=True
)
tuned.fit(X_train, y_train)
print(f"threshold {tuned.best_threshold_:.3f}")
for name, model in {**models, "with the threshold": tuned}.items():
    print(f"{name:<21} costs {-gain(y_test, model.predict(X_test)):.3f} a plate")

# %%
# Left, the share of defects among plates of like probability, which is the probability itself where
# this is right. Right, the cost over the threshold, and the plates that are looked at first.

import matplotlib.pyplot as plt
from sklearn.calibration import CalibrationDisplay

figure = plt.figure(figsize=(10, 5.6), layout="constrained")
axes = figure.subplot_mosaic(
    [["calibration", "cost"], ["plates", "plates"]], height_ratios=[2.4, 1]
)

for name, model in models.items():
    CalibrationDisplay.from_estimator(
        model, X_test, y_test, n_bins=10, strategy="quantile", name=name, ax=axes["calibration"]
    )
axes["calibration"].set(xlabel="Mean probability of a defect", ylabel="Share with a defect")

axes["cost"].plot(tuned.cv_results_["thresholds"], -tuned.cv_results_["scores"])
axes["cost"].axvline(tuned.best_threshold_, color="C3", linestyle="--", label="chosen")
axes["cost"].set(xlabel="Threshold", ylabel="Cost a plate, in folds", xscale="log", ylim=(0, 1.05))
axes["cost"].legend()

defect = tuned.predict_proba(X_test)[:, 1]
first = np.argsort(-defect)[:11]
axes["plates"].imshow(np.hstack(X_test[first]))
for place, i in enumerate(first):
    axes["plates"].text(
        place * 96 + 5,
        90,
        f"{defect[i]:.2f}",
        color="white",
        fontsize=9,
        bbox={"facecolor": "C2" if y_test[i] == 0 else "C3", "pad": 2, "linewidth": 0},
    )
axes["plates"].set_title(
    "The most probable defects of the test plates; red: it has one", fontsize="medium"
)
axes["plates"].set_axis_off()
plt.show()
