"""What happens to a bucket after the shuffle: deduplicate, reject, split, count, stage. Arrow in, Arrow out."""

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.config.features import Features
from lakefit.config.rows import SPLITS, Label, Split
from lakefit.config.sql import FIELD, RECORD_END
from lakefit.dataset.object_path import address_of, any_path
from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import (
    CORRECTED,
    FILE,
    HEADER,
    KEY_HIGH,
    NOT_FINITE,
    RECORD,
    ROW_HIGH,
    ROW_LOW,
    UNPARSABLE,
    rows_of,
)
from lakefit.prepare.clean import RULE, label_column, weight_column
from lakefit.prepare.deduplicate import OCCURRENCE, Deduplication, first_of_key, occurrences, row_order
from lakefit.prepare.spill import Partition, Rows
from lakefit.prepare.split import IN_GAP, NO_SPLIT, assign_split, check_keys, group_of
from lakefit.prepare.staged import SPLIT, write_staged
from lakefit.prepare.tally import RESULT_FIELDS, once_a_row, sum_counts, tally

IDENTITY = "_row"
GROUP = "_group"
STAGED = (*SPLITS, "duplicates", "rejects")
BROKEN, HEADER_INSIDE, NULL_KEY, GAP, SPLITLESS = -1, -2, -3, -4, -5
REASONS = {
    BROKEN: "the line does not fit the schema",
    HEADER_INSIDE: "a header line inside the file",
    NULL_KEY: "every column of the deduplication key is null",
    GAP: "in the gap between two splits",
    SPLITLESS: "the split's column does not say which",
}
RESULT_SCHEMA = f"bucket INT, summary STRING, {RESULT_FIELDS}"
OTHER = "other"
"""Stands for the binary labels that are neither 0 nor 1."""
_KEPT, _DUPLICATE, _REJECTED, _HEADER = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """All that a task needs to know to finish a bucket. marks: so many of the first reasons are of `clean`."""

    staging: str
    bucket_bits: int
    columns: tuple[str, ...]
    deduplication: Deduplication
    key: tuple[str, ...]
    keep_null_key: bool
    reasons: tuple[str, ...]
    marks: int
    split: Split
    features: Features
    labels: tuple[Label, ...]

    @property
    def tallied(self) -> tuple[str, ...]:
        """The columns of which statistics are kept: all that are values, and a regression's labels."""
        return (*self.columns, *(label_column(label) for label in self.labels if label.type == "regression"))

    @property
    def judging(self) -> tuple[str, ...]:
        """The value columns by which a row's fate is decided here."""
        split = self.split
        time = (split.time.column,) if split.time is not None else ()
        column = (split.column,) if split.column is not None else ()
        return tuple(dict.fromkeys((*self.key, *(split.by or ()), *(split.stratify or ()), *time, *column)))


def finish_buckets(batches: Iterable[pa.RecordBatch], plan: BucketPlan) -> Iterator[pa.RecordBatch]:
    """Finish the buckets of a partition (rows of `blocks.BLOCKS_SCHEMA`); yield one row of `RESULT_SCHEMA` for each."""
    arrived = [0, 0, 0]
    with Partition(plan.bucket_bits) as partition:
        for batch in batches:
            for rows in rows_of(batch["block"]):
                partition.add(rows)
            for place, name in enumerate(("rows", "hi_sum", "lo_sum")):
                arrived[place] += sum(int(value) for value in batch[name].to_pylist())
        finished = [(bucket, *_finish(bucket, found, plan)) for bucket, found in partition.buckets()]
    sum_counts([tallied for _, _, tallied in finished])
    for bucket, summary, tallied in finished:
        # What the blocks counted is of the partition: its first bucket says it.
        summary["arrived"] = [arrived[0], *(half % (1 << 64) for half in arrived[1:])]
        arrived = [0, 0, 0]
        first = {"bucket": pa.array([bucket], pa.int32()), "summary": pa.array([json.dumps(summary)])}
        yield pa.RecordBatch.from_pydict({**first, **tallied})


