"""What the model has to beat: one answer for every row, and gradient boosting on the same rows and features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from lakefit.dataset.features import Features, LabelFeature
from lakefit.evaluate.metrics import Floats, metrics_of
from lakefit.evaluate.rows import SplitRows

# scikit-learn bins into 255 values at most.
_MAX_CATEGORIES = 255


def prior_metrics(answer: Floats, splits: dict[str, SplitRows], label: LabelFeature) -> dict[str, dict[str, float]]:
    """Return the metrics of giving every row the same.

    answer: (1,) the training split's share of positives, or its mean; (classes,) the shares of its classes.
    """
    found = {}
    for name, rows in splits.items():
        same = np.repeat(answer[None].astype(np.float64), rows.rows, axis=0)
        found[name] = metrics_of(label, rows.labels[label.name], same if label.classes else same[:, 0])
    return found


def gradient_boosting_metrics(
    training: SplitRows, splits: dict[str, SplitRows], features: Features, label: LabelFeature
) -> dict[str, dict[str, float]]:
    """Return the metrics of scikit-learn's HistGradientBoosting with its defaults and a fixed seed.

    A label of several classes a row has a model for each of them.
    """
    categorical = np.array(
        [False] * len(features.numeric_columns)
        + [lookup.size <= _MAX_CATEGORIES for lookup in features.lookups for _ in range(lookup.width)]
        + [False] * sum(tensor.size for tensor in features.tensors)
    )
    options = {"categorical_features": categorical, "random_state": 0}
    matrix, target = _matrix(training), training.labels[label.name]
    of_splits = {name: _matrix(rows) for name, rows in splits.items()}
    if label.kind == "regression":
        regressor = HistGradientBoostingRegressor(**options).fit(matrix, target)
        predicted = {name: regressor.predict(rows) for name, rows in of_splits.items()}
    elif label.kind == "multi_label":
        columns = [_probabilities(matrix, of_class, of_splits, 2, options) for of_class in target.T]
        predicted = {name: np.stack([found[name][:, 1] for found in columns], axis=1) for name in of_splits}
    else:
        predicted = _probabilities(matrix, target, of_splits, max(2, label.outputs), options)
        if label.kind == "binary":
            predicted = {name: found[:, 1] for name, found in predicted.items()}
    return {name: metrics_of(label, rows.labels[label.name], predicted[name]) for name, rows in splits.items()}


def _probabilities(
    matrix: NDArray[np.float32],
    target: Floats,
    splits: Mapping[str, NDArray[np.float32]],
    classes: int,
    options: Mapping[str, Any],
) -> dict[str, Floats]:
    """Return (rows, classes) of each split; classes that the training rows lack have 0."""
    if len(np.unique(target)) == 1:
        # Which the classifier refuses.
        same = np.eye(classes)[int(target[0])]
        return {name: np.repeat(same[None], len(rows), axis=0) for name, rows in splits.items()}
    model = HistGradientBoostingClassifier(**options).fit(matrix, target)
    found: dict[str, Floats] = {}
    for name, rows in splits.items():
        found[name] = np.zeros((len(rows), classes))
        found[name][:, model.classes_.astype(np.int64)] = model.predict_proba(rows)
    return found


def _matrix(rows: SplitRows) -> NDArray[np.float32]:
    """Return all inputs of a row side by side."""
    return np.hstack([array.reshape(rows.rows, -1).astype(np.float32) for array in rows.inputs.values()])
