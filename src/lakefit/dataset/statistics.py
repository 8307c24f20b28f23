"""The statistics of a column in the training split, as they stand in the manifest."""

from lakefit.config.sections import Section


class Histogram(Section):
    """`edges` ascending, counts one more: below the first edge, between edges (the low end in), from the last on."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class ColumnStatistics(Section):
    """A cleaned column in the training split; dates and times are seconds since 1970 UTC, booleans 0 and 1.

    count: values that are not NULL. distinct: an estimate (standard error 2.3 %). deviation: of the population.
    quantiles: by share, exact up to `quantile_error`. histogram: 20 equal bins between the 1 % and the 99 % quantile,
    None where these are equal. most_frequent: up to 20 (value, rows), exact; None where there are too many distinct
    values to count. What does not apply to a type is None or empty.
    """

    type: str
    count: int
    nulls: int
    distinct: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None
    quantiles: dict[str, float]
    quantile_error: float
    histogram: Histogram | None
    most_frequent: tuple[tuple[str | float, int], ...] | None
