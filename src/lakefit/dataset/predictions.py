"""Predictions as columns of a table, the same from evaluation and from scoring."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def prediction_columns(
    found: NDArray[Any], kind: Literal["binary", "classes", "regression"], classes: Sequence[str]
) -> dict[str, pa.Array]:
    """Return columns of (rows,) by name.

    found: a binary label's probability (rows,) float32; of classes (rows, classes) float32, which become the name of
    the most probable `class`, its `probability` and all `probabilities`; a regression's prediction (rows,) float64.
    """
    if kind != "classes":
        name = "probability" if kind == "binary" else "prediction"
        return {name: pa.array(np.ascontiguousarray(found))}
    most = found.argmax(axis=1)
    return {
        "class": pa.array(classes, pa.string()).take(pa.array(most)),
        "probability": pa.array(np.take_along_axis(found, most[:, None], axis=1)[:, 0]),
        "probabilities": pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(found).reshape(-1)), found.shape[1]
        ),
    }
