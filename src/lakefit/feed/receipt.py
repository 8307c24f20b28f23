"""The receipt of an epoch: which rows were really handed out, against which rows the manifest has."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError
from lakefit.feed.reader import RowGroup

# Rows of a batch mostly come from few row groups: blocks of so many rows are summed at once where they lie in one.
_BLOCK = 256
# Rows that are summed at a time.
_HELD = 32_768


class Receipt:
    """Sums the positions that came with the rows through pool, permutation and batching.

    Per row group the count of positions and the sum of their mixed forms (modulo 2^64): whichever rows came for others,
    it differs, but for a chance in billions. It takes about 4 ns a row.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        """groups: ascending by position."""
        self._groups = groups
        self._starts = np.array([group.first_position for group in groups], np.int64)
        self._sums = np.zeros((2, len(groups)), np.uint64)
        # Used again and again: fresh memory of this size costs more than what is done in it.
        self._room = np.empty(_HELD, np.int64)
        self._mixed, self._upper = np.empty(_HELD, np.uint64), np.empty(_HELD, np.uint64)
        self._held: list[NDArray[np.int64]] = []
        self._held_rows = 0

    def add(self, position: NDArray[np.int64]) -> None:
        """Note the rows of a batch. position: (rows,) int64, not to be changed afterwards."""
        while self._held_rows + len(position) >= _HELD:
            here = _HELD - self._held_rows
            self._held.append(position[:here])
            self._held_rows = _HELD
            self._sum()
            position = position[here:]
        self._held.append(position)
        self._held_rows += len(position)

    def _sum(self) -> None:
        rows = self._held_rows
        position = np.concatenate(self._held, out=self._room[:rows])
        self._held, self._held_rows = [], 0
        mixed = _mixed(position, self._mixed[:rows], self._upper[:rows])
        # A block whose ends are of one row group counts for that one as a whole. Row groups come one after another, so
        # it is so; where it is not, two row groups get wrong sums, as they should.
        whole = rows // _BLOCK * _BLOCK
        blocks = position[:whole].reshape(-1, _BLOCK)
        place = self._place(blocks[:, 0])
        in_one = place == self._place(blocks[:, -1])
        sums = mixed[:whole].reshape(-1, _BLOCK).sum(axis=1)
        self._note(place[in_one], _BLOCK, sums[in_one])
        alone = np.ones(rows, bool)
        alone[:whole].reshape(-1, _BLOCK)[in_one] = False
        self._note(self._place(position[alone]), 1, mixed[alone])

    def _place(self, position: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the row group of each position; a position that is in none counts for one of them, which is found."""
        return np.maximum(np.searchsorted(self._starts, position, side="right") - 1, 0)

    def _note(self, place: NDArray[np.intp], rows: int, mixed: NDArray[np.uint64]) -> None:
        np.add.at(self._sums[0], place, np.uint64(rows))
        np.add.at(self._sums[1], place, mixed)

    def check(self, what: str) -> None:
        """Raise FeedError, naming the row groups, unless each row came exactly once."""
        if self._held_rows:
            self._sum()
        wrong = []
        for group, (count, mixed) in zip(self._groups, self._sums.T.tolist(), strict=True):
            if count != group.rows or mixed != _expected(group.first_position, group.rows):
                wrong.append(f"{group.file} row group {group.index}: {count:,} of {group.rows:,} rows")
        if wrong:
            raise FeedError(
                f"{what}: the rows delivered are not those of the manifest: {'; '.join(wrong[:10])}"
                f"{f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''} (a full count means that a row came "
                "twice and another not at all). Nothing of this epoch can be trusted: run again."
            )


def _mixed(position: NDArray[np.int64], out: NDArray[np.uint64], upper: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers whose sums tell nothing of the sums of positions: a product, its upper half mixed into its lower.

    No splitmix64 of two rounds: that took twice as long, and no one chooses here which rows get lost.
    """
    np.multiply(position.view(np.uint64), np.uint64(0x9E3779B97F4A7C15), out=out)
    np.right_shift(out, np.uint64(32), out=upper)
    return np.bitwise_xor(out, upper, out=out)


@lru_cache(maxsize=1 << 20)
def _expected(first: int, rows: int) -> int:
    """Return the sum of the mixed positions of a row group; remembered, since each epoch asks."""
    room = np.empty((2, rows), np.uint64)
    return int(_mixed(np.arange(first, first + rows, dtype=np.int64), room[0], room[1]).sum(dtype=np.uint64))
