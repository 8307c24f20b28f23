"""What can be known of Spark SQL without Spark: the columns that come out of a query and go into an expression."""

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import OptimizeError, ParseError, TokenError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

from lakefit.config.file import nearest

Kind = Literal["number", "boolean", "text", "time", "list", "bytes", "other", "unknown"]
"""What sort of values a column holds; list: of any of those before it."""
ROW = "_row"
"""The hidden column that follows each row of the table `rows` through the query: identity and provenance."""
MARKS = "_marks"
"""The hidden column in which `clean` notes what it did to a row, a struct.

not_finite (INT): NaN and infinities that became NULL. unparsable, corrected (STRING): records of (place of the step,
column, text[, corrected text]), their fields joined by `FIELD`, they by `RECORD_END`; NULL where there are none. rule
(INT): the number of the first rule that a value which does not parse breaks.
"""
FIELD, RECORD_END = "\x1f", "\x1e"


def quoted(name: str) -> str:
    """Return a column name as Spark SQL takes it, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


class SqlError(ValueError):
    """SQL that is wrong for a reason that is known without Spark; `line` counts from 1 inside the text."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def parse_schema(ddl: str) -> dict[str, str]:
    """Return the columns of `"year INT, carrier STRING"` with their SQL types, in order. Raises SqlError."""
    try:
        table = sqlglot.parse_one(f"CREATE TABLE t ({ddl})", dialect="spark")
    except RecursionError:
        raise SqlError(_TOO_DEEP) from None
    except (ParseError, TokenError) as error:
        raise SqlError(f"not a list of columns and Spark SQL types: {_first_line(error)}") from None
    columns: dict[str, str] = {}
    for column in table.this.expressions if isinstance(table.this, exp.Schema) else ():
        if not isinstance(column, exp.ColumnDef) or column.kind is None:
            raise SqlError(f"expected 'name TYPE', found {column.sql(dialect='spark')!r}")
        if column.name.lower() in {name.lower() for name in columns}:
            raise SqlError(f"the column {column.name!r} is declared twice")
        columns[column.name] = column.kind.sql(dialect="spark")
    if not columns:
        raise SqlError("declares no column")
    return columns


def kind_of(sql_type: str) -> Kind:
    """Return what sort of values a Spark SQL type holds."""
    try:
        data_type = exp.DataType.build(sql_type, dialect="spark")
    except (ParseError, RecursionError):
        return "unknown"
    return _kind(data_type)


def _kind(data_type: exp.DataType | None) -> Kind:
    if data_type is None or data_type.is_type(exp.DataType.Type.UNKNOWN, exp.DataType.Type.NULL):
        return "unknown"
    if data_type.is_type(*exp.DataType.NUMERIC_TYPES):
        return "number"
    if data_type.is_type(exp.DataType.Type.BOOLEAN):
        return "boolean"
    if data_type.is_type(*exp.DataType.TEXT_TYPES):
        return "text"
    if data_type.is_type(exp.DataType.Type.ARRAY):
        inner = _kind(data_type.expressions[0] if data_type.expressions else None)
        return "other" if inner in ("list", "bytes", "other") else "unknown" if inner == "unknown" else "list"
    if data_type.is_type(exp.DataType.Type.BINARY, exp.DataType.Type.VARBINARY):
        return "bytes"
    return "time" if data_type.is_type(*exp.DataType.TEMPORAL_TYPES) else "other"


