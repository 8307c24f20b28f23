"""How far a column has moved from one dataset to another: the population stability index of its statistics."""

import numpy as np
from numpy.typing import NDArray

from lakefit.dataset.statistics import ColumnStatistics, Histogram

# A bin without rows counts as this share: the logarithm needs one.
_FLOOR = 1e-4


def stability_index(old: ColumnStatistics, new: ColumnStatistics) -> float | None:
    """Return the sum of (new - old) ln(new / old) over bins of shares, NULL being a bin; None where nothing compares.

    Numbers are binned by the old histogram, the new shares interpolated from the new one; texts by the old most
    frequent values and "all others". After Siddiqi: Credit Risk Scorecards, 2006.
    """
    if old.histogram is not None and new.histogram is not None and old.count and new.count:
        before = np.array(old.histogram.counts) / old.count
        after = np.diff(_shares_below(new, np.array(old.histogram.edges)), prepend=0.0, append=1.0)
    elif old.most_frequent and new.most_frequent is not None:
        values = [value for value, _ in old.most_frequent]
        before, after = (_shares_of(side, values) for side in (old, new))
    else:
        return None
    shares = []
    for side, among in ((old, before), (new, after)):
        rows = side.count + side.nulls
        shares.append(np.append(among * (side.count / rows), side.nulls / rows) if rows else np.append(among * 0, 1.0))
    was, now = (np.maximum(side, _FLOOR) for side in shares)
    return float(np.sum((now - was) * np.log(now / was)))


def _shares_of(side: ColumnStatistics, values: list[str | float]) -> NDArray[np.float64]:
    counts = dict(side.most_frequent or ())
    found = [counts.get(value, 0) / side.count if side.count else 0.0 for value in values]
    return np.array([*found, max(0.0, 1.0 - sum(found))])


def _shares_below(side: ColumnStatistics, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of values below each point, linear inside a bin; the outer bins end at min and max."""
    histogram: Histogram | None = side.histogram
    assert histogram is not None
    assert side.low is not None
    assert side.high is not None
    points = np.array([side.low, *histogram.edges, side.high])
    below = np.cumsum([0, *histogram.counts]) / side.count
    # Where points coincide (many rows have one value) the first of them has the share that is truly below.
    right = np.clip(np.searchsorted(points, at, side="left"), 0, len(points) - 1)
    left = np.maximum(right - 1, 0)
    width = points[right] - points[left]
    part = np.clip(np.divide(at - points[left], width, out=np.ones_like(at), where=width > 0), 0.0, 1.0)
    return np.where(at > points[-1], 1.0, below[left] + (below[right] - below[left]) * part)
