"""All that is known of a pipeline from its file, paths, CSV headers and Parquet footers: no Spark, no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lakefit.config import Pipeline, PipelineSource, Problem, load_pipeline, nearest
from lakefit.config.check import check_pipeline
from lakefit.config.file import Key
from lakefit.config.source import Table
from lakefit.config.sql import SqlError, parse_schema
from lakefit.dataset.inputs import InputFile, csv_header, list_inputs, parquet_columns
from lakefit.dataset.publish import ensure_ours
from lakefit.errors import InputError


@dataclass(frozen=True, slots=True)
class Validated:
    """A pipeline without a known fault, and the files that its tables name now."""

    pipeline: Pipeline
    source: PipelineSource
    inputs: dict[str, tuple[InputFile, ...]]


def validate(path: str | Path, overrides: tuple[str, ...] = ()) -> Validated:
    """Return the validated pipeline. Raises InputError with every problem found, one a line."""
    pipeline, source = load_pipeline(path, overrides)
    return check_inputs(pipeline, source)


def check_inputs(pipeline: Pipeline, source: PipelineSource) -> Validated:
    """Check a loaded pipeline against its files; see `validate`."""
    problems: list[Problem] = []
    inputs: dict[str, tuple[InputFile, ...]] = {}
    columns: dict[str, dict[str, str]] = {}
    for name, table in pipeline.source.tables.items():
        key: Key = ("source", "tables", name)
        try:
            inputs[name] = list_inputs(table.paths, f"table {name!r}")
        except InputError as error:
            problems.append(Problem((*key, "path"), str(error)))
        found, wrong = _table_columns(key, table, inputs.get(name, ()))
        problems += wrong
        if found is not None:
            columns[name] = found
    problems += check_pipeline(pipeline, columns)[1]
    if pipeline.score is not None:
        for name, check in (
            ("input", lambda score: list_inputs((score.input,), "score")),
            ("output", lambda score: ensure_ours(Path(score.output))),
        ):
            try:
                check(pipeline.score)
            except InputError as error:
                problems.append(Problem(("score", name), str(error)))
    if problems:
        raise source.error(*problems)
    return Validated(pipeline, source, inputs)


def _table_columns(key: Key, table: Table, files: Sequence[InputFile]) -> tuple[dict[str, str] | None, list[Problem]]:
    """Return the columns and SQL types of a table (None where they can't be told) and what is wrong with them."""
    declared: dict[str, str] | None = None
    if table.columns is not None:
        try:
            declared = parse_schema(table.columns)
        except SqlError as error:
            return None, [Problem((*key, "schema"), str(error))]
    if table.format == "csv":
        if declared is None:
            return None, [Problem(key, 'a csv table needs a schema: schema: "year INT, carrier STRING, …"')]
        return declared, _header_problems(key, table, files, declared) if table.header else []
    problems: list[Problem] = []
    first: dict[str, str] | None = None
    for file in files:
        try:
            footer = parquet_columns(file.path)
        except InputError as error:
            problems.append(Problem((*key, "path"), str(error)))
            continue
        first = first if first is not None else footer
        if footer != first:
            differing = sorted(set(footer.items()) ^ set(first.items()))
            problems.append(
                Problem((*key, "path"), f"{file.name} has other columns or types than {files[0].name}: {differing}")
            )
        problems.extend(
            Problem((*key, "schema"), f"{file.name} has no column {name!r}{nearest(name, footer)}")
            for name in declared or ()
            if name not in footer
        )
    return declared or first, problems


def _header_problems(key: Key, table: Table, files: Sequence[InputFile], declared: dict[str, str]) -> list[Problem]:
    """Compare the header of each file with the schema: columns are read by their place, not by their name."""
    separator = str(table.options.get("sep", table.options.get("delimiter", ",")))
    quote = str(table.options.get("quote", '"'))
    expected = list(declared)
    problems: list[Problem] = []
    for file in files:
        try:
            header = csv_header(file.path, separator, quote)[1]
        except InputError as error:
            problems.append(Problem((*key, "path"), str(error)))
            continue
        if [name.strip().lower() for name in header] == [name.lower() for name in expected]:
            continue
        pairs = [(a, b) for a, b in zip(header, expected, strict=False) if a.strip().lower() != b.lower()]
        if pairs:
            place = header.index(pairs[0][0]) + 1
            what = f"column {place} of {file.name} is {pairs[0][0]!r}, the schema says {pairs[0][1]!r}"
        else:
            what = f"{file.name} has {len(header)} columns, the schema {len(expected)}"
        problems.append(Problem((*key, "schema"), f"{what}{nearest(pairs[0][1], header) if pairs else ''}"))
    return problems[:20]
