"""The arithmetic of features, once: preparation does it with numpy, the exported model with `keras.ops`.

`ops` is either module; arrays are float64 of any shape. Written in what both have.
"""

from types import ModuleType
from typing import Any

import numpy as np

from lakefit.dataset.features import PARTS, BucketFeature, DateFeature, NumericFeature

Array = Any


def normalized(ops: ModuleType, x: Array, feature: NumericFeature) -> Array:
    """Return numbers as the model takes them, still float64 but never beyond float32; x has NaN for null."""
    return ops.clip(_normalized(ops, x, feature), -LARGEST, LARGEST)


LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-1020
"""Numbers nearer to 0 (below 9e-308) are 0: TensorFlow takes what float64 can't hold in full for 0, and so means and
differences of smaller numbers."""


def _normalized(ops: ModuleType, x: Array, feature: NumericFeature) -> Array:
    x = ops.where(ops.isnan(x), np.float64(feature.fill), x)
    x = ops.where(ops.abs(x) < np.float64(SMALLEST), np.float64(0), x)
    if feature.low is not None:
        x = ops.maximum(x, np.float64(feature.low))
    if feature.high is not None:
        x = ops.minimum(x, np.float64(feature.high))
    if feature.normalize == "log1p":
        return ops.sign(x) * ops.log1p(ops.abs(x))
    if feature.normalize == "quantile":
        return interpolated(ops, x, feature.references)
    if feature.normalize == "yeo_johnson":
        assert feature.power is not None
        x = yeo_johnson(ops, x, feature.power, feature.center)
    return (x - np.float64(feature.offset)) / np.float64(feature.scale)


def yeo_johnson(ops: ModuleType, x: Array, power: float, center: float = 0.0) -> Array:
    """Return the power transform of Yeo and Johnson (A New Family of Power Transformations, Biometrika 2000).

    center: the transform is taken less its value there and in units of (1 + |center|)^power, so that numbers which lie
    far from 0 and close together keep their digits; standardization makes the same of it.
    """
    if center < 0:
        return -yeo_johnson(ops, -x, 2.0 - power, -center)
    # Each branch sees only values of its own: the other's would overflow.
    above, below = log_ratio(ops, ops.maximum(x, np.float64(0)), center), ops.log1p(-ops.minimum(x, np.float64(0)))
    positive, negative = _box_cox(ops, above, power), -_box_cox(ops, below, 2.0 - power)
    if center > 0:
        # Nothing negative comes from where the column was learned: what matters is that it stays a number.
        log = float(np.log1p(center))
        with np.errstate(over="ignore"):
            shift = float(_box_cox(np, -log, power))
        negative = negative * np.float64(np.exp(min(-power * log, 700.0))) + shift
    return ops.where(x >= 0, positive, negative)


def log_ratio(ops: ModuleType, x: Array, center: float) -> Array:
    """Return log((1 + x) / (1 + center)) of numbers that are not negative."""
    if center == 0:
        return ops.log1p(x)
    ratio = (x - np.float64(center)) / np.float64(1.0 + center)
    near = ops.log1p(ops.maximum(ratio, np.float64(-0.5)))
    return ops.where(ratio < -0.5, ops.log1p(x) - np.log1p(np.float64(center)), near)


def _box_cox(ops: ModuleType, log: Array, power: float) -> Array:
    # ((1 + x)^a - 1) / a without the loss of digits where a is near 0.
    return log if power == 0 else ops.expm1(log * np.float64(power)) / np.float64(power)


