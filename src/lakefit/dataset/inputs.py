"""The raw files that a pipeline reads: which they are, and what their headers and footers say."""

import codecs
import csv
import glob
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote as percent_encoded
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from lakefit.dataset.object_path import (
    AT_ONCE,
    REFUSED,
    SCHEMES,
    STORE_ERRORS,
    ObjectPath,
    Stat,
    again,
    any_path,
    is_address,
    of_the_store,
    open_input,
    stats,
)
from lakefit.errors import STORE_ADVICE, InputError, LakefitError

Result = TypeVar("Result")

_GLOB = "*?["


@dataclass(frozen=True, slots=True, order=True)
class InputFile:
    """A raw file: `name` relative to its table's root, absolute `path` or address, size in bytes, modification time in
    ns.

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


_Hidden = Callable[[str], bool]
"""Says of the name of a file or folder whether it is passed over."""


def list_inputs(paths: Sequence[str], described_as: str, *, images: bool = False) -> tuple[InputFile, ...]:
    """Return the files that paths, folders and globs name, sorted by name; hidden ones (see `_is_hidden`) apart.

    images: Spark is not asked for their files, so that `_x` is one like any other.

    Names are relative to the folder that holds all of them: of a folder or a glob its root, of several the one above.

    Raises:
        InputError: a path names no file, or one that can't be read by its name.
    """
    hidden = _is_dotted if images else _is_hidden
    if any(map(_is_remote, paths)):
        return _list_objects(paths, described_as, hidden)
    roots: list[str] = []
    files: list[str] = []
    for pattern in paths:
        root, matched = _files_of(pattern, described_as, hidden)
        if not matched:
            what = "no file matches" if any(mark in pattern for mark in _GLOB) else "no such file, or an empty folder:"
            raise InputError(f"{described_as}: {what} {pattern!r} (working directory: {Path.cwd()}).")
        roots.append(root)
        files += matched
    root = os.path.commonpath(roots)
    return tuple(sorted(_input_file(path, root, described_as) for path in set(files)))


def _files_of(pattern: str, described_as: str, hidden: _Hidden) -> tuple[str, list[str]]:
    """Return the root of a path, folder or glob, and the files."""
    pattern = pattern.removeprefix("file://")
    path = os.path.abspath(pattern)
    if os.path.exists(path):
        root = path if os.path.isdir(path) else os.path.dirname(path)
        if path != root and hidden(os.path.basename(path)):
            raise InputError(f"{described_as}: {pattern!r} is hidden by its name: no such file is read; rename it.")
        return root, _files_below(path, hidden)
    root = pattern
    while any(mark in root for mark in _GLOB):
        root = os.path.dirname(root)
    root = os.path.abspath(root)
    root = root if os.path.isdir(root) else os.path.dirname(root)
    matched = [os.path.abspath(found) for found in glob.glob(pattern, recursive=True)]
    shown = [path for path in matched if not any(map(hidden, os.path.relpath(path, root).split(os.sep)))]
    return root, [file for path in shown for file in _files_below(path, hidden, (os.path.realpath(root),))]


def _files_below(path: str, hidden: _Hidden, above: tuple[str, ...] = ()) -> list[str]:
    """Return a file, or the files of a folder that are not hidden; links are followed, but none to a folder above."""
    if not os.path.isdir(path):
        return [path] if os.path.isfile(path) or not os.path.exists(path) else []
    real = os.path.realpath(path)
    if real in above:
        return []
    names = [name for name in os.listdir(path) if not hidden(name)]
    return [file for name in names for file in _files_below(os.path.join(path, name), hidden, (*above, real))]


def _is_hidden(name: str) -> bool:
    """Return whether Spark passes over a file or folder without a word: `.x`, `_x` and what Hadoop still copies."""
    return _is_dotted(name) or (name.startswith("_") and "=" not in name)


def _is_dotted(name: str) -> bool:
    return name.startswith(".") or name.endswith("._COPYING_")


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


def _is_remote(pattern: str) -> bool:
    return is_address(pattern) and not pattern.startswith("file:")


def _list_objects(patterns: Sequence[str], described_as: str, hidden: _Hidden) -> tuple[InputFile, ...]:
    """Return the objects that addresses, their prefixes and globs name, as `list_inputs` does."""
    here = next((pattern for pattern in patterns if not _is_remote(pattern)), None)
    if here is not None:
        raise InputError(f"{described_as}: {here!r} is on this machine, and others are in an object store; name one.")
    roots: list[str] = []
    found: dict[str, Stat] = {}
    for pattern in patterns:
        root, matched = _objects_of(pattern, hidden)
        if not matched:
            what = "no object matches" if any(mark in pattern for mark in _GLOB) else "no such object, or an empty one:"
            raise InputError(f"{described_as}: {what} {pattern!r}.{_no_bucket(root)}")
        roots.append(str(root))
        found |= matched
    above = os.path.commonpath([address.partition("://")[2] for address in roots])
    start = len(above) + 1 if above else 0
    files = []
    for address, status in found.items():
        if ":" in address.rpartition("/")[2]:
            raise InputError(f"{described_as}: {address}: Spark reads no file with ':' in its name; rename it.")
        name = address.partition("://")[2][start:]
        files.append(InputFile(name, address, status.st_size, status.st_mtime_ns))
    return tuple(sorted(files))


def _no_bucket(root: ObjectPath) -> str:
    """Return a remark where the store has no such bucket, which is listed like an empty one."""
    try:
        return "" if root.has_bucket() else f" There is no bucket {root.bucket!r}. {STORE_ADVICE}"
    except STORE_ERRORS:
        # Not everybody who may read objects may ask for that.
        return ""


def _objects_of(pattern: str, hidden: _Hidden) -> tuple[ObjectPath, dict[str, Stat]]:
    """Return the root of an address, prefix or glob, and the objects by their addresses."""
    parts = pattern.rstrip("/").split("/")
    plain = next((place for place, part in enumerate(parts) if any(mark in part for mark in _GLOB)), len(parts))
    root, wanted = ObjectPath("/".join(parts[:plain])), parts[plain:]
    try:
        if not wanted and root.is_file():
            return root.parent, {str(root): root.stat()}
        below = ((path, path.relative_to(root).split("/"), status) for path, status in root.files())
        return root, {
            str(path): status
            for path, names, status in below
            if not any(map(hidden, names)) and _matches(names, wanted)
        }
    except STORE_ERRORS as error:
        if of_the_store(error) and not REFUSED.search(str(error)):
            # It may answer when the run is tried again.
            raise LakefitError(f"{root}: can't be listed: {error} {STORE_ADVICE}") from None
        raise InputError(f"{root}: can't be listed: {error} {STORE_ADVICE}") from None


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Say whether the names of a path, or those of a folder above it, match the parts of a glob."""
    if not wanted:
        return True
    if wanted[0] == "**":
        return any(_matches(names[place:], wanted[1:]) for place in range(len(names)))
    return bool(names) and fnmatchcase(names[0], wanted[0]) and _matches(names[1:], wanted[1:])


