"""Exact quantiles by radix: the first bits of all values are counted with everything else, then the next bits of those
that share the prefix of a wanted one, until so few are left that they can be looked at one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lakefit.dataset.transform import SMALLEST
from lakefit.prepare.hashing import Hashes
from lakefit.prepare.statistics import Floats

FIRST_BITS = 16
"""The sign, the exponent and four digits."""
NEXT_BITS = 16
# So many values of one prefix are handed over whole, and their ranks known at once.
WHOLE = 1 << 16

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """Asks for the next `next_bits` bits of the values of a column whose first `bits` bits are `value`."""

    column: str
    bits: int
    value: int
    next_bits: int


CountBins = Callable[[Sequence[Prefix]], Mapping[Prefix, tuple[Hashes, Integers]]]
"""Returns for each prefix its continuations, ascending, and how many values have each."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a wanted value is: its first `bits` bits, its rank among those that share them, and how many these are."""

    bits: int
    value: int
    rank: int
    rows: int


def select_ranks(
    ranks: Mapping[str, Sequence[int]], first: Mapping[str, Integers], count_bins: CountBins, *, exact: bool
) -> dict[str, list[tuple[float, float]]]:
    """Return for given ranks (0 = smallest) of each column the bounds between which the value lies.

    Both are the value itself if `exact`; else the values that share its first bits after one call of `count_bins`.
    first: `first_bins` of each column, where they are known.
    """
    places: dict[tuple[str, int], _Place] = {}
    all_heads = np.arange(1 << FIRST_BITS, dtype=np.uint64)
    for column, wanted in ranks.items():
        running = np.cumsum(first[column]) if column in first else None
        for rank in wanted:
            if running is not None:
                places[column, rank] = _continued(_Place(0, 0, rank, 0), all_heads, running, FIRST_BITS)
            else:
                places[column, rank] = _Place(0, 0, rank, WHOLE + 1)
    last = 64 if exact else FIRST_BITS + NEXT_BITS
    while open_places := {key: place for key, place in places.items() if place.bits < last}:
        asked = {key: _question(key[0], place, exact) for key, place in open_places.items()}
        answers = {
            prefix: (bins, np.cumsum(rows)) for prefix, (bins, rows) in count_bins(sorted(set(asked.values()))).items()
        }
        for key, prefix in asked.items():
            places[key] = _continued(places[key], *answers[prefix], prefix.next_bits)
    return {
        column: [_bounds(places[column, rank].value, 64 - places[column, rank].bits) for rank in wanted]
        for column, wanted in ranks.items()
    }


def quantile_ranks(count: int, share: float) -> tuple[int, int, float]:
    """Return the ranks between which a quantile lies and how far from the first (0 to 1), as numpy's `linear` does."""
    place = (count - 1) * share
    low = min(int(np.floor(place)), count - 1)
    return low, min(low + 1, count - 1), place - low


def between(low: float, high: float, part: float) -> float:
    """Return the point `part` of the way, without the overflow of a difference between huge values.

    What is nearer to 0 than `SMALLEST` is 0.
    """
    if low == high:
        return low
    point = low * (1 - part) + high * part
    return point if abs(point) >= SMALLEST else 0.0


def first_bins(values: Floats, rows: Integers | None = None) -> Integers:
    """Return how many values (no NaN) have which first bits, each counted `rows` times; shape (2^FIRST_BITS,)."""
    bins = (ordered_bits(values) >> np.uint64(64 - FIRST_BITS)).astype(np.int64)
    # Weights are float64: exact up to 2^53 rows.
    return np.bincount(bins, rows, 1 << FIRST_BITS).astype(np.int64)


def count_bins_of(values: Floats, prefixes: Sequence[Prefix]) -> list[tuple[Hashes, Integers]]:
    """Return what `CountBins` asks for, of one array without NaN; the prefixes are of one column, in order."""
    answers: dict[Prefix, tuple[Hashes, Integers]] = {}
    for length in {prefix.bits for prefix in prefixes}:
        mine = [prefix for prefix in prefixes if prefix.bits == length]
        wanted = np.array(sorted({prefix.value for prefix in mine}), np.uint64)
        place = _places(values, wanted, length)
        hit = np.flatnonzero(place >= 0)
        found, place = ordered_bits(values[hit]) << np.uint64(length), place[hit]
        for prefix in mine:
            rest = found[place == np.searchsorted(wanted, np.uint64(prefix.value))] >> np.uint64(64 - prefix.next_bits)
            answers[prefix] = _counted(rest, prefix.next_bits)
    return [answers[prefix] for prefix in prefixes]


def _places(values: Floats, wanted: Hashes, length: int) -> NDArray[np.int32]:
    """Return where the first `length` bits of each value are among those wanted (ascending), -1 where they are not."""
    if not length:
        return np.zeros(len(values), np.int32)
    if length == FIRST_BITS:
        # Of the bits as they are, so that only the values that are wanted need to be ordered.
        heads = np.arange(1 << length, dtype=np.uint64) << np.uint64(64 - length)
        table = _search(ordered_bits(heads.view(np.float64)) >> np.uint64(64 - length), wanted)
        return np.take(table, np.ascontiguousarray(values).view(np.uint64) >> np.uint64(64 - length))
    return _search(ordered_bits(values) >> np.uint64(64 - length), wanted)


def _search(heads: Hashes, wanted: Hashes) -> NDArray[np.int32]:
    place = np.minimum(np.searchsorted(wanted, heads), len(wanted) - 1)
    return np.where(wanted[place] == heads, place, -1).astype(np.int32)


def _counted(bits: Hashes, length: int) -> tuple[Hashes, Integers]:
    """Return the distinct values of `length` bits, ascending, and how often each comes."""
    if length > NEXT_BITS:
        return np.unique(bits, return_counts=True)
    rows = np.bincount(bits.astype(np.int64))
    found = np.flatnonzero(rows)
    return found.astype(np.uint64), rows[found]


def ordered_bits(values: Floats) -> Hashes:
    """Return integers that order as the floats do (sign bit flipped, negatives inverted)."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    # All ones for a negative number, the sign bit alone for another.
    mask = (bits.view(np.int64) >> 63).view(np.uint64) | np.uint64(1 << 63)
    return bits ^ mask


def _question(column: str, place: _Place, exact: bool) -> Prefix:
    left = 64 - place.bits
    whole = exact and place.rows <= WHOLE
    next_bits = left if whole else min(left, NEXT_BITS if place.bits else FIRST_BITS)
    return Prefix(column, place.bits, place.value, next_bits)


def _continued(place: _Place, continuations: Hashes, running: Integers, next_bits: int) -> _Place:
    """Return the place after `next_bits` more bits; running: the rows of the continuations up to each."""
    chosen = int(np.searchsorted(running, place.rank, side="right"))
    before = int(running[chosen - 1]) if chosen else 0
    value = (place.value << next_bits) | int(continuations[chosen])
    return _Place(place.bits + next_bits, value, place.rank - before, int(running[chosen]) - before)


def _bounds(prefix: int, left: int) -> tuple[float, float]:
    ends = [_value_of_bits(prefix << left), _value_of_bits((prefix << left) | ((1 << left) - 1))]
    return min(ends), max(ends)


def _value_of_bits(bits: int) -> float:
    raw = bits & ~(1 << 63) if bits >> 63 else ~bits & 0xFFFFFFFFFFFFFFFF
    return float(np.array([raw], np.uint64).view(np.float64)[0])
