"""CSV read by Arrow, where it reads what Spark would read: the same values, the same lines refused.

A piece of a file is parsed by types at once if nothing in its bytes is read differently by the two. Where a value does
not fit, its piece is read once more as text, and each value is judged by the rules of Spark's `from_csv`. What these
rules leave open raises `NotPlainError`: then Spark reads the table. tests/prepare/test_plain_csv.py holds the two
against each other.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
from numpy.typing import NDArray

from lakefit.config.source import Table
from lakefit.dataset.inputs import open_raw
from lakefit.dataset.object_path import is_address
from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import HEADER, RECORD

TYPES: Mapping[str, pa.DataType] = {
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "STRING": pa.string(),
}
_OPTIONS = frozenset(("header", "sep", "delimiter", "nullvalue", "encoding", "charset", "escape", "quote", "multiline"))
_PIECE = 8 << 20
_BOM = b"\xef\xbb\xbf"


class NotPlainError(Exception):
    """Bytes that Arrow and Spark may read differently."""


@dataclass(frozen=True, slots=True)
class PlainCsv:
    """How lines are read. header: the header lines of all files."""

    columns: Mapping[str, str]
    separator: str
    null: str
    escape: str
    headers: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The columns as read, then `_record` (the text of a line that does not fit) and `_header`."""
        fields = [pa.field(name, TYPES[sql_type]) for name, sql_type in self.columns.items()]
        return pa.schema([*fields, (RECORD, pa.string()), (HEADER, pa.bool_())])


def not_plain(table: Table, columns: Mapping[str, str]) -> str | None:
    """Return why Arrow can't read a CSV table as Spark does, as far as the pipeline file tells; None if it can."""
    others = [name for name in table.options if name.lower() not in _OPTIONS]
    if others:
        return f"the option {others[0]} is Spark's"
    strange = [f"{name} {sql_type}" for name, sql_type in columns.items() if sql_type not in TYPES]
    if strange:
        return f"Spark reads {strange[0]}"
    if table.option("multiLine", "false").lower() == "true":
        return "records of several lines are parsed by Spark"
    if table.encoding.upper().replace("-", "") != "UTF8":
        return f"the encoding is {table.encoding}"
    separator = table.separator
    if len(separator) != 1 or not separator.isascii() or separator in ' "\n\r\\' or table.quote != '"':
        return "its separator or quote is unusual"
    return None if table.escape in ('"', "\\") else "its escape is unusual"


def plain_csv(table: Table, columns: Mapping[str, str], headers: tuple[str, ...]) -> PlainCsv:
    """Return how to read a table of which `not_plain` says nothing."""
    return PlainCsv(columns, table.separator, table.option("nullValue", ""), table.escape, headers)


def read_lines(path: str, start: int, end: int) -> Iterator[bytes]:
    """Yield the whole lines that begin in a range of a file's bytes, in pieces."""
    with _opened(path) as file:
        if start:
            file.seek(start - 1)
            file.readline()
        at = file.tell()
        while at < end:
            piece = file.read(min(_PIECE, end - at))
            if not piece.endswith(b"\n"):
                piece += file.readline()
            yield piece.removeprefix(_BOM) if at == 0 else piece
            at = file.tell()
            if not piece:
                return


def _opened(path: str) -> IO[bytes]:
    # Of a local file Python's own reader is the faster one.
    return open(path, "rb", 1 << 20) if not is_address(path) else io.BufferedReader(open_raw(path), 1 << 22)


def parse(piece: bytes, how: PlainCsv) -> pa.Table:
    """Return the lines of a piece as rows of `how.schema`, in any order; empty lines are left out.

    Raises:
        NotPlainError: only Spark can tell what it reads there.
    """
    first, end, rest = piece.partition(b"\n")
    if end and first.removesuffix(b"\r").decode(errors="replace") in how.headers:
        header = pa.array([first.removesuffix(b"\r").decode()], pa.string())
        below = [parse(rest, how)] if rest.strip(b"\r\n") else []
        return pa.concat_tables([_hidden_only(header, how, header=True), *below])
    _check_bytes(piece, how)
    if _is_typed(piece, how):
        try:
            table = _read(piece, how, TYPES)
        except pa.ArrowInvalid:
            table = None
        if table is not None and _holds_all(table, piece) and _is_finite(table):
            return _with_hidden(table, how)
    return _by_text(piece, how)


def _check_bytes(piece: bytes, how: PlainCsv) -> None:
    # One byte is looked for many times faster than two.
    if b"\x00" in piece or (b"\r" in piece and piece.count(b"\r") != piece.count(b"\r\n")):
        raise NotPlainError("a NUL character, or a line end that is no line feed")
    if b'"' in piece:
        if not _is_plainly_quoted(np.frombuffer(piece, np.uint8), how):
            raise NotPlainError("a quote inside a value")
        if (how.escape == "\\" and b"\\" in piece) or (how.null and b'""' in piece):
            raise NotPlainError("an escape, or an empty quoted value")
    if not piece.isascii():
        try:
            piece.decode()
        except UnicodeDecodeError:
            raise NotPlainError("bytes that are not UTF-8") from None