def local_path(uri: str) -> str:
    """Return the path of a `file:` URI as Spark writes it, or the address of an object that it names."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return unquote(parsed.path)
    scheme = SCHEMES.get(parsed.scheme)
    return f"{scheme}://{parsed.netloc}{unquote(parsed.path)}" if scheme is not None else uri


def spark_path(path: str) -> str:
    """Return a path or an address as Spark's own connectors spell it."""
    return f"s3a{path.removeprefix('s3')}" if path.startswith("s3://") else path


def partition_folders(name: str) -> list[tuple[str, str]]:
    """Return key and value of the folders `key=value` in a file's name, as they are spelt."""
    parts = [folder.partition("=") for folder in name.split("/")[:-1]]
    return [(key, value) for key, mark, value in parts if mark]


def file_uri(path: str) -> str:
    """Return the URI of a path or an address, which `local_path` reads."""
    if not is_address(path):
        return f"file://{percent_encoded(path)}"
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{percent_encoded(rest)}"


def open_raw(path: str) -> pa.NativeFile:
    """Open a raw file, which is on this machine or an object. Raises FileNotFoundError, OSError."""
    found = any_path(path)
    return again(found.open_input) if isinstance(found, ObjectPath) else open_input(found)


def read_all(files: Sequence[InputFile], read: Callable[[InputFile], Result]) -> Iterator[Result]:
    """Yield what `read` returns for each file, in their order; a store is asked for many at once."""
    if not any(is_address(file.path) for file in files):
        yield from map(read, files)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(read, files)


class UnreadableError(InputError):
    """A file is damaged as a whole; other InputErrors of a file are faults of the pipeline file."""


