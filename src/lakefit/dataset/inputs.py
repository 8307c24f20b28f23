"""The raw files that a pipeline reads: which they are, and what their headers and footers say."""

import csv
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.errors import InputError

_GLOB = "*?["


@dataclass(frozen=True, slots=True, order=True)
class InputFile:
    """A raw file: `name` relative to its source's root, absolute `path`, size in bytes, modification time in ns."""

    name: str
    path: str
    size: int
    modified_ns: int


def list_inputs(paths: Sequence[str], described_as: str) -> tuple[InputFile, ...]:
    """Return the files that paths, folders and globs name, sorted by name; hidden ones (`.x`, `_x`) apart.

    Raises:
        InputError: a path names no file.
    """
    files: dict[str, InputFile] = {}
    for pattern in paths:
        matched = _files_of(pattern)
        if not matched:
            what = "no file matches" if any(mark in pattern for mark in _GLOB) else "no such file, or an empty folder:"
            raise InputError(f"{described_as}: {what} {pattern!r} (working directory: {Path.cwd()}).")
        for file in matched:
            files.setdefault(file.path, file)
    return tuple(sorted(files.values()))


def _files_of(pattern: str) -> list[InputFile]:
    if "://" in pattern and not pattern.startswith("file://"):
        raise InputError(f"{pattern!r}: only local paths are read so far; mount the store or copy the files.")
    pattern = os.path.abspath(pattern.removeprefix("file://"))
    if os.path.exists(pattern):
        matched = [pattern]
        root = pattern if os.path.isdir(pattern) else os.path.dirname(pattern)
    else:
        matched = glob.glob(pattern, recursive=True)
        root = pattern
        while any(mark in root for mark in _GLOB):
            root = os.path.dirname(root)
        root = root if os.path.isdir(root) else os.path.dirname(root)
    found: list[InputFile] = []
    for path in matched:
        inside = [str(p) for p in Path(path).rglob("*")] if os.path.isdir(path) else [path]
        for name in inside:
            relative = os.path.relpath(name, root)
            hidden = any(part.startswith((".", "_")) for part in relative.split(os.sep))
            if os.path.isfile(name) and not hidden:
                status = os.stat(name)
                found.append(InputFile(relative.replace(os.sep, "/"), name, status.st_size, status.st_mtime_ns))
    return found


def local_path(uri: str) -> str:
    """Return the path of a `file:` URI as Spark writes it."""
    parsed = urlparse(uri)
    return unquote(parsed.path) if parsed.scheme == "file" else uri


def csv_header(path: str, separator: str = ",", quote: str = '"') -> tuple[str, list[str]]:
    """Return the first line of a CSV file as it stands and the column names in it; a byte-order mark is dropped.

    Raises:
        InputError: the file is empty or not UTF-8 text.
    """
    try:
        with open(path, encoding="utf-8-sig", newline=None) as file:
            line = file.readline().rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the first line is not UTF-8 text: {error}.") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error}.") from error
    if not line:
        raise InputError(f"{path}: the file is empty; expected a header line that names the columns.")
    return line, next(csv.reader([line], delimiter=separator, quotechar=quote))


_SQL_TYPES: dict[str, str] = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INT",
    "int64": "BIGINT",
    "uint8": "SMALLINT",
    "uint16": "INT",
    "uint32": "BIGINT",
    "uint64": "DECIMAL(20, 0)",
    "halffloat": "FLOAT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "STRING",
    "large_string": "STRING",
    "binary": "BINARY",
    "date32[day]": "DATE",
}


def parquet_columns(path: str) -> dict[str, str]:
    """Return a Parquet file's columns with Spark SQL types (`BINARY` where it has no simple one), from its footer.

    Raises:
        InputError: the file is no Parquet.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}.") from error
    return {field.name: _sql_type(field.type) for field in schema}


def _sql_type(arrow_type: pa.DataType) -> str:
    if pa.types.is_timestamp(arrow_type):
        return "TIMESTAMP"
    if pa.types.is_decimal(arrow_type):
        return f"DECIMAL({arrow_type.precision}, {arrow_type.scale})"
    if pa.types.is_dictionary(arrow_type):
        return _sql_type(arrow_type.value_type)
    return _SQL_TYPES.get(str(arrow_type), "BINARY")
