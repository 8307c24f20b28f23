"""Exact quantiles of staged columns, by radix: each pass counts the next bits of the values that share a prefix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lakefit.prepare.hashing import Hashes
from lakefit.prepare.statistics import Floats

PASSES = (16, 12, 12, 12, 12)
"""The bits of each pass. The first has the sign, the exponent and four digits; later ones stay small in memory."""
APPROXIMATE_PASSES = PASSES[:2]


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """Asks for the next `next_bits` bits of the values of a column whose first `bits` bits are `value`."""

    column: str
    bits: int
    value: int
    next_bits: int


CountBins = Callable[[Sequence[Prefix]], Mapping[Prefix, NDArray[np.int64]]]
"""Returns for each prefix how many values fall into each of its continuations; shape (2^next_bits,)."""


def select_ranks(
    ranks: Mapping[str, Sequence[int]], count_bins: CountBins, passes: Sequence[int] = PASSES
) -> dict[str, list[tuple[float, float]]]:
    """Return for given ranks (0 = smallest) of each column the bounds between which the value lies.

    Both are the value itself after all 64 bits.
    """
    places = {(column, rank): (0, rank) for column, wanted in ranks.items() for rank in wanted}
    bits = 0
    for next_bits in passes if places else ():
        asked = {Prefix(column, bits, value, next_bits) for (column, _), (value, _) in places.items()}
        running = {prefix: np.cumsum(counts) for prefix, counts in count_bins(sorted(asked)).items()}
        for (column, rank), (value, remaining) in places.items():
            totals = running[Prefix(column, bits, value, next_bits)]
            chosen = int(np.searchsorted(totals, remaining, side="right"))
            before = int(totals[chosen - 1]) if chosen else 0
            places[column, rank] = ((value << next_bits) | chosen, remaining - before)
        bits += next_bits
    left = 64 - bits
    return {column: [_bounds(places[column, rank][0], left) for rank in wanted] for column, wanted in ranks.items()}


def quantile_ranks(count: int, share: float) -> tuple[int, int, float]:
    """Return the ranks between which a quantile lies and how far from the first (0 to 1), as numpy's `linear` does."""
    place = (count - 1) * share
    low = min(int(np.floor(place)), count - 1)
    return low, min(low + 1, count - 1), place - low


def between(low: float, high: float, part: float) -> float:
    """Return the point `part` of the way, without the overflow of a difference between huge values."""
    if low == high:
        return low
    return low * (1 - part) + high * part


def count_bins_of(values: Floats, prefix: Prefix) -> NDArray[np.int64]:
    """Return the histogram that `CountBins` asks for, of one array without NaN."""
    bits = ordered_bits(values)
    if prefix.bits:
        bits = bits[(bits >> np.uint64(64 - prefix.bits)) == np.uint64(prefix.value)]
    size = 1 << prefix.next_bits
    next_bits = (bits >> np.uint64(64 - prefix.bits - prefix.next_bits)) & np.uint64(size - 1)
    return np.bincount(next_bits.astype(np.int64), minlength=size).astype(np.int64)


def ordered_bits(values: Floats) -> Hashes:
    """Return integers that order as the floats do (sign bit flipped, negatives inverted)."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    negative = (bits >> np.uint64(63)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))


def _bounds(prefix: int, left: int) -> tuple[float, float]:
    ends = [_value_of_bits(prefix << left), _value_of_bits((prefix << left) | ((1 << left) - 1))]
    return min(ends), max(ends)


def _value_of_bits(bits: int) -> float:
    raw = bits & ~(1 << 63) if bits >> 63 else ~bits & 0xFFFFFFFFFFFFFFFF
    return float(np.array([raw], np.uint64).view(np.float64)[0])
