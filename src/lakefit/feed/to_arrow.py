"""A split's batches as Arrow record batches."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakefit.dataset.manifest import POSITION
from lakefit.feed.split import SplitFeed


def record_batches(feed: SplitFeed, columns: Mapping[str, Sequence[str]]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of the feed's epoch. columns: the names of the columns of arrays that are taken apart; other
    arrays are a column each, tensors where they have more than one dimension. Raises FeedError as the feed does."""
    for batch in feed.rows_by_batch():
        arrays: dict[str, Any] = {}
        position = batch.pop(POSITION)
        for name, values in batch.items():
            if name in columns:
                arrays |= {
                    column: pa.array(np.ascontiguousarray(values[:, place]))
                    for place, column in enumerate(columns[name])
                }
            elif isinstance(values, pa.Array):
                arrays[name] = values
            elif values.ndim == 1:
                arrays[name] = pa.array(values.copy())
            else:
                arrays[name] = _tensors(values)
        arrays[POSITION] = pa.array(position.copy())
        yield pa.RecordBatch.from_pydict(arrays)


def _tensors(values: NDArray[Any]) -> pa.FixedShapeTensorArray:
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
    items = pa.array(values.reshape(-1).copy())
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(items, type=kind.storage_type))
