"""Row groups of a prepared dataset as dense numpy arrays, decoded in parallel and delivered in a planned order.

What a plan is made of (`RowGroup`, `Field`), where rows are held (`Arena`, `Block`) and `read_row_groups`. Importing
this module loads numpy alone; Petastorm and pyarrow are loaded when reading starts (petastorm_engine.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError
from lakefit.feed.buffers import Buffers

if TYPE_CHECKING:
    from lakefit.dataset.features import ImageFeature
    from lakefit.dataset.object_path import AnyPath
    from lakefit.dataset.store import Store
    from lakefit.feed.cache import Cache
    from lakefit.feed.petastorm_engine import PlannedReader


TIMEOUT_S = 600.0
"""A store that gives no row group for so long is taken for dead."""

DECODERS, REMOTE_READERS = 2, 8
"""Threads that decode row groups, and threads that read and decode them where an object store makes them wait."""

BLOCKS_AHEAD = 6
"""Row groups that wait, or are being handed over, beyond one for each worker: the lanes of a small or very even split
come to the ends of their row groups at the same time, and no worker should be idle between."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group as the plan has it. Rows of a split are numbered 0.. in the order of its files and their groups."""

    file: str  # relative to the dataset's folder: "train/part-00003.parquet"
    index: int  # inside the file
    rows: int
    first_position: int  # `_position` of the group's first row; those of the others count up
    file_bytes: int | None = None  # the file's size, and the SHA-256 of its footer, where they are known
    footer_sha256: str | None = None


FileState = tuple[int, int, int] | str
"""Inode, size and time of the last change, by which a file that was replaced is found; of one in an object store, its
size and what the store tells of its content."""


class KnownFiles:
    """What need not be read or checked again of a dataset's files that have not changed. Several threads may ask.

    checked: row groups whose page checksums were right, as (file, state, index).
    """

    _FOOTERS = 64

    def __init__(self) -> None:
        self.checked: set[tuple[str, FileState | None, int]] = set()
        self._lock = Lock()
        self._footers: OrderedDict[tuple[str, FileState | None], Any] = OrderedDict()

    def footer(self, file: str, state: FileState | None) -> Any:
        """Return the pyarrow.parquet.FileMetaData of a file that was read lately, or None."""
        return self._footers.get((file, state))

    def remember(self, file: str, state: FileState | None, footer: Any) -> None:
        """Keep a footer, and those of the 63 files before."""
        with self._lock:
            self._footers[file, state] = footer
            self._footers.move_to_end((file, state))
            if len(self._footers) > self._FOOTERS:
                self._footers.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Field:
    """One array of a batch: columns of one type side by side. Columns of other types are refused, not converted.

    columns: none for numbers that count the rows from the row group's first position on. dtype: of the columns, as
    numpy writes it ("float32"), or "str" or "bytes". flat: the one column alone, (rows,) in place of (rows, 1). shape:
    of the values that the one column holds of each row, as a list of fixed size or as their bytes (dataset/packed.py).
    variable: the bytes of a row, on average, of one column whose rows differ in length (feed/variable.py). image: what
    its bytes are decoded to in TensorFlow. nulls: NaN stands for NULL, which is refused otherwise. mixed: it comes as
    `receipt.mix` makes it.
    """

    name: str
    columns: tuple[str, ...]
    dtype: str
    flat: bool = False
    shape: tuple[int, ...] | None = None
    variable: float | None = None
    image: ImageFeature | None = None
    nulls: bool = False
    mixed: bool = False

    @property
    def row_shape(self) -> tuple[int, ...]:
        return () if self.flat else self.shape or (len(self.columns),)

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory."""
        if self.variable is not None:
            return math.ceil(self.variable) + 8
        return np.dtype(self.dtype).itemsize * math.prod(self.row_shape)


class Arena:
    """Places for row groups, each of them one array a field, used again when a row group is done with.

    All places lie in one array a field, so that rows of several row groups are gathered at once. Fields whose rows
    differ in length are Arrow arrays, one a place, whose rows stand in the order in which they are to be taken:
    `variable`, by field and place.

    kept: the places of row groups that need not be decoded again, where the arena keeps what it is given. Several
    threads may ask.
    """

    def __init__(
        self, fields: Sequence[Field], places: int, rows: int, buffers: Buffers, *, keeps: bool = False
    ) -> None:
        """rows: of the largest row group. buffers: where the memory comes from. keeps: there is a place for each row
        group, and what is decoded stays; for fields whose rows are of one length."""
        self.fields = tuple(fields)
        self.rows = rows
        self.kept: dict[RowGroup, int] = {}
        self._keeps = keeps
        self.arrays = {
            field.name: buffers.empty((places * rows, *field.row_shape), field.dtype)
            for field in fields
            if field.variable is None
        }
        self.variable: dict[str, dict[int, Any]] = {field.name: {} for field in fields if field.variable is not None}
        # A list's pop and append are atomic.
        self._free = list(range(places))[::-1]

    def take(self) -> int:
        """Return a place that is free. Raises IndexError where there is none: more row groups were asked for at once
        than was said."""
        return self._free.pop()

    def decoded(self, group: RowGroup, place: int) -> int:
        """Say that a row group is decoded; return the place where it lies from now on: another thread may have been
        first."""
        if not self._keeps:
            return place
        kept = self.kept.setdefault(group, place)
        if kept != place:
            self.give_back(place)
        return kept

    def release(self, group: RowGroup, place: int) -> None:
        """Say that no row of a block is needed any more."""
        if group not in self.kept:
            self.give_back(place)

    def give_back(self, place: int) -> None:
        for arrays in self.variable.values():
            arrays.pop(place, None)
        self._free.append(place)

    def views(self, place: int, rows: int) -> dict[str, NDArray[Any]]:
        """Return the arrays of a place, (rows, ...) each, but for those of fields whose rows differ in length."""
        first = place * self.rows
        return {name: array[first : first + rows] for name, array in self.arrays.items()}


@dataclass(frozen=True, slots=True)
class Block:
    """One decoded row group, in a place of the arena.

    order: (rows,) int64, where in the arena's arrays the rows lie, in the order in which they are to be taken.
    """

    group: RowGroup
    arena: Arena
    place: int
    order: NDArray[np.int64]

    @property
    def rows(self) -> dict[str, NDArray[Any]]:
        """The row group's arrays by field, as the rows stand in the file. They are overwritten after `release`."""
        return self.arena.views(self.place, self.group.rows)

    def release(self) -> None:
        """Say that no row of the block is needed any more."""
        self.arena.release(self.group, self.place)


