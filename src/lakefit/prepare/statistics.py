"""Moments of the training split, the same to the bit for any partitioning.

They are taken per leaf (a fixed range of row hashes, inside which rows have a fixed order) and merged pairwise up a
fixed binary tree: a bucket merges its own subtree, the driver the rest. The merge is that of Chan, Golub and LeVeque
(Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), with two additions: means are kept in
two float64 (hi + lo), else a mean of 1e9 would blur a deviation of 1e-3; and all is scaled by a power of two per node,
so that the squares of 1e300 and 1e-300 are numbers too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lakefit.prepare.hashing import Hashes

Floats = NDArray[np.float64]
LEAF_BITS = 14
# Values that are taken at once: numpy's calls cost more than few of them, many would leave the cache.
_CACHED = 1 << 16


@dataclass(frozen=True, slots=True)
class Moments:
    """Per node of one tree level (axis 0) and column (axis 1).

    ids: the nodes' hash prefixes, ascending, shape (nodes,); the others have shape (nodes, columns), float64. count: of
    non-nulls. The mean is `(mean + mean_low) * 2^exponent`, the sum of squared deviations `squares * 4^exponent`. low,
    high: smallest and largest value, not scaled.
    """

    ids: NDArray[np.int64]
    count: Floats
    exponent: Floats
    mean: Floats
    mean_low: Floats
    squares: Floats
    low: Floats
    high: Floats


ARRAYS = tuple(field.name for field in fields(Moments))[1:]


def bucket_moments(columns: Iterable[Floats | None], key_high: Hashes, bucket_bits: int) -> Moments:
    """Return the node of a bucket, of rows in hash order; it has none where there are no rows.

    columns: (rows,) each, NaN for null; None has no values. key_high: (rows,), ascending.
    """
    left = iter(columns)
    parts = []
    while batch := list(islice(left, max(1, _CACHED // max(1, len(key_high))))):
        found = merge_up(leaf_moments([x for x in batch if x is not None], key_high), LEAF_BITS, bucket_bits)
        part = no_moments(found.ids, len(batch))
        places = [place for place, x in enumerate(batch) if x is not None]
        for name in ARRAYS:
            getattr(part, name)[:, places] = getattr(found, name)
        parts.append(part)
    arrays = {name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ARRAYS if parts}
    return Moments(parts[0].ids, **arrays) if parts else no_moments(np.zeros(0, np.int64), 0)


def leaf_moments(columns: Sequence[Floats], key_high: Hashes) -> Moments:
    """Return the leaves of rows in hash order; see `bucket_moments`."""
    leaf = (key_high >> np.uint64(64 - LEAF_BITS)).astype(np.int64)
    starts = _firsts(leaf)
    sizes = np.diff(np.append(starts, len(leaf)))
    out = no_moments(leaf[starts], len(columns))
    for column, x in enumerate(columns if len(starts) else ()):
        valid = ~np.isnan(x)
        low = np.minimum.reduceat(np.where(valid, x, np.inf), starts)
        high = np.maximum.reduceat(np.where(valid, x, -np.inf), starts)
        n = np.add.reduceat(valid.astype(np.float64), starts)
        largest = np.where(n > 0, np.maximum(np.abs(low), np.abs(high)), 0.0)
        exponent = np.frexp(largest)[1].astype(np.int32)
        scaled = np.where(valid, np.ldexp(x, -np.repeat(exponent, sizes)), 0.0)
        mean = _divided(np.add.reduceat(scaled, starts), n)
        deviation = np.where(valid, scaled - np.repeat(mean, sizes), 0.0)
        # What rounding has kept from the mean is the mean of the deviations.
        mean_low = _divided(np.add.reduceat(deviation, starts), n)
        squares = np.add.reduceat(deviation * deviation, starts) - n * mean_low * mean_low
        one_value = low == high
        out.count[:, column], out.exponent[:, column] = n, exponent
        out.mean[:, column] = np.where(one_value, np.ldexp(np.where(n > 0, low, 0.0), -exponent), mean)
        out.mean_low[:, column] = np.where(one_value, 0.0, mean_low)
        out.squares[:, column] = np.where(one_value, 0.0, np.maximum(squares, 0.0))
        out.low[:, column], out.high[:, column] = low, high
    return out


def merge_up(moments: Moments, from_bits: int, to_bits: int) -> Moments:
    """Return the nodes `from_bits - to_bits` levels nearer the root."""
    for _ in range(from_bits - to_bits):
        moments = _merge_level(moments)
    return moments


def no_moments(ids: NDArray[np.int64], columns: int) -> Moments:
    """Return nodes without values."""
    ends = {"low": np.inf, "high": -np.inf}
    return Moments(ids, **{name: np.full((len(ids), columns), ends.get(name, 0.0)) for name in ARRAYS})


def concatenate(parts: Iterable[Moments], columns: int) -> Moments:
    """Return the nodes of several subtrees of one level, by id."""
    known = list(parts)
    if not known:
        return no_moments(np.zeros(0, np.int64), columns)
    ids = np.concatenate([part.ids for part in known])
    order = np.argsort(ids)
    arrays = {name: np.concatenate([getattr(part, name) for part in known])[order] for name in ARRAYS}
    return Moments(ids[order], **arrays)


def pack_moments(moments: Moments) -> bytes:
    """Return the nodes as bytes: ids, then the other arrays, float64 (ids are exact up to 2^53)."""
    arrays = (getattr(moments, name) for name in ARRAYS)
    return b"".join([moments.ids.astype(np.float64).tobytes(), *(array.tobytes() for array in arrays)])


def unpack_moments(packed: bytes, columns: int) -> Moments:
    """Return what `pack_moments` packed; `columns` is the number of columns."""
    flat = np.frombuffer(packed, np.float64)
    nodes = len(flat) // (1 + len(ARRAYS) * columns)
    parts = flat[nodes:].reshape(len(ARRAYS), nodes, columns)
    return Moments(flat[:nodes].astype(np.int64), **dict(zip(ARRAYS, parts, strict=True)))


@dataclass(frozen=True, slots=True)
class Summary:
    """What the root says of one column; mean and deviation (of the population) are 0 where count is."""

    count: int
    mean: float
    deviation: float
    low: float
    high: float


def summary_of(root: Moments, column: int) -> Summary:
    """Return the moments of a column of the one node of the root level (none: no row at all)."""
    if not len(root.ids) or not root.count[0, column]:
        return Summary(0, 0.0, 0.0, 0.0, 0.0)
    count, exponent = root.count[0, column], int(root.exponent[0, column])
    mean = np.ldexp(root.mean[0, column] + root.mean_low[0, column], exponent)
    deviation = np.ldexp(np.sqrt(root.squares[0, column] / count), exponent)
    return Summary(int(count), float(mean), float(deviation), float(root.low[0, column]), float(root.high[0, column]))


def summary_of_counts(values: Floats, rows: NDArray[np.int64]) -> Summary:
    """Return the moments of distinct values with the rows of each; sums are exact (math.fsum), so is their order none.

    The deviations' own mean is taken out of the mean and of their squares (the corrected two-pass algorithm: Chan,
    Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983), in units of a power of two as above.
    """
    count = int(rows.sum())
    if not count:
        return Summary(0, 0.0, 0.0, 0.0, 0.0)
    exponent = int(np.frexp(np.abs(values).max())[1])
    scaled = np.ldexp(values, -exponent)
    mean = math.fsum(scaled * rows) / count
    deviations = scaled - mean
    rest = math.fsum(deviations * rows) / count
    square = math.fsum(deviations * deviations * rows) / count - rest * rest
    deviation = math.sqrt(max(square, 0.0)) if len(values) > 1 else 0.0
    whole = float(values[0]) if len(values) == 1 else float(np.ldexp(mean + rest, exponent))
    low, high = float(values.min()), float(values.max())
    return Summary(count, whole, float(np.ldexp(deviation, exponent)), low, high)


def _merge_level(m: Moments) -> Moments:
    parents = m.ids >> 1
    first = _firsts(parents)
    last = np.append(first, len(parents))[1:] - 1
    pair = (last > first)[:, None]
    n1, n2 = m.count[first], np.where(pair, m.count[last], 0.0)
    n = n1 + n2
    # An empty side has exponent 0: it must not set the scale.
    no_scale = -4000.0
    exponents = np.where(m.count > 0, m.exponent, no_scale)
    exponent = np.maximum(exponents[first], np.where(pair, exponents[last], no_scale))
    exponent = np.where(n > 0, exponent, 0.0)
    shift1, shift2 = ((m.exponent[side] - exponent).astype(np.int32) for side in (first, last))
    mean1, mean2 = np.ldexp(m.mean[first], shift1), np.ldexp(m.mean[last], shift2)
    rest1, rest2 = np.ldexp(m.mean_low[first], shift1), np.ldexp(m.mean_low[last], shift2)
    squares1, squares2 = np.ldexp(m.squares[first], 2 * shift1), np.ldexp(m.squares[last], 2 * shift2)
    both = (n1 > 0) & (n2 > 0)
    share = _divided(n2, n)
    delta = np.where(both, (mean2 - mean1) + (rest2 - rest1), 0.0)
    step = delta * share
    mean = mean1 + step
    rest = (mean1 - mean) + step + rest1
    only2 = ~(n1 > 0)
    squares = squares1 + np.where(pair, squares2, 0.0) + delta * delta * n1 * share
    return Moments(
        parents[first],
        count=n,
        exponent=exponent,
        mean=np.where(only2, mean2, mean),
        mean_low=np.where(only2, rest2, rest),
        squares=squares,
        low=np.where(pair, np.minimum(m.low[first], m.low[last]), m.low[first]),
        high=np.where(pair, np.maximum(m.high[first], m.high[last]), m.high[first]),
    )


def _firsts(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where each of ascending ids, 0 or more, comes first."""
    return np.flatnonzero(np.diff(ids, prepend=-1))


def _divided(total: Floats, count: Floats) -> Floats:
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)
