"""Rows to Arrow blocks, one per partition of their hashes: what Spark shuffles instead of rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.prepare.arrays import one_array
from lakefit.prepare.clean import RULE
from lakefit.prepare.hashing import Hashes
from lakefit.prepare.identity import identities

KEY_HIGH, KEY_LOW = "_key_hi", "_key_lo"
ROW_HIGH, ROW_LOW = "_row_hi", "_row_lo"
FILE, RECORD, HEADER = "_file", "_record", "_header"
NOT_FINITE, UNPARSABLE, CORRECTED = "_not_finite", "_unparsable", "_corrected"

BLOCKS_SCHEMA = "partition INT, rows BIGINT, hi_sum DECIMAL(20, 0), lo_sum DECIMAL(20, 0), block BINARY"
_ARROW_SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("rows", pa.int64()),
        ("hi_sum", pa.decimal128(20, 0)),
        ("lo_sum", pa.decimal128(20, 0)),
        ("block", pa.binary()),
    ]
)
_TEXT = pa.scalar(None, pa.string())
_NOTHING = {
    RECORD: _TEXT,
    HEADER: pa.scalar(False),
    NOT_FINITE: pa.scalar(0, pa.int32()),
    UNPARSABLE: _TEXT,
    CORRECTED: _TEXT,
    RULE: pa.scalar(None, pa.int32()),
}
_KEYS = {KEY_HIGH: ROW_HIGH, KEY_LOW: ROW_LOW}
FLUSH_BYTES = 96 << 20


@dataclass(frozen=True, slots=True)
class Keying:
    """How rows are keyed: the key's columns (all of `content` where there is no key) and the bits of a partition.

    flush_bytes: a map task gathers so many before it cuts blocks: what it holds at a time, and what makes blocks large.
    """

    content: tuple[str, ...]
    key: tuple[str, ...]
    partition_bits: int
    flush_bytes: int = FLUSH_BYTES


def cut_blocks(tables: Iterable[pa.Table], keying: Keying) -> Iterator[pa.RecordBatch]:
    """Turn keyed rows into rows of `BLOCKS_SCHEMA`; rows and identity sums are counted here, on arrival.

    Hidden columns that say nothing of any row may be missing: whoever reads the blocks finds them all.
    """
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size >= keying.flush_bytes:
            yield from _cut(held, keying)
            held, size = [], 0
    if held:
        yield from _cut(held, keying)


def _cut(tables: list[pa.Table], keying: Keying) -> Iterator[pa.RecordBatch]:
    table = one_table(tables)
    partitions = bucket_of(table[KEY_HIGH].to_numpy(), keying.partition_bits)
    for partition, rows in cut_by(_without_empty(table), partitions):
        hi, lo = identity_sums(rows)
        values = [partition, len(rows), Decimal(hi), Decimal(lo)]
        arrays = [pa.array([value], field.type) for value, field in zip(values, _ARROW_SCHEMA, strict=False)]
        arrays.append(to_cell(rows))
        yield pa.RecordBatch.from_arrays(arrays, schema=_ARROW_SCHEMA)


def cut_by(table: pa.Table, numbers: NDArray[np.int64]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each number, ascending."""
    order = np.argsort(numbers, kind="stable")
    table = table.take(pa.array(order))
    present, starts = np.unique(numbers[order], return_index=True)
    for number, start, end in zip(present, starts, [*starts[1:], len(order)], strict=True):
        yield int(number), table.slice(start, end - start)


def one_table(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables with one chunk and one dictionary a column."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def keyed(table: pa.Table, keying: Keying) -> pa.Table:
    """Add the key's 128-bit hash to flat rows: `identities` of the key's values, where they may differ from the row's.

    A row that has no key (a line that did not parse, a key all NULL) is keyed by its own identity.
    """
    hi, lo = (table[name].to_numpy() for name in (ROW_HIGH, ROW_LOW))
    columns = [one_array(table[name]) for name in keying.key]
    key_hi, key_lo = identities([pa.nulls(len(table)), *columns], len(table))
    keyless = np.zeros(len(table), bool)
    if RECORD in table.column_names:
        keyless = pc.is_valid(table[RECORD]).to_numpy()
    if keying.key != keying.content:
        keyless = np.logical_or(
            keyless, np.logical_and.reduce([pc.is_null(column).to_numpy(False) for column in columns])
        )
    key_hi[keyless], key_lo[keyless] = hi[keyless], lo[keyless]
    return table.append_column(KEY_HIGH, pa.array(key_hi)).append_column(KEY_LOW, pa.array(key_lo))


def _without_empty(table: pa.Table) -> pa.Table:
    """Leave out hidden columns that say nothing of these rows, and the key's hash where it is the row's."""
    here = set(table.column_names)
    empty = [name for name, nothing in _NOTHING.items() if name in here and _all(table[name], nothing)]
    if all(table[key].equals(table[row]) for key, row in _KEYS.items()):
        empty += _KEYS
    return table.drop_columns(empty)


def _all(column: pa.ChunkedArray, value: pa.Scalar) -> bool:
    if not value.is_valid:
        return bool(column.null_count == len(column))
    return bool(pc.all(pc.equal(column, value)).as_py())


def _with_empty(table: pa.Table) -> pa.Table:
    """Undo `_without_empty`; the hidden columns come last."""
    here = set(table.column_names)
    columns = {name: table[name] for name in table.column_names if name not in _NOTHING and name not in _KEYS}
    for name, nothing in _NOTHING.items():
        columns[name] = table[name] if name in here else pa.repeat(nothing, len(table))
    for key, row in _KEYS.items():
        columns[key] = table[key] if key in here else table[row]
    return pa.table(columns)


def bucket_of(key_high: Hashes, bits: int) -> NDArray[np.int64]:
    """Return the first `bits` bits of each hash: buckets are ranges of hashes. Shape as given."""
    if bits == 0:
        return np.zeros(len(key_high), np.int64)
    return (key_high >> np.uint64(64 - bits)).astype(np.int64)


def identity_sums(table: pa.Table) -> tuple[int, int]:
    """Return the sums modulo 2^64 of both halves of the rows' identities."""
    hi, lo = (int(table[name].to_numpy().sum(dtype=np.uint64)) for name in (ROW_HIGH, ROW_LOW))
    return hi, lo


# Measured: what Python sends to the JVM and back through the shuffle costs more than lz4 does.
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


def to_cell(table: pa.Table) -> pa.Array:
    """Return the table as a binary array of one value, an Arrow IPC stream; the array shares the stream's memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_LZ4) as writer:
        writer.write_table(table)
    stream = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, stream.size], np.int32))
    return pa.Array.from_buffers(pa.binary(), 1, [None, offsets, stream])


def from_cell(cell: pa.BinaryScalar) -> pa.Table:
    """Return the table in a value of `to_cell`."""
    return pa.ipc.open_stream(cell.as_buffer()).read_all()


def rows_of(cells: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Yield the rows of each block in a column of IPC streams."""
    return (_with_empty(from_cell(cell)) for cell in cells)
