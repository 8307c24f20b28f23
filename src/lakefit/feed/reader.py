"""Row groups of a prepared dataset as dense numpy arrays, decoded in parallel and delivered in a planned order.

What a plan is made of (`RowGroup`, `Columns`, `Block`) and `read_row_groups`. Importing this module loads numpy alone;
Petastorm and pyarrow are loaded when reading starts (petastorm_engine.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError

if TYPE_CHECKING:
    from lakefit.feed.petastorm_engine import PlannedReader


TIMEOUT_S = 600.0
"""A store that gives no row group for so long is taken for dead."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group as the plan has it. Rows of a split are numbered 0.. in the order of its files and their groups."""

    file: str  # relative to the dataset's folder: "train/part-00003.parquet"
    index: int  # inside the file
    rows: int
    first_position: int  # `_position` of the group's first row; those of the others count up


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read, in the order in which it stands in a Block. Columns of other types are refused, not converted."""

    numeric: tuple[str, ...]  # float32 columns
    categorical: tuple[str, ...]  # int32 columns
    label: str | None  # a float32 column


@dataclass(frozen=True, slots=True)
class Block:
    """One decoded row group of n rows: C-contiguous arrays that belong to the receiver."""

    group: RowGroup
    numeric: NDArray[np.float32]  # (n, numeric columns)
    categorical: NDArray[np.int32]  # (n, categorical columns)
    label: NDArray[np.float32]  # (n,); (0,) where Columns.label is None
    position: NDArray[np.int64]  # (n,), the column `_position` as it was read with the rows, not taken from the plan


@contextmanager
def read_row_groups(
    dataset_dir: str | Path,
    groups: Sequence[RowGroup],
    columns: Columns,
    *,
    workers: int = 2,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Iterator[Block]]:
    """Blocks in exactly the order of `groups`, whatever the number of workers (threads).

    At most `workers` + 2 blocks exist at a time besides the receiver's. Leaving the context ends all threads, also
    before the last block and after an exception.

    Raises FeedError, in the order of the plan: for a file that is missing or damaged, a row group that is missing or
    has another number of rows than planned, a column that is missing, of another type, or has nulls, a page whose
    checksum is wrong, a file that is replaced meanwhile, no row group for `timeout_s`.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    if not (columns.numeric or columns.categorical or columns.label):
        raise ValueError("Columns names no column, so no row would be decoded and counted: name at least one.")
    if not groups:
        yield iter(())
        return
    from lakefit.feed.petastorm_engine import open_reader

    reader = open_reader(Path(dataset_dir), groups, columns, workers, timeout_s)
    try:
        yield _in_order(reader, groups)
    finally:
        reader.stop()
        reader.join()


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
