"""What happens to a bucket after the shuffle: deduplicate, reject, split, count, stage. Arrow in, Parquet out."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakefit.config.features import Features
from lakefit.config.rows import SPLITS, Label, Split
from lakefit.config.sql import FIELD, RECORD_END
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
    from_cells,
)
from lakefit.prepare.clean import LABEL, RULE, WEIGHT
from lakefit.prepare.deduplicate import OCCURRENCE, Deduplication, first_of_key, sort_rows
from lakefit.prepare.split import IN_GAP, NO_SPLIT, assign_split, check_keys, group_of
from lakefit.prepare.staged import SPLIT
from lakefit.prepare.tally import RESULT_FIELDS, tally

IDENTITY = "_row"
GROUP = "_group"
STAGED = ("kept", "duplicates", "rejects")
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
    """All that a task needs to know to finish a bucket."""

    staging: str
    bucket_bits: int
    columns: tuple[str, ...]
    deduplication: Deduplication
    key: tuple[str, ...]
    keep_null_key: bool
    reasons: tuple[str, ...]
    split: Split
    features: Features
    label: Label

    @property
    def tallied(self) -> tuple[str, ...]:
        """The columns of which statistics are kept: all that are values, and a regression's label."""
        return (*self.columns, LABEL) if self.label.type == "regression" else self.columns


def finish_buckets(batches: Iterable[pa.RecordBatch], plan: BucketPlan) -> Iterator[pa.RecordBatch]:
    """Finish the buckets of a partition (rows of `blocks.BLOCKS_SCHEMA`); yield one row of `RESULT_SCHEMA` for each."""
    arrived = [batch for batch in batches if batch.num_rows]
    if not arrived:
        return
    blocks = pa.Table.from_batches(arrived)
    for bucket in sorted(set(blocks["bucket"].to_pylist())):
        mine = blocks.filter(pc.equal(blocks["bucket"], bucket))
        summary, tallied = _finish(bucket, mine, plan)
        first = {"bucket": pa.array([bucket], pa.int32()), "summary": pa.array([json.dumps(summary)])}
        yield pa.RecordBatch.from_pydict({**first, **tallied})


def _finish(bucket: int, blocks: pa.Table, plan: BucketPlan) -> tuple[dict[str, Any], dict[str, pa.Array]]:
    table = sort_rows(from_cells(blocks["block"]), plan.deduplication)
    state, first, rule = _judge(table, plan)
    table = table.append_column(IDENTITY, _identity(table))
    kept, split = _split(table, state, rule, plan)
    files = {
        "kept": _stage(_kept_rows(kept, split, plan), "kept", bucket, plan),
        "duplicates": _stage(_duplicate_rows(table, state, first, plan), "duplicates", bucket, plan),
        "rejects": _stage(_rejected_rows(table, state, rule, plan), "rejects", bucket, plan),
    }
    of_split = {name: kept.filter(pa.array(split == number)) for number, name in enumerate(SPLITS)}
    tallied = tally(of_split["train"], plan.tallied, plan.features, plan.bucket_bits)
    sums = [sum(int(value) for value in blocks[name].to_pylist()) % (1 << 64) for name in ("hi_sum", "lo_sum")]
    summary = {
        "arrived": [sum(blocks["rows"].to_pylist()), *sums],
        "headers": int((state == _HEADER).sum()),
        "not_finite": int(pc.sum(pc.fill_null(table[NOT_FINITE], 0)).as_py() or 0),
        "unparsable": _counted(table[UNPARSABLE], 2),
        "corrected": _counted(table[CORRECTED], 4),
        "kept": {name: len(rows) for name, rows in of_split.items()},
        "duplicates": int((state == _DUPLICATE).sum()),
        "rejected": {int(k): int(v) for k, v in Counter(rule[state == _REJECTED].tolist()).items()},
        "strata": _strata(kept, split, plan.split),
        "labels": {name: _label_counts(rows[LABEL], plan.label.type) for name, rows in of_split.items()},
        "bad_weights": _bad_weights(kept, plan.label),
        "files": _by_file(table, state),
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
    for where, number in ((judged, None), (keyless, NULL_KEY), (broken, BROKEN), (header, HEADER_INSIDE)):
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


def _split(
    table: pa.Table, state: NDArray[np.int8], rule: NDArray[np.int32], plan: BucketPlan
) -> tuple[pa.Table, NDArray[np.int8]]:
    """Return the kept rows and their splits; rows that no split takes become rejects in `state` and `rule`."""
    rows = np.flatnonzero(state == _KEPT)
    candidates = table.take(pa.array(rows))
    split = assign_split(candidates, plan.split)
    check_keys(candidates, split)
    for none, number in ((IN_GAP, GAP), (NO_SPLIT, SPLITLESS)):
        state[rows[split == none]] = _REJECTED
        rule[rows[split == none]] = number
    return table.filter(pa.array(state == _KEPT)), split[split >= 0]


def _identity(table: pa.Table) -> pa.Array:
    """Return the 128-bit identities as 16 bytes, big-endian: byte order is number order."""
    words = np.empty((len(table), 2), ">u8")
    words[:, 0], words[:, 1] = table[ROW_HIGH].to_numpy(), table[ROW_LOW].to_numpy()
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(table), [None, pa.py_buffer(words.tobytes())])


