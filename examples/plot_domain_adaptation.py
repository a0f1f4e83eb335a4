"""
Domain adaptation: labels of ink, images of chalk
=================================================

Digits in ink have labels. Digits in chalk, on a board, have none, and a
model of the former fails on them. ``adapt="mcc"`` trains on both. How much the loss on chalk
should weigh is chosen without a label of chalk, by a scorer and a splitter of skada.
"""

# %%
# Two domains
# -----------
#
# Of scikit-learn's digits, half are written in ink. The others are in chalk: bright on dark, and
# fainter. All are files, as photographs would be.

import numpy as np
from sklearn.datasets import load_digits

from _drawn_images import as_files

digits, y = load_digits(n_class=5, return_X_y=True)
digits, y = digits[:300].reshape(-1, 8, 8) / 16, y[:300]
domain = np.repeat([1, -2], 150)  # sources are above 0, targets below
rng = np.random.default_rng(0)
ink = 255 - 255 * digits
chalk = 60 + 120 * digits + rng.normal(0, 3, digits.shape)
pixels = np.where(domain[:, None, None] > 0, ink, chalk).clip(0, 255).astype(np.uint8)
paths = as_files(pixels)

# %%
# Without and with adaptation
# ---------------------------
#
# The labels of chalk are masked, as skada masks them. Nothing reads them in any case: what
# ``sample_domain`` says of an image decides.

from sktransfer import FineTunedClassifier

masked = np.where(domain > 0, y, -1)
to_predict, truth = paths[domain < 0], y[domain < 0]
classifier = FineTunedClassifier(
    "mini", recipe="fast", image_size=32, max_epochs=10, random_state=0
)
accuracies = {}
for name, parameters in {
    "source only": {"adapt": None},
    "standardised by domain": {"adapt": "mcc", "adapt_weight": 0},
    'adapt="mcc"': {"adapt": "mcc", "adapt_weight": 1},
}.items():
    classifier.set_params(**parameters).fit(paths, masked, sample_domain=domain)
    accuracies[name] = classifier.score(to_predict, truth)
    print(f"{name}: {accuracies[name]:.2f} of the chalk is read right")

# %%
# The weight, chosen without labels of chalk
# ------------------------------------------
#
# skada's splitters and scorers take numbers. They are given ids, and ``ImagesFromIds`` turns these
# into paths. ``DeepEmbeddedValidation`` is the loss on the ink, in which an image weighs the more
# the more it looks like chalk to a classifier of rows. Each image passes the network once.

import sklearn
from skada import make_da_pipeline
from skada.metrics import DeepEmbeddedValidation
from skada.model_selection import SourceTargetShuffleSplit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.domain_adaptation import ImagesFromIds

sklearn.set_config(enable_metadata_routing=True)  # as importing skada does
ids = np.arange(len(paths)).reshape(-1, 1)
rows = PretrainedFeatureTransformer("mini", image_size=32, depth=classifier.freeze_depth_)
looks_like_chalk = make_pipeline(rows, LogisticRegression(max_iter=1000))
search = GridSearchCV(
    make_da_pipeline(ImagesFromIds(paths), classifier),
    {"finetunedclassifier__adapt_weight": [0, 1]},
    scoring=DeepEmbeddedValidation(domain_classifier=looks_like_chalk, random_state=0),
    cv=SourceTargetShuffleSplit(n_splits=2, test_size=0.3, random_state=0),
)
with count_forward_passes() as counter:
    search.fit(ids, masked, sample_domain=domain)
for parameters, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"adapt_weight={parameters['finetunedclassifier__adapt_weight']}: score {score:.4f}")
print(f"forward passes of the search: {counter.computed}, cache hits: {counter.cache_hits}")
accuracies["chosen by the scorer"] = np.mean(search.predict(ids[domain < 0]) == truth)

# %%
# What was gained
# ---------------

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(
    1, 2, figsize=(8, 2.6), width_ratios=[1, 2], layout="constrained"
)
left.imshow(
    np.vstack([np.hstack(pixels[start : start + 5]) for start in (0, 5, 150, 155)]),
    cmap="gray",
    vmin=0,
    vmax=255,
)
left.set_title("ink above, chalk below", fontsize=9)
left.set(xticks=[], yticks=[])
bars = right.barh(list(accuracies), accuracies.values(), color="C0")
right.bar_label(bars, fmt="%.2f", padding=2)
right.invert_yaxis()
right.set(xlim=(0, 1.1), xlabel="accuracy on chalk")
plt.show()
