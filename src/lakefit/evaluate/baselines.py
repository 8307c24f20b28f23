"""What the model has to beat: the share of positives, and gradient boosting on the same rows and features."""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from lakefit.dataset.features import Features
from lakefit.evaluate.metrics import binary_metrics
from lakefit.evaluate.rows import SplitRows

# scikit-learn bins into 255 values at most.
_MAX_CATEGORIES = 255


def prior_metrics(training_share: float, splits: dict[str, SplitRows]) -> dict[str, dict[str, float]]:
    """Return the metrics of giving every row the training split's share of positives."""
    return {name: binary_metrics(rows.label, np.full(len(rows.label), training_share)) for name, rows in splits.items()}


def gradient_boosting_metrics(
    training: SplitRows, splits: dict[str, SplitRows], features: Features
) -> dict[str, dict[str, float]]:
    """Return the metrics of scikit-learn's HistGradientBoostingClassifier with its defaults and a fixed seed."""
    categorical = np.array(
        [False] * training.numeric.shape[1]
        + [lookup.size <= _MAX_CATEGORIES for lookup in features.lookups for _ in range(lookup.width)]
    )
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=0)
    model.fit(_matrix(training), training.label)
    return {name: binary_metrics(rows.label, model.predict_proba(_matrix(rows))[:, 1]) for name, rows in splits.items()}


def _matrix(rows: SplitRows) -> NDArray[np.float32]:
    return np.hstack([rows.numeric, rows.categorical.astype(np.float32)])
