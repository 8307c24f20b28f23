"""The parameter of the Yeo-Johnson transform: where the derivative of its log-likelihood is 0.

Yeo and Johnson, A New Family of Power Transformations to Improve Normality or Symmetry, Biometrika 87, 2000. The
log-likelihood of `y = yj(x, p)` is `-n/2 log var(y) + (p - 1) sum(sign(x) log(1 + |x|))`; its derivative needs var(y)
and cov(y, dy/dp), which are moments of y, dy/dp and their sum. Of a column that does not change its sign all of it is
taken relative to a center c, by `log((1 + |x|) / (1 + |c|))` in place of `log(1 + |x|)`: the likelihood is the same up
to a constant, and values far from 0 and close together keep their digits.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lakefit.dataset.transform import log_ratio, yeo_johnson
from lakefit.prepare.statistics import Floats

Slopes = Callable[[Mapping[str, float]], Mapping[str, float]]
"""Returns the derivative of each column's log-likelihood, by row, at the parameter asked for."""

_START = 1.0
# Long before that a power of any value leaves float64.
_DOUBLINGS = 14
_TOLERANCE = 1e-10


def likelihood_columns(x: Floats, power: float, center: float) -> Floats:
    """Return y, dy/dp, y + dy/dp and the signed logarithms of values without NaN; shape (rows, 4).

    center: 0, or any number of a column whose values all have its sign.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        y = np.asarray(yeo_johnson(np, x, power, center), np.float64)
        logs = np.asarray(log_ratio(np, np.abs(x), abs(center)), np.float64)
        positive = x >= 0 if center == 0 else np.full(len(x), center > 0)
        slope = logs * logs * _phi(np.where(positive, power, 2.0 - power) * logs)
        return np.stack([y, slope, y + slope, np.where(positive, logs, -logs)], 1)


def likelihood_slope(power: float, deviations: Sequence[float], mean_log: float) -> float:
    """Return the derivative by row from the deviations of y, dy/dp and y + dy/dp; infinite where y overflows."""
    y, slope, both = deviations
    if not np.isfinite(deviations).all() or y == 0:
        # Large positive values overflow where the parameter is too large, negative ones where it is too small.
        return -np.inf if power > _START else np.inf
    # cov / var(y), by the polarization of variances in units of y.
    ratio, total = slope / y, both / y
    return mean_log - (total * total - 1.0 - ratio * ratio) / 2.0


def fit_powers(widths: Mapping[str, float], slopes: Slopes) -> dict[str, float]:
    """Return each column's parameter to 1e-10; a bounded number of calls of `slopes`, all columns in each.

    widths: of each column in logarithms, between its smallest and its largest value.
    """
    # Of values close together the transform bends only for large parameters.
    steps = {column: max(1.0, 1.0 / width) for column, width in widths.items()}
    brackets = _brackets(steps, slopes)
    last = {column: bracket[0] for column, bracket in brackets.items()}
    found: dict[str, float] = {}
    for _ in range(80):
        asked = {column: _next(brackets[column]) for column in widths if column not in found}
        if not asked:
            break
        for column, slope in slopes(asked).items():
            power = asked[column]
            low, f_low, high, f_high, side = brackets[column]
            # The Illinois variant of false position: the end that stays twice loses half its weight.
            if slope > 0:
                brackets[column] = (power, slope, high, f_high / 2 if side > 0 else f_high, 1)
            else:
                brackets[column] = (low, f_low / 2 if side < 0 else f_low, power, slope, -1)
            if slope == 0 or abs(power - last[column]) < _TOLERANCE * steps[column]:
                found[column] = power
            last[column] = power
    return {column: found.get(column, last[column]) for column in widths}


Bracket = tuple[float, float, float, float, int]


def _brackets(steps: Mapping[str, float], slopes: Slopes) -> dict[str, Bracket]:
    """Go uphill from 1 in steps that double, until the likelihood falls."""
    at = dict.fromkeys(steps, _START)
    before, slope = dict(at), dict(slopes(at))
    brackets: dict[str, Bracket] = {}
    uphill = {column: 1.0 if slope[column] > 0 else -1.0 for column in steps}
    for turn in range(_DOUBLINGS):
        asked = {
            column: before[column] + uphill[column] * steps[column] * 2**turn
            for column in steps
            if column not in brackets
        }
        if not asked:
            break
        for column, found in slopes(asked).items():
            ends = sorted([(before[column], slope[column]), (asked[column], found)])
            if (found > 0) != (uphill[column] > 0) or turn == _DOUBLINGS - 1:
                brackets[column] = (*ends[0], *ends[1], 0)
            before[column], slope[column] = asked[column], found
    return brackets


def _next(bracket: Bracket) -> float:
    low, f_low, high, f_high, _ = bracket
    if not (np.isfinite(f_low) and np.isfinite(f_high)) or f_low == f_high:
        return (low + high) / 2
    power = (low * f_high - high * f_low) / (f_high - f_low)
    return power if low < power < high else (low + high) / 2


def _phi(t: Floats) -> Floats:
    """Return (t e^t - e^t + 1) / t^2, by its series near 0."""
    small = np.abs(t) < 0.1
    near = np.where(small, t, 0.0)
    series = np.zeros_like(near)
    factorial = 1.0
    for k in range(10):
        factorial *= max(k, 1)
        series += near**k / (factorial * (k + 2))
    far = np.where(small, 1.0, t)
    return np.where(small, series, (far * np.exp(far) - np.expm1(far)) / (far * far))
