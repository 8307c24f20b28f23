"""Contracts as people write them: parsed exactly, or refused with what was expected."""

import math
import re

import pydantic
import pytest

from lakefit.config.expect import Expect, parse_expectation


@pytest.mark.parametrize(
    ("text", "fact", "columns", "low", "high", "closed"),
    [
        ("rows >= 100000", "rows", (), 1e5, math.inf, True),
        ("null_share(temp) < 0.05", "null_share", ("temp",), -math.inf, 0.05, False),
        ("mean(distance) between 900 and 1.2e3", "mean", ("distance",), 900, 1200, True),
        ("min( `two words` ) > -1", "min", ("two words",), -1, math.inf, False),
        ("distinct(a)==3", "distinct", ("a",), 3, 3, True),
        ("min(day) >= 2020-01-02", "min", ("day",), 1_577_923_200, math.inf, True),
        ("drift(a) <= .2", "drift", ("a",), -math.inf, 0.2, True),
    ],
)
def test_a_bound_is_parsed(
    text: str, fact: str, columns: tuple[str, ...], low: float, high: float, closed: bool
) -> None:
    found = parse_expectation(text)
    assert (found.fact, found.columns, found.low, found.high) == (fact, columns, low, high)
    assert found.closed == (closed, closed)


def test_keys_and_values_are_parsed() -> None:
    assert parse_expectation("unique(a, `b c`)").columns == ("a", "b c")
    found = parse_expectation("""values(carrier) in [AA, 'it''s', "x, y", New York]""")
    assert found.columns == ("carrier",)
    assert found.allowed == ("AA", "it's", "x, y", "New York")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("row >= 5", "nothing is called 'row'; did you mean 'rows'?"),
        ("rows(a) >= 5", "rows takes no column"),
        ("mean > 5", "mean takes a column: mean(x)"),
        ("rows => 5", "is no contract"),
        ("uniqe(a)", "did you mean 'unique'?"),
        ("values(a) in []", "the list is empty"),
        ("values(a) in ['x]", "expected a list"),
        ("rows >= many", "is no contract"),
        ("mean(x) between 5 and 1", "5 is above 1"),
        ("max(day) < 2020-02-30", "2020-02-30 is no date"),
        ("rows >= 5; drop table", "is no contract"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(said)):
        Expect(result=(text,))


def test_drift_and_shares_are_of_the_result() -> None:
    with pytest.raises(pydantic.ValidationError, match="of the result alone"):
        Expect(input=("drift(a) < 1",))
