"""What the values of one column are: type, words for NULL, the spelling of dates, numbers and booleans."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Literal

from lakefit.init.sample import Sample, SampleColumn, is_opaque

Kind = Literal["number", "text", "boolean", "time", "list", "other"]
TOLERANCE = 0.98
"""So many of the values must fit; the others are named, and a run rejects their rows."""
_NULL_WORDS = (
    *("NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "Null", "None", "none", "\\N", "#N/A", "#NA", "nil"),
    *("-", "--", "?", ".", "missing", "Missing"),
)
# In text these may be words like any other: "none" as a kind of heating.
_MAYBE_WORDS = frozenset(("None", "none", "na", "nil", ".", "missing", "Missing"))
_SENTINELS = (-9, -99, -999, -9999, -99999, 999, 9999, 99999, 999999)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of `clean` for the column: a verb with its arguments, and why."""

    verb: str
    arguments: Any
    why: str


@dataclass(slots=True)
class Guess:
    """A column as the pipeline file will have it.

    source: its name in the data; name: in the pipeline. sql_type: as declared or read. kind: of its values once `steps`
    are done; values: those, row by row. evidence: what the sample showed. misfits: rows that a run rejects, because
    the value can't be read. folder: whether the names of folders give it.
    """

    source: str
    name: str
    sql_type: str
    kind: Kind
    values: list[Any]
    steps: list[Step] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    misfits: int = 0
    folder: bool = False

    @property
    def counts(self) -> Counter[Any]:
        """How often each value but NULL comes; a list counts its items, and nested values are not told apart."""
        if self.kind == "other":
            return Counter()
        if self.kind == "list":
            return Counter(item for value in self.values for item in value or ())
        return Counter(value for value in self.values if value is not None)

    @property
    def nulls(self) -> float:
        """The share of NULL."""
        return sum(value is None for value in self.values) / len(self.values)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A way to read text: the type to declare (None: STRING and `parse`), arguments of `parse`, text -> value."""

    sql_type: str | None
    parse: Mapping[str, Any]
    kind: Kind
    value: Callable[[str], Any]
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    """What the columns of a table say of each other.

    decimal: the mark of its decimals, for columns that may be read both ways; commas: other columns prove the comma;
    why: what speaks for the mark. proven: words that stand for NULL among numbers, dates or booleans.
    """

    sample: Sample
    decimal: str
    commas: bool
    why: str
    proven: frozenset[str] = frozenset()


def guess_columns(sample: Sample) -> tuple[list[Guess], str | None]:
    """Return what each column holds, and the word for NULL of the whole table (`nullValue`), if it has one."""
    table = _table(sample)
    typed = [_is_typed(column, table) for column in sample.columns]
    among = [_words(column) for column in sample.columns]
    proven = frozenset(word.strip() for is_typed, found in zip(typed, among, strict=True) if is_typed for word in found)
    table = replace(table, proven=proven)
    words = [
        found if is_typed else Counter({word: often for word, often in found.items() if _is_null_word(word, table)})
        for is_typed, found in zip(typed, among, strict=True)
    ]
    null_word = _common_word(sample, words) if sample.table.get("format") == "csv" else None
    taken: set[str] = set()
    guesses = []
    for column in sample.columns:
        guess = _guess(column, table, null_word)
        guess.name = _plain_name(column.name, taken)
        taken.add(guess.name.lower())
        _read_epochs(guess)
        guesses.append(guess)
    return guesses, null_word


def _plain_name(name: str, taken: set[str]) -> str:
    """Return a name that needs no quotes and can name an input of the model."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "column"
    plain = plain if not plain[0].isdigit() else f"c_{plain}"
    # `label` and `weight` are columns of the prepared rows.
    plain = f"{plain}_" if plain.lower() in ("label", "weight") and plain != name else plain
    number = 2
    unique = plain
    while unique.lower() in taken:
        unique, number = f"{plain}_{number}", number + 1
    return unique


