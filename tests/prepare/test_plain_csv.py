"""Arrow reads the CSV that it takes exactly as Spark does: values, NULLs, and which lines do not fit."""

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakefit.config.source import Table
from lakefit.config.sql import parse_schema
from lakefit.dataset.inputs import list_inputs
from lakefit.prepare.blocks import HEADER, RECORD
from lakefit.prepare.plain_csv import NotPlainError, parse, plain_csv, read_lines
from lakefit.prepare.read import read_rows

SCHEMA = "i INT, l BIGINT, d DOUBLE, f FLOAT, b BOOLEAN, y DATE, t STRING, u STRING"
HEADER_LINE = "i,l,d,f,b,y,t,u"
TOKENS = [
    *[["1", "-7", "+5", "007", "2147483647", "2147483648", "9" * 20, "1.0", " 1", "1 ", "0x1F", "", "NA", "x", "1e3",
       "-", "1_000", '"12"', "-0", "\u0663"]] * 2,
    *[["1.5", "-2", ".5", "5.", "1e400", "1E-3", "NaN", "nan", "Inf", "-Inf", "inf", "Infinity", "1d", "2F", " 1.5",
       "1.5\t", "0x1p3", "1,5", "", "NA", "1e", "--1", "4.9e-324", "1.7976931348623157e308", "0.1", "-0.0"]] * 2,
    ["true", "FALSE", "tRuE", "1", "yes", "", " true", '"true"'],
    ["2020-02-29", "9999-12-31", "2021-02-29", "2020-1-1", "2020-01-01T00", "", "x", "0001-01-01", "2020-13-01",
     "0000-01-01"],
    *[["a", "", "NA", " a", "a ", '"a,b"', '""', '"a ""q"" b"', 'a"b', "\u0141\u00f3d\u017a", "\\", '"\\"', "a\tb", "'",
       "\ufffd", '"', "x\x00"]] * 2,
]  # fmt: skip
WHOLE = ["", "1,2,3", "1,2,3,4,true,2020-01-01,a,b,c", HEADER_LINE, "   ", ",,,,,,,", '"']


def some_lines(seed: int, rows: int) -> list[str]:
    """Return lines of mostly plain values."""
    dice = random.Random(seed)
    found = []
    for _ in range(rows):
        strange = dice.random() < 0.4
        values = [dice.choice(some if strange and dice.random() < 0.3 else some[:2]) for some in TOKENS]
        number = dice.choice([dice.uniform(-1e6, 1e6), dice.lognormvariate(0, 50), dice.randrange(10**15)])
        values[2] = repr(number) if dice.random() < 0.3 else values[2]
        found.append(dice.choice(WHOLE) if dice.random() < 0.05 else ",".join(values))
    return found


def by_spark(session: Any, table: Table, path: Path) -> Counter[str]:
    rows = read_rows(session, "t", table, list_inputs((str(path),), "test")).collect()
    names = [*parse_schema(SCHEMA)]
    return Counter(repr([*(row[name] for name in names), row["_row"]["record"], row["_row"]["header"]]) for row in rows)


def by_arrow(table: Table, path: Path, cut: int = 0) -> Counter[str]:
    how = plain_csv(table, parse_schema(SCHEMA), (HEADER_LINE,))
    size = path.stat().st_size
    edges = [0, min(cut, size), size]
    pieces = [piece for start, end in itertools.pairwise(edges) for piece in read_lines(str(path), start, end)]
    parts = [parse(piece, how) for piece in pieces if piece.strip(b"\r\n")]
    rows = pa.concat_tables(parts).to_pylist() if parts else []
    names = [*parse_schema(SCHEMA), RECORD, HEADER]
    return Counter(repr([row[name] for name in names]) for row in rows)


def table_of(**options: Any) -> Table:
    return Table.model_validate(
        {"path": "x.csv", "format": "csv", "options": {"header": True, **options}, "schema": SCHEMA}, strict=False
    )


def is_plain(line: str, table: Table) -> bool:
    how = plain_csv(table, parse_schema(SCHEMA), (HEADER_LINE,))
    try:
        parse(line.encode(), how) if line else None
    except NotPlainError:
        return False
    return True


SEEN: Counter[str] = Counter()


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "NA"]),
    st.integers(0, 5000),
    st.booleans(),
)
def test_both_readers_give_the_same_rows(
    session: Any, tmp_path: Path, seed: int, end: str, null: str, cut: int, last: bool
) -> None:
    path = tmp_path / "x.csv"
    table = table_of(**({"nullValue": null} if null else {}))
    lines = some_lines(seed, 600)
    plain_ones = [line for line in lines if is_plain(line, table)]
    SEEN.update({"plain": len(plain_ones), "not": len(lines) - len(plain_ones)})
    path.write_bytes((end.join([HEADER_LINE, *plain_ones]) + (end if last else "")).encode())
    assert by_arrow(table, path, cut) == by_spark(session, table, path)


def test_that_comparison_was_of_something() -> None:
    assert SEEN["plain"] > 4 * SEEN["not"] > 0
