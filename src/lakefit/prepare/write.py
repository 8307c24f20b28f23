"""The last pass: staged rows of one hash range, encoded and written as Parquet files of fixed cuts."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakefit.config.rows import SPLITS, Label
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.manifest import POSITION
from lakefit.dataset.object_path import any_path
from lakefit.dataset.packed import CATEGORICAL, NUMERIC, pack
from lakefit.dataset.publish import new_file
from lakefit.prepare.blocks import KEY_HIGH, bucket_of
from lakefit.prepare.bucket import IDENTITY, STAGED
from lakefit.prepare.clean import label_column, weight_column
from lakefit.prepare.deduplicate import OCCURRENCE
from lakefit.prepare.features import encode, encode_label, label_numbers
from lakefit.prepare.staged import read_staged

GROUP_BYTES = 64 << 20
"""So many bytes of images make a row group: what a reader holds some times over."""


@dataclass(frozen=True, slots=True)
class WritePlan:
    """`staged`: kind -> (bucket, file), by bucket; files hold one of 2^range_bits hash ranges.

    packed: a row's numbers, and its categories, are written as one value each. sections: the labels as the pipeline
    file has them.
    """

    target: str
    staged: dict[str, tuple[tuple[int, str], ...]]
    bucket_bits: int
    range_bits: int
    rows_per_group: int
    packed: bool
    features: Features
    labels: tuple[LabelFeature, ...]
    sections: tuple[Label, ...]

    @property
    def files(self) -> list[tuple[str, int]]:
        """The kind and hash range of each file that there may be; large and small ones take turns."""
        return [(kind, number) for number in range(1 << self.range_bits) for kind in STAGED if self.staged[kind]]

    @property
    def kept_columns(self) -> list[str]:
        """What is read of staged kept rows; other staged rows are read whole."""
        labels = [label_column(section) for section in self.sections]
        weights = [weight_column(section) for section in self.sections if section.weight is not None]
        return [IDENTITY, OCCURRENCE, KEY_HIGH, *labels, *weights, *self.features.inputs]


def range_bits(kept_rows: int, rows_per_file: int) -> int:
    """Return the number of bits of a file's hash range: a function of the kept rows, never of the partitioning."""
    bits = 0
    while kept_rows > rows_per_file << bits and bits < 16:
        bits += 1
    return bits


def write_file(kind: str, number: int, plan: WritePlan) -> dict[str, Any] | None:
    """Write the file of one kind of hash range `number`; return its split, path in the dataset, rows and checksum.

    beyond: of labels and weights, how many are too large for float32, and the first of them. None: there is no row. The
    rows, their order and the bytes depend on the rows alone: a second attempt writes the same file.
    """
    output = _Output(plan, kind, number)
    beyond: dict[str, tuple[int, float]] = {}
    for rows in _rows_of_range(number, plan, kind):
        output.add(_encoded(rows, plan, beyond) if kind in SPLITS else rows.drop_columns([KEY_HIGH]))
    entry = output.close()
    return {**entry, "beyond": beyond} if entry is not None else None


def _encoded(rows: pa.Table, plan: WritePlan, beyond: dict[str, tuple[int, float]]) -> pa.Table:
    columns = {name: rows[name] for name in (IDENTITY, OCCURRENCE)}
    labels: dict[str, pa.Array] = {}
    for section, learned in zip(plan.sections, plan.labels, strict=True):
        weight = rows[weight_column(section)] if section.weight is not None else None
        given = (rows[label_column(section)], weight, learned)
        for name, column in encode_label(*given).items():
            labels[name] = column
            infinite = np.isinf(column.to_numpy())
            if infinite.any():
                count, first = beyond.get(name, (0, float(label_numbers(*given)[name][infinite][0])))
                beyond[name] = (count + int(infinite.sum()), first)
    features = encode(rows, plan.features)
    if plan.packed:
        groups = {NUMERIC: plan.features.numeric_columns, CATEGORICAL: plan.features.categorical_columns}
        packed = {name: pack([features[column] for column in group]) for name, group in groups.items() if group}
        features = packed | {array.name: features[array.name] for array in plan.features.arrays}
    return pa.table({**columns, **features, **labels})


def _rows_of_range(number: int, plan: WritePlan, kind: str) -> Iterator[pa.Table]:
    """Yield the staged rows of the range in hash order, a bounded number at a time."""
    for path in files_of_range(plan.staged[kind], number, plan.bucket_bits, plan.range_bits):
        for batch in read_staged(path, plan.kept_columns if kind in SPLITS else None).to_batches():
            rows = pa.Table.from_batches([batch])
            if plan.range_bits > plan.bucket_bits:
                mine = bucket_of(rows[KEY_HIGH].to_numpy(), plan.range_bits) == number
                rows = rows.filter(pa.array(mine))
            if len(rows):
                yield rows


