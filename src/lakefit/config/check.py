"""What the sections of a pipeline file say of each other and of the tables' columns."""

import re
from collections.abc import Iterable, Mapping

from lakefit.config.file import Key, Problem, nearest
from lakefit.config.pipeline import Pipeline
from lakefit.config.sql import Kind, SqlError, expression_columns, kind_of, query_columns

RESERVED = frozenset(
    f"_{name}"
    for name in (
        *("row", "row_hi", "row_lo", "key_hi", "key_lo", "occurrence", "kept_row", "kept_occurrence", "file", "record"),
        *("header", "content", "reason", "rule", "label", "not_finite", "split"),
    )
)
"""Columns that Lakefit adds to the rows; `_lakefit_…` are its own as well, and `label` is among the features."""


def check_pipeline(
    pipeline: Pipeline, tables: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Kind] | None, list[Problem]]:
    """Return the columns of the query's result (None where only Spark can tell) and every problem found.

    tables: the columns and Spark SQL types of each table; a table whose columns are not known is absent.
    """
    source = pipeline.source
    problems: list[Problem] = []
    if source.rows not in source.tables:
        problems.append(
            Problem(("source", "rows"), f"unknown table {source.rows!r}{nearest(source.rows, source.tables)}")
        )
        return None, problems
    for name, columns in tables.items():
        problems.extend(
            Problem(("source", "tables", name), f"the column name {column!r} is Lakefit's own")
            for column in columns
            if _is_reserved(column)
        )
    columns_out: dict[str, Kind] | None = None
    if len(tables) == len(source.tables):
        if source.query is None:
            columns_out = {name: kind_of(sql_type) for name, sql_type in tables[source.rows].items()}
        else:
            try:
                columns_out = query_columns(source.query, tables, source.rows)
            except SqlError as error:
                problems.append(Problem(("source", "query"), str(error), error.line))
    return columns_out, problems + check_columns(pipeline, columns_out)


def check_columns(pipeline: Pipeline, columns: Mapping[str, Kind] | None, *, exact: bool = False) -> list[Problem]:
    """Return every problem with the columns that the sections after `source` name; SQL is parsed in any case.

    exact: `columns` are spelt as the rows will have them, and names outside of SQL must be too: Arrow tells `Day` from
    `day`. sqlglot's are in lower case.
    """
    problems: list[Problem] = []
    known = {name.lower(): kind for name, kind in columns.items()} if columns is not None else None

    # Spark resolves a dot as a field of a struct wherever rows leave for Python.
    problems.extend(
        Problem(("source", "query"), f"the column name {name!r} holds a dot; give it an alias in source.query")
        for name in columns or ()
        if "." in name
    )
    for group in ("numeric", "categorical"):
        section = getattr(pipeline.features, group)
        problems.extend(
            Problem(
                ("features", group, "columns", place),
                f"{name!r} can't name an input of the model: letters, digits and _ alone; give the column an alias in "
                "source.query",
            )
            for place, name in enumerate(section.columns if section else ())
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        )

    def must_exist(key: Key, name: str, line: int = 0) -> Kind:
        if known is None:
            return "unknown"
        misspelt = exact and not line and name not in (columns or ())
        if name.lower() not in known or misspelt:
            problems.append(Problem(key, f"unknown column {name!r}{nearest(name, columns or ())}", line))
        return known.get(name.lower(), "unknown")

    def must_be(key: Key, name: str, allowed: Iterable[Kind], wanted: str) -> None:
        kind = must_exist(key, name)
        if kind != "unknown" and kind not in allowed:
            problems.append(Problem(key, f"the column {name!r} holds {_KIND_WORDS[kind]}; expected {wanted}"))

    def check_sql(key: Key, sql: str) -> set[str]:
        try:
            named = expression_columns(sql)
        except SqlError as error:
            problems.append(Problem(key, str(error), error.line))
            return set()
        for name, line in named:
            must_exist(key, name, line)
        return {name.lower() for name, _ in named}

    if pipeline.source.query is not None:
        problems.extend(
            Problem(("source", "query"), f"the column name {name!r} is Lakefit's own; give it another alias")
            for name in columns or ()
            if _is_reserved(name)
        )
    for i, clean in enumerate(pipeline.clean):
        if clean.text:
            must_be(("clean", i, "column"), clean.column, ("text",), "text")
        else:
            must_exist(("clean", i, "column"), clean.column)
    if pipeline.deduplicate is not None:
        for i, name in enumerate(pipeline.deduplicate.key or ()):
            must_exist(("deduplicate", "key", i), name)
        if pipeline.deduplicate.order is not None:
            must_exist(("deduplicate", "keep"), pipeline.deduplicate.order[0])
    for i, rule in enumerate(pipeline.reject):
        check_sql(("reject", i, "when"), rule.when)
    for i, name in enumerate(pipeline.split.by or ()):
        must_exist(("split", "by", i), name)
    in_label = check_sql(("label", "expression"), pipeline.label.expression)
    numeric, categorical = pipeline.features.numeric, pipeline.features.categorical
    for i, name in enumerate(numeric.columns if numeric else ()):
        must_be(("features", "numeric", "columns", i), name, ("number", "boolean"), "numbers")
    for i, name in enumerate(categorical.columns if categorical else ()):
        must_be(
            ("features", "categorical", "columns", i), name, ("text", "number", "boolean"), "text, integers or booleans"
        )
    for group in ("numeric", "categorical"):
        section = getattr(pipeline.features, group)
        for i, name in enumerate(section.columns if section else ()):
            key: Key = ("features", group, "columns", i)
            if name.lower() in in_label:
                problems.append(
                    Problem(key, f"the label is computed from {name!r}: as a feature it gives the answer away")
                )
            if name.lower() == "label":
                problems.append(
                    Problem(key, "'label' is the name of the label's own column; give the feature an alias")
                )
    for i, name in enumerate(pipeline.score.keys if pipeline.score else ()):
        must_exist(("score", "keys", i), name)
    return problems


def _is_reserved(column: str) -> bool:
    return column.lower() in RESERVED or column.lower().startswith("_lakefit_")


_KIND_WORDS: Mapping[Kind, str] = {
    "number": "numbers",
    "boolean": "booleans",
    "text": "text",
    "time": "dates or times",
    "other": "nested or binary values",
    "unknown": "values of an unknown type",
}
