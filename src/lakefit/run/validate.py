"""All that is known of a pipeline from its file, paths, CSV headers and Parquet footers: no Spark, no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lakefit.config import Pipeline, PipelineSource, Problem, load_pipeline, nearest
from lakefit.config.check import check_pipeline
from lakefit.config.file import Key
from lakefit.config.source import FILE_FORMATS, Table
from lakefit.config.sql import SqlError, parse_schema
from lakefit.dataset.inputs import Damaged, InputFile, csv_header, file_columns, list_inputs, merged_columns
from lakefit.dataset.publish import ensure_ours
from lakefit.errors import InputError


@dataclass(frozen=True, slots=True)
class Validated:
    """A pipeline without a known fault, and the files that its tables name now."""

    pipeline: Pipeline
    source: PipelineSource
    inputs: dict[str, tuple[InputFile, ...]]
    excluded: dict[str, tuple[Damaged, ...]]


def validate(path: str | Path, overrides: tuple[str, ...] = ()) -> Validated:
    """Return the validated pipeline. Raises InputError with every problem found, one a line."""
    pipeline, source = load_pipeline(path, overrides)
    return check_inputs(pipeline, source)


def check_inputs(pipeline: Pipeline, source: PipelineSource) -> Validated:
    """Check a loaded pipeline against its files; see `validate`."""
    problems: list[Problem] = []
    inputs: dict[str, tuple[InputFile, ...]] = {}
    excluded: dict[str, tuple[Damaged, ...]] = {}
    columns: dict[str, dict[str, str]] = {}
    for name, table in pipeline.source.tables.items():
        key: Key = ("source", "tables", name)
        files: tuple[InputFile, ...] = ()
        if table.path is not None:
            try:
                files = list_inputs(table.paths, f"table {name!r}")
            except InputError as error:
                problems.append(Problem((*key, "path"), str(error)))
        found, wrong, damaged = _table_columns(key, table, files)
        inputs[name] = tuple(file for file in files if file not in [one.file for one in damaged])
        excluded[name] = damaged
        if files and not inputs[name]:
            wrong.append(Problem((*key, "path"), f"every file is damaged: {damaged[0].reason}"))
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
    return Validated(pipeline, source, inputs, excluded)


def _table_columns(
    key: Key, table: Table, files: Sequence[InputFile]
) -> tuple[dict[str, str] | None, list[Problem], tuple[Damaged, ...]]:
    """Return the columns and SQL types of a table (None where they can't be told), what is wrong, and damaged files."""
    schemas: dict[str, dict[str, str]] = {}
    for name, text in (("schema", table.columns), ("partitions", table.partitions)):
        if text is not None:
            try:
                schemas[name] = parse_schema(text)
            except SqlError as error:
                return None, [Problem((*key, name), str(error))], ()
    declared, partitions = schemas.get("schema"), schemas.get("partitions", {})
    problems = _partition_problems(key, files, partitions)
    damaged: list[Damaged] = []
    found = declared
    if table.format in ("csv", "json"):
        if declared is None:
            missing = f'a {table.format} table needs a schema: schema: "year INT, carrier STRING, …"'
            return None, [Problem(key, missing)], ()
        if table.header:
            problems += _header_problems(key, table, files, declared, damaged)
    elif table.format in FILE_FORMATS:
        found, wrong = _footer_columns(key, table, files, declared, damaged)
        problems += wrong
    twice = sorted({name.lower() for name in found or ()} & {name.lower() for name in partitions})
    if twice:
        problems.append(Problem((*key, "partitions"), f"{twice[0]!r} is a column of the files as well"))
    if damaged and table.on_corrupt_file == "fail":
        problems += [Problem((*key, "path"), one.reason) for one in damaged[:20]]
    return ({**found, **partitions} if found is not None else None), problems, tuple(damaged)


def _partition_problems(key: Key, files: Sequence[InputFile], partitions: dict[str, str]) -> list[Problem]:
    """Compare the folders of the files with the declared partitions: nothing is guessed from a path."""
    for file in files:
        folders = file.path.split("/")[:-1]
        named = [folder.partition("=")[0] for folder in folders if "=" in folder]
        missing = [name for name in partitions if name not in named]
        if missing:
            return [Problem((*key, "partitions"), f"{file.path} lies in no folder {missing[0]}=…")]
        inside = [folder.partition("=")[0] for folder in file.name.split("/")[:-1] if "=" in folder]
        unknown = [name for name in inside if name not in partitions]
        if unknown:
            advice = ", ".join(f"{name} STRING" for name in inside)
            message = f'the files lie in folders {unknown[0]}=…; say what they hold: partitions: "{advice}"'
            return [Problem((*key, "path"), message)]
    return []


def _footer_columns(
    key: Key, table: Table, files: Sequence[InputFile], declared: dict[str, str] | None, damaged: list[Damaged]
) -> tuple[dict[str, str] | None, list[Problem]]:
    assert table.format is not None
    problems: list[Problem] = []
    footers: dict[str, dict[str, str]] = {}
    for file in files:
        try:
            footers[file.name] = file_columns(file.path, table.format)
        except InputError as error:
            damaged.append(Damaged(file, str(error)))
    if not footers:
        return declared, problems
    first_name, first = next(iter(footers.items()))
    for name, footer in footers.items():
        if table.schema_drift == "refuse" and footer != first:
            differing = sorted(set(footer.items()) ^ set(first.items()))
            shown = ", ".join(f"{column} {sql_type}" for column, sql_type in differing[:5])
            message = (
                f"{name} has other columns or types than {first_name}: {shown}; read them with schema_drift: allow"
            )
            problems.append(Problem((*key, "path"), message))
        problems.extend(
            Problem((*key, "schema"), f"{name} has no column {column!r}{nearest(column, footer)}")
            for column in (declared or ())
            if table.schema_drift == "refuse"
            if column not in footer
        )
    merged = first
    if table.schema_drift == "allow":
        try:
            merged = merged_columns(list(footers.values()))
        except ValueError as error:
            problems.append(Problem((*key, "path"), f"{error}: no type holds both"))
        never = [column for column in declared or () if column not in merged]
        problems += [Problem((*key, "schema"), f"no file has the column {c!r}{nearest(c, merged)}") for c in never]
    return declared or merged, problems[:20]


def _header_problems(
    key: Key, table: Table, files: Sequence[InputFile], declared: dict[str, str], damaged: list[Damaged]
) -> list[Problem]:
    """Compare the header of each file with the schema: columns are read by their place, not by their name."""
    separator = table.option("sep", table.option("delimiter", ","))
    quote = table.option("quote", '"')
    expected = list(declared)
    problems: list[Problem] = []
    for file in files:
        try:
            header = csv_header(file.path, separator, quote, table.encoding)[1]
        except InputError as error:
            damaged.append(Damaged(file, str(error)))
            continue
        if table.schema_drift == "allow":
            # By name, whatever the order; what a file has not is NULL.
            if not {name.strip().lower() for name in header} & {name.lower() for name in declared}:
                problems.append(Problem((*key, "schema"), f"the header of {file.name} names no column of the schema"))
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
