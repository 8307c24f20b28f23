"""Rows that Spark has read and judged to blocks: flat, and columns of one type in one array a row.

Spark asks each column that it writes for its size at each row (spark.sql.execution.arrow.maxBytesPerBatch), and writes
what is inside a struct twice: that cost more than to write the rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ByteType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    TimestampNTZType,
    TimestampType,
)

from lakefit.config import Pipeline
from lakefit.config.sql import MARKS, ROW, quoted
from lakefit.dataset.inputs import local_path
from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import (
    BLOCKS_SCHEMA,
    CORRECTED,
    FILE,
    HEADER,
    NOT_FINITE,
    RECORD,
    ROW_HIGH,
    ROW_LOW,
    UNPARSABLE,
    Keying,
    cut_blocks,
    keyed,
)
from lakefit.prepare.clean import RULE

# Types of 1 to 8 bytes a value.
_WORDS = (ByteType, ShortType, IntegerType, LongType, FloatType, DoubleType, DateType, TimestampType, TimestampNTZType)
_CACHED_ROWS = 512


def blocks_of(judged: DataFrame, pipeline: Pipeline, keying: Keying) -> DataFrame:
    """Return the blocks, as `BLOCKS_SCHEMA`, of rows as `clean.judge` returns them."""
    rows, packed = _packed(_flat(judged, pipeline))
    return rows.mapInArrow(partial(make_blocks, keying=keying, packed=packed), BLOCKS_SCHEMA)


def _flat(rows: DataFrame, pipeline: Pipeline) -> DataFrame:
    """Put the fields of `_row` and `_marks` beside the values, but for those that no row of such a pipeline has."""
    hidden = {ROW_HIGH: f"{ROW}.hi", ROW_LOW: f"{ROW}.lo", FILE: f"{ROW}.file", NOT_FINITE: f"{MARKS}.not_finite"}
    if pipeline.source.tables[pipeline.source.rows].format in ("csv", "json"):
        hidden |= {RECORD: f"{ROW}.record", HEADER: f"{ROW}.header"}
    # A function of the user's may mark rows too.
    custom = any(step.custom is not None for step in pipeline.clean)
    if custom or any(step.faults or step.parse is not None for step in pipeline.clean):
        hidden[UNPARSABLE] = f"{MARKS}.unparsable"
    if custom or any(step.correct is not None for step in pipeline.clean):
        hidden[CORRECTED] = f"{MARKS}.corrected"
    left_out = {ROW, MARKS} if custom or pipeline.rules else {ROW, MARKS, RULE}
    judged = [quoted(name) for name in rows.columns if name not in left_out]
    return rows.select(*judged, *(F.col(field).alias(name) for name, field in hidden.items()))


def _packed(rows: DataFrame) -> tuple[DataFrame, dict[str, tuple[str, ...]]]:
    """Put columns of one type that take 1 to 8 bytes a value into one array a row; return also which columns."""
    by_type: dict[str, list[str]] = {}
    for column in rows.schema:
        if isinstance(column.dataType, _WORDS):
            by_type.setdefault(column.dataType.simpleString(), []).append(column.name)
    packed = {f"_lakefit_all_{of_type}": tuple(names) for of_type, names in by_type.items() if len(names) > 1}
    inside = {name for names in packed.values() for name in names}
    arrays = [F.expr(f"array({', '.join(map(quoted, names))})").alias(array) for array, names in packed.items()]
    return rows.select(*arrays, *(quoted(name) for name in rows.columns if name not in inside)), packed


def make_blocks(
    batches: Iterable[pa.RecordBatch], keying: Keying, packed: Mapping[str, Sequence[str]]
) -> Iterator[pa.RecordBatch]:
    """Turn batches of judged rows, as Spark hands them over, into rows of `BLOCKS_SCHEMA`.

    packed: columns of lists, one a row, and the columns of one type whose values each list holds.
    """
    return cut_blocks((keyed(flattened(_unpacked(batch, packed)), keying) for batch in batches), keying)


def _unpacked(batch: pa.RecordBatch, packed: Mapping[str, Sequence[str]]) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        columns |= columns_of(column, packed[name]) if name in packed else {name: column}
    return pa.table(columns)


def columns_of(lists: pa.ListArray, names: Sequence[str]) -> dict[str, pa.Array]:
    """Return the columns of rows that stand in one list each, of values of 1 to 8 bytes."""
    values = lists.flatten()
    shape = (len(lists), len(names))
    width = values.type.byte_width
    words = np.frombuffer(values.buffers()[1], f"u{width}", len(values), values.offset * width)
    columns = _transposed(words.reshape(shape))
    valid = None
    if values.null_count:
        bits = _transposed(pc.is_valid(values).to_numpy(zero_copy_only=False).reshape(shape))
        valid = np.packbits(bits, axis=1, bitorder="little")
    return {
        name: pa.Array.from_buffers(
            values.type, len(lists), [None if valid is None else pa.py_buffer(valid[i]), pa.py_buffer(columns[i])]
        )
        for i, name in enumerate(names)
    }


def _transposed(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the transpose, copied in parts that stay in the cache."""
    columns = np.empty(rows.shape[::-1], rows.dtype)
    for start in range(0, len(rows), _CACHED_ROWS):
        columns[:, start : start + _CACHED_ROWS] = rows[start : start + _CACHED_ROWS].T
    return columns


def flattened(table: pa.Table) -> pa.Table:
    """Return judged rows as Spark hands them over with identity and file in our types."""
    files = one_array(table[FILE]).dictionary_encode()
    paths = pa.array([local_path(uri) for uri in files.dictionary.to_pylist()], pa.string())
    ours = {
        **{name: one_array(table[name]).view(pa.uint64()) for name in (ROW_HIGH, ROW_LOW)},
        FILE: pa.DictionaryArray.from_arrays(files.indices, paths),
    }
    return pa.table({name: ours.get(name, table[name]) for name in table.column_names})
