"""The parameter of the Yeo-Johnson transform: where the derivative of its log-likelihood is 0.

Yeo and Johnson, A New Family of Power Transformations to Improve Normality or Symmetry, Biometrika 87, 2000. The
log-likelihood of `y = yj(x, p)` is `-n/2 log var(y) + (p - 1) sum(sign(x) log(1 + |x|))`; its derivative needs var(y)
and cov(y, dy/dp), which are moments of y, dy/dp and their sum.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lakefit.dataset.transform import yeo_johnson
from lakefit.prepare.statistics import Floats

Slopes = Callable[[Mapping[str, Sequence[float]]], Mapping[str, Sequence[float]]]
"""Returns the derivative of each column's log-likelihood, by row, at the parameters asked for."""

_GRID = tuple(float(p) for p in range(-3, 6))
_LIMIT = 100.0
_TOLERANCE = 1e-10


def likelihood_columns(x: Floats, power: float) -> Floats:
    """Return y, dy/dp, y + dy/dp and sign(x) log(1 + |x|) of values without NaN; shape (rows, 4)."""
    with np.errstate(over="ignore", invalid="ignore"):
        y = np.asarray(yeo_johnson(np, x, power), np.float64)
        logs = np.log1p(np.abs(x))
        exponents = np.where(x >= 0, power, 2.0 - power) * logs
        slope = logs * logs * _phi(exponents)
        return np.stack([y, slope, y + slope, np.sign(x) * logs], 1)


def likelihood_slope(deviations: Sequence[float], mean_log: float) -> float:
    """Return the derivative by row from the deviations of y, dy/dp and y + dy/dp; infinite where y overflows."""
    y, slope, both = deviations
    if not np.isfinite(deviations).all() or y == 0:
        # Large positive values overflow where the parameter is too large, negative ones where it is too small.
        return -np.inf if mean_log > 0 else np.inf
    # cov / var(y), by the polarization of variances in units of y.
    ratio, total = slope / y, both / y
    return mean_log - (total * total - 1.0 - ratio * ratio) / 2.0


def fit_powers(columns: Sequence[str], slopes: Slopes) -> dict[str, float]:
    """Return each column's parameter to 1e-10; a bounded number of calls of `slopes`, all columns in each."""
    brackets = _brackets(columns, slopes)
    last = {column: bracket[0] for column, bracket in brackets.items()}
    found: dict[str, float] = {}
    for _ in range(80):
        asked = {column: [_next(brackets[column])] for column in columns if column not in found}
        if not asked:
            break
        for column, (slope,) in slopes(asked).items():
            power = asked[column][0]
            low, f_low, high, f_high, side = brackets[column]
            # The Illinois variant of false position: the end that stays twice loses half its weight.
            if slope > 0:
                brackets[column] = (power, slope, high, f_high / 2 if side > 0 else f_high, 1)
            else:
                brackets[column] = (low, f_low / 2 if side < 0 else f_low, power, slope, -1)
            if slope == 0 or abs(power - last[column]) < _TOLERANCE:
                found[column] = power
            last[column] = power
    return {column: found.get(column, last[column]) for column in columns}


Bracket = tuple[float, float, float, float, int]


def _brackets(columns: Sequence[str], slopes: Slopes) -> dict[str, Bracket]:
    at = slopes(dict.fromkeys(columns, _GRID))
    known = {column: dict(zip(_GRID, at[column], strict=True)) for column in columns}
    reach = 10.0
    while reach <= _LIMIT:
        # The likelihood rises before its maximum and falls after it.
        open_ended = {
            column: [-reach] if max(points.values()) <= 0 else [reach]
            for column, points in known.items()
            if min(points.values()) > 0 or max(points.values()) <= 0
        }
        if not open_ended:
            break
        for column, (slope,) in slopes(open_ended).items():
            known[column][open_ended[column][0]] = slope
        reach *= 3
    return {column: _bracket(points) for column, points in known.items()}


def _bracket(points: Mapping[float, float]) -> Bracket:
    rising = [power for power in sorted(points) if points[power] > 0]
    low = rising[-1] if rising else min(points)
    above = [power for power in sorted(points) if power > low]
    high = above[0] if above else low
    return low, points[low], high, points[high], 0


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
