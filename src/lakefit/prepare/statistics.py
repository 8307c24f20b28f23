"""Moments and exact quantiles of the training split, the same to the bit for any partitioning.

Moments are taken per leaf (a fixed range of row hashes, inside which rows have a fixed order) and merged pairwise up a
fixed binary tree: a bucket merges its own subtree, the driver the rest. The merge is that of Chan, Golub and LeVeque
(Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979).
Quantiles are selected by radix: each pass counts the next 16 bits of the values that share the wanted prefix.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lakefit.prepare.hashing import Hashes

Floats = NDArray[np.float64]
LEAF_BITS = 16


@dataclass(frozen=True, slots=True)
class Moments:
    """Per node of one tree level (axis 0) and column (axis 1): count of non-nulls, mean, sum of squares, min, max.

    ids: the nodes' hash prefixes, ascending, shape (nodes,); the others have shape (nodes, columns), float64.
    """

    ids: NDArray[np.int64]
    count: Floats
    mean: Floats
    squares: Floats
    low: Floats
    high: Floats


def leaf_moments(values: Floats, key_high: Hashes) -> Moments:
    """Return the leaves of rows in hash order. values: (rows, columns), NaN for null; key_high: (rows,), ascending."""
    leaf = (key_high >> np.uint64(64 - LEAF_BITS)).astype(np.int64)
    ids, starts = np.unique(leaf, return_index=True)
    shape = (len(ids), values.shape[1])
    count, mean, squares, low, high = (np.zeros(shape) for _ in range(5))
    sizes = np.diff(np.append(starts, len(leaf)))
    for column in range(shape[1] if len(ids) else 0):
        x = np.ascontiguousarray(values[:, column])
        valid = ~np.isnan(x)
        n = np.add.reduceat(valid.astype(np.float64), starts)
        total = np.add.reduceat(np.where(valid, x, 0.0), starts)
        average = np.divide(total, n, out=np.zeros_like(total), where=n > 0)
        deviation = np.where(valid, x - np.repeat(average, sizes), 0.0)
        count[:, column], mean[:, column] = n, average
        squares[:, column] = np.add.reduceat(deviation * deviation, starts)
        low[:, column] = np.minimum.reduceat(np.where(valid, x, np.inf), starts)
        high[:, column] = np.maximum.reduceat(np.where(valid, x, -np.inf), starts)
    return Moments(ids, count, mean, squares, low, high)


def merge_up(moments: Moments, from_bits: int, to_bits: int) -> Moments:
    """Return the nodes `from_bits - to_bits` levels nearer the root."""
    for _ in range(from_bits - to_bits):
        moments = _merge_level(moments)
    return moments


def concatenate(parts: Iterable[Moments], columns: int) -> Moments:
    """Return the nodes of several subtrees of one level, by id."""
    known = list(parts)
    if not known:
        empty = np.zeros((0, columns))
        return Moments(np.zeros(0, np.int64), empty, empty, empty, empty, empty)
    ids = np.concatenate([part.ids for part in known])
    order = np.argsort(ids)
    fields = ("count", "mean", "squares", "low", "high")
    return Moments(ids[order], *(np.concatenate([getattr(part, name) for part in known])[order] for name in fields))


def _merge_level(m: Moments) -> Moments:
    parents = m.ids >> 1
    ids, first = np.unique(parents, return_index=True)
    last = np.append(first, len(parents))[1:] - 1
    pair = (last > first)[:, None]
    n1, n2 = m.count[first], np.where(pair, m.count[last], 0.0)
    n = n1 + n2
    share = np.divide(n2, n, out=np.zeros_like(n), where=n > 0)
    delta = np.where((n1 > 0) & (n2 > 0), m.mean[last] - m.mean[first], 0.0)
    mean = np.where(n1 > 0, m.mean[first] + delta * share, m.mean[last])
    squares = m.squares[first] + np.where(pair, m.squares[last], 0.0) + delta * delta * n1 * share
    low = np.where(pair, np.minimum(m.low[first], m.low[last]), m.low[first])
    high = np.where(pair, np.maximum(m.high[first], m.high[last]), m.high[first])
    return Moments(ids, n, mean, squares, low, high)


@dataclass(frozen=True, slots=True)
class Prefix:
    """Asks for the next 16 bits of the values of a column whose first `bits` bits are `value`."""

    column: str
    bits: int
    value: int


RADIX_BITS = 16
CountBins = Callable[[Sequence[Prefix]], Mapping[Prefix, NDArray[np.int64]]]
"""Returns for each prefix how many values fall into each of its 2^16 continuations; shape (65536,)."""


def select_ranks(ranks: Mapping[str, Sequence[int]], count_bins: CountBins) -> dict[str, list[float]]:
    """Return the values of given ranks (0 = smallest) of each column, exactly, in 64 / 16 passes of `count_bins`."""
    places = {(column, rank): (0, rank) for column, wanted in ranks.items() for rank in wanted}
    for bits in range(0, 64, RADIX_BITS):
        asked = {Prefix(column, bits, value) for (column, _), (value, _) in places.items()}
        bins = count_bins(sorted(asked, key=lambda prefix: (prefix.column, prefix.value)))
        for (column, rank), (value, remaining) in places.items():
            running = np.cumsum(bins[Prefix(column, bits, value)])
            chosen = int(np.searchsorted(running, remaining, side="right"))
            before = int(running[chosen - 1]) if chosen else 0
            places[column, rank] = ((value << RADIX_BITS) | chosen, remaining - before)
    return {column: [_value_of_bits(places[column, rank][0]) for rank in wanted] for column, wanted in ranks.items()}


def count_bins_of(values: Floats, prefix: Prefix) -> NDArray[np.int64]:
    """Return the histogram that `CountBins` asks for, of one array without NaN."""
    bits = ordered_bits(values)
    if prefix.bits:
        bits = bits[(bits >> np.uint64(64 - prefix.bits)) == np.uint64(prefix.value)]
    next_bits = (bits >> np.uint64(64 - prefix.bits - RADIX_BITS)) & np.uint64((1 << RADIX_BITS) - 1)
    return np.bincount(next_bits.astype(np.int64), minlength=1 << RADIX_BITS).astype(np.int64)


def ordered_bits(values: Floats) -> Hashes:
    """Return integers that order as the floats do (sign bit flipped, negatives inverted)."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    negative = (bits >> np.uint64(63)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))


def _value_of_bits(bits: int) -> float:
    raw = bits & ~(1 << 63) if bits >> 63 else ~bits & 0xFFFFFFFFFFFFFFFF
    return float(np.array([raw], np.uint64).view(np.float64)[0])
