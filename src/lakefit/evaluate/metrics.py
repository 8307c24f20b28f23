"""Metrics of a binary classification, from labels and probabilities."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

Floats = NDArray[np.float32] | NDArray[np.float64]


def binary_metrics(label: Floats, probability: Floats) -> dict[str, float]:
    """Return auc (area under the ROC curve, exact), log_loss (natural logarithm) and accuracy (threshold 0.5).

    label: (rows,) of 0 and 1; probability: (rows,) in [0, 1].
    """
    # float32 probabilities of exactly 0 or 1 would make the loss infinite.
    clipped = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return {
        "auc": float(roc_auc_score(label, probability)),
        "log_loss": float(log_loss(label, clipped, labels=[0, 1])),
        "accuracy": float(accuracy_score(label, probability >= 0.5)),
    }
