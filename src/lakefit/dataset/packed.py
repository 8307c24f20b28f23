"""The packed layout: the values of a row, of columns of one type, as the bytes of one Parquet value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NUMERIC, CATEGORICAL = "numeric", "categorical"
"""The columns of a packed split: float32 and int32 values, in the order of the manifest's features."""


def pack(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """Return fixed-size binary values of (rows,): each the values of a row, little-endian, one after another.

    columns: one or more, of one numeric type, (rows,) each, without nulls.
    """
    values = np.stack([column.to_numpy() for column in columns], axis=1)
    width = values.shape[1] * values.itemsize
    little_endian = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(little_endian)])


def unpack(column: pa.Array, dtype: str) -> NDArray[Any]:
    """Return the values, (rows, values of a row), without a copy. Raises ValueError if the column is none of `pack`."""
    width = getattr(column.type, "byte_width", 0) if pa.types.is_fixed_size_binary(column.type) else 0
    size = np.dtype(dtype).itemsize
    if not width or width % size or column.null_count:
        raise ValueError(f"it is {column.type} with {column.null_count} nulls, not packed {dtype}")
    start = column.offset * width
    content = np.frombuffer(column.buffers()[1], f"<{np.dtype(dtype).str[1:]}")
    values: NDArray[Any] = content[start // size : (start + len(column) * width) // size]
    return values.reshape(len(column), width // size)
