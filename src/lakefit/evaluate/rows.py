"""The rows of a split in memory, read through the feed, for evaluation and the baselines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakefit.dataset.manifest import POSITION, Manifest
from lakefit.dataset.packed import CATEGORICAL, NUMERIC
from lakefit.feed.split import Batch, SplitFeed

READ_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class SplitRows:
    """numeric (n, k) float32, categorical (n, m) int32, label (n,), in the order of the files.

    label: float32 0 and 1, or places of classes; a regression's is float64, in its own unit.
    """

    numeric: NDArray[np.float32]
    categorical: NDArray[np.int32]
    label: NDArray[np.float32] | NDArray[np.float64]


def read_split(dataset_dir: Path, manifest: Manifest, split: str, max_rows: int | None = None) -> SplitRows:
    """Return the first `max_rows` rows of a split (all where None): files are in hash order, so they are a sample."""
    feed = SplitFeed(dataset_dir, manifest, split, batch_size=READ_ROWS, shuffle=False)
    parts = []
    rows = 0
    for batch in feed:
        parts.append(batch)
        rows += len(batch[POSITION])
        if max_rows is not None and rows >= max_rows:
            break
    label = _joined(parts, "label", np.zeros((rows, 1), np.float32))[:max_rows, 0]
    if manifest.label.kind == "regression":
        label = manifest.label.undone(label.astype(np.float64))
    return SplitRows(
        _joined(parts, NUMERIC, np.zeros((rows, 0), np.float32))[:max_rows],
        _joined(parts, CATEGORICAL, np.zeros((rows, 0), np.int32))[:max_rows],
        label,
    )


def _joined(parts: list[Batch], name: str, without: NDArray[Any]) -> NDArray[Any]:
    """Return the array of all parts; `without` where the split has no such columns."""
    return np.concatenate([part[name] for part in parts]) if parts and name in parts[0] else without


def read_identities(dataset_dir: Path, manifest: Manifest, split: str) -> pa.Table:
    """Return `_row` and `_occurrence` of a split's rows, in the order of the files."""
    names = [str(dataset_dir / file.path) for file in manifest.splits[split].files]
    return pa.concat_tables([pq.read_table(name, columns=["_row", "_occurrence"]) for name in names])
