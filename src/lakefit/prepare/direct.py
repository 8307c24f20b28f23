"""Raw files to blocks without Spark's row format: each task reads ranges of files by Arrow.

For pipelines of which `reader.why_spark` says nothing. The rows, their identities and so the dataset are those
that Spark would read; Spark runs the tasks and the shuffle.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from lakefit.config import Pipeline
from lakefit.config.pipeline import Rule
from lakefit.config.rows import Label
from lakefit.dataset.inputs import InputFile, csv_header, open_raw, read_all
from lakefit.dataset.object_path import is_address, of_the_store
from lakefit.errors import LakefitError
from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import (
    BLOCKS_SCHEMA,
    FILE,
    HEADER,
    KEY_HIGH,
    KEY_LOW,
    NOT_FINITE,
    RECORD,
    ROW_HIGH,
    ROW_LOW,
    Keying,
    cut_blocks,
    keyed,
)
from lakefit.prepare.clean import RULE, label_column, weight_column
from lakefit.prepare.cluster import cores
from lakefit.prepare.expressions import compile_sql
from lakefit.prepare.identity import identities
from lakefit.prepare.plain_csv import TYPES, NotPlainError, PlainCsv, parse, plain_csv, read_lines
from lakefit.prepare.reader import cleaned_columns, raw_columns

NOT_PLAIN = "LAKEFIT-NOT-PLAIN"
"""Begins what a task says when it meets bytes that only Spark reads."""
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a file: bytes of text, row groups of Parquet. end: may lie past that of the file."""

    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """What a task needs to know. tasks: the ranges of each; columns: as read, with their Spark SQL types;
    kept: those that `clean` leaves.
    """

    tasks: tuple[tuple[Range, ...], ...]
    columns: Mapping[str, str]
    csv: PlainCsv | None
    kept: tuple[str, ...]
    rules: tuple[Rule, ...]
    labels: tuple[Label, ...]
    keying: Keying


