"""The receipt of an epoch: which rows were really handed out, against which rows the manifest has."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError
from lakefit.feed.order import Runs
from lakefit.feed.reader import RowGroup

# 2^64 divided by the golden ratio, and its inverse modulo 2^64.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_FACTOR), -1, 1 << 64))


class Receipt:
    """Sums the positions that came with the rows through pool, permutation and batching.

    Per row group the count of positions, and of their mixed forms the sum (modulo 2^64) and the exclusive or: whichever
    rows came for others, one of them differs, but for a chance in billions. Positions travel mixed: a multiplication
    costs nothing where they are copied anyway.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        """groups: ascending by position."""
        self._groups = groups
        self._starts = np.array([group.first_position for group in groups], np.int64)
        self._ends = np.array([group.first_position + group.rows for group in groups], np.int64)
        self._sums = np.zeros((3, len(groups)), np.uint64)
        # Used again and again: fresh memory of this size costs more than what is done in it.
        self._room = np.empty(0, np.int64)

    def add(self, positions: Sequence[NDArray[np.int64]], runs: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Note rows, and return the sums of the mixed positions up to the end of each run, (runs + 1,) from 0 on.

        positions: of some batches, (rows,) each, as `mix` makes them. runs: (runs,) the numbers of rows, one after
        another, that are meant to come from one row group each: a hint that saves time. It proves nothing by itself.
        """
        mixed = positions[0] if len(positions) == 1 else self._in_one_piece(positions)
        up_to = np.zeros(len(runs) + 1, np.uint64)
        if not len(mixed):
            return up_to
        ends = np.cumsum(runs)
        if not len(ends) or ends[-1] != len(mixed):
            ends = np.append(ends[ends < len(mixed)], len(mixed))
        starts = np.empty_like(ends)
        starts[0], starts[1:] = 0, ends[:-1]
        sums, xors = (function.reduceat(mixed, starts).view(np.uint64) for function in (np.add, np.bitwise_xor))
        up_to[1 : len(sums) + 1] = np.cumsum(sums[: len(runs)])
        # A run whose ends are of one row group counts for that one as a whole. If rows of others are among it, the sums
        # of two row groups become wrong, as they should.
        first, last = unmix(mixed[np.concatenate([starts, ends - 1])]).reshape(2, -1)
        place = self._place(first)
        in_one = (self._starts[place] <= last) & (last < self._ends[place])
        if in_one.all():
            self._note(place, ends - starts, sums, xors)
            return up_to
        self._note(place[in_one], (ends - starts)[in_one], sums[in_one], xors[in_one])
        alone = mixed[np.repeat(~in_one, ends - starts)].view(np.uint64)
        self._note(self._place(unmix(alone.view(np.int64))), np.ones(len(alone), np.int64), alone, alone)
        return up_to

    def _in_one_piece(self, positions: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        rows = sum(map(len, positions))
        if len(self._room) < rows:
            self._room = np.empty(rows, np.int64)
        return np.concatenate([*positions, self._room[:0]], out=self._room[:rows])

    def _place(self, position: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the row group of each position; a position that is in none counts for one of them, which is found."""
        return np.maximum(np.searchsorted(self._starts, position, side="right") - 1, 0)

    def _note(
        self, place: NDArray[np.intp], rows: NDArray[np.int64], sums: NDArray[np.uint64], xors: NDArray[np.uint64]
    ) -> None:
        np.add.at(self._sums[0], place, rows.view(np.uint64))
        np.add.at(self._sums[1], place, sums)
        np.bitwise_xor.at(self._sums[2], place, xors)

    def counted(self) -> NDArray[np.int64]:
        """Return what of several workers can be added up, (2, groups): the rows of each row group, and their sum modulo
        2^64."""
        return self._sums[:2].view(np.int64).copy()

    def check_all(self, what: str, counted: NDArray[np.int64]) -> None:
        """Raise FeedError, naming the row groups, unless all workers together, whose sums of `counted` these are, have
        received each row of the manifest once."""
        received = counted.view(np.uint64).T.tolist()
        due = [_expected(group.first_position, group.rows)[:2] for group in self._groups]
        wrong = [
            f"{group.file} row group {group.index}: {found[0]:,} of {wanted[0]:,} rows"
            for group, found, wanted in zip(self._groups, received, due, strict=True)
            if found != wanted
        ]
        if wrong:
            raise FeedError(_not_those(f"{what}, of all workers together", wrong))

    def check(self, what: str, expected: "Part | None" = None) -> None:
        """Raise FeedError, naming the row groups, unless each row of the manifest, or of a part, came exactly once."""
        wrong = []
        for number, (group, received) in enumerate(zip(self._groups, self._sums.T.tolist(), strict=True)):
            due = _expected(group.first_position, group.rows) if expected is None else expected.of(number)
            if received != due:
                wrong.append(f"{group.file} row group {group.index}: {received[0]:,} of {due[0]:,} rows")
        if wrong:
            raise FeedError(_not_those(what, wrong))


def _not_those(what: str, wrong: Sequence[str]) -> str:
    return (
        f"{what}: the rows delivered are not those of the manifest: {'; '.join(wrong[:10])}"
        f"{f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''} (a full count means that a row came twice and "
        "another not at all). Nothing of this epoch can be trusted: run again."
    )


class Part:
    """The rows that are due where not all of an epoch's are: after a resume, or as one worker's share."""

    def __init__(self, groups: Sequence[RowGroup], tape: Sequence[RowGroup], row_order: Callable[..., object]) -> None:
        """groups: ascending by position. tape: the same as the epoch has them. row_order: of order.py."""
        place = {group.first_position: number for number, group in enumerate(groups)}
        self._place = np.array([place[group.first_position] for group in tape])
        self._sums = np.zeros((3, len(groups)), np.uint64)

        @lru_cache(maxsize=64)
        def sums_up_to(number: int) -> NDArray[np.uint64]:
            group = tape[number]
            order = np.asarray(row_order(group))
            if not np.array_equal(np.sort(order), np.arange(group.rows)):
                raise FeedError(f"The order of {group.file} row group {group.index} does not have each row once.")
            mixed = mix(order + group.first_position).view(np.uint64)
            up_to = np.zeros((2, group.rows + 1), np.uint64)
            np.add.accumulate(mixed, out=up_to[0, 1:])
            np.bitwise_xor.accumulate(mixed, out=up_to[1, 1:])
            return up_to

        self._sums_up_to = sums_up_to

    def add(self, runs: Runs) -> None:
        """Count the rows of some batches in."""
        np.add.at(self._sums[0], self._place[runs.group], (runs.stop - runs.start).astype(np.uint64))
        for number in np.unique(runs.group).tolist():
            of_group = runs.group == number
            sums, xors = self._sums_up_to(number)
            start, stop = runs.start[of_group], runs.stop[of_group]
            # Arrays, because numpy warns of a single number that goes over 2^64.
            self._sums[1, self._place[[number]]] += (sums[stop] - sums[start]).sum()
            self._sums[2, self._place[[number]]] ^= np.bitwise_xor.reduce(xors[stop] ^ xors[start])

    def of(self, number: int) -> list[int]:
        """Return the count, the sum and the exclusive or that are due of a row group."""
        due: list[int] = self._sums[:, number].tolist()
        return due


def mix(position: NDArray[np.int64], out: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return numbers, no two of them the same, that differ in most bits where positions differ in a few.

    out: where to; may be position itself.
    """
    return _times(position, _FACTOR, out)


def unmix(mixed: NDArray[np.int64], out: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return the positions of which `mix` made these numbers. out: where to; may be mixed itself."""
    return _times(mixed, _INVERSE, out)


def _times(values: NDArray[np.int64], factor: np.uint64, out: NDArray[np.int64] | None) -> NDArray[np.int64]:
    out = np.empty_like(values) if out is None else out
    np.multiply(values.view(np.uint64), factor, out=out.view(np.uint64))
    return out


@lru_cache(maxsize=1 << 20)
def _expected(first: int, rows: int) -> list[int]:
    """Return the count, the sum and the exclusive or of a row group; remembered, since each epoch asks."""
    mixed = mix(np.arange(first, first + rows, dtype=np.int64)).view(np.uint64)
    return [rows, int(mixed.sum()), int(np.bitwise_xor.reduce(mixed))]
