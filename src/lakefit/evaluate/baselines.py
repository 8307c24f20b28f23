"""What the model has to beat: one answer for every row, and gradient boosting on the same rows and features."""

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
        same = np.repeat(answer[None].astype(np.float64), len(rows.label), axis=0)
        found[name] = metrics_of(label, rows.label, same if label.kind == "classes" else same[:, 0])
    return found


def gradient_boosting_metrics(
    training: SplitRows, splits: dict[str, SplitRows], features: Features, label: LabelFeature
) -> dict[str, dict[str, float]]:
    """Return the metrics of scikit-learn's HistGradientBoosting with its defaults and a fixed seed."""
    categorical = np.array(
        [False] * training.numeric.shape[1]
        + [lookup.size <= _MAX_CATEGORIES for lookup in features.lookups for _ in range(lookup.width)]
    )
    options = {"categorical_features": categorical, "random_state": 0}
    if label.kind == "regression":
        regressor = HistGradientBoostingRegressor(**options).fit(_matrix(training), training.label)
        return {name: metrics_of(label, rows.label, regressor.predict(_matrix(rows))) for name, rows in splits.items()}
    model = HistGradientBoostingClassifier(**options).fit(_matrix(training), training.label)
    found = {}
    for name, rows in splits.items():
        probability = model.predict_proba(_matrix(rows))
        if label.kind == "binary":
            found[name] = metrics_of(label, rows.label, probability[:, 1])
            continue
        # Classes that its training rows lack have no column.
        of_all = np.zeros((len(rows.label), len(label.classes)))
        of_all[:, model.classes_.astype(np.int64)] = probability
        found[name] = metrics_of(label, rows.label, of_all)
    return found


def _matrix(rows: SplitRows) -> NDArray[np.float32]:
    return np.hstack([rows.numeric, rows.categorical.astype(np.float32)])