def interpolated(ops: ModuleType, x: Array, references: tuple[tuple[float, float], ...]) -> Array:
    """Return the share of smaller values, linear between references; 0 from the first down, 1 from the last on.

    A value that several references share has the middle of their shares, as in scikit-learn's QuantileTransformer: the
    mean of what is found from below and from above.
    """
    values = np.array([value for value, _ in references], np.float64)
    shares = np.array([share for _, share in references], np.float64)
    flat = ops.reshape(x, (-1,))
    inside = ops.clip(flat, values[0], values[-1])

    def between(side: str) -> Array:
        # The references around a value, of which the upper or the lower one may equal it.
        right = ops.clip(ops.searchsorted(values, inside, side=side), 1, len(values) - 1)
        low, high = ops.take(values, right - 1), ops.take(values, right)
        start, end = ops.take(shares, right - 1), ops.take(shares, right)
        width = ops.where(high - low > 0, high - low, np.float64(1))
        return start + (end - start) * ((inside - low) / width)

    mean = 0.5 * (between("right") + between("left"))
    mean = ops.where(flat >= values[-1], np.float64(1), mean)
    return ops.reshape(ops.where(flat <= values[0], np.float64(0), mean), (-1, *x.shape[1:]))


def bucket_index(ops: ModuleType, x: Array, feature: BucketFeature) -> Array:
    """Return 0 where x is NaN, else 2 and the number of boundaries that are not above it; integers."""
    boundaries = np.array(feature.boundaries, np.float64)
    missing = ops.isnan(x)
    flat = ops.reshape(ops.where(missing, np.float64(0), x), (-1,))
    found = ops.reshape(ops.searchsorted(boundaries, flat, side="right"), (-1, *x.shape[1:])) + 2
    return ops.where(missing, 0, found)


def date_columns(ops: ModuleType, seconds: Array, feature: DateFeature) -> list[Array]:
    """Return the prepared columns of a time in seconds since 1970 UTC, NaN for null: indices, or float64 numbers."""
    missing = ops.isnan(seconds)
    part = calendar_part(ops, ops.where(missing, np.float64(0), seconds), feature.part)
    if feature.part == "year":
        return [ops.where(missing, np.float64(0), part)]
    if not feature.cyclical:
        return [ops.where(missing, np.float64(0), part + 2)]
    angle = part * np.float64(2 * np.pi / PARTS[feature.part])
    return [ops.where(missing, np.float64(0), wave(angle)) for wave in (ops.sin, ops.cos)]


def calendar_part(ops: ModuleType, seconds: Array, part: str) -> Array:
    """Return a part of UTC times from 0 on (January, Monday and the first of a month are 0), `year` from 2000 on.

    Days to dates by Howard Hinnant's `civil_from_days` (chrono-Compatible Low-Level Date Algorithms, 2013), in whole
    numbers of float64.
    """
    floor = ops.floor
    day = floor(seconds / 86_400.0)
    if part == "hour":
        return floor((seconds - day * 86_400.0) / 3600.0)
    if part == "minute":
        hour = floor(seconds / 3600.0)
        return floor((seconds - hour * 3600.0) / 60.0)
    if part == "weekday":
        return (day + 3.0) - floor((day + 3.0) / 7.0) * 7.0
    shifted = day + 719_468.0
    era = floor(shifted / 146_097.0)
    day_of_era = shifted - era * 146_097.0
    year_of_era = floor(
        (day_of_era - floor(day_of_era / 1460.0) + floor(day_of_era / 36_524.0) - floor(day_of_era / 146_096.0)) / 365.0
    )
    day_of_year = day_of_era - (365.0 * year_of_era + floor(year_of_era / 4.0) - floor(year_of_era / 100.0))
    march_month = floor((5.0 * day_of_year + 2.0) / 153.0)
    month = ops.where(march_month < 10.0, march_month + 2.0, march_month - 10.0)
    if part == "month":
        return month
    if part == "quarter":
        return floor(month / 3.0)
    if part == "day":
        return day_of_year - floor((153.0 * march_month + 2.0) / 5.0)
    year = year_of_era + era * 400.0 + ops.where(month < 2.0, np.float64(1), np.float64(0))
    if part == "year":
        return year - 2000.0
    assert part == "day_of_year"
    before = year - 1.0
    days_before = 365.0 * before + floor(before / 4.0) - floor(before / 100.0) + floor(before / 400.0)
    return day - (days_before - 719_162.0)
