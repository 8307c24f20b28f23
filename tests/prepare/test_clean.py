"""Each verb of `clean` against plain Python, on values that people have really written."""

import re
import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakefit.config.clean import Clean
from lakefit.config.rows import Label
from lakefit.errors import InputError
from lakefit.prepare.clean import clean, label_problems

Values = list[Any]
# One Spark job an example: many values in each of few examples.
FEW = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def step(**fields: Any) -> Clean:
    return Clean.model_validate(fields, strict=False)


def frame_of(session: Any, values: Values, sql_type: str = "STRING") -> Any:
    return session.createDataFrame([(i, value) for i, value in enumerate(values)], f"i INT, x {sql_type}").coalesce(1)


def cleaned(session: Any, values: Values, *steps: Clean, sql_type: str = "STRING", column: str = "x") -> Values:
    rows = clean(frame_of(session, values, sql_type), steps).orderBy("i").collect()
    return [row[column] for row in rows]


def marks(session: Any, values: Values, *steps: Clean) -> list[Any]:
    return [row["_marks"] for row in clean(frame_of(session, values), steps).orderBy("i").collect()]


TEXTS = st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=60)


def is_space(character: str) -> bool:
    return character in "\t\n\x0b\f\r " or unicodedata.category(character).startswith("Z")


def trimmed(text: str) -> str:
    start, end = 0, len(text)
    while start < end and is_space(text[start]):
        start += 1
    while end > start and is_space(text[end - 1]):
        end -= 1
    return text[start:end]


