"""The contracts of `expect`, against the staged rows, before anything is published."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import reduce
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakefit.config.expect import Expect, Expectation
from lakefit.config.sql import quoted
from lakefit.dataset.drift import stability_index
from lakefit.dataset.ledger import Ledger
from lakefit.dataset.manifest import Outcome
from lakefit.dataset.object_path import any_path
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.errors import ContractError, InputError
from lakefit.prepare.blocks import RECORD
from lakefit.prepare.staged import LOCAL_ROWS, Staged, as_numbers, is_number, read_staged

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What contracts are held against: staged rows by scope, the ledger, statistics of now and of the version in use.

    The rows of `input` are all staged ones; lines that did not parse have no values and don't count.
    """

    rows: Mapping[Literal["input", "result"], Staged]
    ledger: Ledger
    now: Mapping[str, ColumnStatistics]
    in_use: Mapping[str, ColumnStatistics] | None


def check_expectations(expect: Expect, evidence: Evidence) -> tuple[Outcome, ...]:
    """Return what was found for each contract.

    Raises:
        ContractError: some do not hold; the message is a table of all. InputError: a column is not there, or not of a
            kind that the contract is about.
    """
    scopes: tuple[Literal["input", "result"], ...] = ("input", "result")
    outcomes = tuple(_outcome(expectation, scope, evidence) for scope in scopes for expectation in expect.parsed(scope))
    broken = [outcome for outcome in outcomes if not outcome.holds]
    if broken:
        width = max(len(outcome.expected) for outcome in outcomes)
        lines = [
            f"  {'ok    ' if o.holds else 'BROKEN'}  {o.scope:6}  {o.expected:{width}}  found {o.found}"
            for o in outcomes
        ]
        raise ContractError(
            f"expect: {len(broken)} of {len(outcomes)} contracts do not hold. Nothing was published; the version in "
            "use stays in use.\n" + "\n".join(lines)
        )
    return outcomes


def _outcome(expectation: Expectation, scope: Literal["input", "result"], evidence: Evidence) -> Outcome:
    fact, rows = expectation.fact, evidence.rows[scope]
    if fact == "unique":
        found = _duplicated(rows, expectation)
        return Outcome(scope=scope, expected=expectation.text, found=f"{found:,} values twice", holds=found == 0)
    if fact == "values":
        strange = _strange_values(rows, expectation)
        shown = ", ".join(f"{value!r} in {count:,} rows" for value, count in strange.most_common(SHOWN))
        return Outcome(scope=scope, expected=expectation.text, found=shown or "no others", holds=not strange)
    value = _value(expectation, scope, evidence)
    if value is None:
        lacking = "no version in use" if evidence.in_use is None else "no such column in the version in use"
        return Outcome(scope=scope, expected=expectation.text, found=f"{lacking} to compare with", holds=True)
    return Outcome(scope=scope, expected=expectation.text, found=_number(value), holds=expectation.holds(value))


