"""Columns whose rows differ in length, text, bytes and lists: they stay Arrow arrays until they are handed out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakefit.errors import FeedError, UnfitError

_KINDS = {
    "str": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "bytes": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
}
_LISTS = (pa.types.is_list, pa.types.is_large_list)


def decoded(column: pa.ChunkedArray, name: str, dtype: str) -> pa.Array:
    """Return a column of a row group in one piece, with offsets of 64 bits.

    dtype: "str", "bytes", or numpy's name of what lists hold. NULL is no text, no bytes, and NaN in a list of floats.
    Raises FeedError if the column is something else, or holds other NULLs.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    wanted = _type_of(dtype)
    if not any(is_one(column.type) for is_one in _KINDS.get(dtype, _LISTS)):
        raise FeedError(f"Column {name!r} is {column.type}, not {dtype if dtype in _KINDS else wanted}.")
    if dtype == "str":
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise UnfitError(f"Column {name!r} holds text that is no UTF-8: {error}") from None
    if dtype in _KINDS:
        return _in_one_piece(column.cast(wanted)).fill_null("" if dtype == "str" else b"")
    item = wanted.value_type
    if column.type.value_type != item:
        raise FeedError(f"Column {name!r} is {column.type}, not lists of {item}.")
    lists = _in_one_piece(column.cast(wanted))
    if lists.null_count:
        raise UnfitError(f"Column {name!r} has {lists.null_count:,} nulls where lists are due.")
    values = lists.values
    if values.null_count:
        if not pa.types.is_floating(item):
            raise UnfitError(f"Column {name!r} has {values.null_count:,} nulls in its lists of {item}.")
        lists = pa.LargeListArray.from_arrays(lists.offsets, values.fill_null(float("nan")))
    return lists


def no_rows(dtype: str) -> pa.Array:
    """Return an array of no rows."""
    return pa.array([], _type_of(dtype))


def taken(array: pa.Array, order: NDArray[np.int64]) -> pa.Array:
    """Return the rows of a row group in another order."""
    return array.take(pa.array(order))


def joined(arrays: Sequence[pa.Array], starts: Sequence[int], stops: Sequence[int]) -> pa.Array:
    """Return rows start..stop-1 of each of some arrays as one array."""
    pieces = [array.slice(start, stop - start) for array, start, stop in zip(arrays, starts, stops, strict=True)]
    return pa.concat_arrays(pieces)


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """Return an object array, (n,): str or bytes, or an array for each list."""
    objects: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return objects


def to_bytes(array: pa.Array) -> NDArray[Any]:
    """Return text or bytes as an object array of bytes, (n,): TensorFlow takes that a little faster than str."""
    return to_numpy(array.cast(pa.large_binary()))


def parts(lists: pa.Array) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values of lists, one after another, and (n + 1,) where each begins and the last ends."""
    values: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    offsets = lists.offsets.to_numpy()
    return values, offsets - offsets[0]


def _type_of(dtype: str) -> pa.DataType:
    kinds = {"str": pa.large_string(), "bytes": pa.large_binary()}
    return kinds.get(dtype) or pa.large_list(pa.from_numpy_dtype(np.dtype(dtype)))


def _in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([*column.chunks, pa.array([], column.type)])