def _guess(column: SampleColumn, table: _Table, null_word: str | None) -> Guess:
    if column.folder:
        return _guess_folder(column.name, column.values)
    if column.sql_type is None or is_opaque(column.sql_type):
        sql_type = column.sql_type or ""
        evidence = {"B": "binary or nested", "I": sql_type.lower()}.get(sql_type[:1], "nested")
        return Guess(column.name, column.name, column.sql_type or "STRING", "other", column.values, [], [evidence])
    if column.sql_type == "STRING" or "CHAR" in column.sql_type:
        values = [None if value == null_word else value for value in column.values]
        return _guess_text(column.name, values, table)
    if column.sql_type.startswith("ARRAY"):
        kind: Kind = "list" if column.sql_type == "ARRAY<STRING>" else "other"
        return Guess(column.name, column.name, column.sql_type, kind, column.values, [], [column.sql_type.lower()])
    if column.sql_type == "BOOLEAN":
        return Guess(column.name, column.name, "BOOLEAN", "boolean", column.values)
    if column.sql_type.startswith(("DATE", "TIMESTAMP")):
        guess = Guess(column.name, column.name, column.sql_type, "time", column.values)
        guess.evidence += _span(guess.values)
        return guess
    guess = Guess(column.name, column.name, column.sql_type, "number", column.values)
    _finish_numbers(guess, table.sample)
    return guess


def _guess_folder(name: str, values: list[str | None]) -> Guess:
    """Return dates, else text: a year or a code in a folder's name is one of few."""
    known = [value for value in values if value is not None]
    if known and all(_iso_day(value) for value in known):
        days = [None if value is None else _iso_day(value) for value in values]
        return Guess(name, name, "DATE", "time", days, [], ["from the folders", *_span(days)], folder=True)
    return Guess(name, name, "STRING", "text", values, [], ["from the folders"], folder=True)


def _guess_text(name: str, values: list[str | None], table: _Table) -> Guess:
    counts = Counter(value for value in values if value is not None and value.strip())
    words = {value: often for value, often in counts.items() if value.strip() in _NULL_WORDS}
    plain = Counter({value: often for value, often in counts.items() if value not in words})
    if not plain:
        # All is NULL, or every value is a word for it.
        return Guess(name, name, "STRING", "text", [None] * len(values), [], ["no value"])
    for reading in _readings(name, plain, table):
        read = _read(plain, reading)
        if read is None:
            continue
        misfits = {value: often for value, often in plain.items() if value not in read}
        padded = any(value != value.strip() for value in read)
        typed = [None if value is None else read.get(value) for value in values]
        guess = Guess(name, name, reading.sql_type or "STRING", reading.kind, typed, misfits=sum(misfits.values()))
        if words:
            guess.steps.append(Step("null_if", list(words), f"{_listed(words)}: words for NULL"))
        if words or misfits or padded or reading.sql_type is None or not table.sample.text:
            why = _why_parse(read, misfits) + reading.doubt
            guess.sql_type = "STRING"
            guess.steps.append(Step("parse", dict(reading.parse), why))
        if reading.kind == "number":
            _finish_numbers(guess, table.sample)
        if reading.kind == "time":
            guess.evidence += _span(guess.values)
        return guess
    return _guess_words(name, values, counts, table)


def _why_parse(read: Mapping[str, Any], misfits: Mapping[str, int]) -> str:
    shown = ", ".join(repr(value) for value in list(read)[:2])
    why = f"such as {shown}"
    if misfits:
        why += f"; {sum(misfits.values()):,} rows don't fit and will be rejected: {_listed(misfits)}"
    return why


def _read(counts: Counter[str], reading: _Reading) -> dict[str, Any] | None:
    """Return text -> value where nearly all rows fit, else None."""
    total = counts.total()
    read: dict[str, Any] = {}
    missed = 0
    for text, often in counts.most_common():
        value = reading.value(text.strip())
        if value is None:
            missed += often
            if missed > (1 - TOLERANCE) * total:
                return None
        else:
            read[text] = value
    return read


# --- the ways to read text, in the order in which they are tried

