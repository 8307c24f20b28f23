"""Of the rows with an equal key one is kept: that of `keep`, by content where it is even, never by arrival."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buckets import COLUMNS, Row, batches_of
from lakefit.prepare.blocks import FILE, Keying, keyed
from lakefit.prepare.deduplicate import OCCURRENCE, Deduplication, first_of_key, occurrences, row_order
from lakefit.prepare.from_spark import flattened
from lakefit.prepare.spill import Rows

Key = tuple[Any, Any]
values = st.tuples(
    st.none() | st.integers(0, 2),
    st.sampled_from([None, "a", "b"]),
    st.none() | st.integers(0, 2),
    st.sampled_from([None, 1.5]),
    st.just("Oslo"),
    st.none() | st.booleans(),
)
some_rows = st.lists(st.builds(Row, values, file=st.sampled_from("xyz")), min_size=1, max_size=30)
orders = st.sampled_from([("stamp", True), ("stamp", False), ("group", True), None])


def sorted_table(rows: Sequence[Row], how: Deduplication, key: tuple[str, ...] = ("key", "city")) -> pa.Table:
    table = pa.Table.from_batches(batches_of(rows, 1000))
    return sorted_as(keyed(flattened(table), Keying(COLUMNS, key, 0)), how)


def sorted_as(table: pa.Table, how: Deduplication) -> pa.Table:
    table = table.take(pa.array(row_order(Rows([table]), how)))
    return table.append_column(OCCURRENCE, occurrences(table))


def values_at(table: pa.Table, places: Sequence[int]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.select(list(COLUMNS)).take(pa.array(places, pa.int64())).to_pylist()]


@settings(max_examples=50, deadline=None)
@given(some_rows, orders)
def test_each_key_keeps_one_row_and_the_right_one(rows: list[Row], order: tuple[str, bool] | None) -> None:
    how = Deduplication(COLUMNS, order, most_complete=False, remove=True)
    table = sorted_table(rows, how)
    first = first_of_key(table, how)
    kept = values_at(table, np.flatnonzero(first == np.arange(len(table))).tolist())
    members: dict[Key, list[tuple[Any, ...]]] = {}
    for row in rows:
        members.setdefault((row.values[0], row.values[4]), []).append(row.values)
    assert sorted(map(str, ((row[0], row[4]) for row in kept))) == sorted(map(str, members))
    for row in kept:
        mine = members[row[0], row[4]]
        assert row in mine
        if order is not None:
            place = COLUMNS.index(order[0])
            known = [member[place] for member in mine if member[place] is not None]
            best = (max(known) if order[1] else min(known)) if known else None
            assert row[place] == best
    # Each row points at the row kept for its own key.
    for row, survivor in zip(values_at(table, range(len(table))), values_at(table, first.tolist()), strict=True):
        assert (row[0], row[4]) == (survivor[0], survivor[4])


@settings(max_examples=50, deadline=None)
@given(some_rows, orders, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_rows(rows: list[Row], order: tuple[str, bool] | None, random: Any) -> None:
    how = Deduplication(COLUMNS, order, most_complete=False, remove=True)
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = (sorted_table(each, how) for each in (rows, shuffled))
    assert one.drop_columns([FILE]).equals(other.drop_columns([FILE]))
    # Which of two equal rows is the duplicate is seen in the ledger of their files.
    assert one[FILE].to_pylist() == other[FILE].to_pylist()


@settings(max_examples=50, deadline=None)
@given(some_rows)
def test_the_most_complete_row_has_the_fewest_nulls_of_its_key(rows: list[Row]) -> None:
    how = Deduplication(COLUMNS, None, most_complete=True, remove=True)
    table = sorted_table(rows, how)
    first = first_of_key(table, how)
    every = values_at(table, range(len(table)))
    for row, survivor in zip(every, values_at(table, first.tolist()), strict=True):
        assert (row[0], row[4]) == (survivor[0], survivor[4])
        assert survivor.count(None) <= row.count(None)


def test_without_deduplicate_every_row_is_kept() -> None:
    rows = [Row((1, "a", 1, 1.5, "Oslo", True))] * 3
    how = Deduplication(COLUMNS, None, most_complete=False, remove=False)
    table = sorted_table(rows, how)
    assert first_of_key(table, how).tolist() == [0, 1, 2]
    assert table[OCCURRENCE].to_pylist() == [0, 1, 2]


def test_equal_rows_are_numbered_where_they_meet() -> None:
    rows = [Row((i % 3, "a", 1, 1.5, "Oslo", True)) for i in range(7)]
    table = sorted_table(rows, Deduplication(COLUMNS, None, most_complete=False, remove=True))
    assert sorted(zip(table["key"].to_pylist(), table[OCCURRENCE].to_pylist(), strict=True)) == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip


def test_a_row_without_the_deciding_value_never_wins() -> None:
    rows = [Row((1, "a", None, 1.5, "Oslo", True)), Row((1, "a", -5, 1.5, "Oslo", True))]
    for largest in (True, False):
        how = Deduplication(COLUMNS, ("stamp", largest), most_complete=False, remove=True)
        assert sorted_table(rows, how)["stamp"].to_pylist() == [-5, None]


def test_null_is_a_value_of_a_key() -> None:
    rows = [Row((None, "a", 1, 1.5, "Oslo", True)), Row((1, "a", 1, 1.5, None, True))]
    how = Deduplication(COLUMNS, None, most_complete=False, remove=True)
    assert first_of_key(sorted_table(rows, how), how).tolist() == [0, 1]


def test_a_line_that_did_not_parse_has_no_key() -> None:
    rows = [Row(record="x"), Row(record="y"), Row()]
    how = Deduplication(COLUMNS, None, most_complete=False, remove=True)
    assert first_of_key(sorted_table(rows, how), how).tolist() == [0, 1, 2]


def test_no_rows_are_no_mistake() -> None:
    how = Deduplication(COLUMNS, ("stamp", True), most_complete=False, remove=True)
    table = sorted_table([Row()], how).slice(0, 0).drop_columns([OCCURRENCE])
    assert first_of_key(sorted_as(table, how), how).tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_many_rows_of_one_key_leave_one(seed: int) -> None:
    draw = np.random.Generator(np.random.PCG64(seed))
    rows = [Row((7, "a", int(draw.integers(1000)), float(i), "Oslo", True)) for i in range(500)]
    how = Deduplication(COLUMNS, ("stamp", True), most_complete=False, remove=True)
    table = sorted_table(rows, how)
    assert table["stamp"][0].as_py() == max(row.values[2] for row in rows)
    assert set(first_of_key(table, how).tolist()) == {0}
