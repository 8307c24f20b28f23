"""Petastorm's Reader, thread pool and ventilator, reading a plan of ours with a worker of ours.

The order of row groups comes from the plan alone: Petastorm's own listing, shuffling and sharding are not used.
Import this module only to read; it loads Petastorm, pyarrow and pandas (1-2 s).
"""

import os
import time
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

import lakefit.petastorm
from lakefit.dataset.manifest import POSITION
from lakefit.errors import FeedError
from lakefit.feed.reader import Block, Columns, RowGroup

lakefit.petastorm.install()

from petastorm.reader import Reader  # noqa: E402
from petastorm.workers_pool import EmptyResultError, TimeoutWaitingForResultError  # noqa: E402
from petastorm.workers_pool.thread_pool import ThreadPool  # noqa: E402
from petastorm.workers_pool.ventilator import ConcurrentVentilator  # noqa: E402
from petastorm.workers_pool.worker_base import WorkerBase  # noqa: E402

# Row groups that are decoded, wait or are in use, beyond one for each worker: enough that no worker is idle while the
# receiver uses its block.
_BLOCKS_AHEAD = 2
_VENTILATION_INTERVAL_S = 0.001


# How long a read that is ended waits for the row groups that are being decoded.
_JOIN_S = 2.0


@dataclass(frozen=True, slots=True)
class _Task:
    """file_state: of the file when the reading began; None where there was none."""

    sequence: int
    dataset_dir: Path
    group: RowGroup
    columns: Columns
    file_state: tuple[int, int, int] | None


def open_reader(
    dataset_dir: Path, groups: Sequence[RowGroup], columns: Columns, workers: int, timeout_s: float
) -> "PlannedReader":
    """A started reader of (sequence number, Block or FeedError) pairs, in order. stop() and join() end it.

    `groups` is not empty. Raises FeedError if the first planned file can't be opened.
    """
    states = {file: _file_state(dataset_dir / file) for file in {group.file for group in groups}}
    tasks = [_Task(sequence, dataset_dir, group, columns, states[group.file]) for sequence, group in enumerate(groups)]
    with _naming(dataset_dir, groups[0]):
        return PlannedReader(tasks, workers, timeout_s)


def _file_state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class PlannedReader(Reader):
    """A Petastorm Reader whose row groups, and their order, are given.

    Reader's constructor looks at a dataset and makes a ventilator of all that it finds. It is shown the first planned
    file only (whose schema it wants), so that no other footer is read twice, and the ventilator is replaced.
    """

    def __init__(self, tasks: Sequence[_Task], workers: int, timeout_s: float) -> None:
        self._tasks = tasks
        self._process = os.getpid()
        first_file = tasks[0].dataset_dir / tasks[0].group.file
        super().__init__(
            None,
            str(first_file),
            worker_class=_Worker,
            reader_pool=ThreadPool(workers),
            shuffle_row_groups=False,
            is_batched_reader=True,
        )
        self._results_queue_reader.timeout_s = timeout_s

    def next_block(self, due: RowGroup) -> tuple[int, Block | FeedError]:
        """The next row group's number in the plan, and what became of it; StopIteration after the last.

        Raises FeedError, which names `due`, if it does not come in time, and in a fork.
        """
        if os.getpid() != self._process:
            # The threads are not in the fork: it would wait for ever.
            raise FeedError(
                f"This feed was opened in process {self._process}, and process {os.getpid()}, a fork of it, can't read "
                "it: open one there."
            )
        try:
            return next(self)  # type: ignore[no-any-return]
        except TimeoutWaitingForResultError as error:
            path = self._tasks[0].dataset_dir / due.file
            raise FeedError(
                f"Row group {due.index} of {path} did not come: {error}. Is its store alive? Start the run again when "
                "it is."
            ) from None

    def join(self) -> None:
        """End the threads; one that hangs in a dead store is left to the process's end."""
        end = time.monotonic() + _JOIN_S
        for worker in self._workers_pool._workers:
            worker.join(max(0.0, end - time.monotonic()))
        if not any(worker.is_alive() for worker in self._workers_pool._workers):
            super().join()

    def _create_ventilator(self, *_: object) -> ConcurrentVentilator:
        return ConcurrentVentilator(
            self._workers_pool.ventilate,
            [{"task": task} for task in self._tasks],
            max_ventilation_queue_size=self._workers_pool.workers_count + _BLOCKS_AHEAD,
            ventilation_interval=_VENTILATION_INTERVAL_S,
        )


class _Worker(WorkerBase):
    """Publishes (sequence number, Block), or (sequence number, FeedError): an exception that leaves `process` ends
    its thread and is printed."""

    @staticmethod
    def new_results_queue_reader() -> "_Results":
        return _Results()

    def process(self, task: _Task) -> None:
        result: Block | FeedError
        try:
            with _naming(task.dataset_dir, task.group):
                path = task.dataset_dir / task.group.file
                if task.file_state is not None and _file_state(path) != task.file_state:
                    raise FeedError("The file was replaced, changed or removed while the feed was reading")
                result = decode_row_group(path, task.group, task.columns)
        except FeedError as error:
            result = error
        self.publish_func((task.sequence, result))


class _Results:
    """What Reader asks for the next result."""

    batched_output = True
    timeout_s: float

    def read_next(self, pool: Any, schema: object, ngram: object) -> Any:
        try:
            return pool.get_results(self.timeout_s)
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
            f"Row group {group.index} of {dataset_dir / group.file} can't be read. {reason.rstrip('.')}. The files of "
            "a dataset never change once it is published: restore this one, or prepare the dataset again."
        ) from error


def decode_row_group(path: Path, group: RowGroup, columns: Columns) -> Block:
    """Read and decode one row group in this thread. Raises FeedError, OSError or pyarrow.ArrowException."""
    labels = () if columns.label is None else (columns.label,)
    # Not memory-mapped: it was no faster here (0.05 s per 500,000 rows of 40 columns), and a file that shrinks
    # under a map kills the process.
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        names = (*columns.numeric, *columns.categorical, *labels, POSITION)
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
        _values(table, POSITION, pa.int64(), group.rows).copy(),
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
