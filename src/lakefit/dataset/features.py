"""The features of a dataset as learned: all that turns a cleaned row into the model's numbers."""

from typing import Literal

from lakefit.config.sections import Section


class NumericFeature(Section):
    """`(x - offset) / scale` in float64, then float32; null is `fill` first. `indicator` names the column of nulls."""

    kind: Literal["numeric"] = "numeric"
    name: str
    fill: float
    offset: float
    scale: float
    indicator: str | None
    count: int
    nulls: int
    mean: float
    deviation: float
    low: float
    high: float


class CategoricalFeature(Section):
    """0 is missing, 1 unknown, 2 the first of `vocabulary`: by falling count, then by value."""

    kind: Literal["categorical"] = "categorical"
    name: str
    vocabulary: tuple[str, ...]
    counts: tuple[int, ...]
    rare: int

    @property
    def size(self) -> int:
        """The number of indices, missing and unknown included."""
        return len(self.vocabulary) + 2


class Features(Section):
    """The features in the order of the model's inputs."""

    numeric: tuple[NumericFeature, ...]
    categorical: tuple[CategoricalFeature, ...]

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The float32 columns of the prepared Parquet, in the order of the model's input: values, then indicators."""
        indicators = tuple(feature.indicator for feature in self.numeric if feature.indicator is not None)
        return tuple(feature.name for feature in self.numeric) + indicators

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """The int32 columns of the prepared Parquet, in the order of the model's input."""
        return tuple(feature.name for feature in self.categorical)
