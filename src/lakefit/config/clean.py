"""`clean`: what happens to values by the row alone, before duplicates are looked for. Steps run in the given order."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, field_validator, model_validator

from lakefit.config.images import FAULTS, Image
from lakefit.config.sections import Section

Column = Annotated[str, Field(min_length=1)]
Columns = Annotated[tuple[Column, ...], Field(min_length=1)]
Words = tuple[str, ...]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""`module:function`, found from the working directory or among what is installed."""

TRUE_WORDS = ("true", "t", "yes", "y", "1", "on")
FALSE_WORDS = ("false", "f", "no", "n", "0", "off")
# Letters of Spark's datetime patterns that stand for a zone or an offset in the text.
_ZONE_LETTERS = re.compile(r"[VOXxZz]")
# Every letter that Spark's formatter takes for parsing.
_PATTERN_LETTERS = frozenset("GyMLdahkKHmsSVzOXxZD")
_OFFSET = re.compile(r"[+-](?:0\d|1[0-8]):[0-5]\d")
# Python knows them; Java, which Spark asks, doesn't, or means another place.
_NO_ZONES = re.compile(r"localtime|Factory|posixrules|posix/.*|right/.*")


class Parse(Section):
    """Text that is a date, a time, a number or a boolean in somebody's spelling.

    as: date, timestamp, number (float64), integer (int64), boolean or list (of text). formats: Spark datetime patterns
    for date and timestamp, tried in order. zone: of times that name none, such as Europe/Berlin or +02:00; a time that
    its clocks leave out does not parse, of two equal ones it is the first; as date, the day there of a text that names
    a zone. decimal: the mark before a number's fraction. thousands: the mark between groups of three digits, refused
    anywhere else; the first group does not begin with 0; ' is the curly one too. percent: "12 %" is 0.12. currency:
    words cut off at either end, whatever their case; then "(5)" is -5 too. true_words, false_words: compared without
    case. separator: what stands between the values of a list. unparsable: `reject` rejects the row after deduplication,
    its text kept; `as_null` makes it NULL. Both are counted.
    """

    as_: Literal["date", "timestamp", "number", "integer", "boolean", "list"] = Field(alias="as")
    formats: Words = ()
    zone: str = "UTC"
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    percent: bool = False
    currency: Words = ()
    true_words: Words = TRUE_WORDS
    false_words: Words = FALSE_WORDS
    separator: Annotated[str, Field(min_length=1)] | None = None
    unparsable: Literal["reject", "as_null"] = "reject"

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        try:
            if _OFFSET.fullmatch(zone) is None:
                ZoneInfo("" if _NO_ZONES.fullmatch(zone) else zone)
        except (ValueError, OSError, LookupError):
            raise ValueError("expected a time zone such as UTC, Europe/Berlin or +02:00") from None
        return zone

    @field_validator("formats")
    @classmethod
    def _are_patterns(cls, formats: Words) -> Words:
        for text in formats:
            unquoted = re.sub(r"'[^']*'", "", text)
            wrong = sorted({letter for letter in unquoted if letter.isalpha()} - _PATTERN_LETTERS)
            if wrong:
                raise ValueError(f"{text!r}: {wrong[0]!r} means nothing where text is read (quote what is text: 'T')")
            if "'" in unquoted:
                raise ValueError(f"{text!r}: a quote is not closed")
            if "y" not in unquoted:
                raise ValueError(f"{text!r} has no year (y): every text would be of 1970")
        return formats

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "Parse":
        if self.as_ in ("date", "timestamp"):
            if not self.formats:
                raise ValueError('formats: expected how the text is written, such as ["yyyy-MM-dd", "dd.MM.yyyy"]')
        elif self.formats:
            raise ValueError(f"formats belong to date and timestamp, not to {self.as_}")
        if self.as_ not in ("number", "integer") and (self.thousands or self.percent or self.currency):
            raise ValueError(f"thousands, percent and currency belong to number and integer, not to {self.as_}")
        if self.as_ == "integer" and self.percent:
            raise ValueError("a percentage is no integer: as: number")
        if self.as_ != "boolean" and (self.true_words, self.false_words) != (TRUE_WORDS, FALSE_WORDS):
            raise ValueError(f"true_words and false_words belong to boolean, not to {self.as_}")
        if self.as_ not in ("date", "timestamp") and self.zone != "UTC":
            raise ValueError(f"zone belongs to date and timestamp, not to {self.as_}")
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}")
        if (self.as_ == "list") != (self.separator is not None):
            raise ValueError('a list needs its separator, such as "|", and nothing else has one')
        yes, no = ({word.strip().lower() for word in words} for words in (self.true_words, self.false_words))
        both = yes & no
        if both:
            raise ValueError(f"{min(both)!r} is among true_words and false_words")
        return self

    @property
    def rejects(self) -> bool:
        """Whether a value that does not parse rejects its row; every text is a list."""
        return self.unparsable == "reject" and self.as_ != "list"

    def patterns(self) -> tuple[tuple[str, bool], ...]:
        """Return the formats, each with whether texts of it name a zone; where that is optional, as two."""
        return tuple(variant for text in self.formats for variant in _variants(text))


