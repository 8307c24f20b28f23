"""`prepare`: the stage that makes a dataset. Spark up to the one shuffle, Arrow after it, one rename at the end."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    NumericType,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from lakefit import __version__
from lakefit.config import Pipeline, PipelineSource
from lakefit.config.file import Problem
from lakefit.config.rows import SPLITS, Deduplicate
from lakefit.config.sql import quoted
from lakefit.dataset.disk import full_disk_named
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.inputs import Damaged, InputFile, check_unchanged
from lakefit.dataset.layout import CURRENT
from lakefit.dataset.ledger import FileLedger, Ledger
from lakefit.dataset.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Correction,
    DataFile,
    ExcludedRecord,
    InputRecord,
    Manifest,
    Outcome,
    SplitFiles,
    Stratum,
    read_manifest,
)
from lakefit.dataset.object_path import STORE_ERRORS, AnyPath, address_of
from lakefit.dataset.publish import (
    files_below,
    read_json,
    remove_tree,
    remove_unfinished,
    staged_folder,
    write_json,
)
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.errors import InputError, LakefitError
from lakefit.prepare.blocks import FLUSH_BYTES, Keying
from lakefit.prepare.bucket import GROUP, REASONS, RESULT_SCHEMA, STAGED, BucketPlan, finish_buckets
from lakefit.prepare.check import Summaries, check_splits, check_written, classes_of
from lakefit.prepare.clean import judge, label_column, label_problems, predicate_problems
from lakefit.prepare.cluster import cores, local_folder
from lakefit.prepare.deduplicate import Deduplication
from lakefit.prepare.direct import NOT_PLAIN, read_blocks
from lakefit.prepare.expect import Evidence, check_expectations
from lakefit.prepare.from_spark import blocks_of
from lakefit.prepare.frozen import check_types, frozen_manifest
from lakefit.prepare.learn import Learner, UnlearnableError, learn_label
from lakefit.prepare.plain_csv import NotPlainError
from lakefit.prepare.reader import cleaned_columns, why_spark
from lakefit.prepare.rows import (
    SPARK_ERRORS,
    DamagedError,
    block_session,
    check_identities,
    cleaned_rows,
    near_images,
    reading_problem,
    spark_problem,
    value_columns,
    value_problem,
)
from lakefit.prepare.staged import LOCAL_ROWS, SPLIT, Staged, read_staged
from lakefit.prepare.statistics import Summary
from lakefit.prepare.tally import total
from lakefit.prepare.write import WritePlan, range_bits, write_file

Inputs = Mapping[str, Sequence[InputFile]]

# A bucket of this many raw bytes takes some times as much in the worker that holds it.
BUCKET_BYTES = 64 << 20
MAX_BUCKET_BITS = 14
# Smaller blocks are larger than their rows: 40 columns of a schema each (1.35 x at 100 rows, 4.4 x at 10).
BLOCK_ROWS = 1_000
# What a task can sort into buckets on its local disk.
PARTITION_BYTES = 8 << 30
MAX_STRATA = 1_000
SCRATCH = ".scratch"
# What staged.is_number says of the same columns as Arrow.
_NUMBERS = (NumericType, BooleanType, DateType, TimestampType, TimestampNTZType)


@dataclass(frozen=True, slots=True)
class Job:
    """What to prepare, and where to. why_spark: why Spark reads the rows; None where Arrow does.

    check: called before anything of `target` is removed or published; raises where it is another run's by now.
    """

    pipeline: Pipeline
    source: PipelineSource
    inputs: Inputs
    fingerprint: str
    target: AnyPath
    bucket_bytes: int = BUCKET_BYTES
    excluded: Mapping[str, Sequence[Damaged]] = field(default_factory=dict)
    why_spark: str | None = None
    check: Callable[[], None] = lambda: None

    def without(self, table: str, damaged: Damaged) -> "Job":
        """Return the job with one file left out."""
        rest = tuple(file for file in self.inputs[table] if file != damaged.file)
        return replace(
            self,
            inputs={**self.inputs, table: rest},
            excluded={**self.excluded, table: (*self.excluded.get(table, ()), damaged)},
        )


def prepare(spark: SparkSession, job: Job) -> Manifest:
    """Make the dataset and publish it at `job.target` by one rename; return its manifest.

    Raises:
        InputError: the query loses or multiplies rows, a split is empty, a label is null or has one class, a column is
            missing or of a wrong type. LakefitError: the ledger does not add up.
    """
    with _changes_named(job.inputs):
        job = replace(job, why_spark=job.why_spark or why_spark(job.pipeline, job.inputs))
    while True:
        try:
            return _attempt(spark, job)
        except NotPlainError as error:
            # What the files' names and footers did not tell: some bytes that only Spark reads.
            job = replace(job, why_spark=str(error))
        except DamagedError as error:
            # Spark names one file at a time: each costs another attempt.
            if job.pipeline.source.tables[error.table].on_corrupt_file == "fail":
                raise
            job = job.without(error.table, error.damaged)
            if not job.inputs[error.table]:
                raise InputError(
                    f"table {error.table!r}: every file is damaged, the last one: {error.damaged.reason}. Nothing was "
                    "published."
                ) from error


def _attempt(spark: SparkSession, job: Job) -> Manifest:
    job.check()
    remove_unfinished(job.target.parent, MANIFEST)
    local = local_folder(spark)
    with staged_folder(job.target, MANIFEST) as folder, full_disk_named(job.target.parent, local):
        # Of this attempt's own: in an object store the folder is not.
        scratch = folder / f"{SCRATCH}-{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        try:
            manifest = _make(spark, job, folder, scratch)
        except BaseException:
            with suppress(*STORE_ERRORS):
                remove_tree(scratch)
            raise
        remove_tree(scratch)
        _remove_unlisted(folder, manifest)
        if manifest.features.images:
            from lakefit.prepare.unischema import write_unischema

            write_unischema(folder, manifest, job.pipeline)
        job.check()
        write_json(folder / MANIFEST, manifest.model_dump(mode="json", by_alias=True))
    return manifest


def _remove_unlisted(folder: AnyPath, manifest: Manifest) -> None:
    """Remove what attempts left that were killed, or slower than another one of their task.

    Raises:
        LakefitError: there is not all that is listed.
    """
    listed = {file.path for split in manifest.splits.values() for file in split.files}
    listed |= {file.path for file in (*manifest.duplicates, *manifest.rejects)}
    there = {name: path for path, name in files_below(folder) if not name.startswith(SCRATCH)}
    gone = sorted(listed - there.keys())
    if gone:
        raise LakefitError(
            f"{folder}: {gone[0]} was written by a task but is not there: driver and executors must see the same "
            "output.path (shared storage). Nothing was published."
        )
    for name in there.keys() - listed:
        there[name].unlink()


def _make(spark: SparkSession, job: Job, folder: AnyPath, scratch: AnyPath) -> Manifest:
    frozen = frozen_manifest(job.pipeline, job.source, job.target.parent)
    bits = bucket_bits(sum(file.size for file in job.inputs[job.pipeline.source.rows]), job.bucket_bytes)
    read = _read_by_spark(spark, job, bits) if job.why_spark is not None else _read_by_arrow(spark, job, bits)
    types = read.types
    if frozen is not None:
        check_types(frozen, _type_names(types), job.source)
    results = _shuffle_and_finish(job, read, bits, scratch)
    summaries = [json.loads(text) for text in results["summary"].to_pylist()]
    if read.observation is not None:
        arrived = [tuple(summary["arrived"]) for summary in summaries]
        check_identities(spark, job.pipeline, job.source, job.inputs, read.observation, arrived)
    ledger = _ledger(job, summaries)
    staged = _staged_files(results["bucket"].to_pylist(), summaries)
    paths = {kind: tuple(path for _, path in files) for kind, files in staged.items()}
    kept_rows = sum(ledger.kept.values())
    kept = Staged(spark, tuple(path for split in SPLITS for path in paths[split]), kept_rows, bits)
    everything = Staged(spark, tuple(path for kind in STAGED for path in paths[kind]), ledger.rows_in, bits)
    try:
        check_splits(job.pipeline, job.source, ledger, summaries, frozen.labels if frozen is not None else None)
    except InputError:
        # A contract that is broken too says more of why.
        check_expectations(job.pipeline.expect, Evidence({"input": everything, "result": kept}, ledger, {}, None))
        raise
    _check_groups(job, kept)
    training = Staged(spark, paths["train"], ledger.kept["train"], bits)
    learned = _learn(job, training, results, types, summaries, frozen)
    in_use = _statistics_in_use(job)
    evidence = Evidence({"input": everything, "result": kept}, ledger, learned.statistics, in_use)
    outcomes = check_expectations(job.pipeline.expect, evidence)
    plan = WritePlan(
        target=address_of(folder),
        staged=staged,
        bucket_bits=bits,
        range_bits=range_bits(kept_rows, job.pipeline.output.rows_per_file),
        rows_per_group=job.pipeline.output.rows_per_group,
        packed=job.pipeline.output.layout == "packed",
        features=learned.features,
        labels=learned.labels,
        sections=job.pipeline.label,
    )
    files = _write(block_session(spark), plan)
    check_written(job.pipeline, job.source, files)
    return _manifest(job, learned, ledger, summaries, files, outcomes)


@dataclass(frozen=True, slots=True)
class _Learned:
    features: Features
    labels: tuple[LabelFeature, ...]
    statistics: dict[str, ColumnStatistics]


def _learn(
    job: Job,
    training: Staged,
    results: pa.Table,
    types: Mapping[str, DataType],
    summaries: Summaries,
    frozen: Manifest | None,
) -> _Learned:
    numbers = [name for name, data_type in types.items() if isinstance(data_type, _NUMBERS)]
    of_labels = {label_column(label): label.name for label in job.pipeline.label if label.type == "regression"}
    columns = [*types, *of_labels]
    totals = total(results, columns, [*numbers, *of_labels], training)
    learner = Learner(job.pipeline.features, totals, training)
    try:
        features = frozen.features if frozen is not None else learner.learn()
        labels = frozen.labels if frozen is not None else _learn_labels(job, totals.summaries, summaries)
    except UnlearnableError as error:
        raise job.source.error(error.problem) from None
    statistics = learner.statistics(columns, {**_type_names(types), **dict.fromkeys(of_labels, "double")})
    # Where a label has the name of a column, that is the column's.
    named = {name: statistics.pop(column) for column, name in of_labels.items()}
    return _Learned(features, labels, {**named, **statistics})


def _learn_labels(job: Job, of_columns: Mapping[str, Summary], summaries: Summaries) -> tuple[LabelFeature, ...]:
    return tuple(
        learn_label(label, place, of_columns.get(label_column(label)), classes_of(summaries, label.name, "train"))
        for place, label in enumerate(job.pipeline.label)
    )


def _staged_files(
    buckets: Sequence[int], summaries: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[tuple[int, str], ...]]:
    """Return (bucket, file) of each kind of staged rows, by bucket."""
    pairs = sorted(zip(buckets, summaries, strict=True), key=lambda pair: pair[0])
    return {
        kind: tuple((bucket, summary["staged"][kind]) for bucket, summary in pairs if summary["staged"][kind])
        for kind in STAGED
    }


def _statistics_in_use(job: Job) -> dict[str, ColumnStatistics] | None:
    """Return the statistics of the version in use, where a contract asks for drift against it and there is one."""
    if not any(expectation.fact == "drift" for expectation in job.pipeline.expect.parsed("result")):
        return None
    current = (read_json(job.target.parent.parent / CURRENT) or {}).get("dataset")
    return read_manifest(job.target.parent / current).statistics if current is not None else None


def _type_names(types: Mapping[str, DataType]) -> dict[str, str]:
    return {name: data_type.simpleString() for name, data_type in types.items()}


def bucket_bits(raw_bytes: int, bucket_bytes: int) -> int:
    """Return how many bits of the hash name a bucket; no part of the result depends on it."""
    bits = 2  # a few buckets even of little data, so that every core has one
    while raw_bytes > bucket_bytes << bits and bits < MAX_BUCKET_BITS:
        bits += 1
    return bits


@dataclass(frozen=True, slots=True)
class _Read:
    """The rows as blocks, their value columns, and (behind a query) what Spark counts of them as it reads."""

    blocks: DataFrame
    keying: Keying
    types: Mapping[str, DataType]
    observation: Observation | None


def _read_by_spark(spark: SparkSession, job: Job, bits: int) -> _Read:
    observation = Observation("lakefit_rows")
    near = near_images(spark, job.pipeline, job.source, job.inputs)
    rows = cleaned_rows(spark, job.pipeline, job.source, job.inputs, observation, near=near)
    columns = value_columns(rows)
    types = {field.name: field.dataType for field in rows.schema if field.name in columns}
    keying = _keying(job, columns, bits)
    blocks = blocks_of(_judged(job, rows), job.pipeline, keying)
    return _Read(blocks, keying, types, observation)


def _read_by_arrow(spark: SparkSession, job: Job, bits: int) -> _Read:
    pipeline, files = job.pipeline, job.inputs[job.pipeline.source.rows]
    columns = cleaned_columns(pipeline, files)
    schema = StructType.fromDDL(", ".join(f"{quoted(name)} {sql_type}" for name, sql_type in columns.items()))
    assert isinstance(schema, StructType)
    types = {field.name: field.dataType for field in schema.fields}
    keying = _keying(job, tuple(types), bits)
    with _changes_named(job.inputs):
        blocks = read_blocks(block_session(spark), pipeline, files, keying)
    return _Read(blocks, keying, types, None)


@contextmanager
def _changes_named(inputs: Inputs) -> Iterator[None]:
    """Turn what goes wrong over headers and footers into an InputError where a file has changed since it was listed."""
    try:
        yield
    except (OSError, pa.ArrowException):
        check_unchanged(inputs)
        raise


def _keying(job: Job, columns: tuple[str, ...], bits: int) -> Keying:
    deduplicate = job.pipeline.deduplicate
    raw_bytes = sum(file.size for file in job.inputs[job.pipeline.source.rows])
    partition_bits, flush_bytes = block_sizes(raw_bytes, len(columns), bits)
    return Keying(columns, (deduplicate.key if deduplicate else None) or columns, partition_bits, flush_bytes)


def block_sizes(raw_bytes: int, columns: int, bucket_bits: int) -> tuple[int, int]:
    """Return the bits of a partition and the bytes a map task cuts into blocks at a time; the result is the same.

    A partition is a bucket where blocks then have `BLOCK_ROWS` rows, else several, which its task tells apart. Only
    where partitions would become too large for that are more bytes cut at a time.
    """
    row_bytes = 64 + 8 * columns
    bits = bucket_bits
    while bits and BLOCK_ROWS * row_bytes << bits > FLUSH_BYTES and raw_bytes <= PARTITION_BYTES << (bits - 1):
        bits -= 1
    return bits, max(FLUSH_BYTES, BLOCK_ROWS * row_bytes << bits)


def _shuffle_and_finish(job: Job, read: _Read, bits: int, scratch: AnyPath) -> pa.Table:
    pipeline = job.pipeline
    columns = tuple(read.types)
    deduplicate = pipeline.deduplicate
    plan = BucketPlan(
        staging=address_of(scratch),
        bucket_bits=bits,
        columns=columns,
        deduplication=_deduplication(columns, deduplicate),
        key=(deduplicate.key or ()) if deduplicate else (),
        keep_null_key=deduplicate is not None and deduplicate.null_key == "keep",
        reasons=tuple(rule.reason for rule in pipeline.rules),
        marks=len(pipeline.marks),
        split=pipeline.split,
        features=pipeline.features,
        labels=pipeline.label,
    )
    # By id, not by hash of it: none gets two while others get none.
    partitions = read.blocks.repartitionById(1 << read.keying.partition_bits, F.col("partition"))
    try:
        results = partitions.mapInArrow(partial(finish_buckets, plan=plan), RESULT_SCHEMA).toArrow()
    except SPARK_ERRORS as error:
        if found := re.search(rf"{NOT_PLAIN} (.*)", str(error)):
            raise NotPlainError(found[1]) from error
        raise value_problem(error, pipeline, job.source) or reading_problem(error, "prepare", job.inputs) from error
    check_unchanged(job.inputs)
    return results


def _deduplication(columns: tuple[str, ...], section: Deduplicate | None) -> Deduplication:
    if section is None:
        return Deduplication(columns, None, most_complete=False, remove=False)
    return Deduplication(columns, section.order, section.most_complete, remove=True)


def _judged(job: Job, rows: DataFrame) -> DataFrame:
    problems = predicate_problems(rows, job.pipeline)
    for place, label in enumerate(job.pipeline.label):
        problems += label_problems(rows, label, place)
    if problems:
        raise job.source.error(*problems)
    try:
        return judge(rows, job.pipeline.rules, job.pipeline.label)
    except PySparkException as error:
        raise spark_problem(error, "label") from error


def _ledger(job: Job, summaries: Summaries) -> Ledger:
    pipeline = job.pipeline
    headers = sum(summary["headers"] for summary in summaries)
    table = pipeline.source.tables[pipeline.source.rows]
    expected = len(job.inputs[pipeline.source.rows]) if table.header else 0
    if headers != expected:
        raise LakefitError(
            f"{headers} header lines were found in {expected} files with a header; nothing was published."
        )
    rejected: Counter[str] = Counter({rule.reason: 0 for rule in pipeline.rules})
    unparsable: Counter[str] = Counter()
    files: dict[str, list[int]] = {}
    names = {file.path: file.name for file in job.inputs[pipeline.source.rows]}
    for summary in summaries:
        for number, count in summary["rejected"].items():
            rejected[_reason(pipeline, int(number))] += count
        for _, column, count in summary["unparsable"]:
            unparsable[column] += count
        for path, counts in summary["files"].items():
            name = names.get(path, path)
            files[name] = [a + b for a, b in zip(files.get(name, [0, 0, 0]), counts, strict=True)]
    ledger = Ledger(
        rows_in=sum(summary["arrived"][0] for summary in summaries) - headers,
        kept={split: sum(summary["kept"][split] for summary in summaries) for split in SPLITS},
        rejected=dict(rejected),
        duplicates=sum(summary["duplicates"] for summary in summaries),
        not_finite=sum(summary["not_finite"] for summary in summaries),
        unparsable=dict(sorted(unparsable.items())),
        files={
            name: FileLedger(rows_in=kept + duplicates + rejects, kept=kept, duplicates=duplicates, rejected=rejects)
            for name, (kept, duplicates, rejects) in sorted(files.items())
        },
    )
    ledger.check()
    if not ledger.rows_in:
        raise InputError(f"The table {pipeline.source.rows!r} has no rows: nothing to prepare, nothing was published.")
    return ledger


def _reason(pipeline: Pipeline, number: int) -> str:
    return pipeline.rules[number].reason if number >= 0 else REASONS[number]


def _write(spark: SparkSession, plan: WritePlan) -> list[dict[str, Any]]:
    files = plan.files
    # Starting a task takes as long as writing a small file.
    tasks = min(len(files), 4 * cores(spark))
    numbers = spark.range(0, len(files), 1, numPartitions=tasks)
    try:
        written = numbers.mapInArrow(partial(_write_files, files=files, plan=plan), "entry STRING").toArrow()
    except SPARK_ERRORS as error:
        raise spark_problem(error, "write") from error
    return sorted((json.loads(text) for text in written["entry"].to_pylist()), key=lambda entry: str(entry["path"]))


def _write_files(
    batches: Iterable[pa.RecordBatch], files: Sequence[tuple[str, int]], plan: WritePlan
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch["id"].to_pylist():
            kind, of_range = files[number]
            entry = write_file(kind, of_range, plan)
            yield pa.RecordBatch.from_pydict({"entry": pa.array([json.dumps(entry)] if entry else [], pa.string())})


def _manifest(
    job: Job,
    learned: _Learned,
    ledger: Ledger,
    summaries: Summaries,
    entries: Summaries,
    outcomes: tuple[Outcome, ...],
) -> Manifest:
    def files(kind: str) -> tuple[DataFile, ...]:
        return tuple(
            DataFile(
                **{field: entry[field] for field in DataFile.__pydantic_fields__ if field != "row_groups"},
                row_groups=tuple(entry["row_groups"]),
            )
            for entry in entries
            if entry["split"] == kind
        )

    splits = {}
    for split in SPLITS:
        classes = {label.name: classes_of(summaries, label.name, split) for label in job.pipeline.label}
        splits[split] = SplitFiles(rows=ledger.kept[split], classes=classes, files=files(split))
    written = {
        **{name: sum(file.rows for file in split.files) for name, split in splits.items()},
        "duplicates": sum(file.rows for file in files("duplicates")),
        "rejects": sum(file.rows for file in files("rejects")),
    }
    counted = {**ledger.kept, "duplicates": ledger.duplicates, "rejects": sum(ledger.rejected.values())}
    if written != counted:
        raise LakefitError(f"The files hold {written} rows, the ledger says {counted}; nothing was published.")
    return Manifest(
        format_version=FORMAT_VERSION,
        fingerprint=job.fingerprint,
        name=job.pipeline.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"lakefit": __version__, **{name: version(name) for name in ("pyspark", "pyarrow", "numpy")}},
        inputs=tuple(
            InputRecord(table=table, name=file.name, bytes=file.size, modified_ns=file.modified_ns)
            for table, files in job.inputs.items()
            for file in files
        ),
        excluded=tuple(
            ExcludedRecord(table=table, name=one.file.name, bytes=one.file.size, reason=one.reason)
            for table, damaged in job.excluded.items()
            for one in damaged
        ),
        reader="Arrow" if job.why_spark is None else f"Spark: {job.why_spark}",
        pipeline=job.pipeline.dump(),
        layout=job.pipeline.output.layout,
        features=learned.features,
        labels=learned.labels,
        statistics=learned.statistics,
        splits=splits,
        duplicates=files("duplicates"),
        rejects=files("rejects"),
        corrections=_corrections(summaries),
        strata=_strata(job, summaries),
        expectations=outcomes,
        ledger=ledger,
    )


def _corrections(summaries: Summaries) -> tuple[Correction, ...]:
    totals: Counter[tuple[str, str, str]] = Counter()
    for summary in summaries:
        for _, column, old, new, count in summary["corrected"]:
            totals[column, old, new] += count
    return tuple(
        Correction(column=column, from_=old, to=new, rows=count)
        for (column, old, new), count in sorted(totals.items(), key=lambda item: (item[0][0], -item[1], item[0]))
    )


def _strata(job: Job, summaries: Summaries) -> tuple[Stratum, ...]:
    columns = job.pipeline.split.stratify or ()
    totals: dict[tuple[str | None, ...], list[int]] = {}
    for summary in summaries:
        for row in summary["strata"]:
            values = tuple(row[: len(columns)])
            totals[values] = [a + b for a, b in zip(totals.get(values, [0, 0, 0]), row[len(columns) :], strict=True)]
    if len(totals) > MAX_STRATA:
        message = (
            f"{', '.join(columns)} have {len(totals):,} combinations of values; expected at most {MAX_STRATA:,}, each "
            "with enough rows for three splits. Nothing was published."
        )
        raise job.source.error(Problem(("split", "stratify"), message))
    order = sorted(totals, key=lambda values: [(value is not None, value or "") for value in values])
    return tuple(Stratum(values=values, rows=dict(zip(SPLITS, totals[values], strict=True))) for values in order)


def _check_groups(job: Job, staged: Staged) -> None:
    """Raise InputError where a group of `split.by` has rows in two splits: counted over all staged rows."""
    by = job.pipeline.split.by
    if by is None or not staged.rows:
        return
    if staged.rows <= LOCAL_ROWS:
        parts = [read_staged(path, [GROUP, SPLIT]) for path in staged.files]
        ranges = pa.concat_tables(parts).group_by(GROUP).aggregate([(SPLIT, "min"), (SPLIT, "max")])
        torn = pc.sum(pc.not_equal(ranges[f"{SPLIT}_min"], ranges[f"{SPLIT}_max"])).as_py()
    else:
        by_group = staged.frame([GROUP, SPLIT]).groupBy(GROUP)
        ranges_by_group = by_group.agg(F.min(SPLIT).alias("low"), F.max(SPLIT).alias("high"))
        torn = ranges_by_group.where("low < high").count()
    if torn:
        message = (
            f"{torn:,} groups of {', '.join(by)} have rows in two splits: they would be tested on what was learned "
            "from them. Cut where groups end, or leave `by` out. Nothing was published."
        )
        raise job.source.error(Problem(("split", "by"), message))
