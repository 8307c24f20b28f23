"""All that is known of a pipeline from its file, paths, CSV headers and Parquet footers: no Spark, no TensorFlow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from lakefit.config import ConfigError, Pipeline, PipelineSource, Problem, load_pipeline, nearest, validate_pipeline
from lakefit.config.check import check_pipeline
from lakefit.config.file import Key, with_values
from lakefit.config.functions import function_problem
from lakefit.config.images import COLUMNS as IMAGE_COLUMNS
from lakefit.config.pipeline import Score
from lakefit.config.source import FILE_FORMATS, Table
from lakefit.config.sql import SqlError, parse_schema
from lakefit.dataset.conditional import output_problem
from lakefit.dataset.inputs import (
    Damaged,
    InputFile,
    UnreadableError,
    can_hold,
    compression_of,
    csv_header,
    file_columns,
    first_line,
    list_inputs,
    merged_columns,
    partition_folders,
    read_all,
)
from lakefit.dataset.object_path import STORE_ERRORS, AnyPath, any_path
from lakefit.dataset.publish import ensure_ours
from lakefit.errors import InputError


@dataclass(frozen=True, slots=True)
class Validated:
    """A pipeline without a known fault, and the files that its tables name now."""

    pipeline: Pipeline
    source: PipelineSource
    inputs: dict[str, tuple[InputFile, ...]]
    excluded: dict[str, tuple[Damaged, ...]]
    overrides: tuple[str, ...] = ()


def validate(path: str | AnyPath, overrides: tuple[str, ...] = (), *, to_train: bool = True) -> Validated:
    """Return the validated pipeline. Raises InputError with every problem found, one a line.

    to_train: false for scoring alone, which needs no code of the model's.
    """
    pipeline, source = load_pipeline(path, overrides)
    return replace(check_inputs(pipeline, source, to_train=to_train), overrides=overrides)


def check_inputs(pipeline: Pipeline, source: PipelineSource, *, to_train: bool = True) -> Validated:
    """Check a loaded pipeline against its files; see `validate`."""
    problems: list[Problem] = []
    for at, code in pipeline.train.own_code() if to_train else ():
        missing = function_problem(code, "function or class")
        if missing is not None:
            problems.append(Problem(at, missing))
    inputs: dict[str, tuple[InputFile, ...]] = {}
    excluded: dict[str, tuple[Damaged, ...]] = {}
    columns: dict[str, dict[str, str]] = {}
    for name, table in pipeline.source.tables.items():
        key: Key = ("source", "tables", name)
        files: tuple[InputFile, ...] = ()
        if table.path is not None:
            try:
                files = list_inputs(table.paths, f"table {name!r}", images=table.format == "images")
            except InputError as error:
                problems.append(Problem((*key, "path"), str(error)))
        found, wrong, damaged = _table_columns(key, table, files)
        inputs[name] = tuple(file for file in files if file not in [one.file for one in damaged])
        excluded[name] = damaged
        if files and not inputs[name] and table.on_corrupt_file == "exclude":
            wrong.append(Problem((*key, "path"), f"every file is damaged: {damaged[0].reason}"))
        problems += wrong
        if found is not None:
            columns[name] = found
    problems += check_pipeline(pipeline, columns)[1]
    problems += _search_problems(pipeline, source)
    try:
        no_output = output_problem(any_path(pipeline.output.path))
    except InputError as error:
        no_output = str(error)
    if no_output is not None:
        problems.append(Problem(("output", "path"), no_output))
    if pipeline.score is not None and pipeline.source.rows in pipeline.source.tables:
        problems += _score_problems(pipeline.source.tables[pipeline.source.rows], pipeline.score)
    if problems:
        raise source.error(*problems)
    return Validated(pipeline, source, inputs, excluded)


def _search_problems(pipeline: Pipeline, source: PipelineSource) -> Iterator[Problem]:
    """Set each key that `tune` searches to the ends of its range, or to each of its values, as a trial would."""
    if pipeline.tune is None:
        return
    for name, ends in pipeline.tune.ends.items():
        for value in ends:
            try:
                validate_pipeline(with_values(source, {name: value}))
            except ConfigError as error:
                said = f"{json.dumps(value)}: {error.problems[0].message}"
            except InputError as error:
                said = str(error).removeprefix("--set ")
            else:
                continue
            yield Problem(("tune", "search", name), said)
            break


def _score_problems(table: Table, score: Score) -> list[Problem]:
    """Check the files to score as those of the followed table, and where their scores go."""
    key: Key = ("score", "input")
    problems: list[Problem] = []
    try:
        files = list_inputs((score.input,), "score", images=table.format == "images")
        _, problems, damaged = _table_columns(key, table, files)
        if table.on_corrupt_file == "exclude":
            problems += [Problem(key, one.reason) for one in damaged[:20]]
    except InputError as error:
        problems.append(Problem(key, str(error)))
    try:
        output = any_path(score.output)
        no_output = output_problem(output)
        if no_output is None:
            ensure_ours(output)
    except (InputError, *STORE_ERRORS) as error:
        no_output = str(error)
    if no_output is not None:
        problems.append(Problem(("score", "output"), no_output))
    return [Problem(problem.key[:2], problem.message) for problem in problems]


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
        problems += _text_problems(key, table, files, declared, damaged)
    elif table.format == "images":
        found = dict(IMAGE_COLUMNS)
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
        inside = [unquote(name) for name, _ in partition_folders(file.name)]
        named = [name.lower() for name in inside]
        missing = [name for name in partitions if name.lower() not in named]
        if missing:
            advice = f"path must begin above it: a folder, or a glob with {missing[0]}=*"
            return [Problem((*key, "partitions"), f"{file.path} lies in no folder {missing[0]}=… of path; {advice}")]
        unknown = [name for name in inside if name.lower() not in {name.lower() for name in partitions}]
        if unknown:
            advice = ", ".join(f"{name} STRING" for name in inside)
            message = f'the files lie in folders {unknown[0]}=…; say what they hold: partitions: "{advice}"'
            return [Problem((*key, "path"), message)]
        twice = [name for name in named if named.count(name) > 1]
        if twice:
            return [
                Problem((*key, "path"), f"{file.path} lies in two folders {twice[0]}=…; which counts can't be told")
            ]
    return []


def _footer_columns(
    key: Key, table: Table, files: Sequence[InputFile], declared: dict[str, str] | None, damaged: list[Damaged]
) -> tuple[dict[str, str] | None, list[Problem]]:
    assert table.format is not None
    problems: list[Problem] = []
    footers: dict[str, dict[str, str]] = {}
    # Of 10^5 files nearly all have the columns of others.
    shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    format_name = table.format

    def columns_of(file: InputFile) -> dict[str, str] | InputError:
        try:
            return file_columns(file.path, format_name)
        except InputError as error:
            return error

    for file, found in zip(files, read_all(files, columns_of), strict=True):
        if isinstance(found, UnreadableError):
            damaged.append(Damaged(file, str(found)))
        elif isinstance(found, InputError):
            problems.append(Problem((*key, "path"), str(found)))
        else:
            footers[file.name] = shared.setdefault(tuple(found.items()), found)
    if not footers:
        return declared, problems
    first_name, first = next(iter(footers.items()))
    for name, footer in footers.items():
        if table.schema_drift == "refuse" and list(footer.items()) != list(first.items()):
            problems.append(Problem((*key, "path"), _difference(name, footer, first_name, first)))
        problems += [Problem((*key, "schema"), text) for text in _misfits(name, footer, declared or {}, table)]
    merged = first
    if table.schema_drift == "allow":
        try:
            merged = merged_columns(list(footers.values()))
        except ValueError as error:
            problems.append(Problem((*key, "path"), f"{error}: no type holds both, and nested types must be equal"))
        there = {column.lower() for column in merged}
        never = [column for column in declared or () if column.lower() not in there]
        problems += [Problem((*key, "schema"), f"no file has the column {c!r}{nearest(c, merged)}") for c in never]
    return declared or merged, problems[:20]


def _difference(name: str, footer: dict[str, str], first_name: str, first: dict[str, str]) -> str:
    differing = sorted(set(footer.items()) ^ set(first.items()))
    if not differing:
        shown = ", ".join(list(footer)[:5])
        return f"{name} has its columns in another order than {first_name}: {shown}; read them with schema_drift: allow"
    try:
        merged_columns([first, footer])
        advice = "read them with schema_drift: allow"
    except ValueError:
        advice = "no type holds both; convert the files"
    shown = ", ".join(f"{column} {sql_type}" for column, sql_type in differing[:5])
    return f"{name} has other columns or types than {first_name}: {shown}; {advice}"


def _misfits(name: str, footer: dict[str, str], declared: dict[str, str], table: Table) -> list[str]:
    """Return where a file lacks a declared column, or has it of a type that the declared one does not hold."""
    found = []
    for column, sql_type in declared.items():
        spelt = column
        if table.schema_drift == "allow":
            spelt = next((other for other in footer if other.lower() == column.lower()), column)
        elif column not in footer:
            found.append(f"{name} has no column {column!r}{nearest(column, footer)}")
        if spelt in footer and not can_hold(sql_type, footer[spelt]):
            found.append(
                f"{name} has the column {column!r} as {footer[spelt]}, which the schema's {sql_type} can't hold; "
                f"declare {column} {footer[spelt]} and CAST in source.query"
            )
    return found


def _text_problems(
    key: Key, table: Table, files: Sequence[InputFile], declared: dict[str, str], damaged: list[Damaged]
) -> list[Problem]:
    """Look at the first line of each text file, and compare headers with the schema."""
    if not table.separator:
        return [Problem((*key, "options"), "sep is empty; expected what stands between two values")]
    problems: list[Problem] = []
    headers: dict[str, list[str]] = {}

    def header_of(file: InputFile) -> list[str] | InputError:
        try:
            if table.header:
                return csv_header(file.path, table.separator, table.quote, table.encoding)[1]
            first_line(file.path, table.encoding)
        except InputError as error:
            return error
        return []

    for file, found in zip(files, read_all(files, header_of), strict=True):
        if isinstance(found, UnreadableError):
            damaged.append(Damaged(file, str(found)))
        elif isinstance(found, InputError):
            problems.append(Problem((*key, "path"), str(found)))
        elif table.header:
            headers[file.name] = found
        if table.option("lineSep", "") and compression_of(file.path) in ("zstd", "lz4"):
            problems.append(Problem((*key, "options"), f"{file.name}: lineSep is not for .zst and .lz4; decompress it"))
    return [*problems, *_header_problems(key, table, headers, declared)][:20]


def _header_problems(
    key: Key, table: Table, headers: Mapping[str, list[str]], declared: dict[str, str]
) -> list[Problem]:
    """Compare headers with the schema: columns are read by their place, or (schema_drift: allow) by name."""
    expected = [name.lower() for name in declared]
    problems: list[Problem] = []
    for name, header in headers.items():
        found = [column.strip().lower() for column in header]
        if table.schema_drift == "allow":
            twice = next((column for column in expected if found.count(column) > 1), None)
            if twice is not None:
                problems.append(Problem((*key, "path"), f"the header of {name} has the column {twice!r} twice"))
            if not set(found) & set(expected):
                problems.append(Problem((*key, "schema"), f"the header of {name} names no column of the schema"))
            continue
        if found == expected:
            continue
        pairs = [(a, b) for a, b in zip(header, declared, strict=False) if a.strip().lower() != b.lower()]
        if pairs:
            place = header.index(pairs[0][0]) + 1
            what = f"column {place} of {name} is {pairs[0][0]!r}, the schema says {pairs[0][1]!r}"
        else:
            what = f"{name} has {len(header)} columns, the schema {len(expected)}"
        advice = "" if len(headers) == 1 else " (schema_drift: allow reads the columns of each file by name)"
        problems.append(Problem((*key, "schema"), f"{what}{nearest(pairs[0][1], header) if pairs else ''}{advice}"))
    return problems
