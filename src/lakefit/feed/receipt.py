"""The receipt of an epoch: which rows were really handed out, against which rows the manifest has."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError
from lakefit.feed.order import Runs
from lakefit.feed.reader import RowGroup


class Receipt:
    """Sums the positions that came with the rows through pool, permutation and batching.

    Per row group the count of positions and the sum of their mixed forms (modulo 2^64): whichever rows came for others,
    it differs, but for a chance in billions. It takes 2 ns a row by itself.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        """groups: ascending by position."""
        self._groups = groups
        self._starts = np.array([group.first_position for group in groups], np.int64)
        self._sums = np.zeros((2, len(groups)), np.uint64)
        # Used again and again: fresh memory of this size costs more than what is done in it.
        self._room = np.empty((3, 0), np.int64)

    def add(self, positions: Sequence[NDArray[np.int64]], runs: NDArray[np.int64]) -> None:
        """Note rows. positions: of some batches, (rows,) each. runs: the numbers of rows, one after another, that are
        meant to come from one row group each: a hint that saves time. It proves nothing by itself."""
        rows = sum(map(len, positions))
        if not rows:
            return
        if self._room.shape[1] < rows:
            self._room = np.empty((3, rows), np.int64)
        position = positions[0] if len(positions) == 1 else np.concatenate(positions, out=self._room[0, :rows])
        starts = np.concatenate([[0], np.cumsum(runs)])
        starts = starts[starts < rows]
        ends = np.append(starts[1:], rows)
        # A run whose ends are of one row group counts for that one as a whole. If rows of others are among it, the sums
        # of two row groups become wrong, as they should.
        place = self._place(position[starts])
        in_one = place == self._place(position[ends - 1])
        alone = np.repeat(~in_one, ends - starts) if not in_one.all() else np.zeros(0, bool)
        place_alone = self._place(position[alone]) if len(alone) else place[:0]
        mixed = _mix(position, self._room[1:, :rows])
        self._note(place[in_one], (ends - starts)[in_one], np.add.reduceat(mixed, starts)[in_one])
        if len(alone):
            self._note(place_alone, np.ones(len(place_alone), np.int64), mixed[alone])

    def _place(self, position: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the row group of each position; a position that is in none counts for one of them, which is found."""
        return np.maximum(np.searchsorted(self._starts, position, side="right") - 1, 0)

    def _note(self, place: NDArray[np.intp], rows: NDArray[np.int64], mixed: NDArray[np.uint64]) -> None:
        np.add.at(self._sums[0], place, rows.astype(np.uint64))
        np.add.at(self._sums[1], place, mixed)

    def check(self, what: str, expected: "Part | None" = None) -> None:
        """Raise FeedError, naming the row groups, unless each row of the manifest, or of a part, came exactly once."""
        wrong = []
        for number, (group, (count, mixed)) in enumerate(zip(self._groups, self._sums.T.tolist(), strict=True)):
            due = (group.rows, _expected(group.first_position, group.rows)) if expected is None else expected.of(number)
            if (count, mixed) != due:
                wrong.append(f"{group.file} row group {group.index}: {count:,} of {due[0]:,} rows")
        if wrong:
            raise FeedError(
                f"{what}: the rows delivered are not those of the manifest: {'; '.join(wrong[:10])}"
                f"{f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''} (a full count means that a row came "
                "twice and another not at all). Nothing of this epoch can be trusted: run again."
            )


class Part:
    """The rows that are due where not all of an epoch's are: after a resume, or as one worker's share."""

    def __init__(self, groups: Sequence[RowGroup], tape: Sequence[RowGroup], row_order: Callable[..., object]) -> None:
        """groups: ascending by position. tape: the same as the epoch has them. row_order: of order.py."""
        place = {group.first_position: number for number, group in enumerate(groups)}
        self._place = np.array([place[group.first_position] for group in tape])
        self._sums = np.zeros((2, len(groups)), np.uint64)

        @lru_cache(maxsize=64)
        def sums_up_to(number: int) -> NDArray[np.uint64]:
            group = tape[number]
            order = np.asarray(row_order(group))
            if not np.array_equal(np.sort(order), np.arange(group.rows)):
                raise FeedError(f"The order of {group.file} row group {group.index} does not have each row once.")
            mixed = _mix(order + group.first_position, np.empty((2, group.rows), np.int64))
            return np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])

        self._sums_up_to = sums_up_to

    def add(self, runs: Runs) -> None:
        """Count the rows of some batches in."""
        np.add.at(self._sums[0], self._place[runs.group], (runs.stop - runs.start).astype(np.uint64))
        for number in np.unique(runs.group).tolist():
            of_group = runs.group == number
            up_to = self._sums_up_to(number)
            # An array, because numpy warns of a single number that goes over 2^64.
            self._sums[1, self._place[[number]]] += (up_to[runs.stop[of_group]] - up_to[runs.start[of_group]]).sum()

    def of(self, number: int) -> tuple[int, int]:
        """Return the count and the sum that are due of a row group."""
        count, mixed = self._sums[:, number].tolist()
        return count, mixed


def _mix(position: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return numbers whose sums tell nothing of the sums of positions: a product, its upper half mixed into its lower.
    room: memory for them and once more as much, (2, rows).

    No splitmix64 of two rounds: that took twice as long, and no one chooses here which rows get lost.
    """
    values: NDArray[np.uint64] = room[0].view(np.uint64)
    upper: NDArray[np.uint64] = room[1].view(np.uint64)
    np.multiply(position.view(np.uint64), np.uint64(0x9E3779B97F4A7C15), out=values)
    np.right_shift(values, np.uint64(32), out=upper)
    values ^= upper
    return values


@lru_cache(maxsize=1 << 20)
def _expected(first: int, rows: int) -> int:
    """Return the sum of the mixed positions of a row group; remembered, since each epoch asks."""
    positions = np.arange(first, first + rows, dtype=np.int64)
    return int(_mix(positions, np.empty((2, rows), np.int64)).sum(dtype=np.uint64))
