"""What is learned from the training split alone: features, the label's constants, statistics of every column."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from lakefit.config.features import Categorical, MultiValued, Numeric
from lakefit.config.features import Features as FeaturesSection
from lakefit.config.file import Key, Problem
from lakefit.config.rows import Label
from lakefit.dataset.features import (
    CategoricalFeature,
    Features,
    LabelFeature,
    MultiValuedFeature,
    NumericFeature,
    fixed_features,
)
from lakefit.dataset.statistics import ColumnStatistics, Histogram
from lakefit.dataset.transform import log_ratio, yeo_johnson
from lakefit.errors import InputError
from lakefit.prepare.power import fit_powers, likelihood_columns, likelihood_slope
from lakefit.prepare.quantiles import between, quantile_ranks, select_ranks
from lakefit.prepare.staged import Staged, Transform
from lakefit.prepare.statistics import Floats, Summary
from lakefit.prepare.tally import Counts, Totals

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
HISTOGRAM_BINS = 20
MOST_FREQUENT = 20
REFERENCES = 100
# Values that differ by less than this share of themselves: any power of them is a straight line.
STRAIGHT = 1e-10
# 1 / the 75 % quantile of the normal distribution: a median deviation times this is its standard deviation.
_NORMAL = 1.482602218505602
_LARGEST = float(np.finfo(np.float64).max)


class UnlearnableError(InputError):
    """What was asked for can't be learned from the training split; `key` of the pipeline file says what."""

    def __init__(self, key: Key, message: str) -> None:
        super().__init__(f"{'.'.join(str(part) for part in key)}: {message}")
        self.problem = Problem(key, f"{message} Nothing was published.")


