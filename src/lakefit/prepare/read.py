"""Tables as Spark DataFrames. Text formats are read as lines and parsed by `from_csv` and `from_json`.

Spark's own CSV reader drops lines of blanks and of NUL characters without a word, and hands out the text of a broken
line only, not of a header that stands in the middle of a file; so the lines are counted before they are parsed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce
from operator import or_
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, DataFrameReader, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from lakefit.config.file import substitute_environment
from lakefit.config.source import FILE_FORMATS, Table
from lakefit.config.sql import ROW, parse_schema, quoted
from lakefit.dataset.inputs import (
    InputFile,
    csv_header,
    file_columns,
    file_uri,
    merged_columns,
    nanosecond_columns,
    partition_folders,
    spark_path,
)
from lakefit.dataset.object_path import is_address
from lakefit.prepare.cluster import cores
from lakefit.prepare.identity import identity_columns
from lakefit.prepare.image_files import IMAGES_SCHEMA, read_images
from lakefit.prepare.records import RECORDS_SCHEMA, Dialect, needs_reader, read_records

_CORRUPT, _RECORD, _HEADER, _FILE = "_lakefit_corrupt", "_lakefit_record", "_lakefit_header", "_lakefit_file"
_HIDDEN = (_RECORD, _HEADER, _FILE)
# Options that say how files are cut into lines; the others belong to the parser. `header` is ours.
_LINE_OPTIONS = ("linesep", "encoding", "charset", "multiline", "header", "sep", "delimiter", "quote", "escape")
# Spark gives a time without a date today's.
_TIME_ALONE = r"^\s*T?\d{1,2}:"
# Half of a pair of `\uD83D\uDE00`, which Java replaces by "?".
_LONE_SURROGATE = (
    r"(?i)(?<!\\)(?:\\\\)*(?:\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})"
    r"|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2})"
)
# How Hadoop says that it has no class for `s3a:`, or knows no such scheme.
NO_CONNECTOR = re.compile(r"ClassNotFoundException: Class (\S+FileSystem) not found|No FileSystem for scheme \"?(\w+)")
# Of image files, of which each is opened by itself.
_TASK_BYTES = 64 << 20
# 22-bit limbs: their sums stay below 2^63 up to 2 x 10^12 rows (ANSI mode refuses to overflow).
_LIMB_BITS = 22


def read_rows(spark: SparkSession, name: str, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return the table whose rows are followed: its columns and the hidden struct `_row`.

    `_row` has hi and lo (128 bits of identity: hash of the values as read), file (URI), record (the text of a line
    that does not parse; all columns are NULL then) and header (true for a line equal to the file's header).
    """
    frame = _read(spark, name, table, files, refused=False)
    columns = [column for column in frame.columns if column not in _HIDDEN]
    types = {field.name: field.dataType for field in frame.schema.fields}
    record = F.col(_RECORD)
    hi, lo = identity_columns({name: types[name] for name in (_RECORD, *columns)})
    row = F.struct(
        hi.alias("hi"),
        lo.alias("lo"),
        F.col(_FILE).alias("file"),
        record.alias("record"),
        F.col(_HEADER).alias("header"),
    )
    return frame.select(*map(quoted, columns), row.alias(ROW))