_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,18})")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_CODE = re.compile(r"0\d+")
_MONTH = re.compile(r"(?:1[5-9]|20|21)\d\d-(?:0[1-9]|1[0-2])")
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?")
_CURRENCIES = ("€", "$", "£", "¥", "₹", "EUR", "USD", "GBP", "CHF", "JPY", "Rs.", "Rs")
_FLAGS = (("yes", "no"), ("y", "n"), ("ja", "nein"), ("oui", "non"), ("si", "no"), ("sí", "no"), ("t", "f"))
# Spark's pattern and Python's; days before months where both fit is decided in `_dates`.
_DAYS = (
    ("d.M.yyyy", "%d.%m.%Y"), ("d/M/yyyy", "%d/%m/%Y"), ("M/d/yyyy", "%m/%d/%Y"), ("d-M-yyyy", "%d-%m-%Y"),
    ("M-d-yyyy", "%m-%d-%Y"), ("yyyy/M/d", "%Y/%m/%d"), ("yyyy.M.d", "%Y.%m.%d"), ("yyyy-M-d", "%Y-%m-%d"),
    ("d MMM yyyy", "%d %b %Y"), ("d-MMM-yyyy", "%d-%b-%Y"), ("MMM d, yyyy", "%b %d, %Y"),
    ("d MMMM yyyy", "%d %B %Y"), ("MMMM d, yyyy", "%B %d, %Y"), ("yyyyMMdd", "%Y%m%d"),
    ("M/yyyy", "%m/%Y"), ("MMM yyyy", "%b %Y"), ("MMMM yyyy", "%B %Y"),
)  # fmt: skip
_CLOCKS = (("H:mm:ss", "%H:%M:%S"), ("H:mm", "%H:%M"), ("h:mm a", "%I:%M %p"), ("h:mm:ss a", "%I:%M:%S %p"))


def _readings(name: str, counts: Counter[str], table: _Table) -> Iterator[_Reading]:
    shown = [text.strip() for text, _ in counts.most_common(200)]
    codes = any(_CODE.fullmatch(text.strip()) or _is_long(text.strip()) for text in counts)
    if re.search(r"date|day|dt|time|_at$|_on$", name, re.IGNORECASE) and all(len(text) == 8 for text in shown):
        yield _Reading(None, {"as": "date", "formats": ["yyyyMMdd"]}, "time", _compact_day)
    yield _Reading("BOOLEAN", {"as": "boolean"}, "boolean", partial(_flag, ("true", "false")))
    if not codes:
        integer = "INT" if all(len(text) <= 8 for text in shown) else "BIGINT"
        yield _Reading(integer, {"as": "integer"}, "number", partial(_matched, _INTEGER, int))
        yield from _numbers(counts, shown, codes, table)
    yield _Reading("DATE", {"as": "date", "formats": ["yyyy-MM-dd"]}, "time", _iso_day)
    yield _Reading(None, {"as": "date", "formats": ["yyyy-MM"]}, "time", _month)
    if _ISO_TIME.fullmatch(shown[0]):
        formats = _iso_formats(counts)
        yield _Reading("TIMESTAMP", {"as": "timestamp", "formats": formats}, "time", _iso_time)
    yield from _dates(shown, counts)
    yield from _mixed_dates(shown, counts)
    if codes:
        yield from _numbers(counts, shown, codes, table)
    distinct = {text.strip().lower() for text in counts}
    for pair in _FLAGS:
        if distinct == set(pair):
            arguments = {"as": "boolean", "true_words": [pair[0]], "false_words": [pair[1]]}
            yield _Reading(None, arguments, "boolean", partial(_flag, pair))


def _is_long(text: str) -> bool:
    """Return whether a whole number is more than a BIGINT holds; a DOUBLE would lose its last digits."""
    return len(text) > 18 and re.fullmatch(r"[+-]?\d+", text) is not None and abs(int(text)) >= 2**63


def _matched(pattern: re.Pattern[str], convert: Callable[[str], Any], text: str) -> Any:
    return convert(text) if pattern.fullmatch(text) else None


def _flag(words: tuple[str, str], text: str) -> bool | None:
    return {words[0]: True, words[1]: False}.get(text.lower())


def _iso_day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _ISO_DATE.fullmatch(text) else None
    except ValueError:
        return None


def _month(text: str) -> date | None:
    return date.fromisoformat(f"{text}-01") if _MONTH.fullmatch(text) else None


