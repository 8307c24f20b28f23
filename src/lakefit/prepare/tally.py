"""What one bucket says of its training rows: moments, sketches and counts, to be merged on the driver."""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.config.features import Features
from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import KEY_HIGH, from_cell, to_cell
from lakefit.prepare.features import as_lists, as_text
from lakefit.prepare.hashing import HIGH_SEED, hash_rows
from lakefit.prepare.quantiles import first_bins
from lakefit.prepare.sketch import REGISTERS, distinct, registers_of
from lakefit.prepare.staged import Staged, as_numbers, is_number
from lakefit.prepare.statistics import (
    Floats,
    Summary,
    bucket_moments,
    concatenate,
    merge_up,
    pack_moments,
    summary_of,
    summary_of_counts,
    unpack_moments,
)

MAX_COUNTED = 10_000
"""Values are counted, exactly, where a column has at most so many distinct ones."""
# So many rows tell whether a column has clearly more: then counting all of it would be for nothing.
_HEAD = 1 << 16
_BINARY = ("moments", "registers", "numbers", "texts", "codes", "learned", "bins")
RESULT_FIELDS = ", ".join([*(f"{name} BINARY" for name in _BINARY), "facts STRING"])

Integers = NDArray[np.int64]
Column: TypeAlias = pa.Array | pa.ChunkedArray


@dataclass(frozen=True, slots=True)
class Counts:
    """Distinct values, ascending, and the rows of each; `values` is float64 or text."""

    values: pa.Array
    rows: Integers


def tally(training: pa.Table, columns: Sequence[str], features: Features, bucket_bits: int) -> dict[str, pa.Array]:
    """Return one row of `RESULT_FIELDS` of a bucket's training rows, sorted by their key hash."""
    vocabularies = {name for group in features.categorical if group.hash_buckets is None for name in group.columns}
    widths = {name: group.max_values for group in features.multi_valued for name in group.columns}
    number_columns = [name for name in columns if is_number(training.schema.field(name).type)]
    values = {name: as_numbers(training[name]) for name in number_columns}
    moments_of: dict[str, Floats | None] = {**values}
    registers = np.zeros((len(columns), REGISTERS), np.uint8)
    numbers, texts, learned = _Pile(pa.float64()), _Pile(pa.string()), _Pile(pa.string())
    codes, bins = _Pile(pa.int64()), _Pile(pa.int64())
    for place, name in enumerate(columns):
        known = training[name].drop_null()
        number, text = name in values, pa.types.is_string(known.type)
        counted = _value_counts(known) if name in vocabularies or ((number or text) and _few(known)) else None
        shown = known if counted is None else counted[0]
        registers[place] = registers_of(hash_rows([shown], len(shown), HIGH_SEED))
        coded = name in vocabularies and _is_code(known.type)
        if coded and counted is not None:
            codes.add(place, _as_code(counted[0]), counted[1])
            moments_of[name] = None
        elif counted is not None and (number or text) and distinct(registers[place]) <= MAX_COUNTED:
            pile, of_type = (numbers, pa.array(as_numbers(counted[0]))) if number else (texts, counted[0])
            pile.add(place, of_type, counted[1])
            if number:
                # The driver takes the moments of counted numbers from their counts.
                moments_of[name] = None
        elif number:
            found = first_bins(values[name][~np.isnan(values[name])])
            bins.add(place, pa.array(np.flatnonzero(found)), found[found > 0])
        if name in vocabularies and counted is not None and not coded:
            learned.add(place, as_text(counted[0]), counted[1])
        if name in widths:
            learned.add(place, *_value_counts(once_a_row(as_lists(training[name]))))
    moments = bucket_moments(moments_of.values(), training[KEY_HIGH].to_numpy(), bucket_bits)
    facts = {
        "nulls": {name: training[name].null_count for name in columns},
        "cut": {name: _beyond(as_lists(training[name]), width) for name, width in widths.items()},
        "counted": sorted({*numbers.places, *texts.places}),
        "coded": codes.places,
    }
    return {
        "moments": pa.array([pack_moments(moments)], pa.binary()),
        "registers": pa.array([zlib.compress(registers.tobytes(), 1)], pa.binary()),
        "numbers": numbers.packed(),
        "texts": texts.packed(),
        "codes": codes.packed(),
        "learned": learned.packed(),
        "bins": bins.packed(),
        "facts": pa.array([json.dumps(facts)]),
    }


