"""Passes over the staged rows: their training values by column, here where they are few, by Spark where not."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from lakefit.dataset.object_path import AnyPath, ObjectPath, again, any_path
from lakefit.dataset.transform import SMALLEST
from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import KEY_HIGH, to_cell
from lakefit.prepare.cluster import cores
from lakefit.prepare.hashing import Hashes
from lakefit.prepare.quantiles import Integers, Prefix, count_bins_of
from lakefit.prepare.statistics import (
    Floats,
    Summary,
    bucket_moments,
    concatenate,
    merge_up,
    pack_moments,
    summary_of,
    unpack_moments,
)

SPLIT = "_split"
# So many rows are looked through here sooner than Spark starts a job.
LOCAL_ROWS = 2_000_000
# So many rows of a staged file are handed on at a time.
STAGED_ROWS = 65_536
Transform = Callable[[Floats], Floats]
"""From a column's values without NaN, (rows,), to derived ones, (rows, k); picklable."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Staged files, one a bucket and kind, and the rows in them."""

    spark: SparkSession
    files: tuple[str, ...]
    rows: int
    bucket_bits: int

    def each(self, task: Callable[[Sequence[str]], bytes]) -> list[bytes]:
        """Return the results of a task over all files, some files a call."""
        if self.rows <= LOCAL_ROWS:
            threads = min(len(self.files), os.cpu_count() or 1)
            if not threads:
                return []
            # Arrow and numpy let go of the interpreter in all that takes long here.
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(task, [self.files[thread::threads] for thread in range(threads)]))
        results = self._numbers().mapInArrow(partial(_in_task, files=self.files, task=task), "result BINARY").toArrow()
        return [bytes(result) for result in results["result"].to_pylist()]

    def frame(self, columns: Sequence[str]) -> DataFrame:
        """Return columns of all rows, of one file or more, as a DataFrame; unsigned integers as signed ones."""
        schema = from_arrow_schema(_signed(read_staged(self.files[0], columns)).schema, prefer_timestamp_ntz=True)
        return self._numbers().mapInArrow(partial(_rows_in_task, files=self.files, columns=tuple(columns)), schema)

    def _numbers(self) -> DataFrame:
        """Return the places of the files, column `id`, spread over some tasks a core."""
        tasks = min(len(self.files), 2 * cores(self.spark))
        return self.spark.range(0, len(self.files), 1, numPartitions=tasks)

    def moments(self, transforms: Mapping[str, Transform], width: int) -> dict[str, list[Summary]]:
        """Return the summaries of each column's derived columns, `width` of them each."""
        columns = tuple(transforms)
        if not columns:
            return {}
        packed = self.each(
            partial(_moments_of_files, transforms=dict(transforms), width=width, bucket_bits=self.bucket_bits)
        )
        parts = [unpack_moments(part, len(columns) * width) for part in packed]
        with np.errstate(invalid="ignore"):
            root = merge_up(concatenate(parts, len(columns) * width), self.bucket_bits, 0)
        return {name: [summary_of(root, place * width + i) for i in range(width)] for place, name in enumerate(columns)}

    def count_bins(
        self, prefixes: Sequence[Prefix], transforms: Mapping[str, Transform]
    ) -> dict[Prefix, tuple[Hashes, Integers]]:
        """Return what `quantiles.CountBins` asks for; `transforms` (to one column each) are applied first."""
        packed = self.each(partial(_bins_of_files, prefixes=tuple(prefixes), transforms=dict(transforms)))
        parts = pa.concat_tables([pa.ipc.open_stream(part).read_all() for part in packed])
        summed = parts.group_by(["prefix", "bin"]).aggregate([("rows", "sum")])
        summed = summed.sort_by([("prefix", "ascending"), ("bin", "ascending")])
        number, bins, rows = (summed[name].to_numpy() for name in ("prefix", "bin", "rows_sum"))
        starts = np.searchsorted(number, np.arange(len(prefixes) + 1))
        return {
            prefix: (bins[start:end], rows[start:end])
            for prefix, start, end in zip(prefixes, starts[:-1], starts[1:], strict=True)
        }

    def histograms(self, edges: Mapping[str, Sequence[float]]) -> dict[str, list[int]]:
        """Return for each column the values below the first edge, between edges (low end in), and from the last on."""
        if not edges:
            return {}
        totals = {column: np.zeros(len(at) + 1, np.int64) for column, at in edges.items()}
        for packed in self.each(partial(_histograms_of_files, edges={c: tuple(at) for c, at in edges.items()})):
            flat = np.frombuffer(packed, np.int64)
            for column in edges:
                totals[column] += flat[: len(totals[column])]
                flat = flat[len(totals[column]) :]
        return {column: counts.tolist() for column, counts in totals.items()}

    def most_frequent(self, column: str) -> float:
        """Return the most frequent value of a numeric column with values; of equally frequent ones the smallest."""
        if self.rows <= LOCAL_ROWS:
            all_values = [values for _, values in known_values(self.files, [column])]
            values, counts = np.unique(np.concatenate(all_values), return_counts=True)
            return float(values[np.argmax(counts)])
        rows = self.frame([column]).where(F.col(f"`{column}`").isNotNull())
        counted = rows.groupBy(F.col(f"`{column}`").cast("double").alias("value")).count()
        first = counted.orderBy(F.desc("count"), F.asc("value")).first()
        assert first is not None, "the column has values"
        return float(first["value"])