def _kept_rows(kept: pa.Table, split: NDArray[np.int8], plan: BucketPlan) -> pa.Table:
    hidden = (IDENTITY, OCCURRENCE, KEY_HIGH, LABEL, *([WEIGHT] if plan.label.weight is not None else []))
    columns = {name: kept[name] for name in hidden}
    columns[SPLIT] = pa.array(split)
    group = group_of(kept, plan.split)
    if group is not None:
        columns[GROUP] = pa.array(group)
    return pa.table({**columns, **{name: kept[name] for name in plan.columns}})


def _duplicate_rows(table: pa.Table, state: NDArray[np.int8], first: NDArray[np.int64], plan: BucketPlan) -> pa.Table:
    rows = np.flatnonzero(state == _DUPLICATE)
    kept = pa.array(first[rows])
    rows = pa.array(rows)
    found = table.select([IDENTITY, OCCURRENCE, KEY_HIGH, *plan.columns]).take(rows)
    found = found.add_column(2, "_kept_row", table[IDENTITY].take(kept))
    return found.add_column(3, "_kept_occurrence", table[OCCURRENCE].take(kept))


def _rejected_rows(table: pa.Table, state: NDArray[np.int8], rule: NDArray[np.int32], plan: BucketPlan) -> pa.Table:
    rows = np.flatnonzero(state == _REJECTED)
    rules = rule[rows].tolist()
    reasons = [plan.reasons[number] if number >= 0 else REASONS[number] for number in rules]
    found = table.select([IDENTITY, OCCURRENCE, KEY_HIGH, FILE, RECORD, *plan.columns]).take(pa.array(rows))
    found = found.set_column(3, FILE, found[FILE].cast(pa.string()))
    texts = [_readable(text) for text in table[UNPARSABLE].take(pa.array(rows)).to_pylist()]
    found = found.add_column(5, "_unparsable", pa.array(texts, pa.string()))
    found = found.add_column(2, "_reason", pa.array(reasons, pa.string()))
    return found.add_column(2, "_rule", pa.array(rules, pa.int32()))


def _stage(rows: pa.Table, kind: str, bucket: int, plan: BucketPlan) -> str | None:
    """Write a bucket's rows under a name of this attempt's own; return it, or None where there are no rows."""
    if not len(rows):
        return None
    name = os.path.join(plan.staging, f"{kind}-{bucket:05d}-{uuid.uuid4().hex}.parquet")
    pq.write_table(rows.combine_chunks(), name, compression="lz4", use_dictionary=False)
    return name


def _label_counts(label: pa.ChunkedArray, kind: str) -> dict[str, Any]:
    """Return the rows by class (none for a regression), and how many labels are NULL."""
    counts: dict[str, int] = {}
    if kind == "classes":
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(label.drop_null()).to_pylist()}
    elif kind == "binary":
        values = label.drop_null().to_numpy()
        zeros, ones = int((values == 0).sum()), int((values == 1).sum())
        counts = {"0": zeros, "1": ones}
        if zeros + ones < len(values):
            counts[OTHER] = len(values) - zeros - ones
    return {"rows": len(label), "null": label.null_count, "classes": counts}


def _bad_weights(kept: pa.Table, label: Label) -> int:
    if label.weight is None:
        return 0
    weights = pc.fill_null(kept[WEIGHT], -1.0).to_numpy()
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


def _strata(kept: pa.Table, split: NDArray[np.int8], section: Split) -> list[list[Any]]:
    """Return the rows of each stratum by split, as [value, …, train, validation, test]."""
    if section.stratify is None:
        return []
    columns = {str(i): kept[name].cast(pa.string()) for i, name in enumerate(section.stratify)}
    counts = {name: pa.array((split == number).astype(np.int64)) for number, name in enumerate(SPLITS)}
    summed = pa.table({**columns, **counts}).group_by(list(columns)).aggregate([(name, "sum") for name in SPLITS])
    return [list(row.values()) for row in summed.select([*columns, *(f"{n}_sum" for n in SPLITS)]).to_pylist()]


def _by_file(table: pa.Table, state: NDArray[np.int8]) -> dict[str, list[int]]:
    """Return per file the rows kept, duplicate and rejected."""
    dictionary = table[FILE].combine_chunks()
    dictionary = dictionary if isinstance(dictionary, pa.DictionaryArray) else pa.concat_arrays(dictionary.chunks)
    names = dictionary.dictionary.to_pylist()
    files = dictionary.indices.to_numpy()
    counts = np.bincount(files[state != _HEADER] * 3 + state[state != _HEADER], minlength=3 * len(names))
    return {name: counts[3 * i : 3 * i + 3].tolist() for i, name in enumerate(names)}