def files_of_range(staged: Sequence[tuple[int, str]], number: int, bucket_bits: int, bits_of_range: int) -> list[str]:
    """Return the staged files that hold rows of a hash range, in hash order."""
    if bits_of_range >= bucket_bits:
        return [path for bucket, path in staged if bucket == number >> (bits_of_range - bucket_bits)]
    return [path for bucket, path in staged if bucket >> (bucket_bits - bits_of_range) == number]


class _Output:
    """One file being written: row groups of exactly `rows_per_group` rows, or of fewer where those hold `GROUP_BYTES`
    of images and the like, whatever the pieces that come in."""

    def __init__(self, plan: WritePlan, folder: str, number: int) -> None:
        self._plan = plan
        self._name = f"{folder}/part-{number:05d}.parquet"
        self._path = any_path(plan.target) / self._name
        self._open = ExitStack()
        self._temporary: Path | None = None
        self._folder = folder
        # Told apart by split, file and row, so that a row can't pass for one of another file.
        self._first_position = (SPLITS.index(folder) << 56) + (number << 40) if folder in SPLITS else None
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._pending_bytes = np.zeros(0, np.int64)
        self._groups: list[int] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        self._pending.append(rows)
        self._pending_rows += len(rows)
        self._pending_bytes = np.concatenate([self._pending_bytes, bytes_of_rows(rows)])
        while due := self._due():
            self._write_group(due)

    def close(self) -> dict[str, Any] | None:
        if self._pending_rows:
            self._write_group(self._pending_rows)
        if self._writer is None or self._temporary is None:
            return None
        self._writer.close()
        checksum, size = _sha256(self._temporary), self._temporary.stat().st_size
        # Attempts write the same bytes, so the last one to come may replace the others.
        self._open.close()
        return {
            "split": self._folder,
            "path": self._name,
            "row_groups": self._groups,
            "bytes": size,
            "sha256": checksum,
            "first_position": self._first_position,
        }

    def _due(self) -> int | None:
        """Return how many of the pending rows make a row group; None where they do not yet."""
        full = int(np.searchsorted(np.cumsum(self._pending_bytes), GROUP_BYTES)) + 1
        due = min(full, self._plan.rows_per_group)
        return due if due <= self._pending_rows else None

    def _write_group(self, rows: int) -> None:
        table = pa.concat_tables(self._pending)
        # One chunk a column: the writer's pages follow the chunks, and the chunks follow the partitioning.
        group = _one_chunk(table.slice(0, rows))
        if self._first_position is not None:
            first = self._first_position + sum(self._groups)
            group = group.add_column(2, POSITION, pa.array(np.arange(first, first + rows, dtype=np.int64)))
        rest, self._pending_bytes = table.slice(rows), self._pending_bytes[rows:]
        self._pending, self._pending_rows = ([rest] if len(rest) else []), len(rest)
        if self._writer is None:
            # Not its parents: an attempt that comes too late would make the staging folder again.
            self._path.parent.mkdir(parents=False, exist_ok=True)
            self._temporary = self._open.enter_context(new_file(self._path))
            as_it_is = (NUMERIC, CATEGORICAL) if self._plan.packed else ()
            self._writer = pq.ParquetWriter(
                self._temporary,
                group.schema,
                # Packed values and images hardly become smaller, and are read several times faster as they are.
                compression={
                    field.name: "none" if field.name in as_it_is or pa.types.is_binary(field.type) else "snappy"
                    for field in group.schema
                },
                use_dictionary=_dictionary_columns(group.schema),
                # Numbers that count up by one take no space in this form.
                column_encoding={POSITION: "DELTA_BINARY_PACKED"} if POSITION in group.column_names else None,
                # By which the feed knows a damaged page.
                write_page_checksum=True,
            )
        self._writer.write_table(group, row_group_size=rows)
        self._groups.append(rows)


def bytes_of_rows(rows: pa.Table) -> NDArray[np.int64]:
    """Return (rows,) what each row takes in columns of bytes."""
    total = np.zeros(len(rows), np.int64)
    for field in rows.schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            total += pc.fill_null(pc.binary_length(rows[field.name]), 0).to_numpy().astype(np.int64)
    return total


def _one_chunk(table: pa.Table) -> pa.Table:
    """Copy the rows so that no buffer's offset or spare validity bitmap can show in the file."""
    return table.take(pa.array(np.arange(len(table)))).combine_chunks()


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Return the columns worth a dictionary; for floats it would cost size (46 % for wide-ranging ones)."""
    return [
        field.name
        for field in schema
        if field.name != POSITION and (pa.types.is_integer(field.type) or pa.types.is_string(field.type))
    ]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
