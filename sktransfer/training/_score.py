"""How good outputs are, in the measure of the estimator's own ``score``."""

import numpy as np
from sklearn.metrics import accuracy_score, r2_score


def score_outputs(
    loss: str, outputs: np.ndarray, encoded: np.ndarray, weights: np.ndarray
) -> float:
    """Return accuracy of classes or sets of labels, or R² of numbers."""
    if loss == "squared":
        return float(r2_score(encoded, outputs, sample_weight=weights))
    if loss == "sigmoid":
        return float(accuracy_score(encoded > 0.5, outputs > 0, sample_weight=weights))
    return float(accuracy_score(encoded.argmax(1), outputs.argmax(1), sample_weight=weights))
