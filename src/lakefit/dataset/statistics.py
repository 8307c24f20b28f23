"""The statistics of a column in the training split, as they stand in the manifest."""

from lakefit.config.sections import Section


class Histogram(Section):
    """The distribution of a column's values over bins.

    edges: ascending. counts: one more: below the first edge, between edges (the low end in), from the last on.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class ColumnStatistics(Section):
    """A cleaned column in the training split; dates and times are seconds since 1970 UTC, booleans 0 and 1.

    Numbers are float64: integers above 2^53 and decimals of more than 15 digits are rounded, as the model sees them.
    What does not apply to a type is null or empty.

    type: in Spark SQL. count: values that are not NULL. nulls: rows where it is NULL. distinct: an estimate (standard
    error 2.3 %). mean: of numbers. deviation: of the population. low: the smallest value. high: the largest value.
    quantiles: by share, exact up to `quantile_error`. quantile_error: how wrong these, and the clip bounds and quantile
    references that features learned of the column, may be, in the unit of the values; 0 where all are exact. histogram:
    20 equal bins between the 1 % and the 99 % quantile, null where these are equal. most_frequent: up to 20 (value,
    rows), exact; null where there are too many distinct values to count, for lists, nested and binary values, and for
    integers and decimals that are so large that rounding would make two values one.
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