@dataclass(slots=True)
class Learner:
    """The training split as counted and staged, and the quantiles asked of it so far.

    quantiles: by column and share, each with its error. clip_errors: of clips by robust_z.
    """

    section: FeaturesSection
    totals: Totals
    staged: Staged
    quantiles: dict[str, dict[float, tuple[float, float]]] = field(default_factory=dict)
    clip_errors: dict[str, float] = field(default_factory=dict)

    def learn(self) -> Features:
        """Return the features.

        Raises:
            UnlearnableError: a numeric feature has no value in the training split, or not what its settings need.
        """
        self._check_numbers()
        self._ask_quantiles()
        clips = self._clips()
        powers = self._powers(clips)
        derived = self._derived_moments(clips, powers)
        fixed = fixed_features(self.section)
        return Features(
            numeric=tuple(
                self._numeric(section, name, clips, powers.get(name), derived.get(name))
                for section in self.section.numeric
                for name in section.columns
            ),
            categorical=tuple(
                self._categorical(section, name) for section in self.section.categorical for name in section.columns
            ),
            bucketized=fixed.bucketized,
            multi_valued=tuple(
                self._multi_valued(section, name) for section in self.section.multi_valued for name in section.columns
            ),
            dates=fixed.dates,
            tensors=fixed.tensors,
            images=fixed.images,
        )

    def statistics(self, columns: Sequence[str], types: Mapping[str, str]) -> dict[str, ColumnStatistics]:
        """Return the statistics of every cleaned column; types: their Spark SQL types."""
        self._ask_quantiles()
        edges = {name: _edges(self, name) for name, summary in self.totals.summaries.items() if summary.count}
        binned = {name: at for name, at in edges.items() if len(at) > 1}
        counts = self.staged.histograms({name: at for name, at in binned.items() if self.totals.counts[name] is None})
        for name, at in binned.items():
            if (counted := self.totals.counts[name]) is not None:
                bins = np.searchsorted(at, counted.values.to_numpy(), side="right")
                counts[name] = np.bincount(bins, counted.rows, len(at) + 1).astype(np.int64).tolist()
        found = {}
        for name in columns:
            summary = self.totals.summaries.get(name)
            known = summary if summary is not None and summary.count else None
            quantiles = {share: self.quantile(name, share) for share in QUANTILES} if known else {}
            found[name] = ColumnStatistics(
                type=types[name],
                count=self.totals.rows - self.totals.nulls[name],
                nulls=self.totals.nulls[name],
                distinct=self.totals.distinct[name],
                mean=known.mean if known else None,
                deviation=known.deviation if known else None,
                low=known.low if known else None,
                high=known.high if known else None,
                quantiles={f"{share:g}": value for share, value in quantiles.items()},
                quantile_error=max(self._errors(name), default=0.0),
                histogram=Histogram(edges=edges[name], counts=tuple(counts[name])) if name in counts else None,
                most_frequent=_most_frequent(self.totals.counts.get(name), types[name]),
            )
        return found

    def quantile(self, column: str, share: float) -> float:
        """Return a quantile as numpy's `linear` does: between the two nearest values."""
        return self.quantiles[column][share][0]

    def _errors(self, column: str) -> list[float]:
        """Return how wrong each of the column's quantiles, and each clip that was learned, may be."""
        errors = [error for _, error in self.quantiles.get(column, {}).values()]
        return [*errors, *([self.clip_errors[column]] if column in self.clip_errors else [])]

    def _error(self, name: str, message: str) -> UnlearnableError:
        """Return the error of a numeric column, at its place in the section."""
        place = next(i for i, numeric in enumerate(self.section.numeric) if name in numeric.columns)
        return UnlearnableError(
            ("features", "numeric", place, "columns", self.section.numeric[place].columns.index(name)), message
        )

    def _check_numbers(self) -> None:
        for name in dict.fromkeys(name for section in self.section.numeric for name in section.columns):
            summary = self.totals.summaries[name]
            if not summary.count:
                raise self._error(
                    name,
                    f"the column {name!r} is null in every row of the training split "
                    f"({self.totals.rows:,} rows): nothing can be learned from it. Remove it from the features, or "
                    "check the query that fills it.",
                )
            if not np.isfinite(summary.high - summary.low):
                raise self._error(
                    name,
                    f"the values of {name!r} lie further apart than float64 can say "
                    f"({summary.low:g} to {summary.high:g}). Clip or scale the column under `clean`.",
                )

    def _ask_quantiles(self) -> None:
        """Select in one go all quantiles that statistics, fills, clips and normalizations need."""
        if self.quantiles:
            return
        wanted = {name: set(QUANTILES) for name, summary in self.totals.summaries.items() if summary.count}
        for section in self.section.numeric:
            for name in section.columns:
                if section.clip is not None and section.clip.quantiles is not None:
                    wanted[name] |= set(section.clip.quantiles)
                if section.normalize == "quantile":
                    wanted[name] |= {i / REFERENCES for i in range(REFERENCES + 1)}
        self.quantiles = self._select(wanted, {})

    def _select(
        self, wanted: Mapping[str, set[float]], transforms: Mapping[str, Transform]
    ) -> dict[str, dict[float, tuple[float, float]]]:
        """Return (value, error) of each share of each column, after its transform."""
        ranks: dict[str, list[int]] = {}
        for name, shares in wanted.items():
            count = self.totals.summaries[name].count
            ranks[name] = sorted({rank for share in shares for rank in quantile_ranks(count, share)[:2]})
        selected: dict[str, list[tuple[float, float]]] = {}
        for name in list(ranks):
            counted = self.totals.counts[name] if name not in transforms else None
            if counted is not None:
                at = np.searchsorted(np.cumsum(counted.rows), ranks[name], side="right")
                selected[name] = [(value, value) for value in counted.values.to_numpy()[at].tolist()]
        left = {name: wanted_ranks for name, wanted_ranks in ranks.items() if name not in selected}
        first = {name: self.totals.bins[name] for name in left if name not in transforms}
        count_bins = partial(self.staged.count_bins, transforms=transforms)
        selected |= select_ranks(left, first, count_bins, exact=self.section.quantiles == "exact")
        found: dict[str, dict[float, tuple[float, float]]] = {}
        for name, shares in wanted.items():
            bounds = dict(zip(ranks[name], selected[name], strict=True))
            found[name] = {}
            for share in sorted(shares):
                low, high, part = quantile_ranks(self.totals.summaries[name].count, share)
                below = between(bounds[low][0], bounds[high][0], part)
                above = between(bounds[low][1], bounds[high][1], part)
                middle = between(below, above, 0.5)
                found[name][share] = (middle, _widened(max(above - middle, middle - below), middle))
        return found

    def _clips(self) -> dict[str, tuple[float, float]]:
        clips: dict[str, tuple[float, float]] = {}
        robust: dict[str, float] = {}
        for section in self.section.numeric:
            for name in section.columns if section.clip is not None else ():
                assert section.clip is not None
                if section.clip.quantiles is not None:
                    low, high = section.clip.quantiles
                    clips[name] = (self.quantile(name, low), self.quantile(name, high))
                elif section.clip.robust_z is not None:
                    robust[name] = section.clip.robust_z
        distance: dict[str, Transform] = {name: partial(_distance, center=self.quantile(name, 0.5)) for name in robust}
        spread = self._select({name: {0.5} for name in robust}, distance)
        for name, z in robust.items():
            # The center may be wrong, the distances from it as much, and their median by itself.
            (_, off), (_, off_spread) = self.quantiles[name][0.5], spread[name][0.5]
            self.clip_errors[name] = off + z * _NORMAL * (off + off_spread)
            center, reach = self.quantile(name, 0.5), z * _NORMAL * spread[name][0.5][0]
            # More than half of the values are one value: a reach of 0 would make them all that.
            bounds = (center - reach, center + reach) if reach > 0 else self._range(name)
            clips[name] = (max(bounds[0], -_LARGEST), min(bounds[1], _LARGEST))
        return clips

    def _range(self, name: str) -> tuple[float, float]:
        return self.totals.summaries[name].low, self.totals.summaries[name].high

    def _powers(self, clips: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        powers = {
            name: section.power
            for section in self.section.numeric
            for name in section.columns
            if section.normalize == "yeo_johnson" and section.power is not None
        }
        fitted = [
            name
            for section in self.section.numeric
            for name in section.columns
            if section.normalize == "yeo_johnson" and section.power is None
        ]

        def slopes(asked: Mapping[str, float]) -> dict[str, float]:
            transforms: dict[str, Transform] = {
                name: partial(_likelihood, power=power, center=self._center(name, clips), clip=clips.get(name))
                for name, power in asked.items()
            }
            return {
                name: likelihood_slope(asked[name], [part.deviation for part in parts[:3]], parts[3].mean)
                for name, parts in self.staged.moments(transforms, 4).items()
            }

        widths = {name: self._width(name, clips) for name in fitted}
        varying = {name: width for name, width in widths.items() if width > STRAIGHT}
        fits = fit_powers(varying, slopes) if varying else {}
        return {**powers, **dict.fromkeys(fitted, 1.0), **fits}

    def _width(self, name: str, clips: Mapping[str, tuple[float, float]]) -> float:
        """Return how far apart a column's smallest and largest values are in signed logarithms."""
        low, high = self._clipped_range(name, clips)
        center = abs(self._center(name, clips))
        low_log, high_log = (float(log_ratio(np, np.float64(abs(x)), center)) for x in (low, high))
        return low_log + high_log if low < 0 < high else abs(high_log - low_log)

    def _center(self, name: str, clips: Mapping[str, tuple[float, float]]) -> float:
        """Return the median of a column that does not change its sign, else 0: see `power`."""
        low, high = self._clipped_range(name, clips)
        return min(max(self.quantile(name, 0.5), low), high) if low >= 0 or high <= 0 else 0.0

    def _clipped_range(self, name: str, clips: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
        low, high = self._range(name)
        bottom, top = clips.get(name, (low, high))
        return min(max(low, bottom), top), max(min(high, top), bottom)

    def _derived_moments(
        self, clips: Mapping[str, tuple[float, float]], powers: Mapping[str, float]
    ) -> dict[str, Summary]:
        """Return the moments of values after clip and power, where they are not those of the column itself."""
        transforms: dict[str, Transform] = {
            name: partial(_derived, clip=clips.get(name), power=powers.get(name), center=self._center(name, clips))
            for section in self.section.numeric
            for name in section.columns
            if name in powers or (name in clips and section.normalize == "standard")
        }
        return {name: summary for name, (summary,) in self.staged.moments(transforms, 1).items()}

    def _numeric(
        self,
        section: Numeric,
        name: str,
        clips: Mapping[str, tuple[float, float]],
        power: float | None,
        derived: Summary | None,
    ) -> NumericFeature:
        summary = derived or self.totals.summaries[name]
        low, high = self._range(name)
        bottom, top = clips.get(name, (low, high))

        def clipped(value: float) -> float:
            return min(max(value, bottom), top)

        offset, scale = 0.0, 1.0
        if section.normalize in ("standard", "yeo_johnson"):
            offset, scale = summary.mean, summary.deviation
        elif section.normalize == "min_max":
            offset, scale = clipped(low), clipped(high) - clipped(low)
        elif section.normalize == "robust":
            offset = clipped(self.quantile(name, 0.5))
            scale = clipped(self.quantile(name, 0.75)) - clipped(self.quantile(name, 0.25))
        elif section.normalize == "max_abs":
            scale = max(abs(clipped(low)), abs(clipped(high)))
        if not np.isfinite([offset, scale]).all():
            given = "" if power is None else f" with lambda {power:g}"
            raise self._error(
                name,
                f"{name!r} ({low:g} to {high:g}) leaves float64 under normalize: "
                f"{section.normalize}{given}. Clip or scale the column, or normalize it otherwise.",
            )
        kind = section.normalize if section.normalize in ("log1p", "yeo_johnson", "quantile") else "linear"
        return NumericFeature(
            name=name,
            fill=self._fill(section, name),
            low=clips[name][0] if name in clips else None,
            high=clips[name][1] if name in clips else None,
            normalize=kind,
            power=power,
            center=self._center(name, clips) if power is not None else 0.0,
            references=self._references(name, clipped) if kind == "quantile" else (),
            offset=offset,
            scale=scale or 1.0,  # a constant column becomes 0, not NaN
            indicator=f"{name}_missing" if section.indicator else None,
        )

    def _fill(self, section: Numeric, name: str) -> float:
        if section.fill == "median":
            return self.quantile(name, 0.5)
        if section.fill == "mean":
            return self.totals.summaries[name].mean
        if section.fill == "most_frequent":
            counts = self.totals.counts.get(name)
            if counts is None:
                return self.staged.most_frequent(name)
            # The values ascend: the first of the largest is the smallest of equally frequent ones.
            return float(counts.values[int(np.argmax(counts.rows))].as_py())
        return float(section.fill)

    def _references(self, name: str, clipped: Callable[[float], float]) -> tuple[tuple[float, float], ...]:
        shares = [i / REFERENCES for i in range(REFERENCES + 1)]
        # Interpolation between equal values may be off by a last digit, downwards too.
        values = np.maximum.accumulate([clipped(self.quantile(name, share)) for share in shares])
        return tuple(zip(values.tolist(), shares, strict=True))

    def _categorical(self, section: Categorical, name: str) -> CategoricalFeature:
        if section.hash_buckets is not None:
            return CategoricalFeature(name=name, hash_buckets=section.hash_buckets)
        vocabulary, counts, rare = _vocabulary(self.totals.learned[name], section.min_count, section.max_size)
        return CategoricalFeature(name=name, vocabulary=vocabulary, counts=counts, rare=rare)

    def _multi_valued(self, section: MultiValued, name: str) -> MultiValuedFeature:
        vocabulary, counts, rare = _vocabulary(self.totals.learned[name], section.min_count, section.max_size)
        return MultiValuedFeature(
            name=name,
            max_values=section.max_values,
            vocabulary=vocabulary,
            counts=counts,
            rare=rare,
            cut=self.totals.cut[name],
        )


def learn_label(label: Label, place: int, summary: Summary | None, counts: Mapping[str, int]) -> LabelFeature:
    """Return the label's constants.

    place: of the label in the pipeline file. summary: of a regression's label; counts: rows of the training split by
    class.

    Raises:
        UnlearnableError: class_weights names no class, or not all of them.
    """
    if label.type == "regression":
        assert summary is not None, "a regression's label has moments"
        if label.normalize == "none":
            return LabelFeature(name=label.name, kind="regression", weighted=label.weighted)
        scale = summary.deviation or 1.0
        return LabelFeature(
            name=label.name, kind="regression", offset=summary.mean, scale=scale, weighted=label.weighted
        )
    if label.binary_weights is not None and label.type == "binary":
        return LabelFeature(name=label.name, kind="binary", class_weights=label.binary_weights, weighted=True)
    classes = label.classes or tuple(sorted(counts, key=str.encode))
    weights: tuple[float, ...] = ()
    if label.class_weights == "balanced":
        rows = sum(counts.values())
        weights = tuple(rows / (len(classes) * counts[name]) for name in classes)
    elif label.class_weights is not None:
        unknown = sorted(set(classes) ^ set(label.class_weights))
        if unknown:
            raise UnlearnableError(
                ("label", place, "class_weights"),
                f"{unknown[0]!r} is not among both the weights and the classes ({', '.join(classes[:20])}).",
            )
        weights = tuple(label.class_weights[name] for name in classes)
    return LabelFeature(
        name=label.name,
        kind=label.type,
        classes=classes if label.type != "binary" else (),
        class_weights=weights,
        weighted=label.weighted,
    )


def _vocabulary(total: Counts, min_count: int, max_size: int | None) -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """Return the values by falling count, then by value, their counts, and how many values were cut."""
    order = np.argsort(-total.rows, kind="stable")
    order = order[: int((total.rows >= min_count).sum())][:max_size]
    values = total.values.take(pa.array(order)).to_pylist()
    return tuple(values), tuple(total.rows[order].tolist()), len(total.rows) - len(order)


def _most_frequent(counts: Counts | None, sql_type: str) -> tuple[tuple[str | float, int], ...] | None:
    if counts is None or not _told_apart(counts.values, sql_type):
        return None
    values, rows, _ = _vocabulary(counts, 1, MOST_FREQUENT)
    return tuple(zip(values, rows, strict=True))


def _told_apart(values: pa.Array, sql_type: str) -> bool:
    """Return whether different values of a column are different float64, of which `values` are those that were met."""
    if sql_type in ("double", "float") or not pa.types.is_floating(values.type) or not len(values):
        return True
    scale = re.fullmatch(r"decimal\(\d+,\s?(\d+)\)", sql_type)
    largest = float(np.abs(values.to_numpy()).max())
    return largest < 10.0 ** (15 - int(scale[1])) if scale else largest < 2**53


def _edges(learner: Learner, name: str) -> tuple[float, ...]:
    """Return the edges of equal bins between the 1 % and the 99 % quantile, where these differ."""
    low, high = learner.quantile(name, QUANTILES[0]), learner.quantile(name, QUANTILES[-1])
    edges = [between(low, high, i / HISTOGRAM_BINS) for i in range(HISTOGRAM_BINS + 1)]
    ascending = [edge for i, edge in enumerate(edges) if i == 0 or edge > edges[i - 1]]
    return tuple(ascending) if len(ascending) == len(edges) else ()


def _widened(error: float, value: float) -> float:
    """Return a bound of an error that holds in spite of the rounding of both; 0 stays 0."""
    return error + 4 * float(np.spacing(abs(value) + error)) if error else 0.0


def _distance(values: Floats, center: float) -> Floats:
    return np.abs(values - center)[:, None]


def _clip(values: Floats, clip: tuple[float, float] | None) -> Floats:
    return values if clip is None else np.clip(values, *clip)


def _derived(values: Floats, clip: tuple[float, float] | None, power: float | None, center: float) -> Floats:
    values = _clip(values, clip)
    with np.errstate(over="ignore"):
        return (values if power is None else np.asarray(yeo_johnson(np, values, power, center)))[:, None]


def _likelihood(values: Floats, power: float, center: float, clip: tuple[float, float] | None) -> Floats:
    return likelihood_columns(_clip(values, clip), power, center)
