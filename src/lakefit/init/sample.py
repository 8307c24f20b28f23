"""A bounded sample of somebody's data, and how a pipeline file must read it: paths, format, options."""

import csv
import glob
import io
import json
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from lakefit.config.sql import quoted
from lakefit.dataset.inputs import InputFile, file_columns, list_inputs, merged_columns
from lakefit.dataset.object_path import is_address
from lakefit.errors import InputError

MAX_ROWS, MAX_BYTES, MAX_FILES, PIECES, HEAD_BYTES = 50_000, 32 << 20, 10, 16, 1 << 16
# Neighbours come together: rows of one group are often neighbours, and every second row could miss every second class.
RUN = 50
_EXTENSIONS = {
    **dict.fromkeys(("csv", "tsv", "tab", "txt"), "csv"),
    **dict.fromkeys(("json", "jsonl", "ndjson"), "json"),
    **dict.fromkeys(("parquet", "pq"), "parquet"),
    "orc": "orc",
}
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


@dataclass(frozen=True, slots=True)
class SampleColumn:
    """A column as read: `sql_type` is STRING for all text of a CSV file, None for a JSON key of no single type.

    folder: whether the names of folders give it (`day=2020-01-01/`).
    """

    name: str
    sql_type: str | None
    values: list[Any]
    folder: bool = False


@dataclass(slots=True)
class Sample:
    """Rows of one table. `table`: the keys of its section in `source.tables`, but the schema of text formats.

    whole: whether these are all rows. total: so many there are, estimated where that is not known. text: whether the
    pipeline file must declare the columns' types. notes: what a reader of the pipeline file should know about how the
    data was read. misfits: lines in the sample that are no row. origins: the files of the rows, each with how many.
    """

    table: dict[str, Any]
    columns: list[SampleColumn]
    rows: int
    whole: bool
    total: int
    described: str
    text: bool = False
    notes: list[str] = field(default_factory=list)
    misfits: int = 0
    origins: list[tuple[str, int]] = field(default_factory=list)


def read_sample(path: str) -> Sample:
    """Return a sample of a file, a folder or a glob: at most 50,000 rows and 32 MiB, spread over at most 10 files.

    Raises:
        InputError: there is nothing to read, or it is of no known format.
    """
    if is_address(path):
        raise InputError(
            f"init: {path}: only files of this machine are looked at: mount the store, or copy a few of them."
        )
    files = list_inputs((path,), "init")
    by_format: dict[str, list[InputFile]] = {}
    for file in files:
        by_format.setdefault(format_of(file.path), []).append(file)
    strange = by_format.pop("", [])
    if not by_format:
        names = ", ".join(file.name for file in strange[:5])
        raise InputError(f"{path}: expected CSV, JSON lines, Parquet or ORC files by their names; found {names}.")
    format_name, mine = max(by_format.items(), key=lambda item: sum(file.size for file in item[1]))
    if all(file.size == 0 for file in mine):
        raise InputError(f"{path}: the {len(mine)} {format_name} files are empty.")
    readers = {"csv": _csv, "json": _json}
    sample = readers[format_name](path, mine) if format_name in readers else _columnar(path, mine, format_name)
    if sample.rows == 0:
        raise InputError(f"{path}: no row could be read as {format_name}.")
    _note_folders(sample, path, files, mine)
    return sample


