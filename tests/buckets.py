"""Rows as Spark hands them to the shuffle, and the way from there to Parquet files, without Spark."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lakefit.config.features import Categorical, Numeric
from lakefit.config.features import Features as FeaturesSection
from lakefit.config.rows import SPLITS, Label, Split
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.prepare.blocks import FILE, FLUSH_BYTES, HEADER, NOT_FINITE, RECORD, ROW_HIGH, ROW_LOW, Keying
from lakefit.prepare.bucket import STAGED, BucketPlan, finish_buckets
from lakefit.prepare.deduplicate import Deduplication
from lakefit.prepare.from_spark import make_blocks
from lakefit.prepare.hashing import hash_rows
from lakefit.prepare.learn import Learner
from lakefit.prepare.staged import Staged
from lakefit.prepare.tally import total
from lakefit.prepare.write import WritePlan, range_bits, write_file

COLUMNS = ("key", "group", "stamp", "amount", "city", "flag")
VALUES = pa.schema(
    [
        ("key", pa.int32()),
        ("group", pa.string()),
        ("stamp", pa.int64()),
        ("amount", pa.float64()),
        ("city", pa.string()),
        ("flag", pa.bool_()),
    ]
)
NO_SPARK: Any = None  # few rows are looked through in this process
REASONS = ("refunded", "too old")
SECTION = FeaturesSection(
    numeric=(Numeric(columns=("amount", "stamp"), indicator=True),),
    categorical=(Categorical(columns=("city", "flag")),),
)


@dataclass(frozen=True)
class Row:
    """A judged row: its values, or the text of a line that did not parse or is a header."""

    values: tuple[Any, ...] = (None,) * len(COLUMNS)
    rule: int | None = None
    label: float | None = 0.0
    file: str = "a.csv"
    record: str | None = None
    header: bool = False
    not_finite: int = 0


def random_rows(count: int, seed: int) -> list[Row]:
    """Return rows with nulls, equal keys, equal rows, rejects and broken lines."""
    draw = np.random.Generator(np.random.PCG64(seed))

    def maybe(value: Any) -> Any:
        return None if draw.random() < 0.1 else value

    rows = []
    for i in range(count):
        values = (
            maybe(int(draw.integers(count))),
            maybe(f"group {draw.integers(40)}"),
            maybe(int(draw.integers(5))),
            maybe(float(draw.normal(1e3, 50))),
            maybe(str(draw.choice(["Oslo", "Rome", "Bonn", "Łódź"]))),
            maybe(bool(draw.integers(2))),
        )
        rule = int(draw.integers(2)) if draw.random() < 0.1 else None
        rows.append(Row(values, rule, float(draw.integers(2)), f"{'ab'[i % 2]}.csv"))
    rows += [rows[i] for i in range(0, count, 9)]
    rows += [Row(label=None, record=f"broken {i % 3}") for i in range(5)]
    headers = [Row(label=None, file=file, record="the,header", header=True) for file in ("a.csv", "b.csv", "b.csv")]
    return rows + headers


def batches_of(rows: Sequence[Row], size: int) -> list[pa.RecordBatch]:
    """Return the rows as batches of at most `size`, with the identity of their raw values."""
    table = pa.table(
        {name: pa.array([row.values[i] for row in rows], VALUES.field(name).type) for i, name in enumerate(COLUMNS)}
    )
    record = pa.array([row.record for row in rows], pa.string())
    raw = [record, *table.columns]
    halves = [pa.array(hash_rows(raw, len(rows), seed).view(np.int64)) for seed in (1, 2)]
    hidden = {
        ROW_HIGH: halves[0],
        ROW_LOW: halves[1],
        FILE: pa.array([row.file for row in rows], pa.string()),
        RECORD: record,
        HEADER: pa.array([row.header for row in rows], pa.bool_()),
        NOT_FINITE: pa.array([row.not_finite for row in rows], pa.int32()),
    }
    for name, values in hidden.items():
        table = table.append_column(name, values)
    table = table.append_column("_rule", pa.array([row.rule for row in rows], pa.int32()))
    table = table.append_column("_lakefit_label_label", pa.array([row.label for row in rows], pa.float64()))
    return [batch for batch in table.to_batches(max_chunksize=size) if batch.num_rows]


@dataclass(frozen=True)
class Setup:
    """How a dataset is made; the first four must not show in it."""

    bucket_bits: int = 2
    partition_bits: int = 2
    batch_rows: int = 50
    tasks: int = 1
    key: tuple[str, ...] = ("key",)
    order: tuple[str, bool] | None = ("stamp", True)
    remove: bool = True
    most_complete: bool = False
    keep_null_key: bool = False
    split: Split = field(default_factory=lambda: Split(by=("group",), train=0.6, validation=0.2, test=0.2))
    features: FeaturesSection = SECTION
    rows_per_file: int = 60
    rows_per_group: int = 8


@dataclass(frozen=True)
class Made:
    """What came out: a summary a bucket, what was learned, and the files by path and content."""

    summaries: tuple[dict[str, Any], ...]
    features: Features
    statistics: dict[str, ColumnStatistics]
    entries: tuple[dict[str, Any], ...]
    files: dict[str, bytes]


def blocks_of(rows: Sequence[Row], setup: Setup, flush_bytes: int = FLUSH_BYTES) -> list[pa.RecordBatch]:
    """Return the blocks of all map tasks."""
    keying = Keying(COLUMNS, setup.key or COLUMNS, min(setup.partition_bits, setup.bucket_bits), flush_bytes)
    tasks = [rows[task :: setup.tasks] for task in range(setup.tasks)]
    parts = [make_blocks(batches_of(part, setup.batch_rows), keying, {}) for part in tasks if part]
    return list(itertools.chain.from_iterable(parts))


def make(rows: Sequence[Row], folder: Path, setup: Setup) -> Made:
    """Run everything between the shuffle and the manifest in this process."""
    staging, target = folder / "staging", folder / "target"
    for path in (staging, *(target / name for name in (*SPLITS, "duplicates", "rejects"))):
        path.mkdir(parents=True)
    plan = BucketPlan(
        staging=str(staging),
        bucket_bits=setup.bucket_bits,
        columns=COLUMNS,
        deduplication=Deduplication(COLUMNS, setup.order, setup.most_complete, setup.remove),
        key=setup.key,
        keep_null_key=setup.keep_null_key,
        reasons=REASONS,
        marks=0,
        split=setup.split,
        features=setup.features,
        labels=(Label(expression="label"),),
    )
    partitions: dict[int, list[pa.RecordBatch]] = {}
    for block in blocks_of(rows, setup):
        partitions.setdefault(block["partition"][0].as_py(), []).append(block)
    finished = [batch for number in sorted(partitions) for batch in finish_buckets(partitions[number], plan)]
    results = pa.Table.from_batches(finished)
    summaries = [json.loads(text) for text in results["summary"].to_pylist()]
    staged = {
        kind: tuple(
            (bucket, summary["staged"][kind])
            for bucket, summary in zip(results["bucket"].to_pylist(), summaries, strict=True)
            if summary["staged"][kind]
        )
        for kind in STAGED
    }
    kept_rows = sum(sum(summary["kept"].values()) for summary in summaries)
    training_rows = sum(summary["kept"]["train"] for summary in summaries)
    kept = Staged(NO_SPARK, tuple(path for _, path in staged["train"]), training_rows, setup.bucket_bits)
    numbers = [name for name in COLUMNS if name not in ("group", "city")]
    totals = total(results, COLUMNS, numbers, kept)
    learner = Learner(setup.features, totals, kept)
    features = learner.learn()
    statistics = learner.statistics(COLUMNS, dict.fromkeys(COLUMNS, "any"))
    bits = range_bits(kept_rows, setup.rows_per_file)
    write = WritePlan(
        str(target),
        staged,
        setup.bucket_bits,
        bits,
        setup.rows_per_group,
        False,
        features,
        (LabelFeature(),),
        plan.labels,
    )
    entries = [entry for file in write.files if (entry := write_file(*file, write)) is not None]
    files = {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*.parquet"))}
    assert sorted(files) == sorted(entry["path"] for entry in entries)
    return Made(tuple(summaries), features, statistics, tuple(entries), files)
