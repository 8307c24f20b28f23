"""Predictions as columns of a table, the same from evaluation and from scoring."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.dataset.features import LabelFeature

# Measured: prediction is twice as fast at 8,192 rows a batch as at 1,024; of pixels so many bytes.
_BATCH_ROWS, _BATCH_BYTES = 8_192, 64 << 20


def rows_at_once(shapes: Iterable[tuple[int, ...]]) -> int:
    """Return how many rows are predicted at a time. shapes: of a row's images."""
    pixels = 4 * sum(math.prod(shape) for shape in shapes)
    return min(_BATCH_ROWS, max(1, _BATCH_BYTES // pixels)) if pixels else _BATCH_ROWS


def by_label(outputs: Any, labels: Sequence[LabelFeature]) -> dict[str, Any]:
    """Return what a model gives, one array or (for several labels) a mapping of them, by label."""
    return {labels[0].name: outputs} if len(labels) == 1 else {label.name: outputs[label.name] for label in labels}


def as_given(of_labels: Mapping[str, Any], labels: Sequence[LabelFeature]) -> Any:
    """Return the opposite of `by_label`: of one label its own, of several the mapping, as Keras takes them."""
    return of_labels[labels[0].name] if len(labels) == 1 else dict(of_labels)


def prefix_of(label: LabelFeature, labels: Sequence[LabelFeature]) -> str:
    """Return what stands before the names of a label's metrics and columns: its name, where there are several."""
    return f"{label.name}_" if len(labels) > 1 else ""


def prediction_columns(found: Mapping[str, NDArray[Any]], labels: Sequence[LabelFeature]) -> dict[str, pa.Array]:
    """Return columns of (rows,) by name, with the label's name before them where there are several labels.

    found: by label (rows, outputs). A binary one becomes `probability`; of classes come the name of the most probable
    `class`, its `probability` and all `probabilities`; of several classes a row `classes`, the names of those whose
    probability is 0.5 or more, and all `probabilities`; of a regression `prediction`.
    """
    columns: dict[str, pa.Array] = {}
    for label in labels:
        of_label = _columns(np.ascontiguousarray(found[label.name]), label)
        columns |= {f"{prefix_of(label, labels)}{name}": column for name, column in of_label.items()}
    return columns


def _columns(found: NDArray[Any], label: LabelFeature) -> dict[str, pa.Array]:
    if not label.classes:
        name = "probability" if label.kind == "binary" else "prediction"
        return {name: pa.array(found[:, 0])}
    probabilities = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), found.shape[1])
    names = pa.array(label.classes, pa.string())
    if label.kind == "multi_label":
        return {"classes": class_lists(found >= 0.5, label), "probabilities": probabilities}
    most = found.argmax(axis=1)
    return {
        "class": names.take(pa.array(most)),
        "probability": pa.array(np.take_along_axis(found, most[:, None], axis=1)[:, 0]),
        "probabilities": probabilities,
    }


def class_lists(chosen: NDArray[Any], label: LabelFeature) -> pa.ListArray:
    """Return the names of each row's classes. chosen: (rows, classes) of booleans, or 0 and 1."""
    chosen = chosen.astype(bool)
    ends = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(label.classes, pa.string()).take(pa.array(np.nonzero(chosen)[1])))


def read_predictions(table: pa.Table, label: LabelFeature, labels: Sequence[LabelFeature]) -> tuple[Any, Any]:
    """Return a label's values and predictions, as `evaluate.metrics.metrics_of` takes them, of a table of
    `label_column` and `prediction_columns`."""
    names = pa.array(label.classes, pa.string())
    column, prefix = table[label.name].combine_chunks(), prefix_of(label, labels)
    if not label.classes:
        name = "probability" if label.kind == "binary" else "prediction"
        return column.to_numpy(zero_copy_only=False), table[f"{prefix}{name}"].to_numpy()
    probabilities = table[f"{prefix}probabilities"].combine_chunks().flatten().to_numpy().reshape(-1, len(names))
    if label.kind == "classes":
        return pc.index_in(column, names).to_numpy(zero_copy_only=False), probabilities
    values = np.zeros(probabilities.shape, np.float32)
    values[pc.list_parent_indices(column).to_numpy(), pc.index_in(column.flatten(), names).to_numpy()] = 1
    return values, probabilities


def label_column(values: NDArray[Any], label: LabelFeature) -> pa.Array:
    """Return labels as people read them: names of classes, else the numbers. values: as `SplitRows.labels`."""
    if label.kind == "multi_label":
        return class_lists(values, label)
    if label.kind == "classes":
        return pa.array(label.classes, pa.string()).take(pa.array(values.astype("int64")))
    return pa.array(values)