def _is_plainly_quoted(data: NDArray[np.uint8], how: PlainCsv) -> bool:
    """Return whether each quote begins or ends a value, and no value holds one."""
    quotes = np.flatnonzero(data == ord('"'))
    if not len(quotes):
        return True
    if len(quotes) % 2:
        return False
    begins, ends = quotes[::2], quotes[1::2]
    before, after = data[np.maximum(begins - 1, 0)], data[np.minimum(ends + 1, len(data) - 1)]
    separator = ord(how.separator)
    opens = (begins == 0) | (before == separator) | (before == ord("\n"))
    closes = (ends == len(data) - 1) | (after == separator) | (after == ord("\n")) | (after == ord("\r"))
    line_ends = np.flatnonzero(data == ord("\n"))
    one_line = np.searchsorted(line_ends, begins) == np.searchsorted(line_ends, ends)
    return bool((opens & closes & one_line).all())


def _is_typed(piece: bytes, how: PlainCsv) -> bool:
    """Return whether values that Arrow reads as numbers are numbers to Spark; Arrow forgives blanks and takes 0x1F."""
    separator = how.separator.encode()
    if b" " in piece:
        blanks = (separator + b" ", b" " + separator, b"\n ", b" \n", b" \r", b'" ', b' "')
        if piece.startswith(b" ") or piece.endswith(b" ") or any(blank in piece for blank in blanks):
            return False
    if (b"x" in piece and b"0x" in piece) or (b"X" in piece and b"0X" in piece):
        return False
    if (how.separator != "\t" and b"\t" in piece) or ("DATE" in how.columns.values() and b"0000-" in piece):
        return False
    return not any(header.encode() in piece for header in how.headers)


def _holds_all(table: pa.Table, piece: bytes) -> bool:
    """Return whether a table has a row for each line of a piece that is not empty."""
    lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
    return len(table) == lines or len(table) == sum(1 for line in piece.split(b"\n") if line.strip(b"\r"))


def _read(
    piece: bytes,
    how: PlainCsv,
    types: Mapping[str, pa.DataType],
    refused: Callable[[pc_csv.InvalidRow], str] | None = None,
) -> pa.Table:
    text = refused is not None
    return pc_csv.read_csv(
        pa.py_buffer(piece),
        pc_csv.ReadOptions(column_names=list(how.columns), use_threads=False, block_size=len(piece) + 1),
        pc_csv.ParseOptions(delimiter=how.separator, double_quote=False, invalid_row_handler=refused),
        pc_csv.ConvertOptions(
            column_types={name: types[sql_type] for name, sql_type in how.columns.items()},
            null_values=[] if text else ["", how.null],
            strings_can_be_null=not text,
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
        ),
    )


def _is_finite(table: pa.Table) -> bool:
    floats = [column for column in table.columns if pa.types.is_floating(column.type)]
    return all(pc.all(pc.is_finite(column)).as_py() is not False for column in floats)


def _with_hidden(table: pa.Table, how: PlainCsv) -> pa.Table:
    hidden = [pa.nulls(len(table), pa.string()), pa.array(np.zeros(len(table), bool))]
    return pa.Table.from_arrays([*table.columns, *hidden], schema=how.schema)


# --- a piece of which some lines do not fit


def _by_text(piece: bytes, how: PlainCsv) -> pa.Table:
    lines = pa.array([text for line in piece.split(b"\n") if (text := line.removesuffix(b"\r"))], pa.string())
    header = pc.is_in(lines, value_set=pa.array(how.headers, pa.string()))
    headers, lines = lines.filter(header), lines.filter(pc.invert(header))
    counted = pc.equal(pc.count_substring(lines, how.separator), len(how.columns) - 1)
    # Only the parser can count where separators may stand inside of quotes.
    readable = pc.or_(counted, pc.match_substring(lines, '"'))
    broken = [lines.filter(pc.invert(readable))]
    lines = lines.filter(readable)
    parts = [_hidden_only(headers, how, header=True)]
    if len(lines):
        refused: list[str] = []

        def refuse(row: pc_csv.InvalidRow) -> str:
            refused.append(row.text)
            return "skip"

        joined = "\n".join(lines.to_pylist()).encode()
        texts = _read(joined, how, dict.fromkeys(TYPES, pa.string()), refuse)
        lines = _without(lines, refused)
        if len(texts) != len(lines):
            raise NotPlainError("lines that are counted differently")
        values, fits = zip(*(_values(texts[name], sql, how) for name, sql in how.columns.items()), strict=True)
        fit = pa.array(np.logical_and.reduce(fits))
        parts.append(_with_hidden(pa.Table.from_arrays(list(values), names=list(how.columns)).filter(fit), how))
        broken += [pa.array(refused, pa.string()), lines.filter(pc.invert(fit))]
    parts.append(_hidden_only(pa.concat_arrays(broken), how, header=False))
    return pa.concat_tables(parts)


