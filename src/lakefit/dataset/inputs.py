"""The raw files that a pipeline reads: which they are, and what their headers and footers say."""

import csv
import glob
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from lakefit.errors import InputError

_GLOB = "*?["


@dataclass(frozen=True, slots=True, order=True)
class InputFile:
    """A raw file: `name` relative to its table's root, absolute `path`, size in bytes, modification time in ns.

    inode, changed_ns: tell a file that was put in its place while it is read; no part of what the file is.
    """

    name: str
    path: str
    size: int
    modified_ns: int
    inode: int = 0
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that is damaged as a whole and left out (on_corrupt_file: exclude), and what is wrong with it."""

    file: InputFile
    reason: str


def list_inputs(paths: Sequence[str], described_as: str) -> tuple[InputFile, ...]:
    """Return the files that paths, folders and globs name, sorted by name; hidden ones (see `_is_hidden`) apart.

    Names are relative to the folder that holds all of them: of a folder or a glob its root, of several the one above.

    Raises:
        InputError: a path names no file, or one that can't be read by its name.
    """
    roots: list[str] = []
    files: list[str] = []
    for pattern in paths:
        root, matched = _files_of(pattern, described_as)
        if not matched:
            what = "no file matches" if any(mark in pattern for mark in _GLOB) else "no such file, or an empty folder:"
            raise InputError(f"{described_as}: {what} {pattern!r} (working directory: {Path.cwd()}).")
        roots.append(root)
        files += matched
    root = os.path.commonpath(roots)
    return tuple(sorted(_input_file(path, root, described_as) for path in set(files)))


def _files_of(pattern: str, described_as: str) -> tuple[str, list[str]]:
    """Return the root of a path, folder or glob, and the files."""
    if "://" in pattern and not pattern.startswith("file://"):
        raise InputError(f"{pattern!r}: only local paths are read so far; mount the store or copy the files.")
    pattern = pattern.removeprefix("file://")
    path = os.path.abspath(pattern)
    if os.path.exists(path):
        root = path if os.path.isdir(path) else os.path.dirname(path)
        if path != root and _is_hidden(os.path.basename(path)):
            raise InputError(
                f"{described_as}: {pattern!r} is hidden by its name, and Spark reads no such file; rename it."
            )
        return root, _files_below(path)
    root = pattern
    while any(mark in root for mark in _GLOB):
        root = os.path.dirname(root)
    root = os.path.abspath(root)
    root = root if os.path.isdir(root) else os.path.dirname(root)
    matched = [os.path.abspath(found) for found in glob.glob(pattern, recursive=True)]
    shown = [path for path in matched if not any(map(_is_hidden, os.path.relpath(path, root).split(os.sep)))]
    return root, [file for path in shown for file in _files_below(path, (os.path.realpath(root),))]


def _files_below(path: str, above: tuple[str, ...] = ()) -> list[str]:
    """Return a file, or the files of a folder that are not hidden; links are followed, but none to a folder above."""
    if not os.path.isdir(path):
        return [path] if os.path.isfile(path) or not os.path.exists(path) else []
    real = os.path.realpath(path)
    if real in above:
        return []
    names = [name for name in os.listdir(path) if not _is_hidden(name)]
    return [file for name in names for file in _files_below(os.path.join(path, name), (*above, real))]


def _is_hidden(name: str) -> bool:
    """Return whether Spark passes over a file or folder without a word: `.x`, `_x` and what Hadoop still copies."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def _input_file(path: str, root: str, described_as: str) -> InputFile:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"{described_as}: {path!r}: the name is not UTF-8; rename the file.") from None
    if ":" in os.path.basename(path):
        raise InputError(f"{described_as}: {path}: Spark reads no file with ':' in its name; rename it.")
    try:
        status = os.stat(path)
    except OSError as error:
        what = "a link to a file that is not there" if os.path.islink(path) else f"can't be read ({error.strerror})"
        raise InputError(f"{described_as}: {path}: {what}; mend or remove it.") from None
    name = os.path.relpath(path, root).replace(os.sep, "/")
    return InputFile(name, path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


def local_path(uri: str) -> str:
    """Return the path of a `file:` URI as Spark writes it."""
    parsed = urlparse(uri)
    return unquote(parsed.path) if parsed.scheme == "file" else uri


def open_text(path: str, encoding: str) -> io.TextIOWrapper:
    """Open a text file, decompressed by its name, without its byte-order mark; what can't be decoded is U+FFFD."""
    utf8 = encoding.upper().replace("-", "").replace("_", "") == "UTF8"
    stream = pa.input_stream(path, compression="detect", buffer_size=1 << 20)
    return io.TextIOWrapper(stream, encoding="utf-8-sig" if utf8 else encoding, errors="replace", newline="")


def csv_header(path: str, separator: str = ",", quote: str = '"', encoding: str = "UTF-8") -> tuple[str, list[str]]:
    """Return the first line of a CSV file as it stands and the column names in it; a byte-order mark is dropped.

    A column without a name (an index, as pandas writes it) is `_c0`, `_c1`, … by its place, as in Spark.

    Raises:
        InputError: the file is empty, damaged or not text in this encoding.
    """
    try:
        with open_text(path, encoding) as file:
            line = next((line for line in (raw.rstrip("\r\n") for raw in file) if line), "")
    except LookupError:
        raise InputError(f"{path}: there is no encoding {encoding!r}.") from None
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"{path}: can't be read: {error}.") from error
    if "\ufffd" in line:
        raise InputError(f"{path}: the first line is not {encoding} text; give its encoding: options: {{encoding: …}}.")
    if not line:
        raise InputError(f"{path}: the file is empty; expected a header line that names the columns.")
    names = next(csv.reader([line], delimiter=separator, quotechar=quote))
    return line, [name if name.strip() else f"_c{place}" for place, name in enumerate(names)]