def query_columns(query: str, tables: Mapping[str, Mapping[str, str]], rows: str) -> dict[str, Kind] | None:
    """Return the columns of a query's result, `_row` apart, or None where that can't be told without Spark.

    tables: the columns and SQL types of each table, without the hidden one.

    Raises:
        SqlError: a syntax error, an unknown table or column, a column that comes out twice, or `_row` lost.
    """
    refuse_chance(query)
    statement = parse_statement(query)
    known_tables = {name.lower() for name in tables} | {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
    # A hint names tables by their aliases; Spark passes over one that it does not know.
    named = (table for table in statement.find_all(exp.Table) if table.find_ancestor(exp.Hint) is None)
    for table in named:
        if table.name.lower() not in known_tables and not table.args.get("db"):
            raise SqlError(f"unknown table {table.name!r}{nearest(table.name, tables)}", _line(table.this))
    schema: dict[str, object] = {
        name: {**columns, ROW: "BINARY"} if name == rows else dict(columns) for name, columns in tables.items()
    }
    try:
        qualified = qualify(statement, schema=schema, dialect="spark")
        qualified = annotate_types(qualified, schema=schema, dialect="spark")
    except RecursionError:
        return None
    except OptimizeError as error:
        problem = _unknown_column(str(error), tables)
        if problem is None:
            return None
        raise problem from None
    selects = qualified.selects if isinstance(qualified, exp.Query) else []
    if not selects or any(select.is_star for select in selects):
        return None
    columns: dict[str, Kind] = {}
    for select in selects:
        name = select.alias_or_name
        if name in columns:
            raise SqlError(f"the column {name!r} comes out of the query twice: name the columns, or give one an alias")
        columns[name] = _kind(select.type)
    if ROW not in columns:
        raise SqlError(
            f"the query does not hand {ROW} through, by which each row of {rows!r} is followed: "
            f"select {rows}.* or add {rows}.{ROW}"
        )
    del columns[ROW]
    return columns


def expression_columns(sql: str) -> list[tuple[str, int]]:
    """Return the columns that an expression over one row names, each with its line in the text. Raises SqlError."""
    refuse_chance(sql)
    expression = parse_statement(sql)
    for kinds, what in _OTHER_ROWS:
        found = expression.find(*kinds)
        if found is not None:
            raise SqlError(
                f"{found.sql(dialect='spark')[:60]!r} is {what}: here an expression sees one row alone; what is "
                "learned belongs to features, what is joined or counted to source.query",
                _line(found),
            )
    variables = {parameter.name for function in expression.find_all(exp.Lambda) for parameter in function.expressions}
    return [
        (column.name, _line(column.this))
        for column in expression.find_all(exp.Column)
        if column.name not in variables and not column.table
    ]


def no_predicate(sql: str, kinds: Mapping[str, Kind]) -> str | None:
    """Return what an expression is that plainly is no condition; kinds: of the columns, by lower-case name."""
    expression = parse_statement(sql).unnest()
    if isinstance(expression, (exp.Literal, exp.Add, exp.Sub, exp.Mul, exp.Div)):
        return "a value"
    kind = kinds.get(expression.name.lower(), "unknown") if isinstance(expression, exp.Column) else "unknown"
    return {"number": "a number", "text": "text", "time": "a time"}.get(kind)


_TOO_DEEP = "SQL that is nested too deeply to be read; say it in steps"
_OTHER_ROWS: tuple[tuple[tuple[Any, ...], str], ...] = (
    ((exp.Window,), "a window function"),
    ((exp.Query,), "a query"),
    ((exp.AggFunc,), "an aggregate"),
    ((exp.UDTF, exp.Explode, exp.Posexplode, exp.Inline), "a function that makes rows"),
)
_CHANCE = re.compile(
    r"\b(?:(?:rand|randn|random|randstr|uniform|uuid|shuffle|monotonically_increasing_id|spark_partition_id|now|curdate"
    r"|current_user|session_user|user|current_catalog|current_database|current_schema|version|reflect|try_reflect"
    r"|java_method|input_file_name|input_file_block_start|input_file_block_length)\s*\(|unix_timestamp\s*\(\s*\)"
    r"|(?:current_timestamp|current_date|current_time|current_user|localtimestamp)\b)",
    re.IGNORECASE,
)
# Spark takes these words, as literals of a time or cast to one, for the moment of the run.
_NOW = re.compile(
    r"\b(?:date|timestamp(?:_ntz|_ltz)?)\s*'\s*(?:now|today|yesterday|tomorrow)\b"
    r"|\bcast\s*\(\s*'\s*(?:now|today|yesterday|tomorrow)\b|'\s*(?:now|today|yesterday|tomorrow)\s*'\s*::",
    re.IGNORECASE,
)


def refuse_chance(sql: str) -> None:
    """Raise SqlError where a query or expression depends on chance, on the time or on the partitioning."""
    found = _CHANCE.search(re.sub(r"'(?:[^'\\]|\\.)*'", "''", sql)) or _NOW.search(sql)
    if found is not None:
        name = found.group(0).rstrip("( ")
        raise SqlError(f"{name} gives another result in each run; the same input must give the same dataset")


def parse_statement(sql: str) -> exp.Expression:
    """Return the syntax tree of one SQL query or expression. Raises SqlError."""
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="spark") if statement is not None]
    except ParseError as error:
        details = error.errors[0] if error.errors else {}
        near = f" near {details.get('highlight')!r}" if details.get("highlight") else ""
        # sqlglot names its own classes.
        said = re.sub(r"<class '[\w.]*\.(\w+)'>", r"\1", str(details.get("description", error)))
        raise SqlError(f"not valid SQL: {said}{near}", details.get("line") or 1) from None
    except RecursionError:
        raise SqlError(_TOO_DEEP) from None
    except TokenError as error:
        raise SqlError(f"not valid SQL: {_first_line(error)}") from None
    if len(statements) != 1:
        raise SqlError("expected exactly one SQL query or expression")
    return cast(exp.Expression, statements[0])


def _unknown_column(message: str, tables: Mapping[str, Mapping[str, str]]) -> SqlError | None:
    found = re.search(r"Unknown column: (\S+)|Column '([^']+)' could not be resolved", message)
    if found is None:
        return None
    name = (found.group(1) or found.group(2)).split(".")[-1].strip('"`')
    line = re.search(r"Line: (\d+)", message)
    every = [column for columns in tables.values() for column in columns]
    return SqlError(f"unknown column {name!r}{nearest(name, every)}", int(line.group(1)) if line else 1)


def _line(node: object) -> int:
    return int(node.meta.get("line", 1)) if isinstance(node, exp.Expression) else 1


def _first_line(error: Exception) -> str:
    return re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()[0]
