"""Tables as Spark DataFrames. CSV is read as lines and parsed by `from_csv`.

Spark's own CSV reader drops lines of blanks and of NUL characters without a word, and hands out the text of a broken
line only, not of a header that stands in the middle of a file; so the lines are counted before they are parsed.
"""

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from lakefit.config.source import Table
from lakefit.config.sql import ROW, quoted
from lakefit.dataset.inputs import InputFile, csv_header

_CORRUPT = "_lakefit_corrupt"
# Options that say how files are cut into lines; the others belong to from_csv. `header` is ours.
_LINE_OPTIONS = ("lineSep", "encoding", "charset")
# 22-bit limbs: their sums stay below 2^63 up to 2 x 10^12 rows (ANSI mode refuses to overflow).
_LIMB_BITS = 22


def read_rows(spark: SparkSession, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return the table whose rows are followed: its columns and the hidden struct `_row`.

    `_row` has hi and lo (128 bits of identity: hash of the values as read), file (URI), record (the text of a line
    that does not parse; all columns are NULL then) and header (true for a line equal to the file's header).
    """
    frame = _lines(spark, table, files) if table.format == "csv" else _parquet(spark, table, files)
    columns = [name for name in frame.columns if not name.startswith("_lakefit_")]
    record, header = F.col("_lakefit_record"), F.col("_lakefit_header")
    values: list[Column] = [record]
    for name in columns:
        # Spark's hash skips NULL: without the marker (NULL, 1) and (1, NULL) would be one row.
        values += [F.col(quoted(name)).isNull(), F.col(quoted(name))]
    row = F.struct(
        F.xxhash64(F.lit(1), *values).alias("hi"),
        F.xxhash64(F.lit(2), *values).alias("lo"),
        F.col("_lakefit_file").alias("file"),
        record.alias("record"),
        header.alias("header"),
    )
    return frame.select(*(F.col(quoted(name)) for name in columns), row.alias(ROW))


def read_side_table(spark: SparkSession, name: str, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return a table that the query joins; a line that does not parse ends the run, since no ledger follows it."""
    if table.format == "parquet":
        return _parquet(spark, table, files).drop("_lakefit_file", "_lakefit_record", "_lakefit_header")
    frame = _lines(spark, table, files, refused_in=name).where(~F.col("_lakefit_header"))
    return frame.drop("_lakefit_file", "_lakefit_record", "_lakefit_header")


def observe_identity(frame: DataFrame, observation: Observation) -> DataFrame:
    """Return `frame`, counting its rows and summing their identities while Spark reads them; see `identity_of`."""
    sums = [F.count(F.lit(1)).alias("rows")]
    for half in ("hi", "lo"):
        for limb in range(3):
            shifted = F.shiftrightunsigned(F.col(f"{ROW}.{half}"), limb * _LIMB_BITS)
            sums.append(F.sum(shifted.bitwiseAND(F.lit((1 << _LIMB_BITS) - 1))).alias(f"{half}{limb}"))
    return frame.observe(observation, *sums)


def identity_of(observed: Mapping[str, int | None]) -> tuple[int, int, int]:
    """Return (rows, sum of hi, sum of lo), sums modulo 2^64, from what `observe_identity` counted."""

    def total(half: str) -> int:
        return sum((observed[f"{half}{limb}"] or 0) << (limb * _LIMB_BITS) for limb in range(3)) % (1 << 64)

    return observed["rows"] or 0, total("hi"), total("lo")


def _lines(spark: SparkSession, table: Table, files: Sequence[InputFile], refused_in: str | None = None) -> DataFrame:
    assert table.columns is not None, "the configuration requires a schema for csv"
    options = {
        key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in table.options.items()
    }
    line_options = {key: value for key, value in options.items() if key in _LINE_OPTIONS}
    parse_options = {key: value for key, value in options.items() if key not in (*_LINE_OPTIONS, "header")}
    parse_options |= {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT}
    text = spark.read.options(**line_options).text([_escaped(file.path) for file in files])
    # A byte-order mark belongs to the encoding, not to the first value.
    line = F.when(F.col("value").startswith("\ufeff"), F.expr("substring(value, 2)")).otherwise(F.col("value"))
    lines = text.select(line.alias("value"), F.col("_metadata.file_path").alias("_lakefit_file")).where("value <> ''")
    header: Column = F.lit(False)
    if table.header:
        headers = sorted({csv_header(file.path)[0] for file in files})
        header = F.col("value").isin(*headers)
    parsed = lines.select(
        "value",
        "_lakefit_file",
        header.alias("_lakefit_header"),
        F.from_csv("value", f"{table.columns}, {_CORRUPT} STRING", parse_options).alias("parsed"),
    )
    bad = F.col("_lakefit_header") | F.col(f"parsed.{_CORRUPT}").isNotNull()
    struct = parsed.schema["parsed"].dataType
    assert isinstance(struct, StructType)
    names = [name for name in struct.fieldNames() if name != _CORRUPT]
    good = F.when(~bad, F.col("parsed"))
    if refused_in is not None:
        refusal = F.raise_error(
            F.concat(
                F.lit(f"LAKEFIT: the table {refused_in!r} has a line that does not fit its schema, in "),
                F.col("_lakefit_file"),
                F.lit(": "),
                F.substring("value", 1, 200),
            )
        )
        # In the values themselves: a join puts its own filter (key IS NOT NULL) before any filter of ours.
        good = good.when(~F.col("_lakefit_header"), refusal.cast(struct))
    marked = parsed.select(
        good.alias("parsed"),
        F.when(bad, F.col("value")).alias("_lakefit_record"),
        "_lakefit_file",
        "_lakefit_header",
    )
    return marked.select(
        *(F.col(f"parsed.{quoted(name)}") for name in names), "_lakefit_record", "_lakefit_file", "_lakefit_header"
    )


def _parquet(spark: SparkSession, table: Table, files: Sequence[InputFile]) -> DataFrame:
    reader = spark.read.options(**{key: str(value) for key, value in table.options.items()})
    if table.columns is not None:
        reader = reader.schema(table.columns)
    frame = reader.parquet(*[_escaped(file.path) for file in files])
    return frame.select(
        *(F.col(quoted(name)) for name in frame.columns),
        F.col("_metadata.file_path").alias("_lakefit_file"),
        F.lit(None).cast("string").alias("_lakefit_record"),
        F.lit(False).alias("_lakefit_header"),
    )


def _escaped(path: str) -> str:
    """Escape what Hadoop would read as a glob: these are names of files already found."""
    return "".join(f"\\{character}" if character in "*?[]{}\\" else character for character in path)