def _number(value: float) -> str:
    """Return a number for people: whole ones in full."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:,.6g}"


def _value(expectation: Expectation, scope: Literal["input", "result"], evidence: Evidence) -> float | None:
    fact, ledger, rows = expectation.fact, evidence.ledger, evidence.rows[scope]
    if fact == "rows":
        return float(ledger.rows_in if scope == "input" else sum(ledger.kept.values()))
    if fact == "rejected_share":
        return sum(ledger.rejected.values()) / max(ledger.rows_in, 1)
    if fact == "duplicate_share":
        return ledger.duplicates / max(ledger.rows_in, 1)
    (column,) = expectation.columns
    if fact == "drift":
        if evidence.in_use is None or column not in evidence.in_use:
            return None
        index = stability_index(evidence.in_use[column], evidence.now[column])
        if index is None:
            raise InputError(f"expect: {expectation.text}: the column {column!r} has no histogram and too many values.")
        return index
    if fact == "distinct":
        return float(_distinct(rows, expectation))
    count = nulls = 0
    mean = squares = 0.0
    low, high = np.inf, -np.inf
    for part in _columns(rows, (column,), expectation):
        known = part[column].drop_null()
        nulls += len(part) - len(known)
        if fact == "null_share":
            count += len(known)
            continue
        if not is_number(known.type):
            raise InputError(f"expect: {expectation.text}: the column {column!r} holds no numbers.")
        values = as_numbers(known)
        if len(values):
            # Chan, Golub and LeVeque's merge, as in statistics.py; here no bit depends on it.
            delta = float(values.mean()) - mean
            total = count + len(values)
            squares += float(((values - values.mean()) ** 2).sum()) + delta * delta * count * len(values) / total
            mean += delta * len(values) / total
            count = total
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if fact == "null_share":
        return nulls / max(count + nulls, 1)
    if not count:
        return float("nan")
    return {"mean": mean, "deviation": float(np.sqrt(squares / count)), "min": low, "max": high}[fact]


def _columns(rows: Staged, columns: Sequence[str], expectation: Expectation) -> list[pa.Table]:
    """Return the columns of every staged file; a column that is not there is refused."""
    tables = []
    for path in rows.files:
        table = read_staged(path)
        names = table.column_names
        missing = [column for column in columns if column not in names]
        if missing:
            raise InputError(f"expect: {expectation.text}: unknown column {missing[0]!r}.")
        selected = table.select(list(columns))
        tables.append(selected.filter(pc.is_null(table[RECORD])) if RECORD in names else selected)
    return tables


def _frame(rows: Staged, columns: Sequence[str]) -> DataFrame:
    """Return the columns of all staged rows that have values, as a DataFrame."""
    rejects = [path for path in rows.files if any_path(path).name.startswith("rejects-")]
    others = [path for path in rows.files if path not in rejects]
    parts = [replace(rows, files=tuple(others)).frame(columns)] if others else []
    if rejects:
        with_record = replace(rows, files=tuple(rejects)).frame(list(dict.fromkeys([*columns, RECORD])))
        parts.append(with_record.where(F.col(RECORD).isNull()).select(*map(quoted, columns)))
    return reduce(DataFrame.unionByName, parts)


def _distinct(rows: Staged, expectation: Expectation) -> int:
    (column,) = expectation.columns
    if rows.rows > LOCAL_ROWS:
        return _frame(rows, [column]).dropna().distinct().count()
    parts = [pc.unique(part[column]) for part in _columns(rows, [column], expectation)]
    return len(pc.unique(pa.chunked_array(parts)).drop_null()) if parts else 0


def _duplicated(rows: Staged, expectation: Expectation) -> int:
    """Return how many combinations of values stand in more than one row."""
    columns = list(expectation.columns)
    if rows.rows > LOCAL_ROWS:
        grouped = _frame(rows, columns).groupBy(*[F.col(quoted(name)) for name in columns]).count()
        return grouped.where("count > 1").count()
    tables = _columns(rows, columns, expectation)
    if not tables:
        return 0
    counts = pa.concat_tables(tables).group_by(columns).aggregate([([], "count_all")])["count_all"]
    return int(pc.sum(pc.greater(counts, 1)).as_py() or 0)


def _strange_values(rows: Staged, expectation: Expectation) -> Counter[str]:
    (column,) = expectation.columns
    found: Counter[str] = Counter()
    for part in _columns(rows, (column,), expectation):
        values = pc.unique(part[column].drop_null())
        strange = values.filter(pc.invert(pc.is_in(values, value_set=_allowed(expectation, values.type))))
        for entry in pc.value_counts(part[column].filter(pc.is_in(part[column], value_set=strange))).to_pylist():
            found[str(entry["values"])] += entry["counts"]
    return found


def _allowed(expectation: Expectation, of_type: pa.DataType) -> pa.Array:
    """Return the allowed values as those of the column: 2.50 is 2.5, and True is true."""
    try:
        values = [_typed(text, of_type) for text in expectation.allowed]
    except (KeyError, ValueError, ArithmeticError):
        raise InputError(f"expect: {expectation.text}: the column holds {of_type}, and not all of these are.") from None
    return pa.array([value for value in values if value is not None], of_type)


def _typed(text: str, of_type: pa.DataType) -> Any:
    """Return a text as a value of this type; None where no value of the type equals it."""
    if pa.types.is_boolean(of_type):
        return {"true": True, "false": False}[text.lower()]
    if pa.types.is_date(of_type):
        return date.fromisoformat(text)
    if pa.types.is_timestamp(of_type):
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None and of_type.tz is not None else time
    if not is_number(of_type):
        return text
    number = Decimal(text)
    if pa.types.is_integer(of_type):
        return int(number) if number == int(number) and abs(number) < 2**63 else None
    return float(number) if pa.types.is_floating(of_type) else number