def write_staged(path: str, parts: Iterable[pa.Table]) -> bool:
    """Write rows as an Arrow file; return False, and write none, where there are no rows.

    What is read once or twice within the minute: Parquet takes four times as long, and as long again to read.
    """
    writer = None
    with ExitStack() as opened:
        for rows in parts:
            if len(rows):
                if writer is None:
                    sink = opened.enter_context(_sink(any_path(path)))
                    writer = opened.enter_context(pa.ipc.new_file(sink, rows.schema))
                writer.write_table(rows, STAGED_ROWS)
    return writer is not None


def read_staged(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return rows, up to `STAGED_ROWS` a chunk, mapped into memory: what is not looked at is not read."""
    at = any_path(path)
    if isinstance(at, ObjectPath):
        return again(partial(_read_object, at, columns))
    rows = pa.ipc.open_file(pa.memory_map(path)).read_all()
    return rows if columns is None else rows.select(list(columns))


def _sink(path: AnyPath) -> pa.NativeFile:
    return path.open_output() if isinstance(path, ObjectPath) else pa.OSFile(str(path), "wb")


def _read_object(path: ObjectPath, columns: Sequence[str] | None) -> pa.Table:
    with path.open_input() as file:
        if columns is None:
            return pa.ipc.open_file(file).read_all()
        schema = pa.ipc.open_file(file).schema
        wanted = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in columns])
        return pa.ipc.open_file(file, options=wanted).read_all().select(list(columns))


def as_numbers(column: pa.Array | pa.ChunkedArray) -> Floats:
    """Return numbers, booleans (0, 1), dates and times (seconds since 1970 UTC) as float64, NaN for null.

    Numbers nearer to 0 than `SMALLEST` are 0, as TensorFlow computes with them. Times further than 2^33 s (272 years)
    from 1970 are whole seconds, rounded down: else 23:59:59.999999 could become the next day.
    """
    array = one_array(column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    elif pa.types.is_date(array.type) or pa.types.is_timestamp(array.type):
        array = _seconds(array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()))
    # An integer above 2^53 is rounded, as it would be in the model.
    numbers: Floats = pc.fill_null(array.cast(pa.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False)
    nothing = (np.abs(numbers) < SMALLEST) & (numbers != 0)
    return np.where(nothing, 0.0, numbers) if nothing.any() else numbers


def _seconds(microseconds: pa.Array) -> pa.Array:
    known = pc.fill_null(microseconds, 0).to_numpy(zero_copy_only=False)
    seconds = known / 1e6
    # Below that, float64 tells all microseconds apart; further away a second may round up.
    far = (known > _EXACT) | (known < -_EXACT)
    if far.any():
        seconds = np.where(far, known // 1_000_000, seconds)
    return pa.array(seconds, mask=pc.is_null(microseconds).to_numpy(zero_copy_only=False))


_EXACT = 2**33 * 1_000_000


def is_number(arrow_type: pa.DataType) -> bool:
    """Return whether `as_numbers` takes a type."""
    return bool(
        pa.types.is_integer(arrow_type)
        or pa.types.is_floating(arrow_type)
        or pa.types.is_decimal(arrow_type)
        or pa.types.is_boolean(arrow_type)
        or pa.types.is_date(arrow_type)
        or pa.types.is_timestamp(arrow_type)
    )


def known_values(files: Iterable[str], columns: Iterable[str]) -> Iterator[tuple[str, Floats]]:
    """Yield staged columns and their values without nulls, a file at a time."""
    for path in files:
        rows = read_staged(path)
        for column in columns:
            values = as_numbers(rows[column])
            yield column, values[~np.isnan(values)]


def _in_task(
    batches: Iterable[pa.RecordBatch], files: Sequence[str], task: Callable[[Sequence[str]], bytes]
) -> Iterator[pa.RecordBatch]:
    mine = [files[number] for batch in batches for number in batch["id"].to_pylist()]
    if mine:
        yield pa.RecordBatch.from_pydict({"result": pa.array([task(mine)], pa.binary())})


def _rows_in_task(
    batches: Iterable[pa.RecordBatch], files: Sequence[str], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch["id"].to_pylist():
            yield from _signed(read_staged(files[number], columns)).to_batches()


def _signed(rows: pa.Table) -> pa.Table:
    """Return the rows with unsigned integers, which Spark does not have, as signed ones."""
    for place, field in enumerate(rows.schema):
        if field.type == pa.uint64():
            chunks = [chunk.view(pa.int64()) for chunk in rows.column(place).chunks]
            rows = rows.set_column(place, field.name, pa.chunked_array(chunks, pa.int64()))
    return rows


def _moments_of_files(files: Sequence[str], transforms: Mapping[str, Transform], width: int, bucket_bits: int) -> bytes:
    # Of a transform that overflows the moments are no numbers, which whoever asked for it looks at.
    with np.errstate(invalid="ignore"):
        parts = []
        for path in files:
            rows = read_staged(path)
            parts.append(bucket_moments(_derived(rows, transforms), rows[KEY_HIGH].to_numpy(), bucket_bits))
    return pack_moments(concatenate(parts, width * len(transforms)))


def _derived(rows: pa.Table, transforms: Mapping[str, Transform]) -> Iterator[Floats]:
    """Yield the columns of each transform, NaN for null, as the tallies have those that are not transformed."""
    for column, transform in transforms.items():
        values = as_numbers(rows[column])
        known = ~np.isnan(values)
        for derived in transform(values[known]).T:
            whole = np.full(len(values), np.nan)
            whole[known] = derived
            yield whole


def _bins_of_files(files: Sequence[str], prefixes: Sequence[Prefix], transforms: Mapping[str, Transform]) -> bytes:
    asked: list[int] = []
    counted: list[tuple[Hashes, Integers]] = []
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, prefix in enumerate(prefixes):
        places[prefix.column].append(place)
    for column, values in known_values(files, places):
        derived = transforms[column](values)[:, 0] if column in transforms else values
        asked += places[column]
        counted += count_bins_of(derived, [prefixes[place] for place in places[column]])
    all_bins, all_rows = ([answer[part] for answer in counted] for part in (0, 1))
    answers = {
        "prefix": np.repeat(np.array(asked, np.int32), [len(bins) for bins in all_bins]),
        "bin": np.concatenate(all_bins),
        "rows": np.concatenate(all_rows),
    }
    return bytes(to_cell(pa.table(answers))[0].as_buffer())


def _histograms_of_files(files: Sequence[str], edges: Mapping[str, Sequence[float]]) -> bytes:
    counts = {column: np.zeros(len(at) + 1, np.int64) for column, at in edges.items()}
    for column, values in known_values(files, edges):
        bins = np.searchsorted(np.array(edges[column]), values, side="right")
        counts[column] += np.bincount(bins, minlength=len(counts[column]))
    return np.concatenate(list(counts.values())).tobytes()
