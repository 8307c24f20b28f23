"""The identity of a row: 128 bits of its raw values, the same whether Spark computes them or numpy.

Each value is a 64-bit word (an integer, a boolean, a date or a time as BIGINT; a float as DOUBLE; text by its own
xxhash64), and which values are NULL is a word of its own, since xxhash64 passes over NULL. Both halves are Spark's
xxhash64 of these words behind a 1 and behind a 2. The function is XXH64 (Yann Collet, xxHash, 2012) as Spark applies it
to a row: the hash of one value is the seed of the next. It is part of the data format, pinned by a golden test.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegralType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from lakefit.config.sql import quoted
from lakefit.prepare.hashing import Hashes, json_texts, words_of

_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
_SEED = np.uint64(42)
_LANES = tuple(np.uint64((42 + start) % 2**64) for start in (int(_P1) + int(_P2), int(_P2), 0, -int(_P1)))
_P5_OF_8 = np.uint64(int(_P5) + 8)
_SHORT = np.uint64((42 + int(_P5)) % 2**64)
# So many columns share a word that says which are NULL; a BIGINT has a sign.
_MASKED = 63
_BLOCK = 1 << 14
_LONG = 1 << 12
_LONG_PIECE = 1 << 20


def identity_columns(values: Mapping[str, DataType]) -> tuple[Column, Column]:
    """Return both halves of the identity of rows with these columns, BIGINT, as Spark expressions.

    As text: to build thousands of columns from Python takes minutes.
    """
    names = list(values)
    words: list[str] = []
    for start in range(0, len(names), _MASKED):
        some = names[start : start + _MASKED]
        words.append(" | ".join(f"IF({quoted(name)} IS NULL, {1 << place}L, 0L)" for place, name in enumerate(some)))
        words += [_word(quoted(name), values[name]) for name in some]
    rest = ", ".join(words)
    return F.expr(f"xxhash64(1L, {rest})"), F.expr(f"xxhash64(2L, {rest})")


def _word(value: str, of_type: DataType) -> str:
    if isinstance(of_type, (IntegralType, BooleanType)):
        return f"CAST({value} AS BIGINT)"
    if isinstance(of_type, DateType):
        return f"CAST(unix_date({value}) AS BIGINT)"
    if isinstance(of_type, (DoubleType, FloatType)):
        return f"CAST({value} AS DOUBLE)"
    if isinstance(of_type, (StringType, BinaryType)):
        return f"IF({value} IS NOT NULL, xxhash64({value}), NULL)"
    if isinstance(of_type, (TimestampType, TimestampNTZType)):
        return value
    # Spark hashes no MAP; its text is the map as it is stored.
    return f"to_json(struct({value}))" if "map<" in of_type.simpleString() else value


def identities(columns: Sequence[pa.Array], rows: int) -> tuple[Hashes, Hashes]:
    """Return both halves of the identity of each row: what Spark makes of `identity_columns`.

    Of nested values and decimals, which Spark hashes in other ways, the JSON text is hashed.
    """
    nulls = [pc.is_null(column).to_numpy(zero_copy_only=False) if column.null_count else None for column in columns]
    words: list[tuple[Hashes, NDArray[np.bool_] | None]] = []
    for start in range(0, len(columns), _MASKED):
        mask = np.zeros(rows, np.uint64)
        for place, null in enumerate(nulls[start : start + _MASKED]):
            if null is not None:
                mask |= null.astype(np.uint64) << np.uint64(place)
        words.append((mask, None))
        words += [(_words(column), nulls[start + i]) for i, column in enumerate(columns[start : start + _MASKED])]
    halves = tuple(np.full(rows, _hash_long(np.array([half], np.uint64), _SEED)[0]) for half in (1, 2))
    k, t = np.empty(min(rows, _BLOCK), np.uint64), np.empty(min(rows, _BLOCK), np.uint64)
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        for word, null in words:
            part = word[start:stop]
            _round(part, k[: len(part)], t[: len(part)])
            where = None if null is None else ~null[start:stop]
            for half in halves:
                _chain(half[start:stop], k[: len(part)], t[: len(part)], where)
    return halves[0], halves[1]


def _words(column: pa.Array) -> Hashes:
    if pa.types.is_nested(column.type) or pa.types.is_decimal(column.type):
        column = json_texts(column)
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        encoded = column.dictionary_encode()
        if not len(encoded.dictionary):
            return np.zeros(len(column), np.uint64)
        indices: NDArray[np.int32] = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
        return np.take(hash_texts(encoded.dictionary), indices)
    words = words_of(column)
    if pa.types.is_floating(column.type):
        # Spark hashes -0.0 as 0.0 and every NaN as one.
        floats = np.asarray(words.view(np.float64) + 0.0)
        floats[np.isnan(floats)] = np.nan
        words = np.frombuffer(floats, np.uint64)
    return words


def _round(words: Hashes, k: Hashes, t: Hashes) -> None:
    """Put into `k` what a word adds to a hash, whatever the seed: rotl(word * P2, 31) * P1."""
    np.multiply(words, _P2, out=k)
    np.right_shift(k, np.uint64(33), out=t)
    np.left_shift(k, np.uint64(31), out=k)
    np.bitwise_or(k, t, out=k)
    np.multiply(k, _P1, out=k)


def _chain(seed: Hashes, k: Hashes, t: Hashes, where: NDArray[np.bool_] | None) -> None:
    """Replace each seed by XXH64 of 8 bytes under it, but where there is no value; `t` is spare."""
    h = seed if where is None else seed.copy()
    np.add(h, _P5_OF_8, out=h)
    np.bitwise_xor(h, k, out=h)
    np.right_shift(h, np.uint64(37), out=t)
    np.left_shift(h, np.uint64(27), out=h)
    np.bitwise_or(h, t, out=h)
    np.multiply(h, _P1, out=h)
    np.add(h, _P4, out=h)
    _finish(h, t)
    if where is not None:
        np.copyto(seed, h, where=where)


def _finish(h: Hashes, t: Hashes) -> None:
    for shift, factor in ((33, _P2), (29, _P3), (32, None)):
        np.right_shift(h, np.uint64(shift), out=t)
        np.bitwise_xor(h, t, out=h)
        if factor is not None:
            np.multiply(h, factor, out=h)


def _hash_long(words: Hashes, seed: np.uint64) -> Hashes:
    h, k, t = np.full(len(words), seed), np.empty_like(words), np.empty_like(words)
    _round(words, k, t)
    _chain(h, k, t, None)
    return h


def hash_texts(texts: pa.Array) -> Hashes:
    """Return XXH64 with seed 42 of the bytes of each text, none of which is NULL; Spark's `xxhash64(text)`."""
    binary = texts.cast(pa.large_binary())
    offsets = np.frombuffer(binary.buffers()[1], np.int64)[binary.offset : binary.offset + len(binary) + 1]
    data = np.frombuffer(binary.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    hashes = np.empty(len(texts), np.uint64)
    for length in np.unique(lengths):
        mine = np.flatnonzero(lengths == length)
        if length > _LONG:
            hashes[mine] = [_hash_one(data[offsets[i] : offsets[i + 1]]) for i in mine]
            continue
        # Some texts of one length at a time: rows of a matrix of bytes.
        for some in np.array_split(mine, max(1, len(mine) * int(length) >> 24)):
            hashes[some] = _hash_bytes(data[offsets[some][:, None] + np.arange(length)])
    return hashes


def _rotl(x: Hashes, bits: int) -> Hashes:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


def _hash_one(data: NDArray[np.uint8]) -> int:
    """Return XXH64 of one long text: numbers of Python's are faster than arrays of one."""
    p1, p2, ones = int(_P1), int(_P2), (1 << 64) - 1
    lanes = [int(seed) for seed in _LANES]
    whole = len(data) // 32 * 32
    for start in range(0, whole, _LONG_PIECE):
        words = data[start : min(start + _LONG_PIECE, whole)].view("<u8").reshape(-1, 4)
        for place, lane in enumerate(lanes):
            for word in words[:, place].tolist():
                lane = (lane + word * p2) & ones
                lane = (((lane << 31) | (lane >> 33)) * p1) & ones
            lanes[place] = lane
    return int(_hash_bytes(data[None, :], [np.array([lane], np.uint64) for lane in lanes])[0])


def _hash_bytes(data: NDArray[np.uint8], lanes: list[Hashes] | None = None) -> Hashes:
    """Return XXH64 of each row of bytes, all of one length. lanes: where these have been computed."""
    rows, length = data.shape
    h: Hashes
    at = 0
    if length >= 32:
        if lanes is None:
            lanes = [np.full(rows, seed) for seed in _LANES]
            while at <= length - 32:
                for place in range(4):
                    word = _read(data, at + 8 * place, "<u8")
                    lanes[place] = _rotl(lanes[place] + word * _P2, 31) * _P1
                at += 32
        at = length // 32 * 32
        h = _rotl(lanes[0], 1) + _rotl(lanes[1], 7) + _rotl(lanes[2], 12) + _rotl(lanes[3], 18)
        for lane in lanes:
            h = (h ^ (_rotl(lane * _P2, 31) * _P1)) * _P1 + _P4
    else:
        h = np.full(rows, _SHORT)
    h = h + np.uint64(length)
    while at <= length - 8:
        h = _rotl(h ^ (_rotl(_read(data, at, "<u8") * _P2, 31) * _P1), 27) * _P1 + _P4
        at += 8
    if at <= length - 4:
        h = _rotl(h ^ (_read(data, at, "<u4") * _P1), 23) * _P2 + _P3
        at += 4
    for place in range(at, length):
        h = _rotl(h ^ (data[:, place].astype(np.uint64) * _P5), 11) * _P1
    _finish(h, np.empty_like(h))
    return h


def _read(data: NDArray[np.uint8], at: int, dtype: str) -> Hashes:
    size = int(dtype[-1])
    return np.ascontiguousarray(data[:, at : at + size]).view(dtype)[:, 0].astype(np.uint64)
