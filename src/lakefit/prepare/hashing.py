"""64-bit hashes of rows, from Arrow columns, in numpy alone: of groups, strata, contents and distinct values.

The mixing function is the finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
Generators, 2014). The values are part of the data format (pinned by a golden test): a change reorders every dataset.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.prepare.arrays import one_array

Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x6E756C6C6E756C6C)
HIGH_SEED = 0x5EED0F20


# Rows at a time: what is mixed stays in a core's cache, and so does the memory it is mixed in.
_BLOCK = 1 << 14


def mix64(values: Hashes) -> Hashes:
    """Return a new array with each 64-bit value scrambled (a bijection)."""
    z = values + _GOLDEN
    _mix(z, np.empty_like(z))
    return z


def _mix(z: Hashes, spare: Hashes) -> None:
    """Finish `mix64` in place, the constant being added already."""
    np.right_shift(z, np.uint64(30), out=spare)
    np.bitwise_xor(z, spare, out=z)
    np.multiply(z, np.uint64(0xBF58476D1CE4E5B9), out=z)
    np.right_shift(z, np.uint64(27), out=spare)
    np.bitwise_xor(z, spare, out=z)
    np.multiply(z, np.uint64(0x94D049BB133111EB), out=z)
    np.right_shift(z, np.uint64(31), out=spare)
    np.bitwise_xor(z, spare, out=z)


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
    prepared = [_words(column, seed) for column in columns]
    states = np.full(rows, np.uint64(mix_number(seed)), np.uint64)
    salt = np.uint64(mix_number(seed, 1))
    mixed, spare = np.empty(min(rows, _BLOCK), np.uint64), np.empty(min(rows, _BLOCK), np.uint64)
    for start in range(0, rows, _BLOCK):
        state = states[start : start + _BLOCK]
        z, free = mixed[: len(state)], spare[: len(state)]
        for column in prepared:
            values = column.values[start : start + _BLOCK]
            if column.hashed:
                np.copyto(z, values)
            else:
                np.bitwise_xor(values, salt, out=z)
                np.add(z, _GOLDEN, out=z)
                _mix(z, free)
            if column.null is not None:
                z[column.null[start : start + _BLOCK]] = _NULL
            np.bitwise_xor(state, z, out=state)
            np.add(state, _GOLDEN, out=state)
            _mix(state, free)
    return states


@dataclass(frozen=True, slots=True)
class _Words:
    """A column as 64-bit words: values to be hashed, or their hashes. null: where NULL is."""

    values: Hashes
    hashed: bool
    null: NDArray[np.bool_] | None


def _words(column: pa.Array | pa.ChunkedArray, seed: int) -> _Words:
    array = one_array(column)
    if pa.types.is_dictionary(array.type):
        encoded = array
    elif _is_bytes(array.type):
        encoded = array.dictionary_encode()
    elif pa.types.is_nested(array.type) or pa.types.is_decimal(array.type):
        encoded = json_texts(array).dictionary_encode()
    else:
        return _Words(words_of(array), hashed=False, null=_nulls(array))
    if len(encoded.dictionary) == 0:
        return _Words(np.full(len(array), _NULL, np.uint64), hashed=True, null=None)
    indices = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
    return _Words(_hash_bytes(encoded.dictionary, seed)[indices], hashed=True, null=_nulls(encoded.indices))


def json_texts(array: pa.Array) -> pa.Array:
    """Return nested values and decimals as text."""
    texts = [None if v is None else json.dumps(v, default=str, sort_keys=True) for v in array.to_pylist()]
    return pa.array(texts, pa.string())


def _nulls(array: pa.Array) -> NDArray[np.bool_] | None:
    return pc.is_null(array).to_numpy(zero_copy_only=False) if array.null_count else None


def _is_bytes(arrow_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(arrow_type)
        or pa.types.is_large_string(arrow_type)
        or pa.types.is_binary(arrow_type)
        or pa.types.is_large_binary(arrow_type)
        or pa.types.is_fixed_size_binary(arrow_type)
    )


def words_of(array: pa.Array) -> Hashes:
    """Return values of fixed width as 64-bit words (floats as float64), whatever stands where NULL is.

    They may share the array's memory.
    """
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.uint64)
    if pa.types.is_floating(array.type):
        array = array.cast(pa.float64())
    elif pa.types.is_date32(array.type) or pa.types.is_time32(array.type):
        array = array.cast(pa.int32()).cast(pa.int64())
    elif array.type != pa.uint64():
        array = array.cast(pa.int64())
    words: Hashes = np.frombuffer(array.buffers()[1], np.uint64, len(array) + array.offset)[array.offset :]
    return words


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