def read_side_table(spark: SparkSession, name: str, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return a table that the query joins; a line that does not parse ends the run, since no ledger follows it."""
    return _read(spark, name, table, files, refused=True).where(~F.col(_HEADER)).drop(*_HIDDEN)


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


def _read(spark: SparkSession, name: str, table: Table, files: Sequence[InputFile], *, refused: bool) -> DataFrame:
    """Return the columns of a table with `_lakefit_record`, `_lakefit_header` and `_lakefit_file`.

    refused: a record that does not parse ends the run with a message.
    """
    if table.format in ("csv", "json"):
        frame = _text(spark, name, table, files, refused)
    elif table.format == "images":
        frame = _images(spark, files)
    elif table.format in FILE_FORMATS:
        frame = _columnar(spark, table, files)
    else:
        frame = _other(spark, name, table, files)
    return _with_partitions(frame, name, table, files)


def _text(spark: SparkSession, name: str, table: Table, files: Sequence[InputFile], refused: bool) -> DataFrame:
    assert table.columns is not None, "the configuration requires a schema for csv and json"
    declared = parse_schema(table.columns)
    lines = _lines(spark, table, files)
    if not table.header:
        return _parsed(lines.withColumn(_HEADER, F.lit(False)), name, table, declared, refused)
    headers = [csv_header(file.path, table.separator, table.quote, table.encoding) for file in files]
    if table.schema_drift == "refuse":
        # `validate` has seen that all headers name the declared columns, in whatever spelling.
        header = F.col("value").isin(*sorted({line for line, _ in headers}))
        return _parsed(lines.withColumn(_HEADER, header), name, table, declared, refused)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, (_, names) in enumerate(headers):
        groups.setdefault(tuple(column.strip().lower() for column in names), []).append(number)
    parts = []
    for order, numbers in groups.items():
        mine = lines.where(F.col("_lakefit_number").isin(*numbers))
        header = F.col("value").isin(*sorted({headers[number][0] for number in numbers}))
        parts.append(_parsed(mine.withColumn(_HEADER, header), name, table, _in_order(declared, order), refused))
    return _united(parts, declared)


def _in_order(declared: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the columns of a file in the order of its header; those that are not declared as text to be left out."""
    known = {column.lower(): column for column in declared}
    return {
        known.get(column, f"_lakefit_extra_{place}"): declared[known[column]] if column in known else "STRING"
        for place, column in enumerate(names)
    }


def _united(parts: Sequence[DataFrame], columns: Mapping[str, str]) -> DataFrame:
    """Return the rows of all parts with the same columns: NULL where a part has none, cast to the wanted type."""
    selected = []
    for part in parts:
        there = {column.lower(): column for column in part.columns}
        wanted = [
            (F.col(quoted(there[name.lower()])) if name.lower() in there else F.lit(None)).cast(sql_type).alias(name)
            for name, sql_type in columns.items()
        ]
        selected.append(part.select(*wanted, *_HIDDEN))
    whole, *others = selected
    for other in others:
        whole = whole.unionByName(other)
    return whole


def _lines(spark: SparkSession, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return the records of text files: value, `_lakefit_file` (URI) and `_lakefit_number` (place among the files)."""
    paths = tuple(file.path for file in files)
    if needs_reader(table, paths) or lacks_connector(spark, paths[0]):
        uris = F.array(*[F.lit(file_uri(path)) for path in paths])
        numbers = spark.range(0, len(files), 1, numPartitions=len(files))
        read = numbers.mapInArrow(partial(read_records, paths=paths, dialect=Dialect.of(table)), RECORDS_SCHEMA)
        file = F.element_at(uris, F.col("file") + 1)
        value = F.col("value").cast("string")
        return read.select(value.alias("value"), file.alias(_FILE), F.col("file").alias("_lakefit_number"))
    options = {key: value for key, value in _options(table).items() if key.lower() == "linesep"}
    text = spark.read.options(**options).text([_escaped(path) for path in paths])
    # A byte-order mark belongs to the encoding, not to the first value.
    line = F.when(F.col("value").startswith("\ufeff"), F.expr("substring(value, 2)")).otherwise(F.col("value"))
    lines = text.select(line.alias("value"), F.col("_metadata.file_path").alias(_FILE)).where("value <> ''")
    if table.header and table.schema_drift == "allow":
        known = F.array(*[F.lit(path) for path in paths])
        return lines.withColumn("_lakefit_number", F.array_position(known, _plain_path(F.col(_FILE))).cast("int") - 1)
    return lines.withColumn("_lakefit_number", F.lit(0))


def lacks_connector(spark: SparkSession, path: str) -> bool:
    """Return whether Spark itself knows nothing of the store that an address names; Arrow, which lists it, does."""
    if not is_address(path):
        return False
    try:
        # A server of Spark Connect looks when the columns are asked for.
        return not spark.read.text(_escaped(path)).columns
    except Exception as error:
        # Py4J's, or of gRPC; whatever else is wrong with the files, the reading of them says.
        return NO_CONNECTOR.search(str(error)) is not None


def _plain_path(uri: Column) -> Column:
    """Return the path of a file's URI as Spark gives it, percent-encoded."""
    plain = F.regexp_replace(F.regexp_replace(uri, "^file:/+", "/"), "^s3a://", "s3://")
    return F.url_decode(F.replace(plain, F.lit("+"), F.lit("%2B")))


def _parsed(lines: DataFrame, name: str, table: Table, columns: Mapping[str, str], refused: bool) -> DataFrame:
    """Parse the column `value` of lines with `_lakefit_header` and `_lakefit_file`."""
    parsed = lines.select("value", _HEADER, _FILE, _parser(table, columns).alias("parsed"))
    fields = parsed.schema["parsed"].dataType
    assert isinstance(fields, StructType)
    broken = F.col(f"parsed.{_CORRUPT}").isNotNull() | ~F.is_valid_utf8("value")
    times = [column for column, kind in columns.items() if kind in ("TIMESTAMP", "TIMESTAMP_LTZ")]
    if times and not table.option("timestampFormat", ""):
        texts = _parser(table, {column: "STRING" if column in times else kind for column, kind in columns.items()})
        alone = [F.coalesce(texts[column].rlike(_TIME_ALONE), F.lit(False)) for column in times]
        broken = broken | reduce(or_, alone)
    if table.format == "json":
        broken = broken | _not_one_object(table, columns)
        fault, advice = (
            ("does not declare", "declare it, or leave such keys out with schema_drift: allow")
            if table.schema_drift == "refuse"
            else ("spells in another case", "declare it as the files spell it")
        )
        message = F.concat(
            F.lit(f"LAKEFIT: the table {name!r} has a record with the key "), _strange_key(table, fields),
            F.lit(f", which its schema {fault}, in "), _plain_path(F.col(_FILE)), F.lit(f": {advice}"),
        )  # fmt: skip
        drifted = message.isNotNull() & ~broken
        broken = F.when(drifted, F.raise_error(message).cast("boolean")).otherwise(broken)
    bad = F.col(_HEADER) | broken
    good = F.when(~bad, F.col("parsed"))
    if refused:
        refusal = F.raise_error(
            F.concat(
                F.lit(f"LAKEFIT: the table {name!r} has a line that does not fit its schema, in "),
                _plain_path(F.col(_FILE)),
                F.lit(": "),
                F.substring("value", 1, 200),
            )
        )
        # In the values themselves: a join puts its own filter (key IS NOT NULL) before any filter of ours.
        good = good.when(~F.col(_HEADER), refusal.cast(fields))
    text = F.make_valid_utf8("value")
    marked = parsed.select(good.alias("parsed"), F.when(bad, text).alias(_RECORD), _FILE, _HEADER)
    kept = [column for column in columns if not column.startswith("_lakefit_extra_")]
    return marked.select(*(f"parsed.{quoted(column)}" for column in kept), *_HIDDEN)


def _parser(table: Table, columns: Mapping[str, str]) -> Column:
    """Return the struct that Spark parses the column `value` to, with `_lakefit_corrupt`."""
    options = {key: value for key, value in _options(table).items() if key.lower() not in _LINE_OPTIONS}
    options |= {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT}
    schema = ", ".join(f"{quoted(column)} {kind}" for column, kind in [*columns.items(), (_CORRUPT, "STRING")])
    if table.format == "json":
        return F.from_json("value", schema, options)
    options |= {"sep": table.separator, "quote": table.quote, "escape": table.escape}
    # A quote that is never closed swallows one value more than there are; Spark would take the rest of the line.
    ended = F.concat(F.col("value"), F.lit(f"{table.separator}."))
    return F.from_csv(ended, f"{schema}, _lakefit_end STRING", options)


def _not_one_object(table: Table, columns: Mapping[str, str]) -> Column:
    """Return whether `value` is not one JSON object that can be read in one way only."""
    value = F.col("value")
    keys = F.json_object_keys(value)
    # Spark's JSON parser stops after the first value and takes the last of equal keys.
    one = F.coalesce(F.json_array_length(F.concat(F.lit("["), value, F.lit("]"))), F.lit(0)) == 1
    broken = ~one | keys.isNull() | (F.size(F.array_distinct(keys)) < F.size(keys))
    if any(mark in kind for kind in columns.values() for mark in ("STRUCT<", "MAP<")):
        # Equal keys further inside; this parser takes no liberties.
        strict = not any(name.lower().startswith("allow") for name in table.options)
        broken = broken | (F.try_parse_json(value).isNull() if strict else F.lit(False))
    return broken | (value.contains("\\u") & value.rlike(_LONE_SURROGATE))


def _strange_key(table: Table, fields: StructType) -> Column:
    """Return the first key of a JSON record that is none of the schema's, or (allow) is one but for its case."""
    known = F.array(*[F.lit(name) for name in fields.names if name != _CORRUPT])
    strange = F.array_except(F.json_object_keys("value"), known)
    if table.schema_drift == "allow":
        folded = F.transform(known, F.lower)
        return F.try_element_at(F.filter(strange, lambda key: F.array_contains(folded, F.lower(key))), F.lit(1))
    found = [F.try_element_at(strange, F.lit(1))]
    for path, inner in _objects(fields, "$"):
        keys = F.json_object_keys(F.get_json_object("value", path))
        found.append(F.try_element_at(F.array_except(keys, F.array(*[F.lit(n) for n in inner.names])), F.lit(1)))
    return F.coalesce(*found)


def _objects(fields: StructType, path: str) -> Iterator[tuple[str, StructType]]:
    """Yield the structs inside a struct with their JSON paths; those in lists and maps apart."""
    for field in fields:
        if isinstance(field.dataType, StructType):
            inside = f"{path}['{field.name}']"
            yield inside, field.dataType
            yield from _objects(field.dataType, inside)


def _columnar(spark: SparkSession, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return Parquet or ORC: files of one schema in one read, NULL and wider types where schemas differ."""
    assert table.format is not None
    groups: dict[tuple[tuple[tuple[str, str], ...], frozenset[str]], list[InputFile]] = {}
    for file in files:
        footer = tuple(file_columns(file.path, table.format).items())
        nanoseconds = nanosecond_columns(file.path) if table.format == "parquet" else frozenset()
        groups.setdefault((footer, nanoseconds), []).append(file)
    if any(nanoseconds for _, nanoseconds in groups):
        # Spark reads nanoseconds as plain integers or not at all.
        spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    declared = parse_schema(table.columns) if table.columns is not None else None
    parts = []
    for (columns, nanoseconds), group in groups.items():
        # By the types of the files, which `validate` has compared with the declared ones: told others, ORC's reader
        # gives NULL or cuts.
        part = _with_file(_loaded(spark.read.options(**_options(table)), table.format, group))
        times = {name: _time_of_nanoseconds(name) for name in nanoseconds if name in part.columns}
        part = part.withColumns(times) if times else part
        parts.append(part.drop(*(name for name, kind in columns if kind == "VOID")))
    if len(parts) == 1 and declared is None and table.schema_drift == "refuse":
        return parts[0]
    wanted = declared if declared is not None else merged_columns([dict(columns) for columns, _ in groups])
    return _united(parts, wanted)


def _time_of_nanoseconds(name: str) -> Column:
    # Spark's times have microseconds; `div` would round times before 1970 up.
    return F.expr(f"timestamp_micros(({quoted(name)} - pmod({quoted(name)}, 1000)) div 1000)")


def _images(spark: SparkSession, files: Sequence[InputFile]) -> DataFrame:
    """Return a row a file: where it lies, and its bytes."""
    tasks = max(cores(spark), sum(file.size for file in files) // _TASK_BYTES)
    numbers = spark.range(0, len(files), 1, numPartitions=min(len(files), int(tasks)))
    listed = tuple((file.name, file.path) for file in files)
    return _with_hidden(numbers.mapInArrow(partial(read_images, files=listed), IMAGES_SCHEMA), F.col(_FILE))


def _other(spark: SparkSession, name: str, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Return a table of the catalog, or what another format of the session's Spark reads."""
    # Where Spark parses text, a record that does not parse would be a row of NULLs.
    mode = {"mode": "FAILFAST"} if table.table is not None or table.format == "xml" else {}
    reader = spark.read.options(**{**mode, **_options(table)})
    if table.table is not None:
        return _with_file(reader.table(table.table), f"table:{table.table}")
    assert table.format is not None
    reader = reader.format(table.format)
    reader = reader.schema(table.columns) if table.columns is not None else reader
    if table.path is None:
        return _with_file(reader.load(), f"source:{name}")
    return _with_file(_loaded(reader, table.format, files))


def _loaded(reader: DataFrameReader, format_name: str, files: Sequence[InputFile]) -> DataFrame:
    return reader.format(format_name).load([_escaped(file.path) for file in files])


def _with_file(frame: DataFrame, known_as: str | None = None) -> DataFrame:
    return _with_hidden(frame, F.col("_metadata.file_path") if known_as is None else F.lit(known_as))


def _with_hidden(frame: DataFrame, file: Column) -> DataFrame:
    return frame.select(
        *(quoted(name) for name in frame.columns if name != _FILE),
        F.lit(None).cast("string").alias(_RECORD),
        F.lit(False).alias(_HEADER),
        file.alias(_FILE),
    )


def _with_partitions(frame: DataFrame, name: str, table: Table, files: Sequence[InputFile]) -> DataFrame:
    """Add the columns that the names of folders below the table's root give."""
    if table.partitions is None:
        return frame
    root = files[0].path.removesuffix(files[0].name)
    inside = F.substring(_plain_path(F.col(_FILE)), len(root) + 1, 1 << 20)
    added = {}
    for column, sql_type in parse_schema(table.partitions).items():
        folders = [pair for file in files for pair in partition_folders(file.name)]
        spelt = sorted({re.escape(key) for key, _ in folders if unquote(key).lower() == column.lower()})
        found = F.regexp_extract(inside, f"(?:^|/)(?:{'|'.join(spelt)})=([^/]*)/", 1)
        # Hive escapes what a path can't hold, and names NULL; others' % may mean itself.
        text = F.coalesce(F.try_url_decode(F.replace(found, F.lit("+"), F.lit("%2B"))), found)
        # Rows that did not parse have no values, here neither.
        known = F.when(F.col(_RECORD).isNull() & (text != "__HIVE_DEFAULT_PARTITION__"), text)
        cast = known.try_cast(sql_type)
        wrong = known.isNotNull() & (cast.isNull() | (known.rlike(_TIME_ALONE) & F.lit(sql_type.startswith("TIME"))))
        message = F.concat(
            F.lit(f"LAKEFIT: table {name!r}: the folder of "), _plain_path(F.col(_FILE)),
            F.lit(f" says {column}="), known,
            F.lit(f", which is no {sql_type}; declare partitions: {column} STRING, or rename the folder"),
        )  # fmt: skip
        added[column] = F.when(wrong, F.raise_error(message).cast(sql_type)).otherwise(cast)
    return frame.withColumns(added)


def _options(table: Table) -> dict[str, str]:
    return {
        key: str(value).lower() if isinstance(value, bool) else substitute_environment(str(value))
        for key, value in table.options.items()
    }


def _escaped(path: str) -> str:
    """Escape what Hadoop would read as a glob: these are names of files already found."""
    return "".join(f"\\{character}" if character in "*?[]{}\\" else character for character in spark_path(path))
