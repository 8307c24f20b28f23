"""What one bucket says of its training rows: moments, sketches and counts, to be merged on the driver."""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakefit.config.features import Features
from lakefit.prepare.blocks import KEY_HIGH
from lakefit.prepare.features import as_lists, as_text
from lakefit.prepare.hashing import HIGH_SEED, hash_rows
from lakefit.prepare.sketch import REGISTERS, distinct, registers_of
from lakefit.prepare.staged import as_numbers, is_number
from lakefit.prepare.statistics import (
    LEAF_BITS,
    Summary,
    concatenate,
    leaf_moments,
    merge_up,
    pack_moments,
    summary_of,
    unpack_moments,
)

MAX_COUNTED = 10_000
"""The most frequent values are counted, exactly, where a column has at most so many distinct ones."""
RESULT_FIELDS = "moments BINARY, registers BINARY, counts STRING"


def tally(training: pa.Table, columns: Sequence[str], features: Features, bucket_bits: int) -> dict[str, pa.Array]:
    """Return one row of `RESULT_FIELDS` of a bucket's training rows, sorted by their key hash."""
    numbers = [name for name in columns if is_number(training.schema.field(name).type)]
    values = np.empty((len(training), len(numbers)))
    for place, name in enumerate(numbers):
        values[:, place] = as_numbers(training[name])
    moments = merge_up(leaf_moments(values, training[KEY_HIGH].to_numpy()), LEAF_BITS, bucket_bits)
    registers = np.zeros((len(columns), REGISTERS), np.uint8)
    counts: dict[str, list[list[Any]] | None] = {}
    nulls: dict[str, int] = {}
    for place, name in enumerate(columns):
        known = training[name].drop_null()
        nulls[name] = len(training) - len(known)
        registers[place] = registers_of(hash_rows([known], len(known), HIGH_SEED))
        counts[name] = _counts(known) if distinct(registers[place]) <= MAX_COUNTED else None
    learned = {
        name: _value_counts(as_text(training[name]).drop_null())
        for section in features.categorical
        if section.hash_buckets is None
        for name in section.columns
    }
    cut: dict[str, int] = {}
    for multi in features.multi_valued:
        for name in multi.columns:
            lists = as_lists(training[name])
            learned[name] = _value_counts(_once_a_row(lists))
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
            cut[name] = int(np.maximum(lengths - multi.max_values, 0).sum())
    return {
        "moments": pa.array([pack_moments(moments)], pa.binary()),
        "registers": pa.array([zlib.compress(registers.tobytes(), 1)], pa.binary()),
        "counts": pa.array([json.dumps({"columns": counts, "nulls": nulls, "learned": learned, "cut": cut})]),
    }


@dataclass(frozen=True, slots=True)
class Totals:
    """The tallies of all buckets, merged.

    summaries: of the columns that are numbers. distinct: estimates. counts: exact counts of values, None for a column
    of more than `MAX_COUNTED`. learned: exact counts of the texts of features with a vocabulary. cut: list values left
    out.
    """

    rows: int
    nulls: Mapping[str, int]
    summaries: Mapping[str, Summary]
    distinct: Mapping[str, int]
    counts: Mapping[str, Mapping[Any, int] | None]
    learned: Mapping[str, Mapping[str, int]]
    cut: Mapping[str, int]


def total(results: pa.Table, columns: Sequence[str], numbers: Sequence[str], rows: int, bucket_bits: int) -> Totals:
    """Merge the rows of `RESULT_FIELDS`; rows: of the training split; numbers: the columns with moments."""
    parts = [unpack_moments(packed, len(numbers)) for packed in results["moments"].to_pylist()]
    root = merge_up(concatenate(parts, len(numbers)), bucket_bits, 0)
    summaries = {name: summary_of(root, place) for place, name in enumerate(numbers)}
    registers = np.zeros((len(columns), REGISTERS), np.uint8)
    for packed in results["registers"].to_pylist():
        np.maximum(registers, np.frombuffer(zlib.decompress(packed), np.uint8).reshape(registers.shape), out=registers)
    tallies = [json.loads(text) for text in results["counts"].to_pylist()]
    estimates = {name: distinct(registers[place]) for place, name in enumerate(columns)}
    counts = {
        name: _merged(tally["columns"][name] for tally in tallies)
        if estimates[name] <= MAX_COUNTED and all(tally["columns"][name] is not None for tally in tallies)
        else None
        for name in columns
    }
    learned_names = tallies[0]["learned"] if tallies else ()
    cut: Counter[str] = Counter()
    for one in tallies:
        cut.update(one["cut"])
    nulls: Counter[str] = Counter()
    for one in tallies:
        nulls.update(one["nulls"])
    return Totals(
        rows=rows,
        nulls=nulls,
        summaries=summaries,
        distinct=estimates,
        counts=counts,
        learned={name: _merged(tally["learned"][name] for tally in tallies) for name in learned_names},
        cut=cut,
    )


def _counts(known: pa.ChunkedArray) -> list[list[Any]] | None:
    if is_number(known.type):
        return _value_counts(pa.array(as_numbers(known)))
    if pa.types.is_string(known.type) or pa.types.is_large_string(known.type):
        return _value_counts(known)
    return None


def _value_counts(values: pa.Array | pa.ChunkedArray) -> list[list[Any]]:
    return [[entry["values"], entry["counts"]] for entry in pc.value_counts(values).to_pylist()]


def _once_a_row(lists: pa.ListArray) -> pa.Array:
    """Return the values of all lists, each once a row."""
    rows = pc.list_parent_indices(lists)
    pairs = pa.table({"row": rows, "value": pc.list_flatten(lists)}).group_by(["row", "value"]).aggregate([])
    return pairs["value"].drop_null()


def _merged(parts: Iterable[list[list[Any]]]) -> dict[Any, int]:
    merged: Counter[Any] = Counter()
    for part in parts:
        for value, count in part:
            merged[value] += count
    return dict(merged)
