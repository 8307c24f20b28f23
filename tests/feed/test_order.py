"""The order of rows is a function of numbers: each row once, another order each epoch and seed, the same for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakefit.feed.order import EpochOrder, epoch_groups, permutation, row_order
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


def rows_of(order: EpochOrder, first: int, end: int) -> list[tuple[int, int]]:
    """Return (place of the row group on the tape, row of it) for each row of some batches."""
    runs = order.runs(first, end)
    pieces = zip(runs.group.tolist(), runs.start.tolist(), runs.stop.tolist(), strict=True)
    rows = [(group, row) for group, start, stop in pieces for row in range(start, stop)]
    assert len(rows) == runs.sizes.sum()
    return rows


def tape(sizes: list[int]) -> tuple[RowGroup, ...]:
    return tuple(RowGroup("train/part-00000.parquet", i, rows, 1000 * i) for i, rows in enumerate(sizes))


def test_the_batches_never_change() -> None:
    order = EpochOrder(tape([5, 3, 6]), 4, lanes=2)
    assert [rows_of(order, b, b + 1) for b in range(order.batches)] == [
        [(0, 0), (0, 1), (1, 2), (2, 0)],
        [(0, 2), (0, 3), (2, 1), (2, 2)],
        [(0, 4), (1, 0), (2, 3), (2, 4)],
        [(1, 1), (2, 5)],
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any),
    st.integers(1, 60),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(0, 5),
)
def test_each_row_comes_once_and_workers_share_the_same_batches(
    sizes: list[int], batch_size: int, lanes: int, workers: int, near: int
) -> None:
    whole = EpochOrder(tape(sizes), batch_size, lanes)
    shares = [EpochOrder(tape(sizes), batch_size, lanes, worker, workers) for worker in range(workers)]
    assert {share.batches for share in shares} == {whole.batches} == {-(-sum(sizes) // batch_size)}
    batches = [rows_of(whole, b, b + 1) for b in range(whole.batches)]
    assert sorted(row for batch in batches for row in batch) == [(g, r) for g, n in enumerate(sizes) for r in range(n)]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert rows_of(whole, 0, whole.batches) == [row for batch in batches for row in batch]
    for number, batch in enumerate(batches):
        of_workers = [rows_of(share, number, number + 1) for share in shares]
        assert [row for rows in of_workers for row in rows] == batch
        assert [len(rows) for rows in of_workers] == [
            (w + 1) * len(batch) // workers - w * len(batch) // workers for w in range(workers)
        ]
    for share in shares:
        for first in (0, whole.batches // 2):
            visits = share.visits(first, near)
            assert [visit.first_batch for visit in visits] == sorted(visit.first_batch for visit in visits)
            for number in range(first, whole.batches):
                needed = {group for group, _ in rows_of(share, number, number + 1)}
                open_now = [visit.group for visit in visits if visit.first_batch <= number <= visit.last_batch]
                assert needed <= set(open_now)
                assert len(open_now) == len(set(open_now)), "no row group is open twice"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 9))
def test_no_more_row_groups_are_open_than_lanes(sizes: list[int], batch_size: int, lanes: int) -> None:
    order = EpochOrder(tape(sizes), batch_size, lanes)
    visits = order.visits()
    for number in range(1, order.batches):
        # Between two batches: within one, a lane may go from one row group to the next, or over several small ones.
        assert sum(visit.first_batch < number <= visit.last_batch for visit in visits) <= lanes
    # A row group that lies across the border of two lanes is read for each, where it can't be held so long.
    assert len(visits) <= len(sizes) + lanes - 1


@pytest.mark.parametrize(("workers", "lanes"), [(2, 8), (4, 8), (8, 8), (2, 2)])
def test_workers_that_divide_the_lanes_read_their_own_ones_only(workers: int, lanes: int) -> None:
    groups = tape([40] * 64)
    read = [
        [visit.group for visit in EpochOrder(groups, 16, lanes, worker, workers).visits()] for worker in range(workers)
    ]
    assert [len(groups) for groups in read] == [64 // workers] * workers
    assert sorted(group for groups in read for group in groups) == list(range(64))


def test_a_batch_mixes_as_many_row_groups_as_there_are_lanes() -> None:
    order = EpochOrder(tape([100] * 50), 64, lanes=8)
    mixed = [len({group for group, _ in rows_of(order, b, b + 1)}) for b in range(order.batches - 1)]
    assert min(mixed) == 8


@pytest.mark.parametrize(("lanes", "deviation"), [(1, 0.45), (8, 0.17), (32, 0.08)])
def test_lanes_mix_rows_that_are_sorted_by_label(lanes: int, deviation: float) -> None:
    """The share of a label in a batch; a permutation of all rows has a deviation of 0.03 here."""
    groups = epoch_groups([RowGroup("f", n, 2000, 2000 * n) for n in range(100)], 0, 0)
    order = EpochOrder(tuple(groups), 256, lanes)
    runs = order.runs(0, order.rows // 256)
    positive = np.array([group.first_position >= 140_000 for group in groups])[runs.group]
    rows = runs.stop - runs.start
    batch = np.repeat(np.arange(len(runs.sizes)), runs.sizes)[np.cumsum(rows) - 1]
    shares = np.bincount(batch, rows * positive) / 256
    assert deviation / 1.5 < shares.std() < deviation * 1.2
