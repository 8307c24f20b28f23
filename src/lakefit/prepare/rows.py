"""The rows of a pipeline before the shuffle: read, queried, cleaned. Preparation and scoring share them."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    CalendarIntervalType,
    DataType,
    DateType,
    DayTimeIntervalType,
    NumericType,
    StringType,
    TimestampNTZType,
    TimestampType,
    VariantType,
    YearMonthIntervalType,
)

from lakefit.config import Pipeline, PipelineSource
from lakefit.config.check import check_cleaned_columns, check_columns
from lakefit.config.file import ConfigError, Key, Problem
from lakefit.config.sql import MARKS, ROW, Kind, quoted
from lakefit.dataset.inputs import Damaged, InputFile, check_unchanged, local_path
from lakefit.errors import InputError, LakefitError
from lakefit.prepare.clean import clean
from lakefit.prepare.near import Groups, near_groups
from lakefit.prepare.read import NO_CONNECTOR, identity_of, observe_identity, read_rows, read_side_table

# What has no place in a row of Parquet and Arrow.
_UNHELD = (CalendarIntervalType, DayTimeIntervalType, YearMonthIntervalType, VariantType)
# What Spark also reports as a file that it failed to read: the file is whole, its types or a record don't fit.
_READABLE = ("PARQUET_COLUMN_DATA_TYPE_MISMATCH", "MALFORMED_RECORD_IN_PARSING")
SPARK_ERRORS = (PySparkException, Py4JJavaError)
"""What a failed job raises: `toArrow` hands some errors of the JVM on as they are."""


SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Rows would be lost without a word.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    # Spark's defaults: what a Python worker holds at a time. -1, all of a partition, is allowed as well.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": "64MB",
}
"""Of a session, on which the result or the memory it takes depends, whatever the settings of a foreign one."""


def own_session(spark: SparkSession) -> SparkSession:
    """Return a session with preparation's settings, whose views and settings stay out of the one given.

    Raises:
        InputError: the session of somebody else's server does not take them.
    """
    session = spark.newSession()
    for name, value in SETTINGS.items():
        refused = ""
        try:
            session.conf.set(name, value)
        except PySparkException as error:
            refused = f" ({str(error).splitlines()[0]})"
        found = session.conf.get(name, None)
        if found is not None and found.lower() != value.lower():
            raise InputError(
                f"Spark has {name} = {found}, and does not let a session have {value}{refused}: the result would be "
                "another one. Set it on the cluster or the server, or use another one."
            )
    return session


def block_session(spark: SparkSession) -> SparkSession:
    """Return a session for jobs whose rows are numbers of tasks and blocks: few, so that neither code made for them nor
    a second plan while they run is worth its time."""
    session = spark.newSession()
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    session.conf.set("spark.sql.adaptive.enabled", "false")
    return session


def cleaned_rows(
    spark: SparkSession,
    pipeline: Pipeline,
    source: PipelineSource,
    inputs: Mapping[str, Sequence[InputFile]],
    observation: Observation,
    *,
    until: Literal["read", "query", "clean"] = "clean",
    near: Mapping[str, Groups] | None = None,
) -> DataFrame:
    """Return the rows after source and clean: the value columns, `_row` and `_marks`.

    Rows and identities are observed as they are read. until: "read" and "query" stop after that. near: the groups of a
    column's images that look alike, as `near_images` finds them.

    Raises:
        InputError: the query does not run, or a column that the pipeline file names is missing or of a wrong type.
    """
    section = pipeline.source
    session = own_session(spark)
    try:
        rows = read_rows(session, section.rows, section.tables[section.rows], inputs[section.rows])
        rows = observe_identity(rows, observation)
        if until == "read":
            return rows
        if section.query is not None:
            for name, table in section.tables.items():
                frame = rows if name == section.rows else read_side_table(session, name, table, inputs[name])
                frame.createOrReplaceTempView(name)
            rows = session.sql(section.query)
    except (*SPARK_ERRORS, InputError) as error:
        check_unchanged(inputs)
        if isinstance(error, InputError):
            raise
        raise InputError(str(spark_problem(error, f"{source.path}: source"))) from error
    if ROW not in rows.columns:
        raise InputError(
            f"{source.path}: source.query does not hand {ROW} through, by which each row of {section.rows!r} is "
            f"followed: select {section.rows}.* or add {section.rows}.{ROW}."
        )
    if until == "query":
        return rows
    problems = check_columns(pipeline, _kinds(rows), exact=True)
    if problems:
        raise source.error(*problems)
    try:
        rows = clean(rows, pipeline.clean, near)
    except PySparkException as error:
        raise spark_problem(error, f"{source.path}: clean") from error
    problems = check_cleaned_columns(pipeline, _kinds(rows))
    problems += [
        Problem(("clean",), f"the column {field.name!r} is of type {field.dataType.simpleString()}; CAST or drop it")
        for field in rows.schema
        if isinstance(field.dataType, _UNHELD)
    ]
    if problems:
        raise source.error(*problems)
    return rows


def near_images(
    spark: SparkSession, pipeline: Pipeline, source: PipelineSource, inputs: Mapping[str, Sequence[InputFile]]
) -> dict[str, Groups]:
    """Return the groups of images that look alike, of each column for which `clean: image` asks for them.

    All rows are read for it, and their images decoded. Raises as `cleaned_rows`.
    """
    asked = {name: step.image for step in pipeline.clean for name in step.columns if step.image and step.image.near}
    if not asked:
        return {}
    rows = cleaned_rows(spark, pipeline, source, inputs, Observation("lakefit_near"))
    found: dict[str, Groups] = {}
    for name, image in asked.items():
        looks = rows.select(F.col(quoted(f"{name}_look")).alias("look")).where("look IS NOT NULL").distinct()
        try:
            hashes = looks.toArrow()["look"].to_numpy()
        except SPARK_ERRORS as error:
            raise reading_problem(error, f"{source.path}: clean: image", inputs) from error
        found[name] = near_groups(hashes, image.near or 0)
    return found


def check_identities(
    spark: SparkSession,
    pipeline: Pipeline,
    source: PipelineSource,
    inputs: Mapping[str, Sequence[InputFile]],
    observation: Observation,
    arrived: Sequence[tuple[int, int, int]],
) -> None:
    """Compare the rows that went into the query with those that came out, by count and by sums of identities.

    arrived: (rows, sum of hi, sum of lo) of each block or task, counted after the query.

    Raises:
        InputError: the query drops or multiplies rows, also where it does so equally often.
    """
    rows, hi, lo = (sum(part[i] for part in arrived) for i in range(3))
    out = (rows, hi % (1 << 64), lo % (1 << 64))
    observed = observation.get
    # Spark Connect tells nothing of what is observed below a view, which the query reads.
    if not arrived or (observed and identity_of(observed) == out):
        return
    # Observed metrics count a task's rows twice when it is retried: before anyone is blamed, count once more.
    recount = Observation("lakefit_recount")
    cleaned_rows(spark, pipeline, source, inputs, recount, until="read").agg(F.count(F.lit(1))).collect()
    rows_in = identity_of(recount.get)
    if rows_in == out:
        return
    if custom := [step.custom for step in pipeline.clean if step.custom is not None]:
        after_query = Observation("lakefit_after_query")
        queried = cleaned_rows(spark, pipeline, source, inputs, Observation("lakefit_again"), until="query")
        observe_identity(queried, after_query).agg(F.count(F.lit(1))).collect()
        if identity_of(after_query.get) == rows_in:
            raise InputError(
                f"{source.path}: clean: custom: {' or '.join(custom)} drops or multiplies rows: {rows_in[0]:,} go in, "
                f"{out[0]:,} come out{', but not the same ones' if out[0] == rows_in[0] else ''}. Filter rows under "
                "`reject`, where they are kept with a reason. Nothing was published."
            )
    what = (
        f"{out[0]:,} rows come out for {rows_in[0]:,} that go in"
        if out[0] != rows_in[0]
        else f"{out[0]:,} rows come out, as many as go in, but not the same ones: some are dropped, others multiplied"
    )
    raise InputError(
        f"{source.path}: source.query: each row of {pipeline.source.rows!r} must come out exactly once, but {what}. "
        "Join tables whose keys are unique, with LEFT JOIN, and filter rows under `reject` (header lines and lines "
        "that do not parse pass through the query as rows of NULLs, which JOIN and WHERE drop). Nothing was published."
    )


def damaged_file(error: Exception, inputs: Mapping[str, Sequence[InputFile]]) -> tuple[str, Damaged] | None:
    """Return the table and the input file that Spark could not read, where its error names one."""
    if any(condition in str(error) for condition in _READABLE):
        return None
    named = {local_path(uri.rstrip(".")) for uri in re.findall(r"reading file (\S+)", str(error))}
    for table, files in inputs.items():
        for file in files:
            if file.path in named:
                causes = re.findall(r"(?:Caused by: |\n)[\w.$]*(?:Exception|Error): ([^\n]+)", str(error))
                reason = next((cause for cause in causes if "FAILED_READ_FILE" not in cause), "it can't be read")
                reason = re.sub(r"^Encountered error while reading file \S+ ", "", reason.strip())
                return table, Damaged(file, f"{file.path}: damaged: {reason}")
    return None


def value_columns(rows: DataFrame) -> tuple[str, ...]:
    """Return the columns of cleaned rows that are the row's values."""
    return tuple(name for name in rows.columns if name not in (ROW, MARKS))