def _compact_day(text: str) -> date | None:
    found = _time("%Y%m%d", text) if text.isdigit() and len(text) == 8 else None
    return found.date() if found is not None and 1900 <= found.year <= 2100 else None


def _iso_time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if _ISO_TIME.fullmatch(text) else None
    except ValueError:
        return None
    return found.replace(tzinfo=None) - (found.utcoffset() or found - found) if found is not None else None


def _iso_formats(counts: Counter[str]) -> list[str]:
    """Return the Spark patterns of ISO times; each part that some have and some lack stands in brackets."""
    between = "'T'" if "T" in next(iter(counts)) else " "
    return [f"yyyy-MM-dd{between}HH:mm[:ss][.SSSSSS][.SSS][XXX]"]


def _time(pattern: str, text: str) -> datetime | None:
    try:
        return datetime.strptime(text, pattern)
    except ValueError:
        return None


def _patterns() -> Iterator[tuple[str, str]]:
    """Yield the patterns of dates and times, Spark's and Python's."""
    for spark, python in _DAYS:
        if spark != "yyyyMMdd":
            yield spark, python
        for clock, python_clock in _CLOCKS:
            yield f"{spark} {clock}", f"{python} {python_clock}"
            yield f"{spark}'T'{clock}", f"{python}T{python_clock}"


def _dates(shown: Sequence[str], counts: Counter[str]) -> Iterator[_Reading]:
    """Yield the patterns under which the most frequent values are dates; of two that fit, days before months."""
    if not any(character.isdigit() for character in shown[0]):
        return
    for spark, python in _patterns():
        if _mostly(shown[:50], python):
            yield _timely([(spark, python)], _doubt(python, counts))


def _mixed_dates(shown: Sequence[str], counts: Counter[str]) -> Iterator[_Reading]:
    """Yield the patterns that together cover the values, where people have written dates in several ways."""
    parts = [len(re.findall(r"\d+|[A-Za-z]{3,}", text)) for text in shown[:50]]
    if sum(found >= 3 for found in parts) < 0.9 * len(parts):
        return
    chosen: list[tuple[str, str]] = []
    doubt = ""
    left = counts
    while left.total() > (1 - TOLERANCE) * counts.total():
        some = [text.strip() for text, _ in left.most_common(60)]
        best = max(_patterns(), key=lambda pattern: sum(_time(pattern[1], text) is not None for text in some))
        fit = Counter({text: often for text, often in left.items() if _time(best[1], text.strip()) is not None})
        if fit.total() < 0.005 * counts.total() or len(chosen) == 6:
            return
        if not doubt:
            doubt = _doubt(best[1], fit)
        chosen.append(best)
        left = left - fit
    if len(chosen) > 1:
        yield _timely(chosen, doubt)


def _doubt(python: str, counts: Counter[str]) -> str:
    """Say so where days and months could change places in every value."""
    other = python.replace("%d/%m", "%m/%d").replace("%d-%m", "%m-%d")
    if other == python or any(_time(other, text.strip()) is None for text in counts):
        return ""
    return "; CHECK: days before months is a guess, all values can be read the other way too"


def _timely(patterns: Sequence[tuple[str, str]], doubt: str) -> _Reading:
    """Return a reading by patterns in this order: dates where none of them has a time of day."""
    dates = all("%H" not in python and "%I" not in python for _, python in patterns)
    arguments = {"as": "date" if dates else "timestamp", "formats": [spark for spark, _ in patterns]}
    value = partial(_first_time, [python for _, python in patterns], dates)
    return _Reading(None, arguments, "time", value, doubt)


def _first_time(patterns: Sequence[str], dates: bool, text: str) -> date | None:
    found = next((time for pattern in patterns if (time := _time(pattern, text)) is not None), None)
    return found.date() if found is not None and dates else found


def _mostly(texts: Sequence[str], pattern: str) -> bool:
    return sum(_time(pattern, text) is not None for text in texts) >= 0.9 * len(texts)


_MARKS = ((".", None), (",", None), (".", ","), (",", "."), (",", " "), (".", "'"), (".", " "))