def _finish(bucket: int, found: Rows, plan: BucketPlan) -> tuple[dict[str, Any], dict[str, pa.Array]]:
    order = row_order(found, plan.deduplication)
    # The fate of a row is decided by a few columns; the others are copied once, to where the row goes.
    values = set(plan.columns) - set(plan.judging)
    rows = found.take(order, [name for name in found.names if name not in values])
    rows = rows.combine_chunks().append_column(OCCURRENCE, occurrences(rows))
    rows = rows.append_column(IDENTITY, _identity(rows))
    state, first, rule = _judge(rows, plan)
    split = _split(rows, state, rule, plan)
    hidden = [name for name in rows.column_names if name not in plan.judging]

    def whole(places: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Yield rows by their places in `rows`, with all their values, so many at a time as memory is meant for."""
        for some in found.slices(places):
            narrow, wide = rows.select(hidden).take(pa.array(some)), found.take(order[some], plan.columns)
            yield some, pa.table({**{n: narrow[n] for n in hidden}, **{n: wide[n] for n in plan.columns}})

    of_split = {name: np.flatnonzero((state == _KEPT) & (split == number)) for number, name in enumerate(SPLITS)}
    kept = {
        name: pa.concat_tables([_kept_rows(part, number, plan) for _, part in whole(places)])
        for number, (name, places) in enumerate(of_split.items())
    }
    duplicates, rejects = np.flatnonzero(state == _DUPLICATE), np.flatnonzero(state == _REJECTED)
    files = {name: _stage([kept[name]], name, bucket, plan) for name in SPLITS}
    found_twice = (_duplicate_rows(part, rows, first[some], plan) for some, part in whole(duplicates))
    files["duplicates"] = _stage(found_twice, "duplicates", bucket, plan)
    rejected = (_rejected_rows(part, rule[some], plan) for some, part in whole(rejects))
    files["rejects"] = _stage(rejected, "rejects", bucket, plan)
    tallied = tally(kept["train"], plan.tallied, plan.features, plan.bucket_bits)
    summary = {
        "headers": int((state == _HEADER).sum()),
        "not_finite": int(pc.sum(pc.fill_null(rows[NOT_FINITE], 0)).as_py() or 0),
        "unparsable": _counted(rows[UNPARSABLE], 2),
        "corrected": _counted(rows[CORRECTED], 4),
        "kept": {name: len(places) for name, places in of_split.items()},
        "duplicates": len(duplicates),
        "rejected": {int(k): int(v) for k, v in Counter(rule[rejects].tolist()).items()},
        "strata": _strata(rows, of_split, plan.split),
        "labels": {
            label.name: {name: _label_counts(part[label_column(label)], label.type) for name, part in kept.items()}
            for label in plan.labels
        },
        "bad_weights": {
            label.name: sum(_bad_weights(part[weight_column(label)]) for part in kept.values())
            for label in plan.labels
            if label.weight is not None
        },
        "files": _by_file(rows, state),
        "staged": files,
    }
    return summary, tallied


def _judge(table: pa.Table, plan: BucketPlan) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int32]]:
    """Return per row its state, the row kept for its key, and the rule that rejects it."""
    header = table[HEADER].to_numpy()
    broken = pc.is_valid(table[RECORD]).to_numpy() & ~header
    state = np.full(len(table), _KEPT, np.int8)
    rule = pc.fill_null(table[RULE], 0).to_numpy().astype(np.int32)
    judged = pc.is_valid(table[RULE]).to_numpy()
    first = first_of_key(table, plan.deduplication)
    keyless = np.zeros(len(table), bool)
    if plan.key and plan.deduplication.remove:
        keyless = np.logical_and.reduce([pc.is_null(table[name]).to_numpy() for name in plan.key])
    if plan.keep_null_key:
        first = np.where(keyless, np.arange(len(table)), first)
        keyless = np.zeros(len(table), bool)
    # A key that is NULL because it did not parse is said to be that.
    nameless = keyless & ~(judged & (rule < plan.marks))
    for where, number in ((judged, None), (nameless, NULL_KEY), (broken, BROKEN), (header, HEADER_INSIDE)):
        state[where] = _REJECTED
        if number is not None:
            rule[where] = number
    outside = broken | header | keyless
    state[(first != np.arange(len(table))) & ~outside] = _DUPLICATE
    # Each file has one header, as its first line; further lines like it are rows that are none.
    headers = np.flatnonzero(header)
    files = table[FILE].take(pa.array(headers)).to_pylist()
    own = {file: int(row) for row, file in reversed(list(zip(headers, files, strict=True)))}
    state[list(own.values())] = _HEADER
    return state, first, rule


def _split(table: pa.Table, state: NDArray[np.int8], rule: NDArray[np.int32], plan: BucketPlan) -> NDArray[np.int8]:
    """Return the split of each kept row; rows that no split takes become rejects in `state` and `rule`."""
    kept = np.flatnonzero(state == _KEPT)
    candidates = table if len(kept) == len(table) else table.take(pa.array(kept))
    assigned = assign_split(candidates, plan.split)
    check_keys(candidates, assigned)
    for none, number in ((IN_GAP, GAP), (NO_SPLIT, SPLITLESS)):
        state[kept[assigned == none]] = _REJECTED
        rule[kept[assigned == none]] = number
    split = np.full(len(table), NO_SPLIT, np.int8)
    split[kept] = assigned
    return split


def _identity(table: pa.Table) -> pa.Array:
    """Return the 128-bit identities as 16 bytes, big-endian: byte order is number order."""
    words = np.empty((len(table), 2), ">u8")
    words[:, 0], words[:, 1] = table[ROW_HIGH].to_numpy(), table[ROW_LOW].to_numpy()
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(table), [None, pa.py_buffer(words.tobytes())])


def _kept_rows(rows: pa.Table, split: int, plan: BucketPlan) -> pa.Table:
    labels = (label_column(label) for label in plan.labels)
    weights = (weight_column(label) for label in plan.labels if label.weight is not None)
    hidden = (IDENTITY, OCCURRENCE, KEY_HIGH, *labels, *weights)
    columns = {name: rows[name] for name in hidden}
    columns[SPLIT] = pa.array(np.full(len(rows), split, np.int8))
    group = group_of(rows, plan.split)
    if group is not None:
        columns[GROUP] = pa.array(group)
    return pa.table({**columns, **{name: rows[name] for name in plan.columns}})


def _duplicate_rows(found: pa.Table, rows: pa.Table, first: NDArray[np.int64], plan: BucketPlan) -> pa.Table:
    """first: for each of the rows found, the place in `rows` of the one kept."""
    kept = rows.select([IDENTITY, OCCURRENCE]).take(pa.array(first))
    found = found.select([IDENTITY, OCCURRENCE, KEY_HIGH, *plan.columns])
    found = found.add_column(2, "_kept_row", kept[IDENTITY])
    return found.add_column(3, "_kept_occurrence", kept[OCCURRENCE])


def _rejected_rows(found: pa.Table, rule: NDArray[np.int32], plan: BucketPlan) -> pa.Table:
    rules = rule.tolist()
    reasons = [plan.reasons[number] if number >= 0 else REASONS[number] for number in rules]
    texts = [_readable(text) for text in found[UNPARSABLE].to_pylist()]
    found = found.select([IDENTITY, OCCURRENCE, KEY_HIGH, FILE, RECORD, *plan.columns])
    found = found.set_column(3, FILE, found[FILE].cast(pa.string()))
    found = found.add_column(5, "_unparsable", pa.array(texts, pa.string()))
    found = found.add_column(2, "_reason", pa.array(reasons, pa.string()))
    return found.add_column(2, "_rule", pa.array(rules, pa.int32()))


def _stage(parts: Iterable[pa.Table], kind: str, bucket: int, plan: BucketPlan) -> str | None:
    """Write a bucket's rows under a name of this attempt's own; return it, or None where there are no rows."""
    name = address_of(any_path(plan.staging) / f"{kind}-{bucket:05d}-{uuid.uuid4().hex}.arrow")
    return name if write_staged(name, parts) else None


def _label_counts(label: pa.ChunkedArray, kind: str) -> dict[str, Any]:
    """Return the rows by class (none for a regression), and how many labels are NULL."""
    counts: dict[str, int] = {}
    if kind == "multi_label":
        values = once_a_row(one_array(label))
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    elif kind == "classes":
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(label.drop_null()).to_pylist()}
    elif kind == "binary":
        values = label.drop_null().to_numpy()
        zeros, ones = int((values == 0).sum()), int((values == 1).sum())
        counts = {"0": zeros, "1": ones}
        if zeros + ones < len(values):
            counts[OTHER] = len(values) - zeros - ones
    return {"rows": len(label), "null": label.null_count, "classes": counts}


def _bad_weights(column: pa.ChunkedArray) -> int:
    weights = pc.fill_null(column, -1.0).to_numpy()
    return int((~(weights >= 0) | np.isinf(weights)).sum())


def _counted(records: pa.ChunkedArray, fields: int) -> list[list[Any]]:
    """Return how often each first `fields` fields of the records stand in a column, as [field, …, count]."""
    totals: Counter[tuple[str, ...]] = Counter()
    for pair in pc.value_counts(pc.drop_null(records)).to_pylist():
        for record in pair["values"].split(RECORD_END):
            totals[tuple(record.split(FIELD)[:fields])] += pair["counts"]
    return [[*record, count] for record, count in sorted(totals.items())]


def _readable(records: str | None) -> str | None:
    """Return the values that did not parse as `column: text; …`."""
    if records is None:
        return None
    parts = (record.split(FIELD) for record in records.split(RECORD_END))
    return "; ".join(f"{column}: {text}" for _, column, text in parts)


def _strata(rows: pa.Table, of_split: Mapping[str, NDArray[np.int64]], section: Split) -> list[list[Any]]:
    """Return the rows of each stratum by split, as [value, …, train, validation, test]."""
    if section.stratify is None:
        return []
    columns = {str(i): rows[name].cast(pa.string()) for i, name in enumerate(section.stratify)}
    for name, places in of_split.items():
        inside = np.zeros(len(rows), np.int64)
        inside[places] = 1
        columns[name] = pa.array(inside)
    keys = [str(i) for i in range(len(section.stratify))]
    summed = pa.table(columns).group_by(keys).aggregate([(name, "sum") for name in SPLITS])
    found = [list(row.values()) for row in summed.select([*keys, *(f"{n}_sum" for n in SPLITS)]).to_pylist()]
    return [row for row in found if sum(row[-len(SPLITS) :])]


def _by_file(table: pa.Table, state: NDArray[np.int8]) -> dict[str, list[int]]:
    """Return per file the rows kept, duplicate and rejected."""
    dictionary = one_array(table[FILE])
    names = dictionary.dictionary.to_pylist()
    files = dictionary.indices.to_numpy()
    counts = np.bincount(files[state != _HEADER] * 3 + state[state != _HEADER], minlength=3 * len(names))
    return {name: counts[3 * i : 3 * i + 3].tolist() for i, name in enumerate(names)}
