"""The order of rows is a function of numbers: each row once, another order each epoch and seed, the same for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakefit.feed.order import epoch_groups, permutation, row_order
from lakefit.feed.reader import RowGroup

GROUPS = [RowGroup(f"train/part-{i // 3:05}.parquet", i % 3, 40, 40 * i) for i in range(9)]


def test_the_order_never_changes() -> None:
    assert permutation(10, 0, 0).tolist() == [0, 9, 1, 6, 3, 5, 4, 2, 8, 7]
    assert permutation(10, 42, 3, 1).tolist() == [4, 8, 9, 3, 7, 6, 0, 2, 5, 1]
    assert [group.first_position // 40 for group in epoch_groups(GROUPS, 42, 3)] == [4, 8, 3, 7, 6, 0, 2, 5, 1]
    assert row_order(GROUPS[2], 42, 3)[:10].tolist() == [14, 17, 9, 27, 11, 25, 8, 21, 6, 37]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(-(2**63), 2**64 - 1), max_size=4))
def test_it_is_a_permutation_of_any_length(length: int, seeds: list[int]) -> None:
    assert sorted(permutation(length, *seeds).tolist()) == list(range(length))


@pytest.mark.parametrize(
    ("one", "other"),
    [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((1, 0), (0, 1)), ((2, 3), (3, 2)), ((0,), (0, 0)), ((-1, 0), (0, -1))],
)
def test_seed_and_epoch_change_the_order_and_do_not_stand_for_each_other(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    assert permutation(100, *one).tolist() != permutation(100, *other).tolist()


def test_each_row_group_is_read_once_an_epoch_in_an_order_of_its_own() -> None:
    orders = [tuple(epoch_groups(GROUPS, seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert all(sorted(order, key=lambda group: group.first_position) == GROUPS for order in orders)
    assert len(set(orders)) == len(orders)


def test_row_groups_of_equal_size_have_different_orders_inside() -> None:
    orders = {tuple(row_order(group, seed, epoch)) for group in GROUPS for seed in range(3) for epoch in range(3)}
    assert len(orders) == 81


def test_the_rows_of_a_group_do_not_follow_the_order_of_the_groups() -> None:
    group = RowGroup("train/part-00000.parquet", 0, len(GROUPS), 0)
    groups = [g.first_position // 40 for g in epoch_groups(GROUPS, 1, 1)]
    assert row_order(group, 1, 1).tolist() != groups


def test_rows_are_spread_evenly() -> None:
    first = [int(permutation(10, seed, epoch)[0]) for seed in range(40) for epoch in range(40)]
    assert np.abs(np.bincount(first, minlength=10) - 160).max() < 60  # 5 standard deviations