def _numbers(counts: Counter[str], shown: Sequence[str], codes: bool, table: _Table) -> Iterator[_Reading]:
    """Yield the spellings of numbers that people use, from the one that most values fit: marks, percent, currencies."""
    currency, percent = _signs(shown)
    if codes and not currency and not percent:
        return
    fits: dict[tuple[str, str | None], tuple[int, _Reading]] = {}
    for decimal, thousands in _MARKS:
        value = _number_reader(decimal, thousands, percent, currency)
        if sum(value(text) is not None for text in shown[:50]) * 2 < len(shown[:50]):
            continue
        arguments: dict[str, Any] = {"as": "number"}
        if decimal != ".":
            arguments["decimal"] = decimal
        if thousands:
            arguments["thousands"] = thousands
        if percent:
            arguments["percent"] = True
        if currency:
            arguments["currency"] = currency
        plain = (decimal, thousands, percent, bool(currency)) == (".", None, False, False)
        reading = _Reading("DOUBLE" if plain else None, arguments, "number", value)
        fits[decimal, thousands] = (
            sum(often for text, often in counts.items() if value(text.strip()) is not None),
            reading,
        )
    _settle(fits, (".", ","), (",", None), table)
    _settle(fits, (".", None), (",", "."), table)
    yield from (reading for _, reading in sorted(fits.values(), key=lambda found: -found[0]))


def _settle(fits: dict[Any, tuple[int, _Reading]], point: Any, comma: Any, table: _Table) -> None:
    """Where "4,498" or "4.498" may be read both ways, leave what the rest of the file speaks for, with the doubt."""
    if point not in fits or comma not in fits or fits[point][0] != fits[comma][0]:
        return
    wins = comma if table.decimal == "," else point
    if point == (".", None) and not table.commas:
        # Most software writes decimal points, whatever the country.
        wins = point
    else:
        fits[wins] = fits[wins][0], replace(fits[wins][1], doubt=f"; CHECK: thousands or decimals? {table.why}")
    for marks in [marks for marks in fits if marks[0] != wins[0]]:
        del fits[marks]


def _signs(shown: Sequence[str]) -> tuple[list[str], bool]:
    """Return the words for currencies at either end of the texts, and whether most of them are percentages."""
    currency = [word for word in _CURRENCIES if any(text.startswith(word) or text.endswith(word) for text in shown)]
    return currency, sum(text.endswith("%") for text in shown) * 2 > len(shown)


def _table(sample: Sample) -> _Table:
    marks: dict[str, str] = {}
    for column in sample.columns:
        if column.sql_type == "STRING" and not column.folder:
            mark = _proven_mark(Counter(value.strip() for value in column.values if value is not None))
            marks.setdefault(mark, column.name)
    marks.pop("", None)
    if len(marks) == 1:
        ((mark, name),) = marks.items()
        why = f"{name!r} has decimal {'commas' if mark == ',' else 'points'}"
        return _Table(sample, mark, mark == ",", why)
    if sample.table.get("options", {}).get("sep") == ";":
        return _Table(sample, ",", False, "the separator ';' speaks for decimal commas")
    return _Table(sample, ".", False, "nothing else in the file tells")


def _proven_mark(counts: Counter[str]) -> str:
    """Return the mark of decimals of a column that can be read with that one alone, else nothing."""
    shown = [text for text, _ in counts.most_common(200) if text and text not in _NULL_WORDS]
    currency, percent = _signs(shown)
    fits = dict.fromkeys(".,", 0)
    for decimal, thousands in _MARKS:
        value = _number_reader(decimal, thousands, percent, currency)
        fits[decimal] = max(fits[decimal], sum(value(text) is not None for text in shown))
    mark = max(fits, key=lambda mark: fits[mark])
    return mark if fits[mark] >= TOLERANCE * len(shown) and min(fits.values()) < fits[mark] else ""


