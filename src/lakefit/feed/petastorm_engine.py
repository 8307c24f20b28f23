"""Petastorm's Reader, thread pool and ventilator, reading a plan of ours with a worker of ours.

The order of row groups comes from the plan alone: Petastorm's own listing, shuffling and sharding are not used.
Import this module only to read; it loads Petastorm, pyarrow and pandas (1-2 s).
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from threading import Semaphore
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import lakefit.petastorm
from lakefit.dataset.packed import unpack
from lakefit.dataset.store import Store
from lakefit.errors import FeedError, UnfitError
from lakefit.feed.buffers import Buffers
from lakefit.feed.cache import Cache
from lakefit.feed.local import LocalFiles
from lakefit.feed.reader import BLOCKS_AHEAD, DECODERS, Arena, Block, Field, KnownFiles, RowGroup
from lakefit.feed.receipt import mix
from lakefit.feed.remote import RemoteFiles
from lakefit.feed.variable import decoded, taken

lakefit.petastorm.install()

from petastorm.reader import Reader  # noqa: E402
from petastorm.workers_pool import EmptyResultError, TimeoutWaitingForResultError  # noqa: E402
from petastorm.workers_pool.thread_pool import ThreadPool  # noqa: E402
from petastorm.workers_pool.ventilator import ConcurrentVentilator  # noqa: E402
from petastorm.workers_pool.worker_base import WorkerBase  # noqa: E402

_VENTILATION_INTERVAL_S = 0.001
# How long a read that is ended waits for the row groups that are being decoded.
_JOIN_S = 2.0
# Bytes of columns that are laid side by side at a time: half of a core's second cache.
_PIECE = 1 << 19


@dataclass(frozen=True, slots=True)
class _Task:
    sequence: int
    group: RowGroup


@dataclass(frozen=True, slots=True)
class _Job:
    """What all workers of a reader share."""

    files: LocalFiles | RemoteFiles
    arena: Arena
    row_order: Callable[[RowGroup], NDArray[np.int64]] | None
    known: KnownFiles
    buffers: Buffers
    decoding: Semaphore


class PlannedReader(Reader):
    """A Petastorm Reader whose row groups, and their order, are given: (sequence number, Block or FeedError) pairs.

    Reader's constructor, which lists a dataset and reads footers, is not called: all of it is known.
    """

    def __init__(
        self,
        store: Store,
        groups: Sequence[RowGroup],
        arena: Arena,
        buffers: Buffers,
        known: KnownFiles,
        cache: Cache | None,
        row_order: Callable[[RowGroup], NDArray[np.int64]] | None,
        workers: int,
        timeout_s: float,
    ) -> None:
        tasks = [_Task(sequence, group) for sequence, group in enumerate(groups)]
        files = (
            LocalFiles(store.local, {group.file for group in groups}, known)
            if store.local is not None
            else RemoteFiles(store, known, cache)
        )
        # More threads than cores, where most of them wait for a store.
        job = _Job(files, arena, row_order, known, buffers, Semaphore(min(workers, DECODERS)))
        self.stopped = self.last_row_consumed = False
        self.schema = self.ngram = self.cache = None
        self._store = store
        self._process = os.getpid()
        self._results_queue_reader = _Results(timeout_s)
        self._workers_pool = ThreadPool(workers)
        ventilator = ConcurrentVentilator(
            self._workers_pool.ventilate,
            [{"task": task} for task in tasks],
            max_ventilation_queue_size=workers + BLOCKS_AHEAD,
            ventilation_interval=_VENTILATION_INTERVAL_S,
        )
        self._workers_pool.start(_Worker, job, ventilator)

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
            raise FeedError(
                f"Row group {due.index} of {self._store.place(due.file)} did not come: {error}. Is its store alive? "
                "Start the run again when it is."
            ) from None

    def join(self) -> None:
        """End the threads; one that hangs in a dead store is left to the process's end."""
        end = time.monotonic() + _JOIN_S
        for worker in self._workers_pool._workers:
            worker.join(max(0.0, end - time.monotonic()))
        if not any(worker.is_alive() for worker in self._workers_pool._workers):
            super().join()


class _Worker(WorkerBase):
    """Publishes (sequence number, Block), or (sequence number, FeedError): an exception that leaves `process` ends
    its thread and is printed."""

    def process(self, task: _Task) -> None:
        job: _Job = self.args
        result: Block | FeedError
        try:
            with _naming(job.files.place(task.group.file), task.group):
                result = self._block(job, task.group)
        except FeedError as error:
            result = error
        self.publish_func((task.sequence, result))

    def _block(self, job: _Job, group: RowGroup) -> Block:
        order = job.row_order(group) if job.row_order is not None else np.arange(group.rows)
        place = job.arena.kept.get(group)
        if place is None:
            place = self._decoded(job, group, order)
        order += place * job.arena.rows
        return Block(group, job.arena, place, order)

    def _decoded(self, job: _Job, group: RowGroup, order: NDArray[np.int64]) -> int:
        """Return the place in the arena where the row group lies."""
        fields = job.arena.fields
        columns = [name for field in fields for name in field.columns]
        with job.files.row_group(group, columns) as (parquet, state), job.decoding:
            place = job.arena.take()
            try:
                variable = decode_row_group(parquet, group, fields, job.arena.views(place, group.rows), job.buffers)
                for name, array in variable.items():
                    job.arena.variable[name][place] = taken(array, order) if job.row_order is not None else array
            except BaseException:
                job.arena.give_back(place)
                raise
            # Pages that were right once, of a file that has not changed, are not checked again.
            job.known.checked.add((group.file, state, group.index))
            return job.arena.decoded(group, place)


