"""The rows of a split in memory, read through the feed, for evaluation and the baselines."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakefit.dataset.manifest import POSITION, Manifest
from lakefit.dataset.object_path import AnyPath, open_input
from lakefit.dataset.packed import CATEGORICAL, NUMERIC
from lakefit.feed.split import Batch, SplitFeed, fields_of

READ_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class SplitRows:
    """inputs: numeric (n, k) float32 and so on, as the model takes them, but for images; labels by name; in the order
    of the files.

    labels: (n,) float32 0 and 1, or places of classes; of several classes a row (n, classes) float32 0 and 1; a
    regression's is (n,) float64, in its own unit.
    """

    inputs: dict[str, NDArray[Any]]
    labels: dict[str, NDArray[np.float32] | NDArray[np.float64]]
    rows: int


def read_split(dataset_dir: AnyPath, manifest: Manifest, split: str, max_rows: int | None = None) -> SplitRows:
    """Return the first `max_rows` rows of a split (all where None): files are in hash order, so they are a sample."""
    fields = [field for field in fields_of(manifest) if field.image is None and field.name != POSITION]
    feed = SplitFeed(dataset_dir, manifest, split, batch_size=READ_ROWS, fields=fields, shuffle=False)
    parts: list[Batch] = []
    rows = 0
    for batch in feed:
        parts.append(batch)
        rows += len(batch[POSITION])
        if max_rows is not None and rows >= max_rows:
            break
    joined = {name: np.concatenate([part[name] for part in parts])[:max_rows] for name in (parts[0] if parts else ())}
    labels: dict[str, NDArray[Any]] = {}
    for label in manifest.labels:
        values = joined[label.name]
        values = values if label.kind == "multi_label" else values[:, 0]
        labels[label.name] = label.undone(values.astype(np.float64)) if label.kind == "regression" else values
    arrays = (NUMERIC, CATEGORICAL, *(tensor.name for tensor in manifest.features.tensors))
    inputs = {name: joined[name] for name in arrays if name in joined}
    return SplitRows(inputs, labels, min(rows, max_rows or rows))


def read_identities(dataset_dir: AnyPath, manifest: Manifest, split: str) -> pa.Table:
    """Return `_row` and `_occurrence` of a split's rows, in the order of the files."""
    parts = []
    for one in manifest.splits[split].files:
        with open_input(dataset_dir / one.path) as file:
            parts.append(pq.read_table(file, columns=["_row", "_occurrence"]))
    return pa.concat_tables(parts)