def _number_reader(
    decimal: str, thousands: str | None, percent: bool, currency: Sequence[str]
) -> Callable[[str], float | None]:
    whole = r"\d+" if thousands is None else rf"(?:[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    mark = re.escape(decimal)
    number = rf"[+-]?(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?"
    pattern = re.compile(rf"({number})\s*%" if percent else rf"({number})")
    words = "|".join(re.escape(word) for word in sorted(currency, key=len, reverse=True))

    def read(text: str) -> float | None:
        text = re.sub(r"[\u00a0\u202f]", " ", text)
        if words:
            text = re.sub(r"^\((.*)\)$", r"-\1", text)
            text = re.sub(rf"^([+-]?)\s*(?:{words})\s*", r"\1", text)
            text = re.sub(rf"\s*(?:{words})$", "", text)
        found = pattern.fullmatch(text)
        if found is None:
            return None
        plain = found[1].replace(thousands, "") if thousands else found[1]
        value = float(plain.replace(decimal, "."))
        return value / 100 if percent else value

    return read


# --- words, and numbers that stand for NULL


def _guess_words(name: str, values: list[str | None], counts: Counter[str], table: _Table) -> Guess:
    guess = Guess(name, name, "STRING", "text", values)
    words = {value: often for value, often in counts.items() if _is_null_word(value, table)}
    short = all(len(value) <= 3 and value.isupper() for value, _ in counts.most_common(200) if value not in words)
    if short:
        # NA is Namibia among countries and North America among continents.
        words = {word: often for word, often in words.items() if word.strip() != "NA"}
    separator = _list_separator(counts)
    verbs = []
    tidy: Callable[[str], str] = str
    if separator is None:
        steps: tuple[tuple[str, Callable[[str], str], str], ...] = (
            ("trim", lambda value: value.strip(), "blanks at the ends"),
            ("collapse", lambda value: re.sub(r"\s+", " ", value), "runs of blanks"),
        )
        reasons = []
        for verb, change, reason in steps:
            if any(change(value) != value for value in counts):
                verbs.append(verb)
                reasons.append(f"{reason} in {sum(n for v, n in counts.items() if change(v) != v):,} rows")
        tidied = Counter({_tidy(value): 0 for value in counts})
        if len({value.lower() for value in tidied}) < len(tidied) and len(tidied) <= 1000:
            verbs.append("lower")
            reasons.append("spellings that differ in case alone")
        if verbs:
            guess.steps.append(Step("text", verbs, ", ".join(reasons)))
            tidy = (lambda value: _tidy(value).lower()) if "lower" in verbs else _tidy
    elif words.pop("-", None):
        pass
    if words:
        found = sorted({tidy(word) for word in words})
        guess.steps.append(Step("null_if", found, f"{_listed(words)}: words for NULL"))
    guess.values = [None if value is None or value in words or not value.strip() else tidy(value) for value in values]
    if separator is not None:
        guess.steps.append(Step("parse", {"as": "list", "separator": separator}, f"such as {max(counts, key=len)!r}"))
        guess.kind = "list"
        guess.values = [
            None if value is None else [item.strip() for item in value.split(separator) if item.strip()]
            for value in guess.values
        ]
    return guess


def _tidy(value: str) -> str:
    return re.sub(r"\s+", " ", value.strip())


def _list_separator(counts: Counter[str]) -> str | None:
    """Return what separates short items that come again and again."""
    for separator in ("|", ";", ","):
        # A comma and a blank separate parts of one thing: "Paris, Texas".
        holding = sum(n for value, n in counts.items() if separator in value and ", " not in value)
        if holding < 0.3 * counts.total():
            continue
        items = Counter(item.strip() for value in counts for item in value.split(separator))
        words = max(len(item.split()) for item, _ in items.most_common(100))
        if len(items) <= min(1000, max(20, len(counts) / 2)) and words <= 3 and all(len(item) <= 40 for item in items):
            return separator
    return None


def _finish_numbers(guess: Guess, sample: Sample) -> None:
    """Say the range of numbers, choose the width of integers, take sentinels out."""
    guess.values = [
        None if value is None or value != value or abs(value) == float("inf") else value for value in guess.values
    ]
    counts = guess.counts
    if not counts:
        return
    whole = all(value == int(value) for value in counts)
    if sample.text and guess.sql_type in ("INT", "BIGINT"):
        # What was not looked at may be larger, as the ids of later rows are.
        small = sample.whole and max(abs(value) for value in counts) < 100_000_000
        guess.sql_type = "INT" if small else "BIGINT"
    sentinels = [value for value in _SENTINELS if _is_sentinel(value, counts)]
    if sentinels:
        rest = [value for value in counts if value not in sentinels]
        why = f"{_listed({str(v): counts[v] for v in sentinels})}, far from the rest ({_range(rest, whole)})"
        guess.steps.append(Step("null_if", sentinels, why))
        guess.values = [None if value in sentinels else value for value in guess.values]
        counts = guess.counts
    guess.evidence.append(_range(counts, whole))


