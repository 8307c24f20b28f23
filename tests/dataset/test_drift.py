"""Drift is 0 for the same rows, small for a new sample of them, large for others."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lakefit.dataset.drift import stability_index
from lakefit.dataset.statistics import ColumnStatistics, Histogram


def numbers(values: NDArray[np.float64], nulls: int = 0) -> ColumnStatistics:
    edges = np.linspace(*np.quantile(values, [0.01, 0.99]), 21)
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=22)
    return ColumnStatistics(
        type="double", count=len(values), nulls=nulls, distinct=len(values), mean=0.0, deviation=1.0,
        low=float(values.min()), high=float(values.max()), quantiles={}, quantile_error=0.0,
        histogram=Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist())), most_frequent=None,
    )  # fmt: skip


def texts(**counts: int) -> ColumnStatistics:
    rows = sum(counts.values())
    return ColumnStatistics(
        type="string", count=rows, nulls=0, distinct=len(counts), mean=None, deviation=None, low=None, high=None,
        quantiles={}, quantile_error=0.0, histogram=None, most_frequent=tuple(counts.items()),
    )  # fmt: skip


def draw(seed: int, shift: float = 0.0, clip: float = np.inf) -> NDArray[np.float64]:
    return np.minimum(np.random.Generator(np.random.PCG64(seed)).normal(shift, 1, 5_000), clip)


@pytest.mark.parametrize("clip", [np.inf, 0.5])
def test_numbers(clip: float) -> None:
    old = numbers(draw(1, clip=clip))
    same, fresh, moved = (stability_index(old, numbers(draw(*how, clip=clip))) for how in ((1, 0), (2, 0), (3, 1.0)))
    assert same == pytest.approx(0, abs=1e-6)
    assert fresh is not None
    assert fresh < 0.02
    assert moved is not None
    assert moved > 0.3


def test_nulls_count_as_a_bin() -> None:
    found = stability_index(numbers(draw(1)), numbers(draw(1), nulls=5_000))
    assert found is not None
    assert found > 0.3


def test_texts_by_their_most_frequent_values_and_all_others() -> None:
    old = texts(a=50, b=50)
    assert stability_index(old, texts(a=500, b=500)) == pytest.approx(0)
    # By hand: a 0.5 -> 0.8, b 0.5 -> 0.2.
    expected = 0.3 * np.log(1.6) - 0.3 * np.log(0.4)
    assert stability_index(old, texts(a=80, b=20)) == pytest.approx(expected, rel=1e-3)
    moved = stability_index(old, texts(c=100))
    assert moved is not None
    assert moved > 5


def test_what_has_no_bins_has_no_index() -> None:
    nothing = texts().model_copy(update={"most_frequent": None})
    assert stability_index(nothing, nothing) is None