@FEW
@given(TEXTS)
def test_text_verbs_do_what_python_does(session: Any, texts: Values) -> None:
    for verb, expected in {
        "trim": trimmed,
        "strip_control": lambda text: "".join(c for c in text if unicodedata.category(c) != "Cc"),
        "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    }.items():
        found = cleaned(session, texts, step(column="x", text=[verb]))
        assert found == [None if text is None else expected(text) or None for text in texts], verb


def test_text_verbs_run_in_the_order_of_the_list_and_over_several_columns(session: Any) -> None:
    frame = session.createDataFrame([("  \uff2eew \t York ", " b ")], "a STRING, b STRING")
    row = clean(frame, [step(column=["a", "b"], text=["nfkc", "collapse", "trim", "upper"])]).first()
    assert (row["a"], row["b"]) == ("NEW YORK", "B")
    assert cleaned(session, ["ÀB", ""], step(column="x", text=["lower"])) == ["àb", None]


def test_null_if_takes_text_for_text_and_numbers_for_numbers(session: Any) -> None:
    steps = step(column="x", null_if=["NA", "-", 0])
    assert cleaned(session, ["NA", "-", "0", "0.0", "a", None], steps) == [None, None, None, "0.0", "a", None]
    numbers = step(column="x", null_if=[-999, 0])
    assert cleaned(session, [-999.0, 0.0, -0.0, 1.5, None], numbers, sql_type="DOUBLE") == [None] * 3 + [1.5, None]


def test_not_a_number_and_infinity_are_null_and_counted_and_zero_has_no_sign(session: Any) -> None:
    values = [float("nan"), float("inf"), -0.0, 1.0]
    rows = clean(frame_of(session, values, "DOUBLE"), []).orderBy("i").collect()
    assert [row["x"] for row in rows] == [None, None, 0.0, 1.0]
    assert str(rows[2]["x"]) == "0.0"
    assert [row["_marks"]["not_finite"] for row in rows] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("parse", "expected"),
    [
        (
            {"as": "number"},
            {"1": 1.0, " -2.5 ": -2.5, "+3": 3.0, "1e3": 1000.0, ".5": 0.5, "7.": 7.0, "1,5": None, "x": None,
             "1 2": None, "nan": None, "1d": None, "0x1F": None, "--1": None, "": None, "1e400": None, "-1e999": None,
             "\u22125": -5.0},
        ),
        (
            {"as": "number", "decimal": ",", "thousands": "."},
            {"1.234,5": 1234.5, "1.234.567": 1234567.0, "1234,5": 1234.5, "12.34": None, "1.2345": None, "0,5": 0.5,
             "0.123": None, "100.000": 100_000.0},
        ),
        (
            {"as": "number", "decimal": ",", "thousands": ".", "currency": ["EUR", "€"], "percent": False},
            {"1.234,50\u00a0€": 1234.5, "5\u202f€": 5.0, "€\u00a05": 5.0, "eur 7": 7.0},
        ),
        ({"as": "number", "thousands": "'"}, {"1\u2019234.5": 1234.5, "1'234": 1234.0}),
        ({"as": "number", "percent": True}, {"12\u00a0%": 0.12}),
        (
            {"as": "number", "decimal": ",", "thousands": " "},
            {"1\u00a0234,5": 1234.5, "1\u202f234": 1234.0, "1 234": 1234.0, "1 23": None},
        ),
        ({"as": "number", "percent": True}, {"12.5 %": 0.125, "100%": 1.0, "12": None, "%": None}),
        (
            {"as": "number", "thousands": ",", "currency": ["$", "USD", "€"]},
            {"$1,234.50": 1234.5, "USD 7": 7.0, "7 €": 7.0, "-$5": -5.0, "(5)": -5.0, "($5)": -5.0, "$": None,
             "£5": None, "5": 5.0},
        ),
        ({"as": "integer", "thousands": ","}, {"1,000": 1000, "12.0": None, "9223372036854775808": None, "-4": -4}),
        (
            {"as": "boolean", "true_words": ["ja", "J"], "false_words": ["nein"]},
            {"JA": True, " j ": True, "Nein": False, "yes": None},
        ),
        ({"as": "boolean"}, {"Yes": True, "0": False, "off": False, "2": None}),
        (
            {"as": "date", "formats": ["yyyy-MM-dd", "d.M.yyyy", "MMM d, yyyy"]},
            {"2020-02-29": date(2020, 2, 29), "2021-02-29": None, "3.12.2020": date(2020, 12, 3),
             "Dec 3, 2020": date(2020, 12, 3), "2020/01/01": None},
        ),
        (
            {"as": "timestamp", "formats": ["yyyy-MM-dd HH:mm", "yyyy-MM-dd'T'HH:mm:ssXXX"], "zone": "Europe/Berlin"},
            {"2020-01-01 12:00": datetime(2020, 1, 1, 11, tzinfo=UTC),
             "2020-07-01 12:00": datetime(2020, 7, 1, 10, tzinfo=UTC),
             "2020-01-01T12:00:00+05:30": datetime(2020, 1, 1, 6, 30, tzinfo=UTC),
             "2020-01-01": None},
        ),
        (
            {"as": "timestamp", "formats": ["yyyy-MM-dd'T'HH:mm[:ss][XXX]"], "zone": "Europe/Berlin"},
            {"2020-07-01T12:00": datetime(2020, 7, 1, 10, tzinfo=UTC),
             "2020-07-01T12:00:00Z": datetime(2020, 7, 1, 12, tzinfo=UTC),
             "2023-03-26T02:30": None,  # the clocks went from 2 to 3
             "2023-03-26T03:30": datetime(2023, 3, 26, 1, 30, tzinfo=UTC)},
        ),
        (
            {"as": "timestamp", "formats": ["yyyy-MM-dd HH:mm"], "zone": "+02:00"},
            {"2020-07-01 12:00": datetime(2020, 7, 1, 10, tzinfo=UTC)},
        ),
        (
            {"as": "date", "formats": ["yyyy-MM-dd'T'HH:mmXXX", "yyyy-MM-dd"], "zone": "Asia/Kolkata"},
            {"2020-01-01T00:30+05:30": date(2020, 1, 1), "2020-01-01T23:30Z": date(2020, 1, 2),
             "2020-01-03": date(2020, 1, 3), "+999999999-01-01": None, "+123456-01-01": None, "-0044-01-01": None,
             "0000-01-01": None, "9999-12-31": date(9999, 12, 31)},
        ),
        ({"as": "list", "separator": "|"}, {"a| b ||c": ["a", "b", "c"], "|": None, "a": ["a"], "": None}),
    ],
)  # fmt: skip
def test_parse_reads_what_people_write_and_nothing_else(
    session: Any, parse: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = cleaned(session, [*expected, None], step(column="x", parse=parse))
    found = [_utc(value) for value in found]
    assert dict(zip(expected, found[:-1], strict=True)) == expected
    assert found[-1] is None


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


@FEW
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60), st.sampled_from(".,"))
def test_every_number_comes_back_from_its_text(session: Any, numbers: list[float], decimal: str) -> None:
    texts = [repr(number).replace(".", decimal) for number in numbers]
    assert cleaned(session, texts, step(column="x", parse={"as": "number", "decimal": decimal})) == numbers