def file_columns(path: str, format_name: str) -> dict[str, str]:
    """Return the columns of a Parquet or ORC file with Spark SQL types, from its footer.

    Raises:
        InputError: the file is damaged, or of another format.
    """
    try:
        schema = pq.read_schema(path) if format_name == "parquet" else orc.ORCFile(path).schema
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable {format_name} file: {error}.") from error
    return {field.name: _sql_type(field.type) for field in schema}


def nanosecond_columns(path: str) -> frozenset[str]:
    """Return the columns of a Parquet file that hold times in nanoseconds, as pandas writes them."""
    schema = pq.read_schema(path)
    return frozenset(field.name for field in schema if pa.types.is_timestamp(field.type) and field.type.unit == "ns")


_INTEGERS = ("TINYINT", "SMALLINT", "INT", "BIGINT")


def merged_columns(schemas: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the columns of all files, in the order in which they first come, each of the widest of its types.

    Raises:
        ValueError: a column has types of which none holds the values of the others.
    """
    merged: dict[str, str] = {}
    for schema in schemas:
        for name, sql_type in schema.items():
            merged[name] = _widest(name, merged.get(name, sql_type), sql_type)
    return merged


def _widest(name: str, one: str, two: str) -> str:
    if one == two:
        return one
    for family in (_INTEGERS, ("FLOAT", "DOUBLE"), ("TINYINT", "SMALLINT", "INT", "DOUBLE")):
        if one in family and two in family:
            return family[max(family.index(one), family.index(two))]
    raise ValueError(f"the column {name!r} is {one} in some files and {two} in others")


def check_unchanged(inputs: Mapping[str, Sequence[InputFile]]) -> None:
    """Raise InputError where a file has changed, grown, been replaced or gone since it was listed."""
    for table, files in inputs.items():
        for file in files:
            try:
                status = os.stat(file.path)
            except OSError as error:
                what = f"can't be read any more ({error.strerror})"
            else:
                now = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
                if now == (file.size, file.modified_ns, file.inode, file.changed_ns):
                    continue
                what = f"has changed: {file.size:,} bytes when the run began, {status.st_size:,} now"
            raise InputError(
                f"table {table!r}: {file.path} {what}. Nothing was published; run again when the files are complete."
            )


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


def _sql_type(arrow_type: pa.DataType) -> str:
    if pa.types.is_timestamp(arrow_type):
        return "TIMESTAMP"
    if pa.types.is_decimal(arrow_type):
        return f"DECIMAL({arrow_type.precision}, {arrow_type.scale})"
    if pa.types.is_dictionary(arrow_type):
        return _sql_type(arrow_type.value_type)
    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        return f"ARRAY<{_sql_type(arrow_type.value_type)}>"
    return _SQL_TYPES.get(str(arrow_type), "BINARY")