def sample_table(name: str) -> Sample:
    """Return the first rows of a table of Spark's catalog. Starts a Spark session where none runs.

    Raises:
        InputError: the catalog has no such table.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    from lakefit.launch.session import spark_session

    with spark_session() as spark:
        try:
            frame = spark.table(name).limit(MAX_ROWS + 1)
        except AnalysisException:
            raise InputError(
                f"{name}: there is no such file or folder, and Spark's catalog has no such table."
            ) from None
        types = {column.name: column.dataType.simpleString().upper() for column in frame.schema.fields}
        # Nothing is learned of nested values, and some types (intervals of months) can't leave Spark.
        read = frame.select(
            *(
                F.lit(None).cast("string").alias(column) if is_opaque(sql_type) else F.col(quoted(column))
                for column, sql_type in types.items()
            )
        ).toArrow()
    total = read.num_rows
    if read.num_rows == 0:
        raise InputError(f"{name}: the table is empty.")
    read = read.slice(0, MAX_ROWS)
    whole = read.num_rows == total
    described = f"{read.num_rows:,} rows, {'all' if whole else 'the first'} of the table"
    notes = ["nothing tells whether the table has changed, so each run reads it again; version: says it"]
    columns = _arrow_columns([read], types)
    return Sample({"table": name}, columns, read.num_rows, whole, total, described, notes=notes)


def is_opaque(sql_type: str) -> bool:
    """Return whether nothing is learned of values of this type: nested, binary, intervals."""
    inner = sql_type.removeprefix("ARRAY<").removesuffix(">")
    return not re.match(r"STRING|(VAR)?CHAR|BOOLEAN|DATE|TIMESTAMP|(TINY|SMALL|BIG)?INT\b|FLOAT|DOUBLE|DECIMAL", inner)


def format_of(path: str) -> str:
    """Return the format that a file's name says, under any compression's ending; empty where it says none."""
    name = os.path.basename(path).lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return _EXTENSIONS.get(name.rpartition(".")[2], "") if "." in name else ""


def _note_folders(sample: Sample, path: str, files: Sequence[InputFile], mine: Sequence[InputFile]) -> None:
    """Say which files of the folder are the table, and what the names of its folders give."""
    names = set(sample.table.pop("files"))
    used = [file for file in mine if file.name in names]
    left = [file.name for file in files if file not in used]
    sample.table["path"] = path if not left else _pattern(path, used)
    if left:
        shown = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        sample.notes.append(f"{len(left)} files of {path} have other columns or another format: {shown}")
    keys = list(_folders(used[0].name))
    for key in keys:
        values = [_folders(name).get(key) for name, rows in sample.origins for _ in range(rows)]
        sample.columns.append(SampleColumn(key, "STRING", values, folder=True))
    if keys:
        sample.notes.append(f"the folders {', '.join(f'{key}=…' for key in keys)} are columns too")


def _folders(name: str) -> dict[str, str | None]:
    """Return what the folders of a file say, as Hive writes it."""
    parts = [part.partition("=") for part in name.split("/")[:-1] if "=" in part]
    return {key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, _, value in parts}


def _pattern(path: str, files: Sequence[InputFile]) -> str | list[str]:
    """Return a glob that matches exactly these files, else their list."""
    root = path if os.path.isdir(path) else os.path.dirname(path)
    wanted = sorted(file.path for file in files)
    endings = Counter(re.sub(r"^[^.]*", "*", os.path.basename(file)) for file in wanted)
    for ending in endings:
        pattern = os.path.join(root, ending)
        if sorted(map(os.path.abspath, glob.glob(pattern))) == wanted:
            return pattern
    return [os.path.join(root, os.path.relpath(file, os.path.abspath(root))) for file in wanted]


def _spread(files: Sequence[Any]) -> list[Any]:
    """Return at most MAX_FILES, evenly spread."""
    if len(files) <= MAX_FILES:
        return list(files)
    return [files[place * (len(files) - 1) // (MAX_FILES - 1)] for place in range(MAX_FILES)]


def _largest_family(columns: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> list[str]:
    """Return the names of the files of one table: those that share half of their columns or more, by most bytes."""
    families: list[tuple[set[str], list[str]]] = []
    for name, found in columns.items():
        mine = {column.lower() for column in found}
        for shared, members in families:
            if len(mine & shared) * 2 >= len(mine | shared):
                members.append(name)
                break
        else:
            families.append((mine, [name]))
    return max((members for _, members in families), key=lambda members: sum(sizes[name] for name in members))


def _places(rows: int, budget: int) -> list[int]:
    """Return the places of at most `budget` of so many rows: runs of neighbours, evenly spread from first to last."""
    if rows <= budget:
        return list(range(rows))
    run = max(1, min(RUN, budget // 20))
    runs = max(1, budget // run)
    starts = (place * (rows - run) // max(1, runs - 1) for place in range(runs))
    return [start + place for start in starts for place in range(run)]


def _described(rows: int, read: int, files: int, whole: bool, *, heads: bool = False) -> str:
    """Say of which rows the sample is; heads: of some files no more than the beginning was read."""
    if whole:
        return f"{rows:,} rows, all of them"
    if heads:
        return f"{rows:,} rows, " + ("the first of the file" if files == 1 else f"from the beginning of {read} files")
    return f"{rows:,} rows, spread over " + ("the file" if files == 1 else f"{read} of {files} files")


# --- text


def _pieces(file: InputFile, budget: int) -> tuple[list[bytes], bool]:
    """Return pieces of a file cut at line ends, from its first to its last, and whether they are all of it.

    Of a compressed file and of UTF-16 there is one piece, the first.
    """
    if file.path.lower().endswith(_COMPRESSED) or file.size <= budget:
        head, whole = _head(file, budget)
        return [head], whole
    pieces = []
    with open(file.path, "rb") as plain:
        count = 1 if plain.read(2) in (b"\xff\xfe", b"\xfe\xff") else PIECES
        for place in range(count):
            start = (file.size - budget // count) * place // max(1, count - 1)
            plain.seek(start)
            if place:
                plain.readline(1 << 20)
            piece = plain.read(max(0, start + budget // count - plain.tell()))
            # The file's last line may lack its end.
            pieces.append(piece if place == count - 1 > 0 else _whole_lines(piece))
    return [piece for piece in pieces if piece], False


def _head(file: InputFile, budget: int) -> tuple[bytes, bool]:
    """Return the beginning of a file, decompressed and cut at a line's end, and whether it is all of it."""
    try:
        with pa.input_stream(file.path, compression="detect") as stream:
            head = stream.read(budget + 1)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file.path}: can't be read: {error}.") from error
    return (head, True) if len(head) <= budget else (_whole_lines(head[:budget]), False)


