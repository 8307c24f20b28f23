"""A split's batches as Arrow record batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakefit.dataset.manifest import POSITION
from lakefit.dataset.packed import CATEGORICAL, NUMERIC
from lakefit.feed.split import SplitFeed


def record_batches(feed: SplitFeed, numeric: Sequence[str], categorical: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of the feed's epoch, a column a feature. Raises FeedError as the feed does."""
    for batch in feed:
        columns: dict[str, NDArray[Any]] = {}
        for name, names in ((NUMERIC, numeric), (CATEGORICAL, categorical)):
            columns |= {column: np.ascontiguousarray(batch[name][:, place]) for place, column in enumerate(names)}
        columns |= {"label": batch["label"][:, 0].copy()}
        columns |= {name: batch[name].copy() for name in ("weight",) if name in batch}
        columns[POSITION] = batch["position"].copy()
        yield pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})
