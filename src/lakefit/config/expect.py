"""`expect`: contracts on the rows, checked before anything is published; a broken one keeps the old version in use."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lakefit.config.file import nearest
from lakefit.config.sections import Section

FACTS = {
    "rows": 0,
    "rejected_share": 0,
    "duplicate_share": 0,
    "null_share": 1,
    "mean": 1,
    "deviation": 1,
    "min": 1,
    "max": 1,
    "distinct": 1,
    "drift": 1,
}
"""What can be expected of, and how many columns it takes. `unique(…)` and `values(…) in […]` have their own forms."""
OPERATORS = (">=", "<=", "==", ">", "<")
_NAME = r"(?:`[^`]+`|\w+)"
# A number, or an ISO date or time (UTC), which counts as seconds since 1970.
_NUMBER = r"(?:\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?|[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
_COMPARED = re.compile(rf"(\w+)(?:\(\s*({_NAME})\s*\))?\s*(>=|<=|==|>|<)\s*({_NUMBER})")
_BETWEEN = re.compile(rf"(\w+)(?:\(\s*({_NAME})\s*\))?\s+between\s+({_NUMBER})\s+and\s+({_NUMBER})")
_UNIQUE = re.compile(rf"unique\(\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*\)")
_VALUES = re.compile(rf"values\(\s*({_NAME})\s*\)\s+in\s+\[(.*)\]")
_ITEM = re.compile(r"""\s*(?:'((?:[^']|'')*)'|"([^"]*)"|([^,'"\[\]]+?))\s*(?:,|$)""")


@dataclass(frozen=True, slots=True)
class Expectation:
    """A contract as parsed: `fact` of `columns` is between `low` and `high`, or (values) among `allowed`.

    closed: whether low and high themselves are in.
    """

    text: str
    fact: str
    columns: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")
    closed: tuple[bool, bool] = (True, True)
    allowed: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        """Return whether a value keeps the bounds; NaN does not."""
        above = value >= self.low if self.closed[0] else value > self.low
        below = value <= self.high if self.closed[1] else value < self.high
        return above and below


def parse_expectation(text: str) -> Expectation:
    """Return the contract that a text states.

    Raises:
        ValueError: it states none; the message says what was expected.
    """
    stripped = text.strip()
    if found := _UNIQUE.fullmatch(stripped):
        return Expectation(text, "unique", tuple(_unquoted(name) for name in re.findall(_NAME, found[1])))
    if found := _VALUES.fullmatch(stripped):
        return Expectation(text, "values", (_unquoted(found[1]),), allowed=_items(found[2], text))
    if found := _BETWEEN.fullmatch(stripped):
        fact, column, low, high = found.groups()
        bounds = _number(low, text), _number(high, text)
        if bounds[0] > bounds[1]:
            raise ValueError(f"{text!r}: {low} is above {high}")
        return Expectation(text, *_fact(fact, column), low=bounds[0], high=bounds[1])
    if found := _COMPARED.fullmatch(stripped):
        fact, column, operator, number = found.groups()
        value, closed = _number(number, text), "=" in operator
        low, high = (value if operator[0] in ">=" else float("-inf")), (value if operator[0] in "<=" else float("inf"))
        return Expectation(text, *_fact(fact, column), low=low, high=high, closed=(closed, closed))
    word = re.match(r"\w*", stripped)
    hint = nearest(word[0], [*FACTS, "unique", "values"]) if word and word[0] not in FACTS else ""
    raise ValueError(
        f"{text!r} is no contract{hint}; expected such as: rows >= 1000 | null_share(x) < 0.05 | unique(id) | "
        "values(x) in [a, b] | mean(x) between 1 and 2 | drift(x) < 0.2"
    )


def _number(text: str, whole: str) -> float:
    if not re.match(r"\d{4}-", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ValueError(f"{whole!r}: {text} is no date") from None


def _fact(name: str, column: str | None) -> tuple[str, tuple[str, ...]]:
    if name not in FACTS:
        raise ValueError(f"nothing is called {name!r}{nearest(name, [*FACTS, 'unique', 'values'])}")
    if FACTS[name] != (column is not None):
        raise ValueError(f"{name} takes {'a column: ' + name + '(x)' if FACTS[name] else 'no column'}")
    return name, (_unquoted(column),) if column is not None else ()


def _items(text: str, whole: str) -> tuple[str, ...]:
    items: list[str] = []
    at = 0
    while at < len(text):
        found = _ITEM.match(text, at)
        if found is None or found.end() == at:
            raise ValueError(f"{whole!r}: expected a list such as ['a', 'b']")
        items.append(next(group for group in found.groups() if group is not None).replace("''", "'"))
        at = found.end()
    if not items:
        raise ValueError(f"{whole!r}: the list is empty")
    return tuple(items)


def _unquoted(name: str) -> str:
    return name.strip("`")


def _checked(text: str) -> str:
    parse_expectation(text)
    return text


Contract = Annotated[str, Field(min_length=1), AfterValidator(_checked)]


class Expect(Section):
    """Contracts, checked before anything is published; a broken one ends the run with exit code 5.

    A contract holds a fact against a number (`>=`, `<=`, `==`, `>`, `<`, or `between 1 and 2`, both ends in), or takes
    the whole form below. Names with spaces stand in backquotes.

    - `rows >= 100000`: the rows
    - `rejected_share < 0.01`, `duplicate_share < 0.2`: the share of all rows (of the result alone)
    - `null_share(c) < 0.05`: the share of NULLs
    - `mean(c) between 900 and 1200`, `deviation(c) > 0`, `min(c) >= 0`, `max(c) < 5000`: of numbers; of
      times against ISO dates (UTC); NULLs apart
    - `distinct(c) == 16`: the different values, counted exactly; NULLs apart
    - `unique(a, b)`: no two rows have equal values; NULL equals NULL
    - `values(c) in [AA, 'New York']`: no others; NULLs apart
    - `drift(c) < 0.25`: the population stability index of the training split against the version in use (0.1 is
      little, 0.25 much); of the result alone, and true where no version is in use yet

    input: of all rows as they come out of `clean`. result: of the rows that are kept.
    """

    input: tuple[Contract, ...] = ()
    result: tuple[Contract, ...] = ()

    @model_validator(mode="after")
    def _drift_is_of_the_result(self) -> "Expect":
        for text in self.input:
            if parse_expectation(text).fact in ("drift", "rejected_share", "duplicate_share"):
                raise ValueError(f"{text!r} can be expected of the result alone")
        return self

    def parsed(self, scope: Literal["input", "result"]) -> tuple[Expectation, ...]:
        """Return the contracts of a scope."""
        return tuple(parse_expectation(text) for text in getattr(self, scope))