def _whole_lines(piece: bytes) -> bytes:
    end = piece.rfind(b"\n")
    return piece[: end + 1] if end >= 0 else piece


def _encoding(pieces: Sequence[bytes]) -> str | None:
    """Return the encoding to declare; None for UTF-8, which is the default."""
    if pieces[0][:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    try:
        for piece in pieces:
            piece.decode("utf-8")
    except UnicodeDecodeError:
        return "windows-1252"
    return None


@dataclass(frozen=True, slots=True)
class _Texts:
    """The decoded pieces by file, and the encoding to declare. whole: all was read; heads: of some the first alone."""

    pieces: dict[str, list[str]]
    encoding: str | None
    whole: bool
    heads: bool


def _texts(files: Sequence[InputFile], budget: int) -> _Texts:
    read = {file.name: _pieces(file, budget // len(files)) for file in files}
    encoding = _encoding([piece for pieces, _ in read.values() for piece in pieces])
    decoded = {
        name: [piece.decode(encoding or "utf-8-sig", errors="replace") for piece in pieces]
        for name, (pieces, _) in read.items()
    }
    heads = any(len(pieces) == 1 and not whole for pieces, whole in read.values())
    return _Texts(decoded, encoding, all(whole for _, whole in read.values()), heads)


@dataclass(frozen=True, slots=True)
class _Head:
    """What the beginning of a CSV file says. names: of its columns, c1, c2, … where the first line holds values."""

    separator: str
    header: bool
    names: list[str]


def _csv(path: str, files: Sequence[InputFile]) -> Sample:
    some = [file for file in files if file.size]
    heads = _heads(path, some)
    family = _family(heads, {file.name: file.size for file in files})
    separator, header = heads[family[0]].separator, heads[family[0]].header
    names = {name: heads[name].names for name in family}
    mine = [file for file in some if file.name in family]
    for file in mine:
        _refuse_twice(file.path, names[file.name])
    chosen = _spread(mine)
    read = _texts(chosen, MAX_BYTES)
    texts, encoding, whole = read.pieces, read.encoding, read.whole
    multiline = any(_is_multiline(pieces[0], separator) for pieces in texts.values())
    columns = list(dict.fromkeys(column for name in family for column in names[name]))
    values: dict[str, list[str | None]] = {column: [] for column in columns}
    rows = misfits = lines = 0
    origins = []
    for name, pieces in texts.items():
        parsed = _parsed(pieces, separator, multiline, len(names[name]), whole=read.whole)
        lines += sum(map(len, parsed))
        taken, misfit, all_of_it = _take(parsed, len(names[name]), header, MAX_ROWS // len(chosen))
        whole = whole and all_of_it
        misfits += misfit
        rows += len(taken)
        origins.append((name, len(taken)))
        place = {column: i for i, column in enumerate(names[name])}
        for column in columns:
            at = place.get(column)
            values[column] += [None] * len(taken) if at is None else [row[at] or None for row in taken]
    whole = whole and len(chosen) == len(family)
    options: dict[str, Any] = {"header": True} if header else {}
    if separator != ",":
        options["sep"] = separator
    if encoding:
        options["encoding"] = encoding
    if multiline:
        options["multiLine"] = True
    joined = "".join(piece[: 1 << 20] for pieces in texts.values() for piece in pieces)
    if '\\"' in joined and '""' not in joined:
        options["escape"] = "\\"
    empty = [file.name for file in files if not file.size] if not header else []
    table: dict[str, Any] = {"format": "csv", "options": options, "files": [*family, *empty]}
    if len({tuple(names[name]) for name in family}) > 1:
        table["schema_drift"] = "allow"
    found = [SampleColumn(name, "STRING", column) for name, column in values.items()]
    described = _described(rows, len(chosen), len(family), whole, heads=read.heads)
    total = rows if whole else max(rows, _estimate(lines, texts, mine))
    sample = Sample(table, found, rows, whole, total, described, text=True, misfits=misfits, origins=origins)
    _note_csv(sample, misfits, multiline, encoding, header)
    return sample


def _estimate(lines: int, texts: Mapping[str, Sequence[str]], files: Sequence[InputFile]) -> int:
    """Return how many lines all files have where these pieces have so many; too few for compressed files."""
    read = sum(len(piece) for pieces in texts.values() for piece in pieces)
    return lines * sum(file.size for file in files) // max(1, read)


def _heads(path: str, files: Sequence[InputFile]) -> dict[str, _Head]:
    """Return the beginning of every file that is text."""
    found: dict[str, tuple[str, list[list[str]]]] = {}
    junk = ""
    for file in files:
        data, _ = _head(file, HEAD_BYTES)
        controls = sum(data.count(code) for code in range(32) if code not in b"\t\n\f\r")
        if controls > 0.01 * len(data) and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            junk = junk or f"{file.path}: {controls:,} of the first {len(data):,} bytes are control characters"
            continue
        text = data.decode(_encoding([data]) or "utf-8-sig", errors="replace")
        separator = _separator(text)
        records = _records(text, separator, True)
        if records:
            found[file.name] = separator, records
    if not found:
        why = f"{junk}: no text, whatever the name says" if junk else f"{path}: no line could be read as CSV"
        raise InputError(f"{why}; expected lines of text (UTF-16 with its byte-order mark).")
    # A file of few rows may not show that its first line is the header of the others.
    headers = {tuple(records[0]) for _, records in found.values() if _is_header(records)}
    return {
        name: _Head(separator, tuple(records[0]) in headers, _names(records[0], tuple(records[0]) in headers))
        for name, (separator, records) in found.items()
    }


def _names(record: Sequence[str], header: bool) -> list[str]:
    return [(cell.strip() or f"_c{place}") if header else f"c{place + 1}" for place, cell in enumerate(record)]


def _family(heads: Mapping[str, _Head], sizes: Mapping[str, int]) -> list[str]:
    """Return the names of the files of one table, by most bytes: written alike, and with the same columns or nearly."""
    alike: dict[tuple[str, int], dict[str, list[str]]] = {}
    for name, head in heads.items():
        alike.setdefault((head.separator, 0 if head.header else len(head.names)), {})[name] = head.names
    families = (_largest_family(names, sizes) for names in alike.values())
    return max(families, key=lambda members: sum(sizes[name] for name in members))


def _note_csv(sample: Sample, misfits: int, multiline: bool, encoding: str | None, header: bool) -> None:
    if not header:
        sample.notes.append("the first line holds values, not names: the columns are called c1, c2, …")
    if misfits:
        sample.notes.append(f"lines with more or fewer fields than the others, which a run rejects: {misfits:,}")
    if multiline:
        sample.notes.append("quoted values hold line ends (multiLine), so each file is read by one task")
    if encoding:
        sample.notes.append(f"the bytes are not UTF-8; {encoding} is a guess: look at the accents")
    if "schema_drift" in sample.table:
        sample.notes.append("the files' columns differ: what is missing becomes NULL (schema_drift)")


def _separator(text: str) -> str:
    best, best_score = ",", (0.0, 0)
    for separator in (",", ";", "\t", "|"):
        counts = Counter(len(record) for record in _records(text[: 1 << 18], separator, True)[:500])
        if not counts:
            continue
        width, often = max(counts.items(), key=lambda item: (item[1], item[0]))
        score = (round(often / counts.total(), 1), width)
        if width > 1 and score > best_score:
            best, best_score = separator, score
    return best


def _is_multiline(text: str, separator: str) -> bool:
    head = text[: 1 << 20]
    if '"' not in head:
        return False
    joined, single = _records(head, separator, True), _records(head, separator, False)
    if not any("\n" in value for record in joined for value in record):
        return False
    widths = [Counter(len(record) for record in records) for records in (joined, single)]
    width = widths[0].most_common(1)[0][0]
    # A stray quote swallows lines: joined records must be as regular as the lines were.
    return widths[0][width] / widths[0].total() > widths[1][width] / widths[1].total()


def _records(text: str, separator: str, multiline: bool) -> list[list[str]]:
    found: list[list[str]] = []
    lines: Sequence[str] | io.StringIO = io.StringIO(text, newline="")
    lines = lines if multiline else [line for line in re.split(r"\r\n|\n|\r", text) if line]
    parts: Iterator[Any] = iter([lines] if multiline else ([line] for line in lines))
    backslash = '\\"' in text[: 1 << 20] and '""' not in text[: 1 << 20]
    escape: dict[str, Any] = {"escapechar": "\\", "doublequote": False} if backslash else {}
    limit = csv.field_size_limit(1 << 27)
    try:
        for part in parts:
            try:
                found.extend(record for record in csv.reader(part, delimiter=separator, **escape) if record)
            except csv.Error:
                found.append([])
    finally:
        csv.field_size_limit(limit)
    return found


def _parsed(
    pieces: Sequence[str], separator: str, multiline: bool, width: int, *, whole: bool
) -> list[list[list[str]]]:
    """Return the records of each piece of a file, without those that may be cut."""
    if not multiline:
        return [_records(piece, separator, False) for piece in pieces]
    parsed = []
    for place, piece in enumerate(pieces):
        # A later piece may begin inside of a quoted value.
        ways = [_records(text, separator, True) for text in ((piece, f'"{piece}') if place else (piece,))]
        best = max(ways, key=lambda records: sum(len(record) == width for record in records))
        parsed.append(best[1 if place else 0 : None if whole else -1])
    return parsed


_VALUE = re.compile(
    r"[€$£]?[+-]?[\d.,]*\d[\d.,]*(e[+-]?\d+)?\s?[%€$£]?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*|true|false", re.IGNORECASE
)
_NO_VALUE = frozenset(("", "nan", "null", "na", "n/a", "none", "?", "-"))


def _is_header(records: Sequence[Sequence[str]]) -> bool:
    """Return whether the first record names the columns: each cell says by what stands below it, the majority wins."""
    first = [cell.strip() for cell in records[0]]
    if first.count("") > 1 or not any(first):
        return False
    body = [record for record in records[1:2000] if len(record) == len(first) and record != records[0]]
    if not body:
        return not any(_VALUE.fullmatch(cell) for cell in first)
    numbered = _numbered(first)
    votes = [
        _vote(cell, [record[place].strip() for record in body], numbered) for place, cell in enumerate(first) if cell
    ]
    return sum(votes) > 0 or -1 not in votes


def _numbered(cells: Sequence[str]) -> range:
    """Return the numbers by which columns are named (2013, 2014, 2015, or 0, 1, 2); empty where they are not."""
    numbers = [int(cell) for cell in cells if re.fullmatch(r"\d{1,4}", cell)]
    steps = {two - one for one, two in pairwise(numbers)}
    years = all(1900 <= number <= 2100 for number in numbers)
    if len(steps) != 1 or min(steps) < 1 or (len(numbers) < 3 and not years):
        return range(0)
    return range(numbers[0], numbers[-1] + 1)


def _vote(cell: str, below: Sequence[str], numbered: range) -> int:
    """Return 1 where a cell must be a name of what stands below it, -1 where it is like that, 0 where none can tell."""
    known = [value for value in below if value.lower() not in _NO_VALUE]
    if not known or cell.lower() in _NO_VALUE:
        return 0
    if sum(_VALUE.fullmatch(value) is not None for value in known) >= 0.9 * len(known):
        if cell.isdigit() and int(cell) in numbered:
            inside = sum(value.isdigit() and int(value) in numbered for value in known)
            return -1 if inside >= 0.1 * len(known) else 0
        return -1 if _VALUE.fullmatch(cell) else 1
    if cell in known:
        return -1
    # A word of so few would have come again.
    return 1 if len(set(known)) * 10 <= len(known) else 0


def _refuse_twice(path: str, names: Sequence[str]) -> None:
    counted = Counter(column.lower() for column in names)
    twice = [column for column in names if counted[column.lower()] > 1]
    if twice:
        raise InputError(f"{path}: the header names the column {twice[0]!r} twice; rename one of them in the file.")


def _take(
    pieces: Sequence[list[list[str]]], width: int, header: bool, budget: int
) -> tuple[list[list[str]], int, bool]:
    """Return rows of this width from all pieces of a file, how many had another width, and whether none was left."""
    first_line = pieces[0][0]
    rows: list[list[str]] = []
    misfits = 0
    whole = len(pieces) == 1
    for piece in pieces:
        taken = [piece[place] for place in _places(len(piece), max(2, budget // len(pieces)))]
        whole = whole and len(taken) == len(piece)
        fit = [record for record in taken if len(record) == width and not (header and record == first_line)]
        misfits += sum(len(record) != width for record in taken)
        rows += fit
    return rows, misfits, whole


def _json(path: str, files: Sequence[InputFile]) -> Sample:
    chosen = _spread([file for file in files if file.size])
    read = _texts(chosen, MAX_BYTES)
    texts, encoding = read.pieces, read.encoding
    whole = read.whole and len(chosen) == len([file for file in files if file.size])
    records: list[dict[str, Any]] = []
    misfits = every = 0
    origins = []
    for name, pieces in texts.items():
        if pieces[0].lstrip().startswith("["):
            raise InputError(
                f"{name}: a JSON array over many lines; expected a record a line, as `jq -c '.[]'` writes it."
            )
        before = len(records)
        for piece in pieces:
            lines = [line for line in piece.split("\n") if line.strip()]
            budget = MAX_ROWS // (len(texts) * len(pieces)) + 1
            whole = whole and len(lines) <= budget
            every += len(lines)
            for place in _places(len(lines), budget):
                try:
                    value = json.loads(lines[place])
                except json.JSONDecodeError:
                    value = None
                if isinstance(value, dict):
                    records.append(value)
                else:
                    misfits += 1
        origins.append((name, len(records) - before))
    if misfits > len(records):
        raise InputError(f"{path}: {misfits:,} of {misfits + len(records):,} lines are no JSON record.")
    names = list(dict.fromkeys(key for record in records for key in record))
    columns = [_json_column(name, [record.get(name) for record in records]) for name in names]
    table: dict[str, Any] = {"format": "json", "files": [file.name for file in files]}
    table["options"] = {"encoding": encoding} if encoding else {}
    notes = []
    if misfits:
        notes.append(f"lines that are no JSON record, which a run rejects: {misfits:,}")
    if not whole:
        table["schema_drift"] = "allow"
        notes.append("keys that the sample did not show are left out (schema_drift)")
    described = _described(len(records), len(texts), len(files), whole, heads=read.heads)
    total = len(records) if whole else max(len(records), _estimate(every, texts, files))
    return Sample(
        table, columns, len(records), whole, total, described,
        text=True, notes=notes, misfits=misfits, origins=origins,
    )  # fmt: skip


def _json_column(name: str, values: list[Any]) -> SampleColumn:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {str}:
        return SampleColumn(name, "STRING", [value or None for value in values])
    if kinds == {bool}:
        return SampleColumn(name, "BOOLEAN", values)
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return SampleColumn(name, "BIGINT", values)
    if kinds <= {int, float}:
        return SampleColumn(name, "DOUBLE", [None if value is None else float(value) for value in values])
    if kinds == {list} and all(not isinstance(item, dict | list) for value in values for item in value or ()):
        lists = [None if value is None else [str(item) for item in value if item is not None] for value in values]
        return SampleColumn(name, "ARRAY<STRING>", lists)
    if kinds <= {str, int, float, bool}:
        texts = [None if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
        return SampleColumn(name, "STRING", texts)
    return SampleColumn(name, None, values)


# --- Parquet, ORC, the catalog


def _columnar(path: str, files: Sequence[InputFile], format_name: str) -> Sample:
    footers = {file.name: file_columns(file.path, format_name) for file in files}
    family = _largest_family(
        {name: list(columns) for name, columns in footers.items()}, {file.name: file.size for file in files}
    )
    mine = [file for file in files if file.name in family]
    table: dict[str, Any] = {"format": format_name, "files": family}
    notes: list[str] = []
    if len({tuple(footers[name].items()) for name in family}) > 1:
        table["schema_drift"] = "allow"
        notes.append("the files' columns or types differ: the widest type is taken, what is missing becomes NULL")
    try:
        types = merged_columns([footers[name] for name in family])
    except ValueError as error:
        raise InputError(f"{path}: {error}; name the files that belong together.") from None
    chosen = _spread(mine)
    tables: list[pa.Table] = []
    origins = []
    total = 0
    for file in chosen:
        try:
            found, rows = _groups(file.path, format_name, MAX_ROWS // len(chosen))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file.path}: can't be read: {error}.") from error
        tables += found
        total += rows
        origins.append((file.name, sum(part.num_rows for part in found)))
    rows = sum(found.num_rows for found in tables)
    whole = rows == total and len(chosen) == len(mine)
    described = _described(rows, len(chosen), len(files), whole)
    total = total * sum(file.size for file in mine) // max(1, sum(file.size for file in chosen))
    columns = _arrow_columns(tables, types)
    return Sample(table, columns, rows, whole, total, described, notes=notes, origins=origins)


def _groups(path: str, format_name: str, budget: int) -> tuple[list[pa.Table], int]:
    """Return rows of a file, spread over its row groups or stripes and over each, and how many rows it has."""
    if format_name == "orc":
        stripes = orc.ORCFile(path)
        chosen = _spread(range(stripes.nstripes))
        share = max(1, budget // max(1, len(chosen)))
        return [_taken([stripe], len(stripe), share) for stripe in map(stripes.read_stripe, chosen)], stripes.nrows
    # A buffer: else a row group would be in memory as a whole.
    file = pq.ParquetFile(path, buffer_size=1 << 20)
    chosen = [i for i in _spread(range(file.num_row_groups)) if file.metadata.row_group(i).num_rows]
    share = max(1, budget // max(1, len(chosen)))
    found = [
        _taken(file.iter_batches(batch_size=1 << 15, row_groups=[i]), file.metadata.row_group(i).num_rows, share)
        for i in chosen
    ]
    return found, file.metadata.num_rows


def _taken(batches: Iterable[pa.RecordBatch], rows: int, budget: int) -> pa.Table:
    """Return at most `budget` of so many rows, evenly spread; one batch of them is in memory at a time."""
    taken = []
    start = 0
    places = _places(rows, budget)
    for batch in batches:
        mine = places[bisect_left(places, start) : bisect_left(places, start + len(batch))]
        taken.append(batch.take(pa.array([place - start for place in mine], pa.int64())))
        start += len(batch)
    return pa.Table.from_batches(taken)


def _arrow_columns(tables: Sequence[pa.Table], types: Mapping[str, str]) -> list[SampleColumn]:
    columns = []
    for name, sql_type in types.items():
        values: list[Any] = []
        for table in tables:
            there = name in table.column_names
            values += _plain(table.column(name)) if there else [None] * table.num_rows
        columns.append(SampleColumn(name, sql_type, values))
    return columns


def _plain(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_nested(kind) and not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return [None] * len(column)
    return [value if value != "" else None for value in column.to_pylist()]
