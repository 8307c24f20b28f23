"""Petastorm's Reader, thread pool and ventilator, reading a plan of ours with a worker of ours.

The order of row groups comes from the plan alone: Petastorm's own listing, shuffling and sharding are not used.
Import this module only to read; it loads Petastorm, pyarrow and pandas (1-2 s).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakefit import petastorm as petastorm_compat
from lakefit.errors import FeedError
from lakefit.feed.reader import Block, Columns, RowGroup

petastorm_compat.install()

from petastorm.reader import Reader  # noqa: E402
from petastorm.workers_pool import EmptyResultError  # noqa: E402
from petastorm.workers_pool.thread_pool import ThreadPool  # noqa: E402
from petastorm.workers_pool.ventilator import ConcurrentVentilator  # noqa: E402
from petastorm.workers_pool.worker_base import WorkerBase  # noqa: E402

# Row groups that are decoded or wait to be delivered, beyond one for each worker: enough that no worker is idle while
# the receiver uses its block.
_BLOCKS_AHEAD = 2
_VENTILATION_INTERVAL_S = 0.001


@dataclass(frozen=True, slots=True)
class _Task:
    sequence: int
    dataset_dir: Path
    group: RowGroup
    columns: Columns


def open_reader(dataset_dir: Path, groups: Sequence[RowGroup], columns: Columns, workers: int) -> "PlannedReader":
    """A started reader of (sequence number, Block or FeedError) pairs, in no certain order. stop() and join() end it.

    `groups` is not empty. Raises FeedError if the first planned file can't be opened.
    """
    tasks = [_Task(sequence, dataset_dir, group, columns) for sequence, group in enumerate(groups)]
    with _naming(dataset_dir, groups[0]):
        return PlannedReader(tasks, workers)


class PlannedReader(Reader):
    """A Petastorm Reader whose row groups, and their order, are given.

    Reader's constructor looks at a dataset and makes a ventilator of all that it finds. It is shown the first planned
    file only (whose schema it wants), so that no other footer is read twice, and the ventilator is replaced.
    """

    def __init__(self, tasks: Sequence[_Task], workers: int) -> None:
        self._tasks = tasks
        first_file = tasks[0].dataset_dir / tasks[0].group.file
        super().__init__(
            None,
            str(first_file),
            worker_class=_Worker,
            reader_pool=ThreadPool(workers),
            shuffle_row_groups=False,
            is_batched_reader=True,
        )

    def _create_ventilator(self, *_: object) -> "_PlannedVentilator":
        return _PlannedVentilator(
            self._workers_pool.ventilate,
            [{"task": task} for task in self._tasks],
            max_ventilation_queue_size=self._workers_pool.workers_count + _BLOCKS_AHEAD,
            ventilation_interval=_VENTILATION_INTERVAL_S,
        )

    def block_delivered(self) -> None:
        """Make room for one more row group."""
        self.ventilator.block_delivered()


class _PlannedVentilator(ConcurrentVentilator):
    """Counts a row group until it is delivered in order, so that those that arrive early are limited as well."""

    def processed_item(self) -> None:
        """The pool has handed over a row group: it may still have to wait for an earlier one."""

    def block_delivered(self) -> None:
        super().processed_item()


class _Worker(WorkerBase):
    """Publishes (sequence number, Block), or (sequence number, FeedError): an exception that leaves `process` ends
    its thread, is printed, and reaches the consumer before row groups that come earlier in the plan."""

    @staticmethod
    def new_results_queue_reader() -> "_Results":
        return _Results()

    def process(self, task: _Task) -> None:
        result: Block | FeedError
        try:
            with _naming(task.dataset_dir, task.group):
                result = decode_row_group(task.dataset_dir / task.group.file, task.group, task.columns)
        except FeedError as error:
            result = error
        self.publish_func((task.sequence, result))


class _Results:
    """What Reader asks for the next result."""

    batched_output = True

    def read_next(self, pool: Any, schema: object, ngram: object) -> Any:
        try:
            return pool.get_results()
        except EmptyResultError:
            raise StopIteration from None


@contextmanager
def _naming(dataset_dir: Path, group: RowGroup) -> Iterator[None]:
    """Turn whatever goes wrong into a FeedError that names file and row group."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, FeedError) else f"{type(error).__name__}: {error}"
        raise FeedError(
            f"Row group {group.index} of {dataset_dir / group.file}, which begins at row {group.first_position:,} of "
            f"the split, can't be read. {reason.rstrip('.')}. The files of a dataset never change once it is "
            "published: restore this one, or prepare the dataset again."
        ) from error


def decode_row_group(path: Path, group: RowGroup, columns: Columns) -> Block:
    """Read and decode one row group in this thread. Raises FeedError, OSError or pyarrow.ArrowException."""
    labels = () if columns.label is None else (columns.label,)
    # Not memory-mapped: it was no faster here (0.05 s per 500,000 rows of 40 columns), and a file that shrinks
    # under a map kills the process.
    with pq.ParquetFile(path) as parquet:
        names = (*columns.numeric, *columns.categorical, *labels)
        _check_row_group(parquet, group, names)
        table = parquet.read_row_group(group.index, columns=list(names), use_threads=False)
    numeric = [_values(table, name, pa.float32(), group.rows) for name in columns.numeric]
    categorical = [_values(table, name, pa.int32(), group.rows) for name in columns.categorical]
    label = [_values(table, name, pa.float32(), group.rows) for name in labels]
    rows = len((numeric + categorical + label)[0])
    return Block(
        group,
        _side_by_side(numeric, rows, np.float32),
        _side_by_side(categorical, rows, np.int32),
        label[0].copy() if label else np.empty(0, np.float32),
        group.first_position + np.arange(rows, dtype=np.int64),
    )


def _check_row_group(parquet: Any, group: RowGroup, names: Sequence[str]) -> None:
    present = parquet.schema_arrow.names
    missing = [name for name in names if name not in present]
    if missing:
        nearest = get_close_matches(missing[0], present, 1) or present[:1]
        raise FeedError(
            f"It has no column {', '.join(map(repr, missing))}; the nearest to {missing[0]!r} of its {len(present)} "
            f"is {nearest[0]!r}."
        )
    if not 0 <= group.index < parquet.num_row_groups:
        raise FeedError(f"The file has {parquet.num_row_groups} row groups, numbered from 0.")
    rows = parquet.metadata.row_group(group.index).num_rows
    if rows != group.rows:
        raise FeedError(f"It has {rows:,} rows where the plan has {group.rows:,}.")


def _values(table: Any, name: str, wanted: Any, planned_rows: int) -> NDArray[Any]:
    """A column's values, (n,), without a copy where Arrow holds them in one piece."""
    column = table.column(name)
    if column.type != wanted:
        raise FeedError(f"Column {name!r} is {column.type}, not {wanted}.")
    if column.null_count:
        raise FeedError(f"Column {name!r} has {column.null_count:,} nulls; a prepared column has none.")
    if len(column) != planned_rows:
        raise FeedError(f"{len(column):,} rows of column {name!r} were decoded where the plan has {planned_rows:,}.")
    values: NDArray[Any] = column.to_numpy()
    return values


def _side_by_side(columns: Sequence[NDArray[Any]], rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Columns of (rows,) as one new C-contiguous array of (rows, columns)."""
    block = np.empty((rows, len(columns)), dtype)
    return np.stack(columns, axis=1, out=block) if columns else block
