"""Moments and ranks: numpy's values, and the same bits for any partitioning."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lakefit.prepare import quantiles
from lakefit.prepare.hashing import mix64
from lakefit.prepare.quantiles import (
    CountBins,
    Prefix,
    between,
    count_bins_of,
    first_bins,
    ordered_bits,
    quantile_ranks,
    select_ranks,
)
from lakefit.prepare.sketch import distinct, registers_of
from lakefit.prepare.statistics import (
    ARRAYS,
    Moments,
    bucket_moments,
    concatenate,
    merge_up,
    pack_moments,
    summary_of,
    unpack_moments,
)

FIELDS = ("ids", *ARRAYS)


def root(values: NDArray[np.float64], keys: NDArray[np.uint64], bucket_bits: int) -> Moments:
    """Return the moments of all rows, by buckets that are packed, unpacked and merged as the driver does."""
    order = np.argsort(keys)
    values, keys = values[order], keys[order]
    parts = []
    for bucket in range(1 << bucket_bits):
        mine = (keys >> np.uint64(64 - bucket_bits)) == bucket if bucket_bits else np.ones(len(keys), bool)
        node = bucket_moments(list(values[mine].T), keys[mine], bucket_bits)
        parts.append(unpack_moments(pack_moments(node), values.shape[1]))
    return merge_up(concatenate(reversed(parts), values.shape[1]), bucket_bits, 0)


def columns_of(rows: int) -> NDArray[np.float64]:
    draw = np.random.Generator(np.random.PCG64(1))
    plain = draw.normal(size=rows)
    values = np.stack(
        [
            plain,
            1e9 + 1e-3 * draw.normal(size=rows),
            draw.lognormal(0, 3, rows),
            np.full(rows, 0.1),
            1e300 * plain,
            1e-300 * plain,
            plain * 10.0 ** draw.integers(-300, 300, rows),
        ],
        1,
    )
    values[draw.random(values.shape) < 0.1] = np.nan
    return values


@pytest.fixture(scope="module")
def rows() -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    return columns_of(20_000), mix64(np.arange(20_000, dtype=np.uint64))


def test_moments_are_right_for_a_mean_of_1e9_and_values_near_1e300_and_1e_minus_300(rows: Any) -> None:
    values, keys = rows
    found = root(values, keys, 3)
    for column in range(values.shape[1]):
        x = values[:, column]
        # Fractions: no float64 is an oracle for these.
        known = x[~np.isnan(x)]
        exact = [Fraction(value) for value in known.tolist()]
        mean = sum(exact) / len(exact)
        variance = sum((value - mean) ** 2 for value in exact) / len(exact)
        summary = summary_of(found, column)
        assert summary.count == len(known)
        deviation = _root(variance)
        assert summary.deviation == pytest.approx(deviation, rel=1e-12)
        assert abs(summary.mean - float(mean)) <= max(np.spacing(abs(float(mean))), 1e-14 * deviation)
        assert (summary.low, summary.high) == (known.min(), known.max())
    assert summary_of(found, 3).deviation == 0


def _root(square: Fraction) -> float:
    """Return the square root of a number that may lie outside of float64's range."""
    if not square:
        return 0.0
    shift = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(square / Fraction(4) ** shift), shift)


@pytest.mark.parametrize("bucket_bits", [1, 2, 3, 4, 5, 6])
def test_moments_have_the_same_bits_for_any_buckets(rows: Any, bucket_bits: int) -> None:
    one, many = root(*rows, 0), root(*rows, bucket_bits)
    for field in FIELDS:
        assert getattr(one, field).tobytes() == getattr(many, field).tobytes(), field


def test_a_plain_sum_would_differ_by_buckets(rows: Any) -> None:
    values, keys = rows
    column = np.nan_to_num(values[np.argsort(keys), 2])
    sums = {np.array([part.sum() for part in np.array_split(column, n)]).sum() for n in range(1, 9)}
    assert len(sums) > 1, "else the test above proves nothing"


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
        assert summary_of(roots[0], 0).mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-6)
        assert roots[0].low[0, 0] == finite.min()


