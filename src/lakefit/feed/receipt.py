"""The receipt of an epoch: which rows were really handed out, against which rows the manifest has."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError
from lakefit.feed.reader import RowGroup

_WORD = (1 << 64) - 1


class Receipt:
    """Sums the positions that came with the rows through pool, permutation and batching.

    Per row group the count, the sum and the sum of squares of positions (modulo 2^64): a row that came twice while
    another is missing changes them.
    """

    def __init__(self, groups: Sequence[RowGroup], sums: NDArray[np.uint64] | None = None) -> None:
        """groups: ascending by position. sums: (3, groups) of rows that are noted already."""
        self._groups = groups
        self._starts = np.array([group.first_position for group in groups], np.int64)
        self._sums = np.zeros((3, len(groups)), np.uint64) if sums is None else sums

    def add(self, position: NDArray[np.int64]) -> None:
        """Note the rows of a batch. position: (rows,) int64."""
        place = np.searchsorted(self._starts, position, side="right") - 1
        order = np.argsort(place, kind="stable")
        present, first = np.unique(place[order], return_index=True)
        sorted_position = position[order].astype(np.uint64)
        for row, values in enumerate((np.ones_like(sorted_position), sorted_position, sorted_position**2)):
            self._sums[row, present] += np.add.reduceat(values, first)

    def check(self, what: str) -> None:
        """Raise FeedError, naming the row groups, unless each row came exactly once."""
        wrong = []
        for group, (count, total, squares) in zip(self._groups, self._sums.T.tolist(), strict=True):
            if (count, total, squares) != _expected(group):
                wrong.append(f"{group.file} row group {group.index}: {count:,} of {group.rows:,} rows")
        if wrong:
            raise FeedError(
                f"{what}: the rows delivered are not those of the manifest: {'; '.join(wrong[:10])}"
                f"{f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''} (a full count means that a row came "
                "twice and another not at all). Nothing of this epoch can be trusted: run again."
            )


def _expected(group: RowGroup) -> tuple[int, int, int]:
    """Return count, sum and sum of squares of first..last, by formula: no pass over the rows."""

    def squares_below(n: int) -> int:
        return (n - 1) * n * (2 * n - 1) // 6

    first, end = group.first_position, group.first_position + group.rows
    total = (first + end - 1) * group.rows // 2
    return group.rows, total & _WORD, (squares_below(end) - squares_below(first)) & _WORD
