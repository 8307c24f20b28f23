"""A group is in one split, near the shares, wherever and beside whomever it stands."""

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakefit.config.rows import Split, TimeSplit
from lakefit.errors import LakefitError
from lakefit.prepare.blocks import KEY_HIGH, KEY_LOW
from lakefit.prepare.hashing import mix64
from lakefit.prepare.split import IN_GAP, NO_SPLIT, assign_split, check_keys


def table_of(groups: list[str | None], days: list[int]) -> pa.Table:
    keys = mix64(np.arange(len(groups), dtype=np.uint64))
    return pa.table(
        {
            "group": pa.array(groups, pa.string()),
            "day": pa.array(days),
            KEY_LOW: pa.array(keys),
            KEY_HIGH: pa.array(keys),
        }
    )


GROUPS = [f"group {i % 3000}" if i % 3000 else None for i in range(9000)]
TABLE = table_of(GROUPS, [i % 3000 % 7 for i in range(9000)])
BY_GROUP = Split(by=("group", "day"), train=0.7, validation=0.2, test=0.1, seed=1)
BY_KEY = Split(train=0.7, validation=0.2, test=0.1, seed=1)


def test_equal_groups_are_in_one_split() -> None:
    splits = assign_split(TABLE, BY_GROUP)
    assert (splits[:3000] == splits[3000:6000]).all()
    assert (splits[:3000] == splits[6000:]).all()


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_shares_are_near(split: Split) -> None:
    shares = np.bincount(assign_split(TABLE, split), minlength=3) / len(TABLE)
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.035  # 4 standard deviations of 3,000 groups


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_a_row_keeps_its_split_whatever_stands_beside_it(split: Split) -> None:
    splits = assign_split(TABLE, split)
    assert (assign_split(TABLE.slice(1000, 50), split) == splits[1000:1050]).all()
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(TABLE))
    assert (assign_split(TABLE.take(pa.array(order)), split) == splits[order]).all()


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_a_larger_training_share_moves_rows_into_training_alone(split: Split) -> None:
    before = assign_split(TABLE, split)
    larger = split.model_copy(update={"train": 0.8, "validation": 0.1})
    after = assign_split(TABLE, larger)
    assert (after[before == 0] == 0).all()
    assert (after[before == 2] == 2).all()


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_the_seed_decides(split: Split) -> None:
    one, other = (assign_split(TABLE, split.model_copy(update={"seed": seed})) for seed in (1, 2))
    # Of independent splits 0.7² + 0.2² + 0.1² = 54 % agree.
    assert 0.5 < (one == other).mean() < 0.58


def test_the_split_of_a_row_never_changes() -> None:
    assert assign_split(TABLE, BY_GROUP)[:20].tolist() == [0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0]
    assert assign_split(TABLE, BY_KEY)[:20].tolist() == [1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0]


STRATIFIED = Split(stratify=("day",), train=0.7, validation=0.2, test=0.1, seed=1)


def test_shares_hold_inside_each_stratum() -> None:
    splits = assign_split(TABLE, STRATIFIED)
    days = TABLE["day"].to_numpy()
    for day in range(7):
        shares = np.bincount(splits[days == day], minlength=3) / (days == day).sum()
        assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.06  # 4 standard deviations of 1,286 rows
    # Strata are drawn apart: the same rows without strata fall otherwise.
    assert 0.5 < (splits == assign_split(TABLE, BY_KEY)).mean() < 0.58
    assert (assign_split(TABLE.slice(1000, 50), STRATIFIED) == splits[1000:1050]).all()


def test_every_row_is_in_the_test_split_of_one_fold_and_the_validation_split_of_another() -> None:
    folds = [assign_split(TABLE, Split(by=("group",), folds=5, fold=fold)) for fold in range(5)]
    for number in (1, 2):
        assert (sum((splits == number).astype(int) for splits in folds) == 1).all()
    assert np.abs(np.bincount(folds[0]) / len(TABLE) - [0.6, 0.2, 0.2]).max() < 0.035


@given(
    st.lists(st.one_of(st.none(), st.integers(-100, 100)), max_size=40),
    st.integers(-50, 0),
    st.integers(10, 50),
    st.integers(0, 9),
)
def test_time_cuts_before_between_and_after_with_a_gap_before_each(
    values: list[int | None], validation: int, test: int, gap: int
) -> None:
    def expected(value: int | None) -> int:
        if value is None:
            return NO_SPLIT
        if value >= test:
            return 2
        if value >= test - gap:
            return IN_GAP
        if value >= validation:
            return 1
        return IN_GAP if value >= validation - gap else 0

    split = Split(time=TimeSplit(column="t", validation=validation, test=test, gap=gap))
    table = pa.table({"t": pa.array(values, pa.int64())})
    assert assign_split(table, split).tolist() == [expected(value) for value in values]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")])
def test_dates_and_times_are_cut_in_utc(kind: pa.DataType) -> None:
    days = [datetime(2013, 9, 23), datetime(2013, 9, 24), datetime(2013, 10, 1), datetime(2013, 11, 1)]
    values = [day.date() if kind == pa.date32() else day.replace(tzinfo=UTC) for day in days]
    cuts: Any = {"column": "t", "validation": "2013-10-01", "test": "2013-11-01T00:00:00+00:00", "gap": "1 week"}
    split = Split(time=TimeSplit(**cuts))
    assert assign_split(pa.table({"t": pa.array(values).cast(kind)}), split).tolist() == [0, IN_GAP, 1, 2]


def test_a_column_says_the_split_and_anything_else_says_none() -> None:
    table = pa.table({"part": ["train", "test", "validation", None, "Train", "x"]})
    assert assign_split(table, Split(column="part")).tolist() == [0, 2, 1, NO_SPLIT, NO_SPLIT, NO_SPLIT]


def test_one_key_in_two_splits_is_found() -> None:
    keys = pa.array([1, 1, 2], pa.uint64())
    table = pa.table({KEY_HIGH: keys, KEY_LOW: keys})
    check_keys(table, np.array([0, 0, 1], np.int8))
    with pytest.raises(LakefitError, match="two splits"):
        check_keys(table, np.array([0, 2, 1], np.int8))


CUTS = {"column": "t", "validation": "2013-10-01", "test": "2013-11-01"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stratify": ["a"], "by": ["b"]}, "stratify and by exclude each other"),
        ({"time": CUTS, "folds": 5}, "expected one of time and folds"),
        ({"time": CUTS, "train": 0.7}, "train is a share, and time says already"),
        ({"folds": 5, "fold": 5}, "fold counts from 0"),
        ({"fold": 1}, "fold needs folds"),
        ({"folds": 2}, "greater than or equal to 3"),
        ({"time": {**CUTS, "test": "2013-09-01"}}, "must lie before"),
        ({"time": {**CUTS, "gap": "31 days"}}, "shorter than the validation split"),
        ({"time": {**CUTS, "gap": "a week"}}, "expected a length"),
        ({"time": {**CUTS, "test": 7}}, "two times or two numbers"),
        ({"time": {**CUTS, "test": "soon"}}, "expected an ISO date"),
        ({"train": 0.9}, "must add up to 1"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(message)):
        Split.model_validate(fields, strict=False)