def test_no_rows_have_no_moments() -> None:
    assert bucket_moments([np.zeros(0), None], np.zeros(0, np.uint64), 0).count.shape == (0, 2)
    assert bucket_moments([], np.zeros(5, np.uint64), 0).count.shape == (0, 0)
    assert concatenate([], 2).count.shape == (0, 2)


finite = st.floats(allow_nan=False, allow_infinity=False)
some_floats = st.lists(
    finite | st.sampled_from([5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.0, 1.0, 1.0]),
    min_size=1,
    max_size=50,
)


def bins_of(values: dict[str, NDArray[np.float64]], asked: list[int]) -> CountBins:
    def count(prefixes: Sequence[Prefix]) -> dict[Prefix, tuple[Any, Any]]:
        asked.append(len(prefixes))
        return {p: count_bins_of(values[p.column], [p])[0] for p in prefixes}

    return count


@settings(max_examples=50, deadline=None)
@given(some_floats, some_floats, st.booleans(), st.integers(0, 50), st.data())
def test_selected_ranks_are_those_of_the_sorted_values(
    one: list[float], two: list[float], first_known: bool, whole: int, data: st.DataObject
) -> None:
    values = {"one": np.array(one) + 0.0, "two": np.array(two) + 0.0}
    ranks = {
        name: data.draw(st.lists(st.integers(0, len(v) - 1), min_size=1, max_size=4)) for name, v in values.items()
    }
    first = {name: first_bins(v) for name, v in values.items()} if first_known else {}
    right = {name: [np.partition(values[name], rank)[rank] for rank in wanted] for name, wanted in ranks.items()}
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        # Prefixes of more values than this are counted on, others handed over.
        patch.setattr(quantiles, "WHOLE", whole)
        found = select_ranks(ranks, first, bins_of(values, asked), exact=True)
    assert found == {name: [(value, value) for value in of_rank] for name, of_rank in right.items()}
    assert len(asked) <= 4 - first_known
    near = select_ranks(ranks, first, bins_of(values, []), exact=False)
    for name, of_rank in right.items():
        for (low, high), value in zip(near[name], of_rank, strict=True):
            assert low <= value <= high
            assert high - low <= abs(value) * 2**-19 or abs(value) < 1e-300


def test_all_prefixes_of_a_column_are_counted_at_once() -> None:
    values = np.array([1.0, 1.5, -2.0, 1e300, 1.0])
    prefixes = [Prefix("x", 0, 0, 16), Prefix("x", 1, 1, 4), Prefix("x", 1, 0, 63), Prefix("x", 12, 0xBFF, 52)]
    found = count_bins_of(values, prefixes)
    assert [rows.tolist() for _, rows in found] == [[1, 2, 1, 1], [3, 1], [1], [2, 1]]
    assert found[3][0].tolist() == [0, 1 << 51]


@given(finite, finite)
def test_bits_order_as_the_floats_do(one: float, two: float) -> None:
    bits = ordered_bits(np.array([one + 0.0, two + 0.0]))
    assert (bits[0] < bits[1]) == (one < two)
    assert (bits[0] == bits[1]) == (one == two)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], share: float) -> None:
    low, high, part = quantile_ranks(len(values), share)
    ordered = np.sort(values)
    found = between(float(ordered[low]), float(ordered[high]), part)
    assert found == pytest.approx(np.quantile(values, share), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("values", [0, 1, 10, 1000, 100_000])
def test_distinct_values_are_estimated_within_4_standard_errors_and_merge(values: int) -> None:
    hashes = mix64(np.arange(values, dtype=np.uint64))
    sketch = registers_of(np.tile(hashes, 3))
    assert distinct(sketch) == pytest.approx(values, rel=0.092)
    halves = [registers_of(hashes[: values // 2]), registers_of(hashes[values // 3 :])]
    assert (np.maximum(*halves) == sketch).all()
