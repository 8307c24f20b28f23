"""The order of samples: pure functions of numbers. Nothing depends on timing, workers, machine or NumPy's version.

Per epoch the row groups are permuted and laid end to end, each with its rows permuted: the tape. The tape is cut into
lanes, which are read side by side: batch b takes its rows from all of them, lane by lane, as if rows were dealt to the
lanes in turn. So a batch mixes rows of as many row groups as there are lanes, whatever the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lakefit.feed.buffers import Buffers
from lakefit.feed.reader import RowGroup

LANES = 8
"""Row groups that a batch mixes, where it is not said otherwise."""

_GROUPS, _ROWS = 1, 2


def epoch_groups(groups: Sequence[RowGroup], seed: int, epoch: int) -> list[RowGroup]:
    """Return the row groups in the order in which an epoch lays them end to end."""
    return [groups[place] for place in permutation(len(groups), seed, epoch, _GROUPS).tolist()]


def row_order(group: RowGroup, seed: int, epoch: int, buffers: Buffers | None = None) -> NDArray[np.int64]:
    """Return the order of the rows inside a row group; shape (group.rows,)."""
    return permutation(group.rows, seed, epoch, _ROWS, group.first_position, buffers=buffers)


def permutation(length: int, *seeds: int, buffers: Buffers | None = None) -> NDArray[np.int64]:
    """Return a permutation of range(length) that depends on the seeds, mixed and not added: (1, 0) is not (0, 1).

    It sorts a keyed bijection (splitmix64), whose lower bits make room for the number itself: no two are equal, so any
    sort gives the same. Pinned by a golden test. buffers: where memory comes from.
    """
    room = np.zeros((2, 1), np.uint64)
    key = room[0]
    for seed in seeds:
        key ^= np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        _mix(key, room[1])
    empty = buffers.empty if buffers is not None else np.empty
    keyed, other = empty((length,), "uint64"), empty((length,), "uint64")
    below = np.uint64((1 << max(length - 1, 0).bit_length()) - 1)
    keyed[:] = np.arange(length, dtype=np.uint64)
    keyed ^= key
    _mix(keyed, other)
    keyed &= ~below
    keyed |= np.arange(length, dtype=np.uint64)
    keyed.sort()
    keyed &= below
    return keyed.view(np.int64)


def _mix(values: NDArray[np.uint64], other: NDArray[np.uint64]) -> None:
    """Mix values in place (splitmix64). other: memory of the same shape."""
    values += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        np.right_shift(values, np.uint64(shift), out=other)
        values ^= other
        values *= np.uint64(factor)


@dataclass(frozen=True, slots=True)
class Visit:
    """A row group while batches need it.

    group: its place on the tape. first_batch, last_batch: the first and the last one that take rows of it.
    """

    group: int
    first_batch: int
    last_batch: int


@dataclass(frozen=True, slots=True)
class Runs:
    """The rows of some batches, in order, as pieces of row groups.

    group: (runs,) the row group's place on the tape. start, stop: (runs,) which of its rows, in the epoch's order of
    them. sizes: (batches,) the rows of each batch.
    """

    group: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class EpochOrder:
    """The batches of an epoch, or one worker's share of each.

    groups: as they lie on the tape (`epoch_groups`). batch_size: rows of a batch of all workers together; the last one
    has what remains. Worker w of W gets rows [wB/W, (w+1)B/W) of a batch of B, whatever the number of lanes; where W
    divides the lanes and these the batch size, they lie in its own lanes, and no other is read.
    """

    groups: tuple[RowGroup, ...]
    batch_size: int
    lanes: int = LANES
    worker: int = 0
    workers: int = 1

    @cached_property
    def rows(self) -> int:
        """The rows of an epoch, of all workers."""
        return int(self._ends[-1])

    @cached_property
    def batches(self) -> int:
        """The batches of an epoch, the same for all workers; the last one may be smaller."""
        return -(-self.rows // self.batch_size)

    def runs(self, first: int, end: int) -> Runs:
        """Return this worker's rows of the batches first..end-1."""
        start, stop, sizes = self._slices(np.arange(first, end))
        start, stop = start.ravel(), stop.ravel()
        some = stop > start
        start, stop = start[some], stop[some]
        # Where a slice runs over the end of a row group, it is cut there, as often as need be.
        low = np.searchsorted(self._ends[1:], start, side="right")
        high = np.searchsorted(self._ends[1:], stop - 1, side="right")
        pieces = high - low + 1
        group = np.repeat(low - np.cumsum(pieces) + pieces, pieces) + np.arange(pieces.sum())
        start = np.maximum(np.repeat(start, pieces), self._ends[group])
        stop = np.minimum(np.repeat(stop, pieces), self._ends[group + 1])
        return Runs(group, start - self._ends[group], stop - self._ends[group], sizes)

    def visits(self, first_batch: int = 0, near: int = 0) -> list[Visit]:
        """Return when row groups are needed from a batch on, in the order in which batches come to them.

        Two visits of one row group that are no more than `near` batches apart are one.
        """
        return [Visit(*visit) for visit in self.visit_table(first_batch, near).tolist()]

    def visit_table(self, first_batch: int = 0, near: int = 0) -> NDArray[np.int64]:
        """Return the `visits`, (visits, 3): of a million row groups, objects would take long and much memory."""
        ends, found = self._ends, []
        for lane in self._lanes_read:
            base, length = int(self._bases[lane]), self._length(lane)
            if not length:
                continue
            low = int(np.searchsorted(ends, base, side="right")) - 1
            high = int(np.searchsorted(ends, base + length, side="left"))
            inside = np.arange(low, high)
            inside = inside[ends[inside + 1] > ends[inside]]
            first = self._batch_of(lane, np.maximum(ends[inside], base) - base)
            last = self._batch_of(lane, np.minimum(ends[inside + 1], base + length) - base - 1)
            found.append(np.stack([inside, first, last, np.full(len(inside), lane)]))
        if self.workers > 1 and self.rows % self.batch_size:
            # The last batch is cut as it comes: some rows of it may lie in lanes of others.
            runs = self.runs(self.batches - 1, self.batches)
            last = np.full(len(runs.group), self.batches - 1)
            found.append(np.stack([runs.group, last, last, np.full(len(last), self.lanes)]))
        if not found:
            return np.empty((0, 3), np.int64)
        table = np.concatenate(found, axis=1)
        found.clear()
        needed = np.flatnonzero(table[2] >= first_batch)
        group, first, last, lane = table[:, needed[np.lexsort((table[1, needed], table[0, needed]))]]
        del table, needed
        # Few row groups lie in two lanes.
        kept = np.ones(len(group), bool)
        before = 0
        for place in (np.flatnonzero(group[1:] == group[:-1]) + 1).tolist():
            before = before if group[before] == group[place] else place - 1
            if first[place] <= last[before] + near:
                last[before] = max(last[before], last[place])
                kept[place] = False
            else:
                before = place
        if not kept.all():
            group, first, last, lane = group[kept], first[kept], last[kept], lane[kept]
        begins = np.maximum(first, first_batch)
        return np.stack([group, begins, last], axis=1)[np.lexsort((group, lane, first, begins))]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """(groups + 1,) the place on the tape where each row group begins, and the end of the tape."""
        rows = np.fromiter((group.rows for group in self.groups), np.int64, len(self.groups))
        return np.concatenate([[0], np.cumsum(rows)])

    @cached_property
    def _bases(self) -> NDArray[np.int64]:
        """(lanes,) the place on the tape where each lane begins."""
        lengths = [self._length(lane) for lane in range(self.lanes)]
        return np.cumsum([0, *lengths[:-1]], dtype=np.int64)

    @cached_property
    def _lanes_read(self) -> list[int]:
        """The lanes of which this worker gets rows in full batches."""
        # After so many batches the pattern of slices begins again.
        start, stop, _ = self._slices(np.arange(min(self.lanes, self.rows // self.batch_size)))
        if self.workers == 1 or not len(start):
            return list(range(self.lanes)) if self.workers == 1 else []
        return np.flatnonzero((stop > start).any(axis=0)).tolist()

    def _length(self, lane: int) -> int:
        return (self.rows + self.lanes - 1 - lane) // self.lanes

    def _batch_of(self, lane: int, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the batch that takes a row of a lane: rows are dealt to the lanes in turn."""
        return (row * self.lanes + lane) // self.batch_size

    def _slices(self, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return where on the tape each batch takes from each lane, from and to, (batches, lanes), and the sizes."""
        lane = np.arange(self.lanes)
        first = np.minimum(batch * self.batch_size, self.rows)[:, None]
        end = np.minimum((batch + 1) * self.batch_size, self.rows)[:, None]
        start = (first + self.lanes - 1 - lane) // self.lanes
        count = (end + self.lanes - 1 - lane) // self.lanes - start
        after = np.cumsum(count, axis=1)
        # Of the batch's rows, lane by lane, the worker's share.
        low = self.worker * (end - first) // self.workers
        high = (self.worker + 1) * (end - first) // self.workers
        begin = np.clip(low - after + count, 0, count)
        until = np.clip(high - after + count, 0, count)
        start = start + self._bases
        return start + begin, start + until, (high - low)[:, 0]