def _hidden_only(lines: pa.Array, how: PlainCsv, header: bool) -> pa.Table:
    nothing = [pa.nulls(len(lines), field.type) for field in list(how.schema)[:-2]]
    return pa.Table.from_arrays([*nothing, lines, pa.array([header] * len(lines), pa.bool_())], schema=how.schema)


def _without(lines: pa.Array, refused: list[str]) -> pa.Array:
    """Return the lines but those that were refused, which come in the same order."""
    if not refused:
        return lines
    left = iter([*refused, None])
    next_one = next(left)
    kept = []
    for line in lines.to_pylist():
        if line == next_one:
            next_one = next(left)
        else:
            kept.append(line)
    return pa.array(kept, pa.string())


_INTEGER = r"^[+-]?[0-9]+$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
# What Java's Double.parseDouble takes besides.
_JAVA_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[dDfF]?", re.ASCII)
_JAVA_WORDS = {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}
_JAVA_WORDS |= {f"{sign}Infinity": float(f"{sign}inf") for sign in ("", "+", "-")}
_JAVA_WORDS |= {f"{sign}NaN": math.nan for sign in ("+", "-")}


def _values(column: pa.ChunkedArray, sql_type: str, how: PlainCsv) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return the values of texts, and where a text is one (or NULL)."""
    texts = one_array(column)
    null = pc.or_(pc.equal(texts, how.null), pc.equal(texts, ""))
    texts = pc.if_else(null, pa.scalar(None, pa.string()), texts)
    of_type = TYPES[sql_type]
    if pa.types.is_string(of_type):
        return texts, np.ones(len(texts), bool)
    convert = {
        "BOOLEAN": _booleans, "DATE": _dates, "DOUBLE": _doubles, "FLOAT": _floats,
    }.get(sql_type, _integers)  # fmt: skip
    values = convert(texts, of_type)
    return values, (pc.is_valid(values).to_numpy(False) | null.to_numpy(False))


def _integers(texts: pa.Array, of_type: pa.DataType) -> pa.Array:
    if any(not text.isascii() and text.strip("+-").isdigit() for text in pc.unique(texts).drop_null().to_pylist()):
        raise NotPlainError("digits that are not ASCII")
    plain = pc.if_else(pc.match_substring_regex(texts, _INTEGER), texts, pa.scalar(None, pa.string()))
    limit = 1 << (of_type.bit_width - 1)
    distinct = plain.dictionary_encode()
    numbers = [int(text) for text in distinct.dictionary.to_pylist()]
    held = pa.array([number if -limit <= number < limit else None for number in numbers], of_type)
    return held.take(distinct.indices)


def _doubles(texts: pa.Array, of_type: pa.DataType) -> pa.Array:
    distinct = texts.dictionary_encode()
    return pa.array([_java_double(text) for text in distinct.dictionary.to_pylist()], of_type).take(distinct.indices)


def _java_double(text: str) -> float | None:
    word = _JAVA_WORDS.get(text)
    # Java trims every character up to the blank.
    trimmed = text.strip("".join(map(chr, range(33))))
    word = _JAVA_WORDS.get(trimmed) if word is None and "Inf" not in (trimmed, trimmed[1:]) else word
    if word is not None:
        return word
    found = _JAVA_NUMBER.fullmatch(trimmed)
    if found is not None:
        return float(found[1])
    if re.match(r"[+-]?0[xX]", trimmed):
        raise NotPlainError("a hexadecimal number")
    return None


def _floats(texts: pa.Array, of_type: pa.DataType) -> pa.Array:
    plain = pc.match_substring_regex(texts, _NUMBER)
    for text in pc.unique(texts.filter(pc.invert(plain))).to_pylist():
        if text is not None and _java_double(text) is not None:
            raise NotPlainError("a FLOAT in an unusual spelling")
    try:
        return pc.if_else(plain, texts, pa.scalar(None, pa.string())).cast(of_type)
    except pa.ArrowInvalid:
        raise NotPlainError("a FLOAT out of its range") from None


def _booleans(texts: pa.Array, of_type: pa.DataType) -> pa.Array:
    lower = pc.utf8_lower(texts)
    plain = pc.is_in(lower, value_set=pa.array(["true", "false"]))
    return pc.if_else(plain, pc.equal(lower, "true"), pa.scalar(None, of_type))


def _dates(texts: pa.Array, of_type: pa.DataType) -> pa.Array:
    distinct = texts.dictionary_encode()
    return pa.array([_iso_date(text) for text in distinct.dictionary.to_pylist()], of_type).take(distinct.indices)


def _iso_date(text: str) -> date | None:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) and not text.startswith("0000"):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return None
    if any(character.isdigit() for character in text):
        raise NotPlainError("a date in an unusual spelling")
    return None