def sum_counts(tallies: Sequence[dict[str, pa.Array]]) -> None:
    """Put the counts of all buckets of a partition into the first one's: the driver gets each value once."""
    for name in ("numbers", "texts", "codes", "learned", "bins") if len(tallies) > 1 else ():
        counts = pa.concat_tables([from_cell(one[name][0]) for one in tallies])
        summed = counts.group_by(["column", "value"]).aggregate([("rows", "sum")])
        nothing = to_cell(counts.slice(0, 0))
        for one in tallies:
            one[name] = nothing
        tallies[0][name] = to_cell(summed.rename_columns(["column", "value", "rows"]).cast(counts.schema))


@dataclass(frozen=True, slots=True)
class Totals:
    """The tallies of all buckets, merged.

    summaries: of the columns that are numbers. distinct: estimates. counts: exact counts of numbers and texts, None for
    a column of more than `MAX_COUNTED` or of another type. bins: of numbers that are not counted, how many values have
    which first bits (see `quantiles`). learned: exact counts of the texts of features with a vocabulary. cut: list
    values left out.
    """

    rows: int
    nulls: Mapping[str, int]
    summaries: Mapping[str, Summary]
    distinct: Mapping[str, int]
    counts: Mapping[str, Counts | None]
    bins: Mapping[str, Integers]
    learned: Mapping[str, Counts]
    cut: Mapping[str, int]


def total(results: pa.Table, columns: Sequence[str], numbers: Sequence[str], training: Staged) -> Totals:
    """Merge the rows of `RESULT_FIELDS`; training: the staged rows that they are of; numbers: columns with moments."""
    registers = np.zeros((len(columns), REGISTERS), np.uint8)
    for packed in results["registers"].to_pylist():
        one_bucket = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(registers.shape)
        np.maximum(registers, one_bucket, out=registers)
    estimates = {name: distinct(registers[place]) for place, name in enumerate(columns)}
    facts = [json.loads(text) for text in results["facts"].to_pylist()]
    few = {
        name
        for place, name in enumerate(columns)
        if estimates[name] <= MAX_COUNTED and all(place in one["counted"] for one in facts)
    }
    of_numbers = _merged(results["numbers"], pa.float64(), columns)
    of_texts = _merged(results["texts"], pa.string(), columns)
    learned = _merged(results["learned"], pa.string(), columns)
    codes = _merged(results["codes"], pa.int64(), columns)
    for name in {columns[place] for one in facts for place in one["coded"]}:
        # Counted whole, however many there are.
        few.add(name)
        of_numbers[name] = Counts(codes[name].values.cast(pa.float64(), safe=False), codes[name].rows)
        learned[name] = _as_texts(codes[name])
    parts = [unpack_moments(packed, len(numbers)) for packed in results["moments"].to_pylist()]
    root = merge_up(concatenate(parts, len(numbers)), training.bucket_bits, 0)
    summaries: dict[str, Summary] = {}
    bins: dict[str, Integers] = {}
    unsummed: list[str] = []
    for place, name in enumerate(numbers):
        counted = of_numbers[name]
        values = counted.values.to_numpy()
        if name in few:
            summaries[name] = summary_of_counts(values, counted.rows)
            continue
        # Some buckets may have counted what all together have too many of.
        bins[name] = first_bins(values, counted.rows)
        summaries[name] = summary_of(root, place)
        if len(values):
            unsummed.append(name)
    for name, found in _merged(results["bins"], pa.int64(), columns).items():
        if name in bins:
            bins[name][found.values.to_numpy()] += found.rows
    moments = training.moments(dict.fromkeys(unsummed, _as_column), 1)
    summaries |= {name: summary for name, (summary,) in moments.items()}
    return Totals(
        rows=training.rows,
        nulls=_summed(one["nulls"] for one in facts),
        summaries=summaries,
        distinct=estimates,
        counts={
            name: None if name not in few else of_numbers[name] if name in numbers else of_texts[name]
            for name in columns
        },
        bins=bins,
        learned=learned,
        cut=_summed(one["cut"] for one in facts),
    )