_OPTIONAL_ZONE = re.compile(r"\[([^\[\]]*[VOXxZz][^\[\]]*)\]")


def _variants(pattern: str) -> Iterator[tuple[str, bool]]:
    optional = _OPTIONAL_ZONE.search(pattern)
    if optional is None:
        yield pattern, bool(_ZONE_LETTERS.search(re.sub(r"'[^']*'", "", pattern)))
        return
    before, after = pattern[: optional.start()], pattern[optional.end() :]
    yield from _variants(f"{before}{optional[1]}{after}")
    yield from _variants(f"{before}{after}")


class Correct(Section):
    """Known misspellings, or canonical values with a bounded number of edits; each correction is recorded.

    mapping: from -> to, for whole values. values: the canonical ones; another value becomes the nearest of them if that
    is at most `max_edits` edits away and nearer than every other: no guess where two are equally near. max_edits: at
    most so many letters inserted, deleted or replaced.
    """

    mapping: dict[str, str] = Field(default_factory=dict)
    values: Words = ()
    max_edits: Annotated[int, Field(ge=1, le=5)] = 2

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Correct":
        if bool(self.mapping) == bool(self.values):
            raise ValueError("expected either mapping: {from: to} or values: [canonical, …]")
        if len(set(self.values)) < len(self.values):
            raise ValueError("a canonical value is listed twice")
        return self


class Clip(Section):
    """Bounds that are known beforehand; `features` has a clip whose bounds are learned.

    min: smaller values become this. max: larger values become this.
    """

    min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _has_bounds_in_order(self) -> "Clip":
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


TextVerb = Literal["trim", "collapse", "upper", "lower", "nfkc", "strip_control"]
VERBS = ("text", "null_if", "parse", "correct", "clip", "image", "derive", "drop", "custom")


class Clean(Section):
    """One step: one verb, and the column or columns that it changes.

    column: the column, or a list of columns, that the verb changes; `drop` and `custom` take none. text: trim (white
    space at both ends), collapse (runs of white space to one space), upper, lower, nfkc (Unicode normal form),
    strip_control (control characters removed); in the order of the list. null_if: these values are NULL. parse: text
    becomes dates, times, numbers, booleans or lists. correct: misspelt values become what was meant. clip: numbers
    beyond a bound become the bound. image: bytes of image files become what the model is to see. derive: a Spark SQL
    expression for a new or an old column. drop: columns that nothing further needs. custom: `module:function`, a
    function DataFrame -> DataFrame that keeps every row and the columns whose names begin with `_`.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [verb]} for verb in VERBS]})

    column: Column | Columns | None = None
    text: Annotated[tuple[TextVerb, ...], Field(min_length=1)] | None = None
    null_if: Annotated[tuple[str | int | float, ...], Field(min_length=1)] | None = None
    parse: Parse | None = None
    correct: Correct | None = None
    clip: Clip | None = None
    image: Image | None = None
    derive: Annotated[str, Field(min_length=1)] | None = None
    drop: Columns | None = None
    custom: FunctionName | None = None

    @model_validator(mode="after")
    def _has_one_verb(self) -> "Clean":
        verbs = [name for name in VERBS if getattr(self, name) is not None]
        if len(verbs) != 1:
            found = f"found {' and '.join(verbs)}" if verbs else "found none"
            raise ValueError(f"expected one verb of {', '.join(VERBS)}; {found}. Steps run in the order of the list")
        if verbs[0] in ("drop", "custom"):
            if self.column is not None:
                raise ValueError(f"{verbs[0]} takes no column")
        elif self.column is None:
            raise ValueError(f"expected the column (or columns) that {verbs[0]} changes")
        elif verbs[0] == "derive" and not isinstance(self.column, str):
            raise ValueError("derive makes one column")
        elif verbs[0] == "derive" and "." in str(self.column):
            raise ValueError(f"the column name {self.column!r} holds a dot, which SQL takes for a field of a struct")
        return self

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the step rejects rows, as what is said of one of its columns."""
        if self.image is not None:
            return tuple(f": {fault}" for fault in FAULTS)
        return (f" does not parse as {self.parse.as_}",) if self.parse is not None and self.parse.rejects else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the verb changes; none for drop and custom."""
        if self.column is None:
            return ()
        return (self.column,) if isinstance(self.column, str) else self.column
