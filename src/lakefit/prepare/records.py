"""Text files that Spark can't cut into lines: other encodings, newlines inside quotes, other compressions.

Each file is read by one task, in pieces, decoded and cut into records in Python; Spark parses these as it does lines.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lakefit.config.source import Table
from lakefit.dataset.inputs import compression_of, file_uri, open_text
from lakefit.dataset.object_path import of_the_store
from lakefit.errors import LakefitError

RECORDS_SCHEMA = "value BINARY, file INT"
# A quote that is never closed would make one record of the rest of the file: after so much it was none.
MAX_RECORD = 1 << 20
_BATCH_BYTES = 4 << 20
# What Hadoop's codecs of a plain Spark don't decompress.
_ONLY_HERE = ("zstd", "lz4")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How records end: `multiline` where quotes may hold line ends."""

    encoding: str
    multiline: bool
    separator: str
    quote: str
    escape: str

    @classmethod
    def of(cls, table: Table) -> "Dialect":
        return cls(table.encoding, table.multiline and table.quote != "", table.separator, table.quote, table.escape)


def needs_reader(table: Table, paths: Iterable[str]) -> bool:
    """Return whether the files of a text table must be read here."""
    return table.multiline or not table.is_utf8 or any(compression_of(path) in _ONLY_HERE for path in paths)


def records(lines: Iterable[str], dialect: Dialect) -> Iterator[str]:
    """Cut physical lines (with their ends) into records without their ends; empty ones are left out."""
    held: list[str] = []
    inside = False
    size = 0
    for raw in lines:
        # A byte-order mark belongs to the encoding, not to the first value.
        line = raw if inside else raw.removeprefix("\ufeff")
        inside = dialect.multiline and _ends_inside(line, inside, dialect)
        held.append(line)
        size += len(line)
        if inside and size <= MAX_RECORD:
            continue
        if inside:
            # The quote was a stray one: its line stands alone, the others are looked at again.
            first, *others = held
            held, size, inside = [], 0, False
            yield first.rstrip("\r\n")
            yield from records(others, Dialect(dialect.encoding, False, "", "", ""))
            continue
        record = "".join(held).rstrip("\r\n")
        held, size = [], 0
        if record:
            yield record
    if held:
        first, *others = held
        yield first.rstrip("\r\n")
        yield from records(others, Dialect(dialect.encoding, False, "", "", ""))


def _ends_inside(line: str, inside: bool, dialect: Dialect) -> bool:
    """Return whether a line ends inside quotes; a quote opens at the beginning of a field only."""
    at = 0
    while True:
        if inside or line.startswith(dialect.quote, at):
            closing = _closing_quote(line, at if inside else at + len(dialect.quote), dialect)
            if closing < 0:
                return True
            at, inside = closing, False
        at = line.find(dialect.separator, at)
        if at < 0:
            return False
        at += len(dialect.separator)


def _closing_quote(line: str, at: int, dialect: Dialect) -> int:
    """Return the place after the quote that closes a field, or -1; a doubled or escaped quote closes nothing."""
    while True:
        found = line.find(dialect.quote, at)
        if found < 0:
            return -1
        before = line[at:found]
        escaping = dialect.escape if dialect.escape != dialect.quote else ""
        escapes = len(before) - len(before.rstrip(escaping)) if escaping else 0
        if escapes % 2:
            at = found + 1
        elif line.startswith(dialect.quote, found + 1):
            at = found + 2
        else:
            return found + 1


def read_records(batches: Iterable[pa.RecordBatch], paths: Sequence[str], dialect: Dialect) -> Iterator[pa.RecordBatch]:
    """Yield the records of the files whose numbers come in column `id`, as rows of `RECORDS_SCHEMA`."""
    for batch in batches:
        for number in batch["id"].to_pylist():
            held: list[str] = []
            size = 0
            try:
                with open_text(paths[number], dialect.encoding) as lines:
                    for record in records(lines, dialect):
                        held.append(record)
                        size += len(record)
                        if size >= _BATCH_BYTES:
                            yield _batch(held, number)
                            held, size = [], 0
            except (OSError, EOFError, pa.ArrowException) as error:
                if of_the_store(error):
                    raise
                # In Spark's own words, by which a damaged file is recognized.
                message = f"Encountered error while reading file {file_uri(paths[number])}. {error}"
                raise LakefitError(message) from error
            if held:
                yield _batch(held, number)


def _batch(values: list[str], number: int) -> pa.RecordBatch:
    # What could not be decoded stays what is no text in UTF-8 either: 0xFF.
    encoded = pa.array([value.encode(errors="surrogateescape") for value in values], pa.binary())
    files = pa.array([number] * len(values), pa.int32())
    return pa.RecordBatch.from_pydict({"value": encoded, "file": files})
