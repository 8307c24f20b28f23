"""The receipt knows a lost row, a doubled row, and both at once."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lakefit.errors import FeedError
from lakefit.feed.reader import RowGroup
from lakefit.feed.receipt import Receipt, mix, unmix

SIZES = (5, 1, 7, 4)
STARTS = np.cumsum([0, *SIZES])
GROUPS = [RowGroup(f"train/part-{i // 2:05}.parquet", i % 2, rows, int(STARTS[i])) for i, rows in enumerate(SIZES)]
ROWS = sum(SIZES)


def check(
    positions: list[int], batch: int = 4, groups: list[RowGroup] = GROUPS, runs: Sequence[int] = (3, 1, 2)
) -> None:
    """Note the positions, three batches at a time, and check them."""
    receipt = Receipt(groups)
    batches = [mix(np.array(positions[start : start + batch], np.int64)) for start in range(0, len(positions), batch)]
    for start in range(0, len(batches), 3):
        receipt.add(batches[start : start + 3], np.array(runs, np.int64))
    receipt.check("Epoch 3 of the train split")


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(ROWS)), st.integers(1, ROWS), st.lists(st.integers(1, ROWS), max_size=4))
def test_each_row_once_in_any_order_and_any_batches_passes_whatever_runs_are_named(
    positions: list[int], batch: int, runs: list[int]
) -> None:
    in_groups = sorted(positions, key=lambda position: (group_of(position).first_position, positions.index(position)))
    for order in (positions, in_groups):
        try:
            check(order, batch, runs=runs)
        except FeedError:
            # A run that leaves its row group and comes back to it is none of this feed's.
            assert comes_back(order)


def comes_back(positions: list[int]) -> bool:
    groups = [group_of(position).first_position for position in positions]
    changes = sum(one != other for one, other in pairwise(groups))
    return changes >= len(set(groups))


def group_of(position: int) -> RowGroup:
    return next(g for g in GROUPS if g.first_position <= position < g.first_position + g.rows)


@pytest.mark.parametrize("lost", range(ROWS))
def test_a_lost_row_is_found_and_its_row_group_named(lost: int) -> None:
    group = group_of(lost)
    wrong = f"{group.file} row group {group.index}: {group.rows - 1} of {group.rows} rows"
    with pytest.raises(FeedError, match=r"^Epoch 3 of the train split: ") as found:
        check([p for p in range(ROWS) if p != lost])
    assert wrong in str(found.value)
    assert str(found.value).count("row group") == 1


@pytest.mark.parametrize("doubled", range(ROWS))
def test_a_doubled_row_is_found(doubled: int) -> None:
    with pytest.raises(FeedError, match=f"{group_of(doubled).rows + 1} of {group_of(doubled).rows} rows"):
        check([*range(ROWS), doubled])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1))
def test_a_row_that_came_for_another_is_found(lost: int, doubled: int) -> None:
    positions = [p for p in range(ROWS) if p != lost] + [doubled]
    if lost == doubled:
        check(positions)
    else:
        with pytest.raises(FeedError, match=r"a full count means that a row came twice"):
            check(positions)


def test_two_swaps_that_keep_count_and_sum_are_found() -> None:
    """Rows 6 and 9 came for 7 and 8: count and sum are right, the squares are not."""
    with pytest.raises(FeedError, match="row group 0: 7 of 7 rows"):
        check([0, 1, 2, 3, 4, 5, 6, 6, 9, 9, 10, 11, 12, 13, 14, 15, 16])


def test_faults_that_keep_count_sum_and_squares_are_found() -> None:
    with pytest.raises(FeedError, match="row group 0: 10 of 10 rows"):
        check([0, 2, 2, 3, 3, 4, 7, 7, 8, 9], groups=[RowGroup("train/part-00000.parquet", 0, 10, 0)])


def test_an_epoch_without_rows_is_found() -> None:
    with pytest.raises(FeedError, match="0 of 5 rows"):
        check([])


def test_positions_that_overflow_64_bits_when_squared_are_summed_rightly() -> None:
    far = [RowGroup("train/part-00000.parquet", 0, 3, 2**40)]
    check([2**40 + 2, 2**40, 2**40 + 1], groups=far)
    with pytest.raises(FeedError):
        check([2**40 + 2, 2**40, 2**40], groups=far)


def test_many_wrong_groups_are_counted_not_listed() -> None:
    groups = [RowGroup("train/part-00000.parquet", i, 1, i) for i in range(25)]
    with pytest.raises(FeedError, match="and 15 more"):
        check([], groups=groups)


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_mixed_positions_can_be_told(positions: list[int]) -> None:
    mixed = mix(np.array(positions, np.int64))

    assert unmix(mixed).tolist() == positions
    assert unmix(mixed, mixed).tolist() == positions
    assert mix(mixed, mixed) is mixed
    assert unmix(mixed).tolist() == positions


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**58), st.integers(1, 1000), st.integers(1, 1000))
def test_two_rows_for_two_others_with_the_same_sum_are_found(first: int, near: int, far: int) -> None:
    """Whatever their distances: rows a and a + near + far were lost, a + near and a + far came twice."""
    assume(near != far)
    groups = [RowGroup("train/part-00000.parquet", 0, near + far + 1, first)]
    positions = list(range(first, first + near + far + 1))
    positions[0], positions[-1] = first + near, first + far
    with pytest.raises(FeedError, match="a full count means that a row came twice"):
        check(positions, groups=groups)