def _is_sentinel(value: int, counts: Counter[Any]) -> bool:
    often = counts.get(value, 0)
    rest = [other for other in counts if other not in _SENTINELS]
    if often < max(3, 0.002 * counts.total()) or len(rest) < 5:
        return False
    low, high = min(rest), max(rest)
    return (
        (value < 0 <= low and -value > 3) or (value > 0 and value > 3 * max(high, 1)) or value < low - 3 * (high - low)
    )


def _read_epochs(guess: Guess) -> None:
    """Read integers as times where the name says so and the numbers are seconds or milliseconds since 1970."""
    known = [value for value in guess.values if value is not None]
    if guess.kind != "number" or not known or not re.search(r"time|date|_at$|_on$|^ts$|_ts$", guess.source.lower()):
        return
    for unit, function in ((1, "timestamp_seconds"), (1000, "timestamp_millis")):
        if all(5e8 * unit < value < 4.2e9 * unit and value == int(value) for value in known):
            epoch = datetime(1970, 1, 1)
            guess.steps.append(
                Step(
                    "derive",
                    f"{function}({guess.name})",
                    "seconds since 1970" if unit == 1 else "milliseconds since 1970",
                )
            )
            guess.values = [None if v is None else epoch + timedelta(seconds=v / unit) for v in guess.values]
            guess.kind, guess.evidence = "time", _span(guess.values)
            return


def _range(values: Any, whole: bool) -> str:
    low, high = min(values), max(values)
    if not whole or abs(high) >= 1e15:
        return f"{low:.6g} to {high:.6g}"
    # A year has no thousands.
    return f"{low:.0f} to {high:.0f}" if max(abs(low), abs(high)) < 10_000 else f"{low:,.0f} to {high:,.0f}"


def _span(values: Sequence[Any]) -> list[str]:
    known = [value for value in values if value is not None]
    return [f"{min(known)} to {max(known)}"] if known else []


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{value!r} {often:,}x" for value, often in sorted(counts.items(), key=lambda item: -item[1])[:3]]
    return ", ".join(shown) + (f" and {len(counts) - 3:,} more" if len(counts) > 3 else "")


# --- the word for NULL of a whole table


def _words(column: SampleColumn) -> Counter[str]:
    if column.sql_type != "STRING" or column.folder:
        return Counter()
    return Counter(value for value in column.values if value is not None and value.strip() in _NULL_WORDS)


def _is_null_word(value: str, table: _Table) -> bool:
    """Return whether a text among others stands for NULL."""
    word = value.strip()
    return word in _NULL_WORDS and (word not in _MAYBE_WORDS or word in table.proven)


def _is_typed(column: SampleColumn, table: _Table) -> bool:
    """Return whether texts are numbers, dates or booleans."""
    if column.sql_type != "STRING" or column.folder:
        return False
    texts = (value for value in column.values if value is not None and value.strip())
    plain = Counter(value for value in texts if value.strip() not in _NULL_WORDS)
    return bool(plain) and any(_read(plain, reading) is not None for reading in _readings(column.name, plain, table))


def _common_word(sample: Sample, words: Sequence[Counter[str]]) -> str | None:
    """Return the most frequent word for NULL, where no column holds it as a word of its own."""
    total: Counter[str] = Counter()
    for found in words:
        total.update(found)
    for word, _ in total.most_common(1):
        for column, found in zip(sample.columns, words, strict=True):
            counts = Counter(value for value in column.values if value is not None)
            others = [value for value in counts if value not in found]
            codes = bool(others) and all(isinstance(v, str) and len(v) <= 3 and v.isupper() for v in others[:200])
            if counts[word] and (word not in found or (word == "NA" and codes)):
                return None
        return word
    return None
