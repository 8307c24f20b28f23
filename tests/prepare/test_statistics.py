"""Moments and ranks: numpy's values, and the same bits for any partitioning."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lakefit.prepare.bucket import pack_moments, unpack_moments
from lakefit.prepare.hashing import mix64
from lakefit.prepare.statistics import (
    LEAF_BITS,
    Moments,
    Prefix,
    concatenate,
    count_bins_of,
    leaf_moments,
    merge_up,
    ordered_bits,
    select_ranks,
)

FIELDS = ("ids", "count", "mean", "squares", "low", "high")


def root(values: NDArray[np.float64], keys: NDArray[np.uint64], bucket_bits: int) -> Moments:
    """Return the moments of all rows, by buckets that are packed, unpacked and merged as the driver does."""
    order = np.argsort(keys)
    values, keys = values[order], keys[order]
    parts = []
    for bucket in range(1 << bucket_bits):
        mine = (keys >> np.uint64(64 - bucket_bits)) == bucket if bucket_bits else np.ones(len(keys), bool)
        merged = merge_up(leaf_moments(values[mine], keys[mine]), LEAF_BITS, bucket_bits)
        parts.append(unpack_moments(pack_moments(merged), values.shape[1]))
    return merge_up(concatenate(reversed(parts), values.shape[1]), bucket_bits, 0)


def columns_of(rows: int) -> NDArray[np.float64]:
    draw = np.random.Generator(np.random.PCG64(1))
    values = np.stack(
        [draw.normal(size=rows), 1e9 + 1e-3 * draw.normal(size=rows), draw.lognormal(0, 3, rows), np.full(rows, 7.25)],
        1,
    )
    values[draw.random(values.shape) < 0.1] = np.nan
    return values


@pytest.fixture(scope="module")
def rows() -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    return columns_of(20_000), mix64(np.arange(20_000, dtype=np.uint64))


def test_moments_are_numpys(rows: Any) -> None:
    values, keys = rows
    found = root(values, keys, 3)
    for column in range(values.shape[1]):
        x = values[:, column]
        # Longdouble and a shift: numpy's own float64 is no oracle for a mean of 1e9 and a deviation of 1e-3.
        shift = x[~np.isnan(x)][0]
        shifted = (x[~np.isnan(x)] - shift).astype(np.longdouble)
        assert found.count[0, column] == len(shifted)
        assert found.mean[0, column] == pytest.approx(float(shift + shifted.mean()), rel=1e-12)
        deviation = np.sqrt(found.squares[0, column] / len(shifted))
        # Near 1e9 a float64 mean is a multiple of 1.2e-7, 1e-4 of this deviation; the errors of the nodes average out.
        assert deviation == pytest.approx(float(shifted.std()), rel=1e-5 if column == 1 else 1e-12, abs=1e-300)
        assert (found.low[0, column], found.high[0, column]) == (np.nanmin(x), np.nanmax(x))


@pytest.mark.parametrize("bucket_bits", [1, 2, 3, 4, 5, 6])
def test_moments_have_the_same_bits_for_any_buckets(rows: Any, bucket_bits: int) -> None:
    one, many = root(*rows, 0), root(*rows, bucket_bits)
    for field in FIELDS:
        assert getattr(one, field).tobytes() == getattr(many, field).tobytes(), field


def test_a_plain_sum_would_differ_by_buckets(rows: Any) -> None:
    values, keys = rows
    column = np.nan_to_num(values[np.argsort(keys), 2])
    parts = np.array([part.sum() for part in np.array_split(column, 7)])
    assert column.sum() != parts.sum(), "else the test above proves nothing"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6) | st.just(float("nan")), st.integers(0, 2**64 - 1)), max_size=30))
def test_few_rows_and_empty_buckets_merge_to_the_same_bits(pairs: list[tuple[float, int]]) -> None:
    values = np.array([[value] for value, _ in pairs]).reshape(-1, 1)
    keys = np.array([key for _, key in pairs], np.uint64)
    roots = [root(values, keys, bits) for bits in (0, 3)]
    assert len({tuple(getattr(found, field).tobytes() for field in FIELDS) for found in roots}) == 1
    finite = values[~np.isnan(values)]
    assert roots[0].count.sum() == len(finite)
    if len(finite):
        assert roots[0].mean[0, 0] == pytest.approx(finite.mean(), rel=1e-9, abs=1e-6)
        assert roots[0].low[0, 0] == finite.min()


def test_no_rows_have_no_moments() -> None:
    nothing = leaf_moments(np.zeros((0, 2)), np.zeros(0, np.uint64))
    assert merge_up(nothing, LEAF_BITS, 0).count.shape == (0, 2)
    assert concatenate([], 2).count.shape == (0, 2)


finite = st.floats(allow_nan=False, allow_infinity=False)
some_floats = st.lists(
    finite | st.sampled_from([5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.0, 1.0, 1.0]),
    min_size=1,
    max_size=50,
)


def bins_of(values: dict[str, NDArray[np.float64]], asked: list[int]) -> Any:
    def count(prefixes: Sequence[Prefix]) -> dict[Prefix, NDArray[np.int64]]:
        asked.append(len(prefixes))
        # In two parts, as files are counted apart.
        halves = {p: np.array_split(values[p.column], 2) for p in prefixes}
        return {p: count_bins_of(halves[p][0], p) + count_bins_of(halves[p][1], p) for p in prefixes}

    return count


@settings(max_examples=50, deadline=None)
@given(some_floats, some_floats, st.data())
def test_selected_ranks_are_those_of_the_sorted_values(one: list[float], two: list[float], data: st.DataObject) -> None:
    values = {"one": np.array(one) + 0.0, "two": np.array(two) + 0.0}
    ranks = {
        name: data.draw(st.lists(st.integers(0, len(v) - 1), min_size=1, max_size=4)) for name, v in values.items()
    }
    asked: list[int] = []
    found = select_ranks(ranks, bins_of(values, asked))
    assert found == {
        name: [np.partition(values[name], rank)[rank] for rank in wanted] for name, wanted in ranks.items()
    }
    assert len(asked) == 4


@given(finite, finite)
def test_bits_order_as_the_floats_do(one: float, two: float) -> None:
    bits = ordered_bits(np.array([one + 0.0, two + 0.0]))
    assert (bits[0] < bits[1]) == (one < two)
    assert (bits[0] == bits[1]) == (one == two)