def test_what_does_not_parse_is_noted_with_its_text_and_the_rule_it_breaks(session: Any) -> None:
    steps = [
        step(column="x", text=["trim"]),
        step(column="x", parse={"as": "number", "unparsable": "reject"}),
    ]
    found = marks(session, ["1", "one", "", None, " "], *steps)
    assert [mark["unparsable"] for mark in found] == [None, "1\x1fx\x1fone", None, None, None]
    assert [mark["rule"] for mark in found] == [None, 0, None, None, None]
    as_null = step(column="x", parse={"as": "number", "unparsable": "as_null"})
    (mark,) = marks(session, ["one"], as_null)
    assert mark["unparsable"] == "0\x1fx\x1fone"
    assert mark["rule"] is None
    # What ends the fields and records of a note can't come out of the data.
    (mark,) = marks(session, ["o\x1en\x1fe"], as_null)
    assert mark["unparsable"] == "0\x1fx\x1fo\ufffdn\ufffde"


def edits(a: str, b: str) -> int:
    """Levenshtein's distance, by its definition (Wagner and Fischer, 1974)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = _next_row(row, i, x, b)
    return row[-1]


def _next_row(row: list[int], i: int, x: str, b: str) -> list[int]:
    new = [i]
    for j, y in enumerate(b, 1):
        new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
    return new


@FEW
@given(
    st.lists(st.text("abcd", min_size=1, max_size=5), min_size=1, max_size=50),
    st.lists(st.text("abcd", min_size=2, max_size=5), min_size=1, max_size=6, unique=True),
    st.integers(1, 3),
)
def test_a_correction_is_the_nearest_value_and_only_a_clear_one(
    session: Any, texts: list[str], values: list[str], most: int
) -> None:
    def expected(text: str) -> str:
        near = sorted((edits(text, value), value) for value in values if edits(text, value) <= most)
        clear = near and (text in values or len(near) == 1 or near[0][0] < near[1][0])
        return near[0][1] if clear else text

    found = cleaned(session, texts, step(column="x", correct={"values": values, "max_edits": most}))
    assert found == [expected(text) for text in texts]


def test_corrections_are_noted_by_column_old_and_new_value(session: Any) -> None:
    correct = step(column="x", correct={"mapping": {"Munich": "München", "Oslo": "Oslo"}})
    found = marks(session, ["Munich", "Oslo", "Bonn", None], correct)
    assert [mark["corrected"] for mark in found] == ["0\x1fx\x1fMunich\x1fMünchen", None, None, None]


def test_what_a_step_leaves_is_normal_for_the_next(session: Any) -> None:
    assert cleaned(session, ["none", "a"], step(column="x", correct={"mapping": {"none": ""}})) == [None, "a"]
    steps = [step(column="x", text=["trim"]), step(column="x", derive="coalesce(x, 'empty')")]
    assert cleaned(session, [" "], *steps) == ["empty"]
    steps = [step(column="x", derive="CAST('Infinity' AS DOUBLE)"), step(column="x", clip={"max": 10})]
    assert cleaned(session, ["a"], *steps) == [None]


def test_lists_of_numbers_hold_no_nan_and_no_minus_zero(session: Any) -> None:
    values = [[0.0, -0.0, float("nan"), None], None]
    rows = clean(frame_of(session, values, "ARRAY<DOUBLE>"), []).orderBy("i").collect()
    assert str(rows[0]["x"]) == "[0.0, 0.0, None, None]"
    assert [row["_marks"]["not_finite"] for row in rows] == [1, 0]


def test_numbers_are_compared_and_clipped_as_their_column_holds_them(session: Any) -> None:
    big = [2**53 + 1, 2**53, None]
    assert cleaned(session, big, step(column="x", clip={"min": -3e9}), sql_type="BIGINT") == big
    assert cleaned(session, big, step(column="x", null_if=[2.0**53]), sql_type="BIGINT") == [2**53 + 1, None, None]
    assert cleaned(session, [1], step(column="x", null_if=[10**20, 1.5]), sql_type="BIGINT") == [1]
    assert cleaned(session, [-999.9, 1.5], step(column="x", null_if=[-999.9]), sql_type="FLOAT") == [None, 1.5]
    decimals = [Decimal("12345678901234567890.12"), Decimal("0.25")]
    found = cleaned(session, decimals, step(column="x", clip={"min": 0.5}), sql_type="DECIMAL(30, 2)")
    assert found == [decimals[0], Decimal("0.5")]


def test_derive_keeps_the_spelling_of_a_column_that_is_there(session: Any) -> None:
    assert clean(frame_of(session, ["a"]), [step(column="X", derive="upper(x)")]).columns == ["i", "x", "_marks"]


def test_clip_keeps_integers_integers_and_null_null(session: Any) -> None:
    assert cleaned(session, [-1, 5, 11, None], step(column="x", clip={"min": 0, "max": 10}), sql_type="INT") == [
        0, 5, 10, None,
    ]  # fmt: skip
    assert cleaned(session, [-1.0, 2.5], step(column="x", clip={"max": 0.5}), sql_type="DOUBLE") == [-1.0, 0.5]


def test_derive_makes_and_replaces_columns_in_order_and_its_nan_is_null(session: Any) -> None:
    derived = {"y": "x * 2", "x": "y + 1", "z": "CAST('NaN' AS DOUBLE)"}
    steps = [step(column=name, derive=sql) for name, sql in derived.items()]
    row = clean(frame_of(session, [3.0], "DOUBLE"), steps).first()
    assert (row["y"], row["x"], row["z"]) == (6.0, 7.0, None)
    assert row["_marks"]["not_finite"] == 1


def test_dropped_columns_are_gone(session: Any) -> None:
    assert clean(frame_of(session, ["a"]), [step(drop=["x"])]).columns == ["i", "_marks"]


def test_a_custom_function_gets_and_gives_a_frame(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_steps.py").write_text(
        "from pyspark.sql import functions as F\n"
        "def double(frame):\n    return frame.withColumn('x', F.concat('x', 'x'))\n"
        "def loses(frame):\n    return frame.select('x')\n"
        "def nothing(frame):\n    pass\n"
        "def fails(frame):\n    return 1 / 0\n"
        "def silent(frame):\n    assert False\n"
        "def leaves(frame):\n    raise SystemExit(7)\n"
        "def pandas(frame):\n    return frame.toPandas()\n"
        "def marks(frame):\n    return frame.withColumn('_marks', F.lit(1))\n"
        "def ours(frame):\n    return frame.withColumn('_key_hi', F.lit(1))\n"
        "def dotted(frame):\n    return frame.withColumn('a.b', F.lit(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    frame = frame_of(session, [" a"])
    steps = [step(column="x", text=["trim"]), step(custom="own_steps:double"), step(column="x", text=["upper"])]
    assert clean(frame, steps).first()["x"] == "AA"
    for name, message in {
        "own_steps:loses": "returned no column _marks",
        "own_steps:nothing": "returned NoneType; expected a DataFrame",
        "own_steps:fails": "raised ZeroDivisionError",
        "own_steps:silent": r"raised AssertionError\.",
        "own_steps:leaves": "raised SystemExit: 7",
        "own_steps:pandas": "returned DataFrame of pandas; expected a DataFrame of Spark",
        "own_steps:marks": "changed the column _marks",
        "own_steps:ours": "'_key_hi', whose name is Lakefit's own",
        "own_steps:dotted": "'a.b', whose name holds a dot",
        "own_steps:missing": "no such function",
        "no_such_module:f": "can't be imported",
    }.items():
        with pytest.raises(InputError, match=message):
            clean(frame, [step(custom=name)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"column": "x"}, "expected one verb"),
        ({"column": "x", "text": ["trim"], "null_if": ["a"]}, "found text and null_if"),
        ({"text": ["trim"]}, "expected the column"),
        ({"column": "x", "drop": ["y"]}, "drop takes no column"),
        ({"column": ["x", "y"], "derive": "1"}, "derive makes one column"),
        ({"column": "x", "parse": {"as": "date"}}, "formats: expected how"),
        ({"column": "x", "parse": {"as": "date", "formats": ["YYYY-MM-DD"]}}, "'Y' means nothing"),
        ({"column": "x", "parse": {"as": "date", "formats": ["EEE, d MMM yyyy"]}}, "'E' means nothing"),
        ({"column": "x", "parse": {"as": "date", "formats": ["yyyy-MM-dd'"]}}, "a quote is not closed"),
        ({"column": "x", "parse": {"as": "timestamp", "formats": ["HH:mm"]}}, "has no year"),
        ({"column": "x", "parse": {"as": "timestamp", "formats": ["yyyy"], "zone": "posix/UTC"}}, "a time zone"),
        ({"column": "x", "parse": {"as": "number", "zone": "Europe/Berlin"}}, "zone belongs to date"),
        ({"column": "x", "parse": {"as": "number", "true_words": ["a"]}}, "belong to boolean"),
        ({"column": "x", "parse": {"as": "integer", "percent": True}}, "a percentage is no integer"),
        ({"column": "a.b", "derive": "1"}, "holds a dot"),
        ({"column": "x", "clip": {"min": float("inf")}}, "finite number"),
        ({"column": "x", "parse": {"as": "number", "formats": ["yyyy"]}}, "formats belong to date"),
        ({"column": "x", "parse": {"as": "number", "thousands": "."}}, "decimal and thousands are both"),
        ({"column": "x", "parse": {"as": "boolean", "percent": True}}, "belong to number"),
        ({"column": "x", "parse": {"as": "timestamp", "formats": ["yyyy"], "zone": "Mars"}}, "expected a time zone"),
        ({"column": "x", "parse": {"as": "boolean", "true_words": ["No"]}}, "among true_words and false_words"),
        ({"column": "x", "parse": {"as": "list"}}, "a list needs its separator"),
        ({"column": "x", "correct": {}}, "expected either mapping"),
        ({"column": "x", "correct": {"values": ["a", "a"]}}, "listed twice"),
        ({"column": "x", "clip": {}}, "expected min, max or both"),
        ({"column": "x", "clip": {"min": 2, "max": 1}}, "min is above max"),
        ({"custom": "no colon"}, "String should match pattern"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(message)):
        step(**fields)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ({"expression": "x"}, "('label', 0, 'expression'): (x) is of type string; expected a boolean, or 0 and 1"),
        ({"expression": "x", "type": "regression"}, "(x) is of type string; expected numbers"),
        (
            {"expression": "date(x)", "type": "classes"},
            "(date(x)) is of type date; expected text, integers or booleans",
        ),
        ({"expression": "array(i)", "type": "classes"}, "is of type array<int>; expected text"),
        ({"expression": "i > 1", "weight": "x"}, "('label', 0, 'weight'): (x) is of type string; expected numbers"),
        (
            {"expression": "i > 1", "weight": "sqrt(array(i))"},
            "('label', 0, 'weight'): Spark refused: [DATATYPE_MISMATCH",
        ),
        ({"expression": "x", "type": "classes", "weight": "i * 2"}, None),
        ({"expression": "NULL"}, None),
    ],
)
def test_a_label_of_the_wrong_type_is_refused_by_its_key_before_the_job(
    session: Any, label: dict[str, Any], says: str | None
) -> None:
    found = label_problems(frame_of(session, ["a"]), Label.model_validate(label), 0)
    texts = [f"{problem.key}: {problem.message}" for problem in found]
    assert len(texts) == (says is not None)
    assert says is None or says in texts[0]
