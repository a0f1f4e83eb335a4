"""
Deployment as ONNX
==================

``to_onnx`` writes one file with the resizing, the network and the head, which runs without
Python, scikit-learn and torch. Its probabilities are those of the classifier, up to rounding:
that is checked before the file is written, and here once more.
"""

# %%
# A classifier
# ------------

from sklearn.model_selection import train_test_split

from _drawn_images import leaves
from sktransfer import FineTunedClassifier

X, y = leaves(n_of_each=40, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
classifier = FineTunedClassifier(
    "mini", freeze_depth=None, precision="float32", random_state=0
)  # the file computes in float32, too
classifier.fit(X_train, y_train)
print(f"accuracy {classifier.score(X_test, y_test):.3f}")

# %%
# The file, and what reads it
# ---------------------------
#
# The names of the classes are in the file. ``read_image(path)`` gives the pixels of a photograph as
# it wants them.

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "leaves.onnx"
    classifier.to_onnx(path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    session = onnxruntime.InferenceSession(path)

classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
(probabilities,) = session.run(None, {"images": X_test})
difference = np.abs(probabilities - classifier.predict_proba(X_test)).max()
print(f"largest difference of {probabilities.size} probabilities: {difference:.1e}")

# %%
# Left, probabilities of some leaves, from the file. Right, all of them beside those of the
# classifier.

import matplotlib.pyplot as plt

figure = plt.figure(figsize=(10, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.6, 1])
colours = dict(zip(classes, ["#8c5a2b", "#4c9a3f", "#9aa5ad", "#e08a2e"], strict=True))
axes = left.subplots(2, 5, gridspec_kw={"height_ratios": [1.3, 1]})
for i in range(5):
    axes[0, i].imshow(X_test[i])
    axes[0, i].set_axis_off()
    axes[1, i].barh(classes, probabilities[i], color=colours.values())
    axes[1, i].set(xlim=(0, 1), xticks=[0, 1])
    axes[1, i].tick_params(labelleft=i == 0)
    axes[1, i].invert_yaxis()
    axes[1, i].spines[["top", "right"]].set_visible(False)
left.supxlabel("Probability, by onnxruntime", fontsize="medium")

ax = right.subplots()
ax.axline((0, 0), slope=1, color="0.6", linestyle="--", linewidth=1)
for column, name in enumerate(classes):
    ax.scatter(
        classifier.predict_proba(X_test)[:, column],
        probabilities[:, column],
        s=16,
        alpha=0.7,
        color=colours[name],
        label=name,
    )
ax.set(xlabel="predict_proba", ylabel="onnxruntime")
ax.set_aspect("equal")
ax.legend()
plt.show()