def reading_problem(error: Exception, where: str, inputs: Mapping[str, Sequence[InputFile]]) -> LakefitError:
    """Return the error of a job that read the inputs as one of ours: a file that has changed or is damaged is named.

    Raises:
        InputError: a file has changed since it was listed.
    """
    check_unchanged(inputs)
    found = damaged_file(error, inputs)
    if found is None:
        return spark_problem(error, where)
    table, damaged = found
    return DamagedError(
        f"table {table!r}: {damaged.reason}. Replace the file, or leave such files out with on_corrupt_file: exclude. "
        "Nothing was published.",
        table,
        damaged,
    )


class DamagedError(InputError):
    """A raw file is damaged as a whole."""

    def __init__(self, message: str, table: str, damaged: Damaged) -> None:
        super().__init__(message)
        self.table = table
        self.damaged = damaged


def value_problem(error: Exception, pipeline: Pipeline, source: PipelineSource) -> ConfigError | None:
    """Return an error that a value met in an expression of the pipeline file as one of that expression."""
    text = str(error)
    context = re.search(r"(\[[A-Z_.0-9]+\] [^\n]*)\n+== SQL[^\n]*==\n(.*?)\n\s*\^", text, re.DOTALL)
    if context is None:
        return None
    said, fragment = context[1], context[2].strip()
    expressions: list[tuple[Key, str | None]] = [
        *((("clean", i, "derive"), step.derive) for i, step in enumerate(pipeline.clean)),
        *((("reject", i, "when"), rule.when) for i, rule in enumerate(pipeline.reject)),
        *((("require", i, "that"), rule.that) for i, rule in enumerate(pipeline.require)),
        *((("label", i, "expression"), label.expression) for i, label in enumerate(pipeline.label)),
        *((("label", i, "weight"), label.weight) for i, label in enumerate(pipeline.label)),
        (("source", "query"), pipeline.source.query),
    ]  # fmt: skip
    key = next((key for key, sql in expressions if sql is not None and fragment in sql), None)
    return source.error(Problem(key, f"a row made Spark say: {said}")) if key is not None else None


