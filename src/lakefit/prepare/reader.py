"""Who reads the rows: Arrow, where it reads what Spark would read and no SQL asks for more, else Spark."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.config import Pipeline
from lakefit.config.sql import parse_schema
from lakefit.dataset.inputs import InputFile, file_columns, open_raw
from lakefit.prepare.expressions import compile_sql
from lakefit.prepare.plain_csv import TYPES, not_plain


def reader_of(pipeline: Pipeline, inputs: Mapping[str, Sequence[InputFile]]) -> str:
    """Return who will read the rows, and why it is Spark; a file's bytes may still turn out to be Spark's."""
    why = why_spark(pipeline, inputs)
    return "Arrow" if why is None else f"Spark: {why}"


def why_spark(pipeline: Pipeline, inputs: Mapping[str, Sequence[InputFile]]) -> str | None:
    """Return why Spark must read the rows, as far as files' names and footers tell; None where Arrow can."""
    source = pipeline.source
    table = source.tables[source.rows]
    if source.query is not None or len(source.tables) > 1:
        return "source.query is SQL"
    if table.format not in ("csv", "parquet"):
        return f"the format is {table.format or 'a table of the catalog'}"
    if table.schema_drift == "allow" or table.partitions is not None:
        return "files of different columns and partition folders are read by Spark"
    steps = [name for step in pipeline.clean for name in step.model_fields_set if name not in ("column", "drop")]
    if steps:
        return f"clean: {steps[0]} is done by Spark"
    files = inputs[source.rows]
    columns = raw_columns(pipeline, files)
    if table.format == "csv":
        packed = [file.name for file in files if not file.name.lower().endswith((".csv", ".txt", ".tsv"))]
        problem = not_plain(table, columns) or (f"{packed[0]} may be compressed" if packed else None)
    else:
        problem = _not_plain_parquet(files, columns) or (
            "the schema is declared" if table.columns is not None else None
        )
    if problem is not None:
        return problem
    types = {name: TYPES[sql_type] for name, sql_type in cleaned_columns(pipeline, files).items()}
    return _uncompiled(pipeline, types)


def _uncompiled(pipeline: Pipeline, types: Mapping[str, pa.DataType]) -> str | None:
    sql = [(rule.predicate, {"boolean"}) for rule in pipeline.rules]
    for label in pipeline.label:
        kinds = {"boolean", "integer"} | ({"text"} if label.type == "classes" else {"float"})
        # Lists are Spark's.
        sql += [
            (label.expression, kinds if label.type != "multi_label" else set()),
            (label.weight, {"integer", "float"}),
        ]
    for text, kinds in sql:
        compiled = compile_sql(text, types) if text is not None else None
        if text is not None and (compiled is None or compiled.kind not in kinds):
            return f"{text!r} is SQL that Spark evaluates"
    return None


def _not_plain_parquet(files: Sequence[InputFile], columns: Mapping[str, str]) -> str | None:
    strange = [f"{name} {sql_type}" for name, sql_type in columns.items() if sql_type not in TYPES]
    if strange:
        return f"Spark reads {strange[0]}"
    with open_raw(files[0].path) as file:
        schema = pq.read_schema(file)
    odd = [name for name in columns if schema.field(name).type not in (TYPES[columns[name]], pa.large_string())]
    return f"Spark reads {odd[0]} {schema.field(odd[0]).type}" if odd else None


def raw_columns(pipeline: Pipeline, files: Sequence[InputFile]) -> dict[str, str]:
    """Return the columns of the followed table with their Spark SQL types, where Arrow reads it."""
    table = pipeline.source.tables[pipeline.source.rows]
    return parse_schema(table.columns) if table.columns is not None else file_columns(files[0].path, "parquet")


def cleaned_columns(pipeline: Pipeline, files: Sequence[InputFile]) -> dict[str, str]:
    """Return the columns that are left after `clean`, where Arrow reads the rows."""
    dropped = {name.lower() for step in pipeline.clean for name in step.drop or ()}
    return {name: kind for name, kind in raw_columns(pipeline, files).items() if name.lower() not in dropped}