class _Results:
    """What Reader asks for the next result."""

    batched_output = True

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def read_next(self, pool: Any, schema: object, ngram: object) -> Any:
        try:
            return pool.get_results(self._timeout_s)
        except EmptyResultError:
            raise StopIteration from None


@contextmanager
def _naming(place: str, group: RowGroup) -> Iterator[None]:
    """Turn whatever goes wrong into a FeedError that names file and row group."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, FeedError) else f"{type(error).__name__}: {error}"
        advice = (
            "Leave the column out, or write the files again (prepare the dataset again) without them."
            if isinstance(error, UnfitError)
            else "The files of a dataset never change: restore this one, or prepare the dataset again (or index it)."
        )
        raise FeedError(f"Row group {group.index} of {place} can't be read. {reason.rstrip('.')}. {advice}") from error


def decode_row_group(
    parquet: pq.ParquetFile, group: RowGroup, fields: Sequence[Field], out: dict[str, NDArray[Any]], buffers: Buffers
) -> dict[str, pa.Array]:
    """Read and decode one row group in this thread, into arrays of (group.rows, ...) by field.

    Returned are the arrays of fields whose rows differ in length.

    Raises FeedError, OSError or pyarrow.ArrowException; the arrays are of no use then.
    """
    names = [name for field in fields for name in field.columns]
    _check_row_group(parquet, group, names)
    table = parquet.read_row_group(group.index, columns=names, use_threads=False)
    variable = {}
    for field in fields:
        if field.variable is not None:
            (name,) = field.columns
            variable[field.name] = decoded(table.column(name), name, field.dtype)
            _ensure_rows(name, len(variable[field.name]), group.rows)
            continue
        if field.shape is not None:
            out[field.name][:] = _of_shape(table, field, field.shape, group.rows)
            continue
        columns = [_values(table, name, field, group.rows) for name in field.columns]
        if field.flat and not columns:
            columns = [np.arange(group.first_position, group.first_position + group.rows)]
        if field.mixed:
            mix(columns[0], out[field.name])
        elif field.flat:
            out[field.name][:] = columns[0]
        elif columns:
            _side_by_side(columns, out[field.name], buffers)
    return variable


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


def _values(table: Any, name: str, field: Field, planned_rows: int) -> NDArray[Any]:
    """A column's values, (n,), without a copy where Arrow holds them in one piece."""
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type):
        # As the numbers that stand for them: days, seconds or parts of a second since 1970, or since midnight.
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    wanted = pa.from_numpy_dtype(np.dtype(field.dtype))
    if column.type != wanted:
        raise FeedError(f"Column {name!r} is {column.type}, not {wanted}.")
    _ensure_no_nulls(name, column, field)
    _ensure_rows(name, len(column), planned_rows)
    values: NDArray[Any] = column.to_numpy()
    return values


def _ensure_no_nulls(name: str, column: Any, field: Field) -> None:
    if column.null_count and not field.nulls:
        raise UnfitError(f"Column {name!r} has {column.null_count:,} nulls, for which {field.dtype} has no value.")


def _ensure_rows(name: str, rows: int, planned: int) -> None:
    if rows != planned:
        raise FeedError(f"{rows:,} rows of column {name!r} were decoded where the plan has {planned:,}.")


def _of_shape(table: Any, field: Field, shape: tuple[int, ...], planned_rows: int) -> NDArray[Any]:
    """The values of a column of lists of fixed size, or of their bytes, (rows, *shape), without a copy where Arrow
    holds them in one piece."""
    (name,) = field.columns
    column = table.column(name)
    column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    _ensure_no_nulls(name, column, replace(field, nulls=False))
    if pa.types.is_fixed_size_list(column.type):
        items = column.flatten()
        if items.type != pa.from_numpy_dtype(np.dtype(field.dtype)):
            raise FeedError(f"Column {name!r} is {column.type}, not lists of {field.dtype}.")
        _ensure_no_nulls(name, items, field)
        values: NDArray[Any] = items.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    else:
        try:
            values = unpack(column, field.dtype)
        except ValueError as error:
            raise FeedError(f"Column {name!r}: {error}.") from None
    size = math.prod(shape)
    if values.shape != (planned_rows, size):
        raise FeedError(
            f"Column {name!r} holds {values.shape[1]} values of {len(values):,} rows where the plan has {size} "
            f"of {planned_rows:,}."
        )
    of_shape: NDArray[Any] = values.reshape(planned_rows, *shape)
    return of_shape


def _side_by_side(columns: Sequence[NDArray[Any]], out: NDArray[Any], buffers: Buffers) -> None:
    """Write columns of (rows,) into (rows, columns), piece by piece: side by side in a core's cache, then turned."""
    rows, width = out.shape
    step = max(64, _PIECE // (width * out.itemsize))
    piece = buffers.empty((width, min(step, rows)), out.dtype.str)
    for start in range(0, rows, step):
        end = min(start + step, rows)
        for place, column in enumerate(columns):
            piece[place, : end - start] = column[start:end]
        out[start:end] = piece[:, : end - start].T
