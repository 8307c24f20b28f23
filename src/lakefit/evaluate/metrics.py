"""Metrics by the kind of label, from labels and predictions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from lakefit.dataset.features import LabelFeature

Floats = NDArray[np.float32] | NDArray[np.float64]


def metrics_of(kind: LabelFeature, label: Floats, prediction: Floats) -> dict[str, float]:
    """Return the metrics of a split.

    label: (rows,) of 0 and 1, of places of classes, or of numbers in their own unit; (rows, classes) of 0 and 1 where a
    row has several. prediction: probabilities (rows,) or (rows, classes), or numbers (rows,).
    """
    if kind.kind == "binary":
        return binary_metrics(label, prediction)
    if kind.kind == "multi_label":
        return multi_label_metrics(label, prediction)
    if kind.kind == "classes":
        return class_metrics(label, prediction)
    return regression_metrics(label, prediction)


def binary_metrics(label: Floats, probability: Floats) -> dict[str, float]:
    """Return auc (area under the ROC curve, exact), log_loss (natural logarithm) and accuracy (threshold 0.5).

    label: (rows,) of 0 and 1; probability: (rows,) in [0, 1].
    """
    return {
        "auc": float(roc_auc_score(label, probability)),
        "log_loss": float(log_loss(label, _clipped(probability), labels=[0, 1])),
        "accuracy": float(accuracy_score(label, probability >= 0.5)),
    }


def class_metrics(label: Floats, probability: Floats) -> dict[str, float]:
    """Return accuracy (of the most probable class), balanced_accuracy (the mean of the classes' own) and log_loss.

    label: (rows,) places of classes; probability: (rows, classes).
    """
    found = probability.argmax(axis=1)
    clipped = _clipped(probability)
    return {
        "accuracy": float(accuracy_score(label, found)),
        "balanced_accuracy": float(balanced_accuracy_score(label, found)),
        "log_loss": float(
            log_loss(label, clipped / clipped.sum(axis=1, keepdims=True), labels=np.arange(probability.shape[1]))
        ),
    }


def multi_label_metrics(label: Floats, probability: Floats) -> dict[str, float]:
    """Return auc (the mean of the classes' own, of those that some rows have and some have not; 0.5 where there is no
    such class), log_loss (the mean over rows and classes), f1 (of all rows and classes together, threshold 0.5) and
    exact_match (the share of rows that are right in every class).

    label, probability: (rows, classes).
    """
    found = probability >= 0.5
    told = [place for place in range(label.shape[1]) if 0 < label[:, place].mean() < 1]
    each = [float(roc_auc_score(label[:, place], probability[:, place])) for place in told]
    clipped = _clipped(probability)
    return {
        "auc": float(np.mean(each)) if each else 0.5,
        "log_loss": float(-np.mean(np.where(label > 0, np.log(clipped), np.log1p(-clipped)))),
        "f1": float(f1_score(label, found, average="micro", zero_division=0.0)),
        "exact_match": float(np.mean(np.all(found == (label > 0), axis=1))),
    }


def regression_metrics(label: Floats, prediction: Floats) -> dict[str, float]:
    """Return rmse and mae, in the label's unit, and r2 (the share of the variance that is explained)."""
    return {
        "rmse": float(root_mean_squared_error(label, prediction)),
        "mae": float(mean_absolute_error(label, prediction)),
        "r2": float(r2_score(label, prediction)),
    }


def _clipped(probability: Floats) -> Any:
    # float32 probabilities of exactly 0 or 1 would make the loss infinite.
    return np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
