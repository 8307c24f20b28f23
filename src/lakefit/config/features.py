"""`features`: from a cleaned row to numbers. All that is learned is learned here, from the training split alone."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lakefit.config.clean import Columns
from lakefit.config.images import Channels, Side
from lakefit.config.sections import Section

GROUPS = ("numeric", "categorical", "bucketize", "multi_valued", "dates", "tensors", "images")


def with_groups_listed(features: Any) -> Any:
    """Return the data of a section `features` with a list for each group that is given as one mapping."""
    if not isinstance(features, dict):
        return features
    return {k: [v] if k in GROUPS and isinstance(v, dict | Section) else v for k, v in features.items()}


Normalization = Literal["standard", "min_max", "robust", "max_abs", "log1p", "yeo_johnson", "quantile", "none"]
Quantile = Annotated[float, Field(ge=0, le=1)]


class LearnedClip(Section):
    """Bounds learned from the training split, in one of two ways.

    quantiles: [low, high], such as [0.01, 0.99]. robust_z: so many deviations on either side of the median; a deviation
    is 1.4826 times the median distance from the median, which equals the standard deviation of a normal distribution.
    Where it is 0, because one value makes up more than half of the column, nothing is clipped.
    """

    quantiles: tuple[Quantile, Quantile] | None = None
    robust_z: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "LearnedClip":
        if (self.quantiles is None) == (self.robust_z is None):
            raise ValueError("expected either quantiles: [0.01, 0.99] or robust_z: 5")
        if self.quantiles is not None and self.quantiles[0] >= self.quantiles[1]:
            raise ValueError("quantiles: the first must be below the second")
        return self


class Numeric(Section):
    """Numbers as float32: NULL is `fill`, then `clip`, then `normalize`; all in float64 until the end.

    columns: of numbers or booleans. fill: a number, or the mean, median or most frequent value (the smallest of equally
    frequent ones). indicator: a further 0/1 column `<column>_missing` that says where NULL was. clip: bounds that are
    learned. normalize: standard (mean 0, deviation 1), min_max (0 to 1), robust (median and interquartile range),
    max_abs, log1p (sign(x) log(1 + |x|), nothing learned), yeo_johnson (then standard), quantile (the share of smaller
    values, 0 to 1), none. lambda: fixes the parameter of yeo_johnson, which is fitted otherwise.
    """

    columns: Columns
    fill: Literal["median", "mean", "most_frequent"] | float = "median"
    indicator: bool = False
    clip: LearnedClip | None = None
    normalize: Normalization = "standard"
    power: float | None = Field(default=None, alias="lambda")

    @model_validator(mode="after")
    def _lambda_has_its_use(self) -> "Numeric":
        if self.power is not None and self.normalize != "yeo_johnson":
            raise ValueError("lambda is the parameter of normalize: yeo_johnson")
        return self


Embedding = Annotated[int, Field(ge=1, le=4096)] | None
"""The dimensions of a category in the model. It changes nothing of the dataset."""

MAX_BUCKETS = 2**31 - 3
"""Indices are int32, and two of them are taken."""


class Categorical(Section):
    """Categories as int32: 0 missing, 1 unknown or rare, then by falling count, then by value.

    columns: of text, integers or booleans (0, 1), which are their text. So are fractions, by their digits (1.0 is "1",
    a DECIMAL 1.10 is "1.10"), and hardly ever meant: `bucketize` makes categories of numbers. min_count: rarer values
    are unknown. max_size: at most so many values, the most frequent. hash_buckets: no vocabulary, but the FarmHash
    fingerprint of the text modulo this number, after missing and (never used) unknown. embedding: the dimensions of a
    category in the model; without it the root of the number of categories, 16 at most.
    """

    columns: Columns
    min_count: Annotated[int, Field(ge=1)] = 1
    max_size: Annotated[int, Field(ge=1)] | None = None
    hash_buckets: Annotated[int, Field(ge=1, le=MAX_BUCKETS)] | None = None
    embedding: Embedding = None

    @model_validator(mode="after")
    def _learns_or_hashes(self) -> "Categorical":
        if self.hash_buckets is not None and (self.max_size is not None or self.min_count > 1):
            raise ValueError("hash_buckets learns nothing: min_count and max_size belong to vocabularies")
        return self


class Bucketize(Section):
    """Numbers as int32 categories `<column>_bucket`: 0 missing, 2 below the first boundary, 3 from it on, and so on.

    columns: of numbers. boundaries: ascending; a number on one belongs to the bucket above. embedding: the dimensions
    of a bucket in the model; without it as for `categorical`.
    """

    columns: Columns
    boundaries: Annotated[tuple[float, ...], Field(min_length=1)]
    embedding: Embedding = None

    @model_validator(mode="after")
    def _ascends(self) -> "Bucketize":
        if any(a >= b for a, b in pairwise(self.boundaries)):
            raise ValueError("boundaries must ascend")
        return self


class MultiValued(Section):
    """Lists of text as int32 columns `<column>_0` to `<column>_<max_values - 1>`, filled up with 0.

    The model adds up their embeddings. NULL and empty text in a list keep their place, as 0.

    columns: of lists of text (`parse: {as: list}` makes them). max_values: values beyond so many are left out and
    counted. min_count: rarer values are unknown; a value counts once a row. max_size: at most so many values in the
    vocabulary, the most frequent. embedding: the dimensions of a value in the model; without it as for `categorical`.
    """

    columns: Columns
    max_values: Annotated[int, Field(ge=1, le=1000)]
    min_count: Annotated[int, Field(ge=1)] = 1
    max_size: Annotated[int, Field(ge=1)] | None = None
    embedding: Embedding = None


DatePart = Literal["year", "quarter", "month", "day", "weekday", "day_of_year", "hour", "minute"]


class Dates(Section):
    """Parts of dates and times (UTC): `<column>_<part>` as int32 categories, `year` as a float32 number from 2000 on.

    columns: of dates or times. parts: what the model is given; Monday is the first weekday. cyclical: in place of a
    category the sine and cosine of its place in the circle (`…_sin`, `…_cos`, float32), so that December is next to
    January; NULL is (0, 0). embedding: the dimensions of a part in the model; without it as for `categorical`.
    """

    columns: Columns
    parts: Annotated[tuple[DatePart, ...], Field(min_length=1)]
    cyclical: bool = False
    embedding: Embedding = None


class Tensors(Section):
    """Lists of numbers, as many in every row, as float32 tensors that the model takes as they are.

    A NULL list, a NULL in one, or a list of another length ends the run: reject such rows.

    columns: of lists of numbers. shape: of a row's tensor, [64] or [8, 8]; the list holds it row by row.
    """

    columns: Columns
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=6)]


class Images(Section):
    """Image files as bytes, which are decoded as they are read: float32 of (height, width, channels), 0 to 255.

    `clean: image` rejects what is none, and brings images to one size and mode; those that are of another one end the
    preparation.

    columns: of bytes. size: [height, width]. channels: 1 (grey), 3 (RGB) or 4 (RGBA; of PNG alone). interpolation:
    images of another size are resized, in this way, each time they are read. antialias: where they become smaller, all
    their pixels count, as when `clean: image` resizes them; false takes the nearest ones only, as Keras's loaders do,
    in a fifth of the time.
    """

    columns: Columns
    size: tuple[Side, Side]
    channels: Channels
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    antialias: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels)


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("quote the fingerprint: YAML takes it for a number")
    return value


class Statistics(Section):
    """What was learned earlier stays as it is.

    from: the fingerprint of an earlier dataset of this pipeline, whose learned features and label are taken over.
    Refused where `clean`, `features` or `label` differ, a feature has another type, or the label other classes.
    """

    fingerprint: Annotated[str, BeforeValidator(_quoted), Field(alias="from", pattern=r"^[0-9a-f]{16}$")]


class Features(Section):
    """The model's inputs, in the order in which they are written; each group is one mapping or a list of them.

    numeric: numbers, filled and normalized. categorical: indices into a vocabulary or hash buckets, which the model
    embeds. bucketize: numbers as categories, cut at boundaries. multi_valued: lists of text, which the model embeds and
    adds up. dates: parts of dates and times. tensors: lists of numbers as they are. images: of files, as pixels.
    quantiles: `exact`, or `approximate` (fewer passes over the rows; the error stands in the manifest). statistics:
    takes over what an earlier dataset learned.
    """

    numeric: tuple[Numeric, ...] = ()
    categorical: tuple[Categorical, ...] = ()
    bucketize: tuple[Bucketize, ...] = ()
    multi_valued: tuple[MultiValued, ...] = ()
    dates: tuple[Dates, ...] = ()
    tensors: tuple[Tensors, ...] = ()
    images: tuple[Images, ...] = ()
    quantiles: Literal["exact", "approximate"] = "exact"
    statistics: Statistics | None = None

    @model_validator(mode="before")
    @classmethod
    def _lists_its_groups(cls, data: Any) -> Any:
        return with_groups_listed(data)

    @model_validator(mode="after")
    def _makes_each_column_once(self) -> "Features":
        made: set[str] = set()
        for column in self.prepared_columns():
            if column in made:
                raise ValueError(f"the prepared column {column!r} would come twice; give one an alias in the query")
            made.add(column)
        if not made:
            raise ValueError("expected numeric, categorical, bucketize, multi_valued, dates, tensors or images")
        kinds: dict[str, str] = {}
        for column, kind in self.inputs():
            if kinds.setdefault(column, kind) != kind:
                raise ValueError(
                    f"{column!r} would be an input of the model as {kinds[column]} and as {kind}; give it a second "
                    "name in the query"
                )
        return self

    def prepared_columns(self) -> Iterator[str]:
        """Yield the names of the prepared columns, group by group."""
        for numeric in self.numeric:
            for name in numeric.columns:
                yield name
                if numeric.indicator:
                    yield f"{name}_missing"
        for categorical in self.categorical:
            yield from categorical.columns
        for bucketize in self.bucketize:
            yield from (f"{name}_bucket" for name in bucketize.columns)
        for multi in self.multi_valued:
            yield from (f"{name}_{place}" for name in multi.columns for place in range(multi.max_values))
        for dates in self.dates:
            for name in dates.columns:
                for part in dates.parts:
                    circle = dates.cyclical and part != "year"
                    yield from (f"{name}_{part}_{f}" for f in ("sin", "cos")) if circle else (f"{name}_{part}",)
        for tensors in self.tensors:
            yield from tensors.columns
        for images in self.images:
            yield from images.columns

    def inputs(self) -> Iterator[tuple[str, str]]:
        """Yield (column, number | text | texts | time | tensor | image) of each use of a cleaned column, in order."""
        groups = (("number", self.numeric), ("text", self.categorical), ("number", self.bucketize))
        for kind, sections in groups:
            for section in sections:
                yield from ((name, kind) for name in section.columns)
        yield from ((name, "texts") for section in self.multi_valued for name in section.columns)
        yield from ((name, "time") for section in self.dates for name in section.columns)
        yield from ((name, "tensor") for section in self.tensors for name in section.columns)
        yield from ((name, "image") for section in self.images for name in section.columns)

    @property
    def embeddings(self) -> dict[str, int]:
        """The dimensions that are given, by prepared column; of a multi-valued one by its own name."""
        given: dict[str, int | None] = {}
        for categorical in self.categorical:
            given |= dict.fromkeys(categorical.columns, categorical.embedding)
        for bucketize in self.bucketize:
            given |= {f"{name}_bucket": bucketize.embedding for name in bucketize.columns}
        for multi in self.multi_valued:
            given |= dict.fromkeys(multi.columns, multi.embedding)
        for dates in self.dates:
            given |= {f"{name}_{part}": dates.embedding for name in dates.columns for part in dates.parts}
        return {name: size for name, size in given.items() if size is not None}

    @property
    def columns(self) -> tuple[str, ...]:
        """The cleaned columns that the model takes, each once."""
        return tuple(dict.fromkeys(name for name, _ in self.inputs()))