def _broken_text(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return BROKEN, error.end


BROKEN = "\udcff"
"""Stands for bytes that are no text: no text that can be decoded holds it, as it may hold U+FFFD."""
codecs.register_error("lakefit.broken", _broken_text)

COMPRESSED = {".gz": "gzip", ".gzip": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
"""The endings of compressed text files that are read."""
_OTHER_COMPRESSED = (".deflate", ".snappy", ".xz", ".zip", ".7z", ".lzo", ".lzma", ".br", ".z", ".tgz", ".tar")
_LZ4_FRAME = b"\x04\x22\x4d\x18"


def compression_of(path: str) -> str | None:
    """Return how a text file is compressed, by its name."""
    return COMPRESSED.get(os.path.splitext(path)[1].lower())


def open_text(path: str, encoding: str) -> io.TextIOWrapper:
    """Open a text file, decompressed by its name, with its byte-order mark; what can't be decoded is `BROKEN`."""
    compression = compression_of(path)
    stream = pa.BufferedInputStream(open_raw(path), 1 << 20)
    if compression is not None:
        stream = pa.CompressedInputStream(stream, compression)
    return io.TextIOWrapper(stream, encoding=encoding, errors="lakefit.broken", newline="")


def first_line(path: str, encoding: str) -> str:
    """Return the first line of a text file that is not empty, at most a MiB of it, without its byte-order mark.

    Raises:
        UnreadableError: the file is damaged.
        InputError: the encoding or the compression is not known, or is not that of the file.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in _OTHER_COMPRESSED:
        known = ", ".join(COMPRESSED)
        raise InputError(f"{path}: text compressed as {ending} is not read; decompress it, or compress as {known}.")
    try:
        if compression_of(path) is not None and not any_path(path).stat().st_size:
            raise UnreadableError(f"{path}: damaged: empty, and a compressed file never is.")
        with open_text(path, encoding) as file:
            return next((line for line in map(_without_end, iter(partial(file.readline, 1 << 20), "")) if line), "")
    except LookupError:
        raise InputError(f"{path}: there is no encoding {encoding!r}.") from None
    except UnicodeError as error:
        raise InputError(f"{path}: {error}; say which: options: {{encoding: {encoding}LE}} or {encoding}BE.") from None
    except (OSError, EOFError, pa.ArrowException) as error:
        if of_the_store(error):
            raise
        if compression_of(path) == "lz4" and not _starts_with(path, _LZ4_FRAME):
            raise InputError(f"{path}: no LZ4 frames (Hadoop's own LZ4 has none); compress it with lz4.") from None
        raise UnreadableError(f"{path}: can't be read: {error}.") from error


def _without_end(line: str) -> str:
    return line.removeprefix("\ufeff").rstrip("\r\n")


def _starts_with(path: str, mark: bytes) -> bool:
    with open_raw(path) as file:
        return bytes(file.read(len(mark))) == mark


def csv_header(path: str, separator: str = ",", quote: str = '"', encoding: str = "UTF-8") -> tuple[str, list[str]]:
    """Return the first line of a CSV file as it stands and the column names in it; a byte-order mark is dropped.

    A column without a name (an index, as pandas writes it) is `_c0`, `_c1`, … by its place, as in Spark.

    Raises:
        UnreadableError: the file is empty or damaged.
        InputError: the line is not text in this encoding, or no header.
    """
    line = first_line(path, encoding)
    if BROKEN in line:
        raise InputError(
            f"{path}: the first line is not {encoding} text; give its encoding: options: {{encoding: …}}, or take the "
            "file out of path."
        )
    if not line:
        raise UnreadableError(f"{path}: the file is empty; expected a header line that names the columns.")
    # Python's reader knows separators of one character.
    mark = separator if len(separator) == 1 else "\x1f"
    quoting: dict[str, Any] = {"quotechar": quote} if quote else {"quotechar": None, "quoting": csv.QUOTE_NONE}
    try:
        names = next(csv.reader([line.replace(separator, mark)], delimiter=mark, **quoting))
    except csv.Error as error:
        raise InputError(f"{path}: the first line is no header: {error}.") from None
    names = [name.replace(mark, separator) for name in names]
    return line, [name if name.strip() else f"_c{place}" for place, name in enumerate(names)]


def file_columns(path: str, format_name: str) -> dict[str, str]:
    """Return the columns of a Parquet or ORC file with Spark SQL types, from its footer.

    Raises:
        UnreadableError: the file is damaged, or of another format.
        InputError: two columns have one name, case apart.
    """
    try:
        with open_raw(path) as file:
            schema = pq.read_schema(file) if format_name == "parquet" else orc.ORCFile(file).schema
    except (pa.ArrowException, OSError) as error:
        if of_the_store(error):
            raise
        raise UnreadableError(f"{path}: not a readable {format_name} file: {error}.") from error
    names = [name.lower() for name in schema.names]
    twice = next((name for name in schema.names if names.count(name.lower()) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two columns have the name {twice!r}, case apart; Spark can't tell them apart.")
    return {field.name: _sql_type(field.type) for field in schema}


def nanosecond_columns(path: str) -> frozenset[str]:
    """Return the columns of a Parquet file that hold times in nanoseconds as integers, as pandas writes them.

    Times of old writers (INT96) are in nanoseconds too, and Spark reads them.
    """
    with open_raw(path) as file:
        schema = pq.read_metadata(file).schema
    columns = [schema.column(place) for place in range(len(schema))]
    integers = [column.path for column in columns if column.physical_type == "INT64"]
    times = [field for field in schema.to_arrow_schema() if pa.types.is_timestamp(field.type)]
    return frozenset(field.name for field in times if field.type.unit == "ns" and field.name in integers)


_INTEGERS = ("TINYINT", "SMALLINT", "INT", "BIGINT")
_WIDENING = (_INTEGERS, ("FLOAT", "DOUBLE"), ("TINYINT", "SMALLINT", "INT", "DOUBLE"))


def merged_columns(schemas: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the columns of all files, in the order and case in which they first come, each of the widest of its types.

    Raises:
        ValueError: a column has types of which none holds the values of the others.
    """
    merged: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for schema in schemas:
        for column, sql_type in schema.items():
            name = spelt.setdefault(column.lower(), column)
            merged[name] = _widest(name, merged.get(name, sql_type), sql_type)
    return merged


def _widest(name: str, one: str, two: str) -> str:
    if "VOID" in (one, two):
        return two if one == "VOID" else one
    for family in _WIDENING:
        if one in family and two in family:
            return family[max(family.index(one), family.index(two))]
    decimals = [re.fullmatch(r"DECIMAL(?:\((\d+)(?:, (\d+))?\))?", sql_type) for sql_type in (one, two)]
    found = [(int(match[1] or 10), int(match[2] or 0)) for match in decimals if match]
    if len(found) == 2:
        scale = max(scale for _, scale in found)
        digits = max(precision - scale for precision, scale in found) + scale
        if digits <= 38:
            return f"DECIMAL({digits}, {scale})"
    if one != two:
        raise ValueError(f"the column {name!r} is {one} in some files and {two} in others")
    return one


def can_hold(declared: str, found: str) -> bool:
    """Return whether a declared type holds every value of a file's type as it is; both as Spark SQL writes them."""
    if found == "BINARY" and declared == "STRING":
        return True  # text of old writers, which don't say that it is text
    times = ("TIMESTAMP", "TIMESTAMP_LTZ", "TIMESTAMP_NTZ")
    try:
        return (declared in times and found in times) or _widest("", declared, found) == declared
    except ValueError:
        return False


def check_unchanged(inputs: Mapping[str, Sequence[InputFile]]) -> None:
    """Raise InputError where a file has changed, grown, been replaced or gone since it was listed."""
    for table, files in inputs.items():
        for file in files:
            if is_address(file.path):
                continue
            try:
                status = os.stat(file.path)
            except OSError as error:
                what = f"can't be read any more ({error.strerror})"
            else:
                now = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
                if now == (file.size, file.modified_ns, file.inode, file.changed_ns):
                    continue
                what = _grown(file, status.st_size)
            raise _changed(table, file, what)
        remote = [file for file in files if is_address(file.path)]
        for file, found in zip(remote, stats([file.path for file in remote]), strict=True):
            if found is None:
                raise _changed(table, file, "is not there any more")
            if (found.st_size, found.st_mtime_ns) != (file.size, file.modified_ns):
                raise _changed(table, file, _grown(file, found.st_size))


def _grown(file: InputFile, size: int) -> str:
    return f"has changed: {file.size:,} bytes when the run began, {size:,} now"


def _changed(table: str, file: InputFile, what: str) -> InputError:
    return InputError(
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
    "null": "VOID",
    "date32[day]": "DATE",
}


def _sql_type(arrow_type: pa.DataType) -> str:
    if pa.types.is_timestamp(arrow_type):
        return "TIMESTAMP"
    if pa.types.is_decimal(arrow_type):
        return f"DECIMAL({arrow_type.precision}, {arrow_type.scale})"
    if pa.types.is_dictionary(arrow_type):
        return _sql_type(arrow_type.value_type)
    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type) or pa.types.is_fixed_size_list(arrow_type):
        return f"ARRAY<{_sql_type(arrow_type.value_type)}>"
    if pa.types.is_map(arrow_type):
        return f"MAP<{_sql_type(arrow_type.key_type)}, {_sql_type(arrow_type.item_type)}>"
    if pa.types.is_struct(arrow_type):
        fields = (f"{_identifier(field.name)}: {_sql_type(field.type)}" for field in arrow_type)
        return f"STRUCT<{', '.join(fields)}>"
    return _SQL_TYPES.get(str(arrow_type), "BINARY")


def _identifier(name: str) -> str:
    return name if re.fullmatch("[A-Za-z_]\\w*", name) else "`" + name.replace("`", "``") + "`"
