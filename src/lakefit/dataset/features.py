"""The features of a dataset as learned: all that turns a cleaned row into the model's numbers."""

import math
from typing import Any, Literal

from lakefit.config.features import Features as FeaturesSection
from lakefit.config.rows import weights_of
from lakefit.config.sections import Section


class NumericFeature(Section):
    """What happens to a number: NULL is `fill`, then the bounds, then `normalize`, then offset and scale.

    name: of the column. fill: in place of NULL. low: smaller values become this. high: larger values become this.
    normalize: what comes before offset and scale. power: the parameter of Yeo-Johnson. center: where Yeo-Johnson is 0,
    in units of (1 + |center|)^power. references: of quantile, ascending (value, share of smaller values) pairs, equal
    values kept. offset: the result is `(x - offset) / scale`. scale: see offset. indicator: the column that says where
    NULL was.
    """

    name: str
    fill: float
    low: float | None = None
    high: float | None = None
    normalize: Literal["linear", "log1p", "yeo_johnson", "quantile"] = "linear"
    power: float | None = None
    center: float = 0.0
    references: tuple[tuple[float, float], ...] = ()
    offset: float = 0.0
    scale: float = 1.0
    indicator: str | None = None


class CategoricalFeature(Section):
    """A category as an index: 0 is missing, 1 unknown, 2 the first of `vocabulary`.

    name: of the column. vocabulary: by falling count, then by value. counts: rows of each value, in the training split.
    rare: how many values were cut. hash_buckets: no vocabulary; 2 + fingerprint64 modulo this number.
    """

    name: str
    vocabulary: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    rare: int = 0
    hash_buckets: int | None = None

    @property
    def size(self) -> int:
        """The number of indices, missing and unknown included."""
        return (self.hash_buckets or len(self.vocabulary)) + 2


class BucketFeature(Section):
    """A number as an index in the column `<name>_bucket`: 0 is missing, 2 below the first boundary, 3 from it on.

    name: of the column. boundaries: ascending.
    """

    name: str
    boundaries: tuple[float, ...]

    @property
    def column(self) -> str:
        return f"{self.name}_bucket"

    @property
    def size(self) -> int:
        return len(self.boundaries) + 3


class MultiValuedFeature(Section):
    """A list of text as `max_values` indices into a vocabulary, filled up with 0.

    name: of the column. max_values: the columns `<name>_0` and so on. vocabulary: by falling count, then by value.
    counts: rows of each value, in the training split. rare: how many values were cut. cut: values beyond `max_values`,
    left out of the training split.
    """

    name: str
    max_values: int
    vocabulary: tuple[str, ...]
    counts: tuple[int, ...]
    rare: int
    cut: int

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{place}" for place in range(self.max_values))

    @property
    def size(self) -> int:
        return len(self.vocabulary) + 2


class DateFeature(Section):
    """A part of a date: an index (0 missing, 2 the first), two numbers in the circle, or (year) one number.

    name: of the column. part: which one. cyclical: as sine and cosine, `year` apart.
    """

    name: str
    part: Literal["year", "quarter", "month", "day", "weekday", "day_of_year", "hour", "minute"]
    cyclical: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{self.part}{end}" for end in (("_sin", "_cos") if self.in_circle else ("",)))

    @property
    def in_circle(self) -> bool:
        return self.cyclical and self.part != "year"

    @property
    def is_index(self) -> bool:
        return not self.cyclical and self.part != "year"

    @property
    def size(self) -> int:
        return PARTS[self.part] + 2