def read_blocks(spark: SparkSession, pipeline: Pipeline, files: Sequence[InputFile], keying: Keying) -> DataFrame:
    """Return the blocks of all rows, as `BLOCKS_SCHEMA`, of such a pipeline."""
    source = pipeline.source
    table = source.tables[source.rows]
    columns, csv = raw_columns(pipeline, files), None
    if table.format == "csv":
        by_file = read_all(files, lambda file: csv_header(file.path, table.separator, table.quote, table.encoding)[0])
        headers = set(by_file)
        csv = plain_csv(table, columns, tuple(sorted(headers)) if table.header else ())
    plan = DirectPlan(
        tasks=tuple(_tasks(files, csv is None, cores(spark), keying.flush_bytes * 2 // 3)),
        columns=columns,
        csv=csv,
        kept=tuple(cleaned_columns(pipeline, files)),
        rules=pipeline.rules,
        labels=pipeline.label,
        keying=keying,
    )
    numbers = spark.range(0, len(plan.tasks), 1, numPartitions=len(plan.tasks))
    return numbers.mapInArrow(partial(_blocks, plan=plan), BLOCKS_SCHEMA)


def _tasks(files: Sequence[InputFile], row_groups: bool, cores: int, task_bytes: int) -> Iterator[tuple[Range, ...]]:
    """Yield the ranges of each task: large files are cut, small ones read together.

    task_bytes: at most about so many of the files; their rows make one round of blocks.
    """
    total = sum(file.size for file in files)
    # A few tasks a core even out.
    target = min(task_bytes, max(1 << 20, total // (2 * cores) + 1))
    task: list[Range] = []
    size = 0

    def parts(file: InputFile) -> list[tuple[Range, int]]:
        return list(_row_groups(file, target) if row_groups else _bytes(file, target))

    for parts_of_file in read_all(files, parts):
        for part, weight in parts_of_file:
            task.append(part)
            size += weight
            if size >= target:
                yield tuple(task)
                task, size = [], 0
    if task:
        yield tuple(task)


def _bytes(file: InputFile, target: int) -> Iterator[tuple[Range, int]]:
    pieces = max(1, round(file.size / target))
    edges = [file.size * piece // pieces for piece in range(pieces + 1)]
    for start, end in pairwise(edges):
        yield Range(file.path, start, end), end - start


def _row_groups(file: InputFile, target: int) -> Iterator[tuple[Range, int]]:
    pieces = round(file.size / target)
    if pieces <= 1:
        # Of a small file the footer is no more to be read than by the task that reads it.
        yield Range(file.path, 0, sys.maxsize), file.size
        return
    with open_raw(file.path) as opened:
        groups = pq.read_metadata(opened).num_row_groups
    pieces = max(1, min(groups, pieces))
    edges = [groups * piece // pieces for piece in range(pieces + 1)]
    for start, end in pairwise(edges):
        yield Range(file.path, start, end), file.size // pieces


def _blocks(batches: Iterable[pa.RecordBatch], plan: DirectPlan) -> Iterator[pa.RecordBatch]:
    tasks = [plan.tasks[number] for batch in batches for number in batch["id"].to_pylist()]
    rows = (judged(table, part.path, plan) for task in tasks for part in task for table in _read(part, plan))
    return cut_blocks(rows, plan.keying)


def _read(part: Range, plan: DirectPlan) -> Iterator[pa.Table]:
    """Yield the rows of a range as read, with `_record` and `_header`."""
    try:
        if plan.csv is None:
            yield from _read_parquet(part, plan)
            return
        for piece in read_lines(part.path, part.start, part.end):
            yield parse(piece, plan.csv)
    except NotPlainError as error:
        raise LakefitError(f"{NOT_PLAIN} {part.path}: {error}") from error
    except (OSError, EOFError, pa.ArrowException) as error:
        if of_the_store(error):
            raise
        raise LakefitError(f"Encountered error while reading file {part.path}. {error}") from error


def _read_parquet(part: Range, plan: DirectPlan) -> Iterator[pa.Table]:
    schema = pa.schema([(name, TYPES[sql_type]) for name, sql_type in plan.columns.items()])
    remote = is_address(part.path)
    source = open_raw(part.path) if remote else part.path
    with pq.ParquetFile(source, memory_map=not remote, pre_buffer=remote) as file:
        groups = list(range(part.start, min(part.end, file.metadata.num_row_groups)))
        for batch in file.iter_batches(_BATCH_ROWS, groups, list(plan.columns), use_threads=False):
            table = pa.Table.from_batches([batch]).cast(schema)
            hidden = [pa.nulls(len(table), pa.string()), pa.array(np.zeros(len(table), bool))]
            yield table.append_column(RECORD, hidden[0]).append_column(HEADER, hidden[1])


def judged(table: pa.Table, path: str, plan: DirectPlan) -> pa.Table:
    """Return rows as read with identity, provenance, cleaned values, rule, label and key: what `cut_blocks` takes."""
    rows = len(table)
    raw = [one_array(table[name]) for name in (RECORD, *plan.columns)]
    hi, lo = identities(raw, rows)
    values, not_finite = {}, np.zeros(rows, np.int32)
    changed = False
    for name, column in zip(plan.columns, raw[1:], strict=True):
        if name in plan.kept:
            values[name] = _normal(column, not_finite)
            changed |= values[name].null_count != column.null_count
    clean = pa.table(values) if values else pa.table({})
    hidden: dict[str, pa.Array] = {
        ROW_HIGH: pa.array(hi),
        ROW_LOW: pa.array(lo),
        FILE: pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([path])),
        RECORD: raw[0],
        HEADER: one_array(table[HEADER]),
        NOT_FINITE: pa.array(not_finite),
        RULE: _rule(clean, plan.rules),
    }
    for label in plan.labels:
        hidden[label_column(label)] = _label(clean, label)
        if label.weight is not None:
            hidden[weight_column(label)] = _evaluated(label.weight, clean).cast(pa.float64())
    if plan.keying.key == tuple(plan.columns) and not changed:
        # The key's values are the row's: so is their hash.
        return pa.table({**values, **hidden, KEY_HIGH: hidden[ROW_HIGH], KEY_LOW: hidden[ROW_LOW]})
    return keyed(pa.table({**values, **hidden}), plan.keying)


def _normal(column: pa.Array, not_finite: np.ndarray) -> pa.Array:
    """Return a column as `clean` leaves it: no "", NaN, infinity or -0.0; adds to the count of what was not finite."""
    if pa.types.is_string(column.type):
        empty = pc.equal(column, "")
        return pc.if_else(empty, pa.scalar(None, pa.string()), column) if pc.any(empty).as_py() else column
    if not pa.types.is_floating(column.type):
        return column
    finite = pc.is_finite(column)
    # x + 0 turns -0.0 into 0.0.
    column = pc.add(column, pa.scalar(0.0, column.type))
    if pc.all(finite).as_py() is False:
        strange = pc.fill_null(pc.invert(finite), False)
        not_finite += strange.to_numpy(zero_copy_only=False).astype(np.int32)
        return pc.if_else(strange, pa.scalar(None, column.type), column)
    return column


def _rule(clean: pa.Table, rules: Sequence[Rule]) -> pa.Array:
    rule = pa.nulls(len(clean), pa.int32())
    for number, one in reversed(list(enumerate(rules))):
        assert one.predicate is not None, "a rule without a predicate is a mark of clean"
        holds = pc.fill_null(_evaluated(one.predicate, clean), one.null == "reject")
        rule = pc.if_else(holds, pa.scalar(number, pa.int32()), rule)
    return rule


def _label(clean: pa.Table, label: Label) -> pa.Array:
    values = _evaluated(label.expression, clean)
    if label.type == "classes":
        if pa.types.is_boolean(values.type):
            return pc.if_else(values, pa.scalar("true"), pa.scalar("false"))
        return values.cast(pa.string())
    number = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
    return number.cast(pa.float64(), safe=False)


def _evaluated(sql: str, table: pa.Table) -> pa.Array:
    compiled = compile_sql(sql, {field.name: field.type for field in table.schema})
    assert compiled is not None, "why_spark has compiled it"
    return compiled.evaluate(table)