class _Pile:
    """Values of several columns with their rows, to be sent to the driver as one table."""

    def __init__(self, of_type: pa.DataType) -> None:
        self._schema = pa.schema([("column", pa.int32()), ("value", of_type), ("rows", pa.int64())])
        self._parts: list[pa.Table] = []
        self.places: list[int] = []

    def add(self, place: int, values: pa.Array, rows: Column | Integers) -> None:
        columns = pa.array(np.full(len(values), place, np.int32))
        self._parts.append(pa.Table.from_arrays([columns, values, pa.array(rows)], schema=self._schema))
        self.places.append(place)

    def packed(self) -> pa.Array:
        table = pa.concat_tables(self._parts) if self._parts else self._schema.empty_table()
        return to_cell(table)


def _merged(packed: pa.ChunkedArray, of_type: pa.DataType, columns: Sequence[str]) -> dict[str, Counts]:
    """Return the sum of several piles by column."""
    nothing = Counts(pa.array([], of_type), np.zeros(0, np.int64))
    found = dict.fromkeys(columns, nothing)
    if not len(packed):
        return found
    table = pa.concat_tables([from_cell(one) for one in packed])
    summed = table.group_by(["column", "value"]).aggregate([("rows", "sum")])
    summed = summed.sort_by([("column", "ascending"), ("value", "ascending")]).combine_chunks()
    places, starts = np.unique(summed["column"].to_numpy(), return_index=True)
    ends = np.append(starts, len(summed))[1:]
    for place, start, end in zip(places, starts, ends, strict=True):
        mine = summed.slice(start, end - start)
        found[columns[place]] = Counts(one_array(mine["value"]), mine["rows_sum"].to_numpy())
    return found


def _as_column(values: Floats) -> Floats:
    return values[:, None]


def _summed(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def _few(known: pa.ChunkedArray) -> bool:
    """Return whether a column may have at most `MAX_COUNTED` values; a doubtful one is counted and then looked at."""
    return bool(pc.count_distinct(known.slice(0, _HEAD)).as_py() <= 2 * MAX_COUNTED)


def _value_counts(values: Column) -> tuple[pa.Array, pa.Array]:
    counted = pc.value_counts(values)
    return counted.field(0), counted.field(1)


def _is_code(of_type: pa.DataType) -> bool:
    return bool(pa.types.is_signed_integer(of_type) or pa.types.is_boolean(of_type))


def _as_code(values: pa.Array) -> pa.Array:
    return (values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values).cast(pa.int64())


def _as_texts(codes: Counts) -> Counts:
    """Return integers as their text, which is ascending in another order."""
    texts = codes.values.cast(pa.string())
    order = pc.sort_indices(texts)
    return Counts(texts.take(order), codes.rows[order.to_numpy()])


def once_a_row(lists: pa.ListArray) -> pa.Array:
    """Return the values of all lists, each once a row."""
    rows = pc.list_parent_indices(lists)
    pairs = pa.table({"row": rows, "value": pc.list_flatten(lists)}).group_by(["row", "value"]).aggregate([])
    return pairs["value"].drop_null()


def _beyond(lists: pa.ListArray, width: int) -> int:
    """Return how many values stand beyond the first `width` of their lists."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return int(np.maximum(lengths - width, 0).sum())