class TensorFeature(Section):
    """A list of numbers as a float32 tensor.

    name: of the column. shape: of a row's tensor.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class ImageFeature(Section):
    """An image file's bytes, decoded to float32 of `shape`, 0 to 255.

    name: of the column. shape: height, width, channels. interpolation: of images of another size; None where there are
    none. antialias: where they become smaller, all their pixels count.
    """

    name: str
    shape: tuple[int, int, int]
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    antialias: bool = True


PARTS = {"quarter": 4, "month": 12, "day": 31, "weekday": 7, "day_of_year": 366, "hour": 24, "minute": 60}
"""How many values each part of a date has, `year` apart."""


class LabelFeature(Section):
    """What the model predicts.

    name: of its column in the prepared rows. kind: binary (0 or 1), classes (the place in `classes`), multi_label (a
    column `<name>_<place>` of 0 and 1 for each of `classes`) or regression. classes: in the order of the model's
    outputs. offset: a regression's label is `(y - offset) / scale`. scale: see offset. class_weights: of the classes in
    their order (0 and 1 for binary). weighted: the prepared rows have a column of weights.
    """

    name: str = "label"
    kind: Literal["binary", "classes", "multi_label", "regression"] = "binary"
    classes: tuple[str, ...] = ()
    offset: float = 0.0
    scale: float = 1.0
    class_weights: tuple[float, ...] = ()
    weighted: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The float32 columns of the prepared rows, in the order of the batch's array."""
        if self.kind != "multi_label":
            return (self.name,)
        return tuple(f"{self.name}_{place}" for place in range(len(self.classes)))

    @property
    def weight(self) -> str | None:
        """The column of weights, where there is one."""
        return weights_of(self.name) if self.weighted else None

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for a row."""
        return max(1, len(self.classes))

    def undone(self, prediction: Any) -> Any:
        """Return predictions of a regression, a number or any array of float64, in the label's own unit."""
        return prediction * self.scale + self.offset


class Lookup(Section):
    """One embedding: `width` index columns that share `size` indices; more than one column is pooled."""

    name: str
    width: int
    size: int


class Features(Section):
    """The features in the order of the model's inputs.

    numeric: numbers. categorical: indices into vocabularies or hash buckets. bucketized: numbers as indices.
    multi_valued: lists of text as indices. dates: parts of dates and times. tensors: lists of numbers, images: of
    files, each an array of its own.
    """

    numeric: tuple[NumericFeature, ...] = ()
    categorical: tuple[CategoricalFeature, ...] = ()
    bucketized: tuple[BucketFeature, ...] = ()
    multi_valued: tuple[MultiValuedFeature, ...] = ()
    dates: tuple[DateFeature, ...] = ()
    tensors: tuple[TensorFeature, ...] = ()
    images: tuple[ImageFeature, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The cleaned columns that the features are made of, each once."""
        return tuple(
            dict.fromkeys(
                (
                    *(feature.name for feature in self.numeric),
                    *(feature.name for feature in self.categorical),
                    *(feature.name for feature in self.bucketized),
                    *(feature.name for feature in self.multi_valued),
                    *(feature.name for feature in self.dates),
                    *(feature.name for feature in self.arrays),
                )
            )
        )

    @property
    def arrays(self) -> tuple["TensorFeature | ImageFeature", ...]:
        """What the model takes as arrays of their own, by name."""
        return (*self.tensors, *self.images)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The float32 columns of the prepared Parquet, in the order of the model's input: values, indicators, dates."""
        indicators = tuple(feature.indicator for feature in self.numeric if feature.indicator is not None)
        dates = tuple(column for feature in self.dates if not feature.is_index for column in feature.columns)
        return tuple(feature.name for feature in self.numeric) + indicators + dates

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """The embeddings that the index columns go through, in the order of the model's input."""
        return (
            *(Lookup(name=feature.name, width=1, size=feature.size) for feature in self.categorical),
            *(Lookup(name=feature.column, width=1, size=feature.size) for feature in self.bucketized),
            *(Lookup(name=f.columns[0], width=1, size=f.size) for f in self.dates if f.is_index),
            *(Lookup(name=feature.name, width=feature.max_values, size=feature.size) for feature in self.multi_valued),
        )

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """The int32 columns of the prepared Parquet, in the order of the model's input."""
        return (
            *(feature.name for feature in self.categorical),
            *(feature.column for feature in self.bucketized),
            *(column for feature in self.dates if feature.is_index for column in feature.columns),
            *(column for feature in self.multi_valued for column in feature.columns),
        )


def fixed_features(section: FeaturesSection) -> Features:
    """Return the features for which nothing is learned: what the pipeline file says is all."""
    return Features(
        bucketized=tuple(
            BucketFeature(name=name, boundaries=group.boundaries)
            for group in section.bucketize
            for name in group.columns
        ),
        dates=tuple(
            DateFeature(name=name, part=part, cyclical=group.cyclical)
            for group in section.dates
            for name in group.columns
            for part in group.parts
        ),
        tensors=tuple(
            TensorFeature(name=name, shape=group.shape) for group in section.tensors for name in group.columns
        ),
        images=tuple(
            ImageFeature(name=name, shape=group.shape, interpolation=group.interpolation, antialias=group.antialias)
            for group in section.images
            for name in group.columns
        ),
    )