def spark_problem(error: Exception, where: str) -> LakefitError:
    """Return Spark's error as one of ours: the sentence that says what is wrong, without the stack of the JVM."""
    text = str(error)
    missing = NO_CONNECTOR.search(text)
    if missing:
        return InputError(
            f"{where}: Spark has no connector for this store ({missing[1] or missing[2]}). Give it the one of its "
            "Hadoop's version, such as spark-submit --packages org.apache.hadoop:hadoop-aws:3.5.0 for s3a://; CSV and "
            "JSON files are read without."
        )
    ours = re.search(r"LAKEFIT: (.*?)(?: SQLSTATE: \w+)?$", text, re.MULTILINE)
    if ours:
        return InputError(ours.group(1).strip())
    raised = re.findall(r"^(lakefit\.errors\.\w+|\w*Error): (.*)$", text, re.MULTILINE)
    if raised:
        # The innermost code of the user's own, such as a function in a custom step.
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', text)
        own = [frame for frame in frames if not re.search(r"site-packages|/pyspark|/lakefit/|<frozen", frame[0])]
        at = f" ({own[-1][0]}, line {own[-1][1]}, in {own[-1][2]})" if own else ""
        name, said = raised[-1]
        if said.startswith("No module named"):
            at += "; `lakefit doctor --master` says what executors lack, `make package` makes what they need"
        kind_of = InputError if name == "lakefit.errors.InputError" else LakefitError
        return kind_of(f"{where}: {said}{at}")
    first = next(
        (line for line in text.splitlines() if re.match(r"^(?:.*\.)?\[?[A-Z_.]+\]? ", line)), text.split("\n")[0]
    )
    condition = (error.getCondition() or "") if isinstance(error, PySparkException) else ""
    sql_state = (error.getSqlState() or "") if isinstance(error, PySparkException) else ""
    # Data exceptions (class 22) and syntax or access errors (42) are in what the user wrote or gave.
    in_data = any(condition in text for condition in ("CAST_INVALID", *_READABLE))
    kind = InputError if sql_state[:2] in ("22", "42") or in_data else LakefitError
    causes = re.findall(r"(?:Caused by|^): [\w.$]+: (.*)", text, re.MULTILINE)
    told = [cause for cause in causes if cause.startswith("[") and "FAILED_READ_FILE" not in cause] or causes[:1]
    message = told[-1] if told and (not first.startswith("[") or "FAILED_READ_FILE" in first) else first
    return kind(f"{where}: Spark refused: {message or condition}")


def _kinds(rows: DataFrame) -> dict[str, Kind]:
    return {field.name: kind_of_type(field.dataType) for field in rows.schema if field.name not in (ROW, MARKS)}


def kind_of_type(data_type: DataType) -> Kind:
    """Return what sort of values a Spark type holds."""
    if isinstance(data_type, NumericType):
        return "number"
    if isinstance(data_type, BooleanType):
        return "boolean"
    if isinstance(data_type, StringType):
        return "text"
    if isinstance(data_type, ArrayType):
        return "other" if kind_of_type(data_type.elementType) in ("list", "bytes", "other") else "list"
    if isinstance(data_type, BinaryType):
        return "bytes"
    return "time" if isinstance(data_type, (DateType, TimestampType, TimestampNTZType)) else "other"