@contextmanager
def read_row_groups(
    dataset: str | AnyPath | Store,
    groups: Sequence[RowGroup],
    fields: Sequence[Field],
    *,
    held: int,
    cache: Cache | None = None,
    buffers: Buffers | None = None,
    known: KnownFiles | None = None,
    keeping: Arena | None = None,
    row_order: Callable[[RowGroup], NDArray[np.int64]] | None = None,
    workers: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Iterator[Block]]:
    """Blocks in exactly the order of `groups`, whatever the number of workers (threads): 2, or 8 where they wait for an
    object store, of which 2 decode at a time.

    The receiver holds at most `held` blocks at a time, the one that it asks for included, and releases them; at most
    `workers` + 6 exist besides. cache: of a store's files, on this machine. buffers: whose memory is used, and used
    again by the next reading. known: what earlier readings of the same files found. keeping: holds what they decoded,
    and what this one does. row_order: the order of a row group's rows, (rows,); as they stand in the file where it is
    None. Leaving the context ends all threads, also before the last block and after an exception.

    Raises FeedError, in the order of the plan: for a file that is missing or damaged, a row group that is missing or
    has another number of rows than planned, a column that is missing, of another type, or has nulls, a page whose
    checksum is wrong, a file that is replaced meanwhile, no row group for `timeout_s`.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    if not any(field.columns for field in fields):
        raise ValueError("The fields name no column, so no row would be decoded and counted: name at least one.")
    if not groups:
        yield iter(())
        return
    from lakefit.dataset.store import Store
    from lakefit.feed.petastorm_engine import PlannedReader

    store = dataset if isinstance(dataset, Store) else Store(dataset)
    workers = workers or (DECODERS if store.local is not None else REMOTE_READERS)
    buffers = buffers if buffers is not None else Buffers()
    arena = keeping
    if arena is None:
        arena = Arena(fields, held + workers + BLOCKS_AHEAD, max(group.rows for group in groups), buffers)
    known = known if known is not None else KnownFiles()
    reader = PlannedReader(store, groups, arena, buffers, known, cache, row_order, workers, timeout_s)
    try:
        yield _in_order(reader, groups)
    finally:
        reader.stop()
        reader.join()
        if arena is not keeping:
            # Not left to the garbage collector, which comes late: the memory is to be used again.
            arena.arrays.clear()
            arena.variable.clear()


def _in_order(reader: PlannedReader, groups: Sequence[RowGroup]) -> Iterator[Block]:
    """The reader's blocks, which the pool hands over in the order of the plan."""
    for sequence, group in enumerate(groups):
        if reader.stopped:
            raise FeedError("Row groups are read inside the `with` of read_row_groups only; it has ended.")
        try:
            arrived, result = reader.next_block(group)
        except StopIteration:
            raise FeedError(
                f"The pool ended after {sequence} of {len(groups)} planned row groups, with no error. Rows are "
                "missing, so the run can't go on; start it again."
            ) from None
        if arrived != sequence:
            raise FeedError(
                f"The pool delivered row group {arrived} of the plan where {sequence} of {len(groups)} was due: rows "
                "are missing or doubled, so the run can't go on; start it again."
            )
        if isinstance(result, FeedError):
            raise result
        yield result
