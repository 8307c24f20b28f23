"""128-bit hashes of rows, from Arrow columns, in numpy alone: they order the rows on disk and group equal keys.

The mixing function is the finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
Generators, 2014). The values are part of the data format (pinned by a golden test): a change reorders every dataset.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x6E756C6C6E756C6C)
LOW_SEED = 0x5EED0F10
HIGH_SEED = 0x5EED0F20


def mix64(values: Hashes) -> Hashes:
    """Return a new array with each 64-bit value scrambled (a bijection)."""
    z = values + _GOLDEN
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def mix_number(*numbers: int) -> int:
    """Return one 64-bit number that depends on all the numbers and on their order."""
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = mix64(state ^ np.array([number & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return int(state[0])


def hash_rows(columns: Sequence[pa.Array | pa.ChunkedArray], rows: int, seed: int) -> Hashes:
    """Return a 64-bit hash per row of the columns' values; NULL is a value of its own, equal to NULL alone.

    Integers, booleans, dates and timestamps are hashed by value, floats as float64, text by its bytes. NaN and -0.0
    must be gone (`clean` turns them into NULL and 0.0). Shape (rows,), a new array.
    """
    state = np.full(rows, np.uint64(mix_number(seed)), np.uint64)
    for column in columns:
        state ^= _hash_column(column, seed)
        state = mix64(state)
    return state


def _hash_column(column: pa.Array | pa.ChunkedArray, seed: int) -> Hashes:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        encoded = array
    elif _is_bytes(array.type):
        encoded = array.dictionary_encode()
    elif pa.types.is_nested(array.type) or pa.types.is_decimal(array.type):
        texts = [None if v is None else json.dumps(v, default=str, sort_keys=True) for v in array.to_pylist()]
        encoded = pa.array(texts, pa.string()).dictionary_encode()
    else:
        return _with_nulls(array, mix64(_fixed_width_words(array) ^ np.uint64(mix_number(seed, 1))))
    words = _hash_bytes(encoded.dictionary, seed)
    if len(words) == 0:
        return np.full(len(array), _NULL, np.uint64)
    indices = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
    return _with_nulls(encoded.indices, words[indices])


def _is_bytes(arrow_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(arrow_type)
        or pa.types.is_large_string(arrow_type)
        or pa.types.is_binary(arrow_type)
        or pa.types.is_large_binary(arrow_type)
        or pa.types.is_fixed_size_binary(arrow_type)
    )


def _with_nulls(array: pa.Array, hashes: Hashes) -> Hashes:
    if array.null_count:
        hashes[pc.is_null(array).to_numpy(zero_copy_only=False)] = _NULL
    return hashes


def _fixed_width_words(array: pa.Array) -> Hashes:
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.uint64)
    if pa.types.is_floating(array.type):
        floats = pc.fill_null(array.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(floats).view(np.uint64).copy()
    if pa.types.is_date32(array.type) or pa.types.is_time32(array.type):
        array = array.cast(pa.int32())
    if array.type == pa.uint64():
        return np.asarray(pc.fill_null(array, 0).to_numpy(zero_copy_only=False), np.uint64).copy()
    integers = pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(integers, np.int64).view(np.uint64).copy()


def _hash_bytes(array: pa.Array, seed: int) -> Hashes:
    """Hash each string by its little-endian 64-bit words, zero-padded, with their places and the length."""
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    binary = array.cast(pa.large_binary())
    offsets = np.frombuffer(binary.buffers()[1], np.int64)[binary.offset : binary.offset + len(binary) + 1]
    if len(offsets) < 2:
        return np.zeros(0, np.uint64)
    lengths = np.diff(offsets)
    word_counts = (lengths + 7) // 8
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(word_counts)])
    padded = np.zeros(int(starts[-1]) * 8, np.uint8)
    if lengths.sum():
        data = np.frombuffer(binary.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        padded[np.arange(len(data)) + np.repeat(starts[:-1] * 8 - (offsets[:-1] - offsets[0]), lengths)] = data
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], word_counts)
    seeded = np.uint64(mix_number(seed, 2))
    mixed = mix64(padded.view("<u8") ^ mix64(places.astype(np.uint64) ^ seeded))
    # Sums modulo 2^64: the running sum may wrap, differences of it don't mind.
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    return mix64((sums[starts[1:]] - sums[starts[:-1]]) ^ mix64(lengths.astype(np.uint64) ^ seeded))
