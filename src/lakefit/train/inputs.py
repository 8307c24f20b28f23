"""What the dataset gives a model: its arrays as inputs, and each column or group of them as a tensor to build on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from lakefit.config import Pipeline
from lakefit.config.train import TrainImages
from lakefit.dataset.features import Features, LabelFeature, Lookup
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.packed import CATEGORICAL, NUMERIC
from lakefit.errors import LakefitError
from lakefit.train.normalize import normalized


class NotLearnedError(LakefitError):
    """A model asks for what only preparation learns, and it has not run."""


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """What a function of the user's that makes a model (`train.model: module:function`) is told of the dataset.

    labels: what is predicted, in the order of the pipeline file: name, kind, classes, outputs (how many numbers the
    model gives). learned: false before preparation has run, when the model is only looked at: then vocabularies can't
    be had (asking for one puts the check off), and the number of categories is a guess. images: how they are
    normalized.
    """

    features: Features = field(repr=False)
    labels: tuple[LabelFeature, ...]
    embeddings: Mapping[str, int]
    learned: bool = True
    images: TrainImages = field(default_factory=TrainImages)

    @property
    def label(self) -> LabelFeature:
        """The label; the first where there are several."""
        return self.labels[0]

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The columns of the input `numeric`, in order."""
        return self.features.numeric_columns

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """The columns of the input `categorical`, in order."""
        return self.features.categorical_columns

    def vocabulary(self, column: str) -> tuple[str, ...]:
        """Return the values of a categorical or multi-valued column; the first has index 2.

        Raises:
            KeyError: there is no such column, or it has no vocabulary.
        """
        if not self.learned:
            raise NotLearnedError(f"the vocabulary of {column!r} is learned by `prepare`")
        found = {feature.name: feature.vocabulary for feature in self.features.categorical if not feature.hash_buckets}
        found |= {feature.name: feature.vocabulary for feature in self.features.multi_valued}
        return found[column]

    def categories(self, column: str) -> int:
        """Return how many indices a column has, missing (0) and unknown (1) among them.

        Raises:
            KeyError: there is no such column of categories.
        """
        sizes = {lookup.name: lookup.size for lookup in self.features.lookups}
        return sizes[column]

    def inputs(self) -> "Inputs":
        """Return new inputs for a model."""
        return Inputs(self)


def describe(pipeline: Pipeline, manifest: Manifest) -> DatasetDescription:
    """Return what a model is told of a dataset."""
    return DatasetDescription(
        manifest.features, manifest.labels, pipeline.features.embeddings, images=pipeline.train.images
    )


class Inputs:
    """The inputs of one model.

    tensors: `numeric` (n, k) float32, `categorical` (n, m) int32 and each of `features.arrays` (n, *shape) float32 by
    name, those that the dataset has: what `keras.Model(inputs.tensors, …)` takes.
    """

    def __init__(self, description: DatasetDescription) -> None:
        features = description.features
        self._description = description
        self.tensors: dict[str, Any] = {}
        if features.numeric_columns:
            self.tensors[NUMERIC] = keras.Input((len(features.numeric_columns),), dtype="float32", name=NUMERIC)
        if features.categorical_columns:
            width = len(features.categorical_columns)
            self.tensors[CATEGORICAL] = keras.Input((width,), dtype="int32", name=CATEGORICAL)
        for feature in features.arrays:
            self.tensors[feature.name] = keras.Input(feature.shape, dtype="float32", name=feature.name)
        self._embedded: dict[str, Any] = {}
        self._normalized: dict[str, Any] = {}
        self._images = {feature.name: feature for feature in features.images}
        self._parts = _parts(features)
        self.everything = [name for name in ("numeric", "categories", "tensors", "images") if name in self._parts]

    @property
    def names(self) -> tuple[str, ...]:
        """The groups and columns that `encoded` and `indices` know."""
        return tuple(self._parts)

    def encoded(self, *names: str) -> Any:
        """Return columns or groups side by side, (n, width) float32; everything where none is named.

        Numbers as they are, each category embedded (`embedding_size`, or the file's `embedding: N`), a list's
        embeddings added up, an image normalized as `train.images` says, a tensor as it is: one of several dimensions
        can't lie beside others. A column that is asked for twice has one embedding.

        Raises:
            KeyError: there is no such column or group. ValueError: several, and one has several dimensions.
        """
        wanted = _once(part for name in names or self.everything for part in self._parts[name])
        numbers = [part for part in wanted if isinstance(part, int)]
        tensors = [self._numbers(numbers)] if numbers else []
        tensors += [self._embedding(part) for part in wanted if isinstance(part, _Indices)]
        whole = [self._whole(part) for part in wanted if isinstance(part, str)]
        if len(tensors) + len(whole) > 1:
            tall = next((tensor for tensor in whole if len(tensor.shape) > 2), None)
            if tall is not None:
                raise ValueError(
                    f"{tall.name!r} has the shape {tuple(tall.shape[1:])} and can't lie beside other inputs: write a "
                    "functional model that flattens it or gives it layers of its own"
                )
        tensors += whole
        return keras.layers.Concatenate()(tensors) if len(tensors) > 1 else tensors[0]

    def indices(self, *names: str) -> Any:
        """Return columns of categories as they are, (n, columns) int32: 0 is missing, 1 unknown.

        Raises:
            KeyError: there is no such column or group. ValueError: one is of numbers.
        """
        wanted = _once(part for name in names for part in self._parts[name])
        if not all(isinstance(part, _Indices) for part in wanted):
            raise ValueError(f"{', '.join(names)}: numbers have no indices; only categories do")
        places = [place for part in wanted for place in part.places]
        return keras.ops.take(self.tensors[CATEGORICAL], places, axis=1)

    def sizes(self, *names: str) -> dict[str, int]:
        """Return how many indices each column of categories among these has."""
        wanted = _once(part for name in names for part in self._parts[name])
        return {part.lookup.name: part.lookup.size for part in wanted if isinstance(part, _Indices)}

    def _whole(self, name: str) -> Any:
        if name not in self._images:
            return self.tensors[name]
        if name not in self._normalized:
            normalize = self._description.images.normalize
            self._normalized[name] = normalized(self.tensors[name], self._images[name], normalize)
        return self._normalized[name]

    def _numbers(self, places: Sequence[int]) -> Any:
        whole = self.tensors[NUMERIC]
        return whole if list(places) == list(range(whole.shape[1])) else keras.ops.take(whole, list(places), axis=1)

    def _embedding(self, part: "_Indices") -> Any:
        lookup = part.lookup
        if lookup.name not in self._embedded:
            size = self._description.embeddings.get(lookup.name) or embedding_size(lookup.size)
            layer = keras.layers.Embedding(lookup.size, size, name=embedding_name(part.number))
            columns = [keras.ops.take(self.tensors[CATEGORICAL], place, axis=1) for place in part.places]
            self._embedded[lookup.name] = layer(columns[0]) if len(columns) == 1 else _pooled(layer, columns)
        return self._embedded[lookup.name]


def embedding_name(number: int) -> str:
    """Return the name of the embedding of the n-th of `features.lookups`, which no layer of the user's has."""
    return f"lakefit_embedding_{number}"


def embedding_size(categories: int) -> int:
    """Return the dimensions of a category's embedding: the root of the number of categories, 16 at most."""
    return min(16, math.ceil(math.sqrt(categories)))


@dataclass(frozen=True, slots=True)
class _Indices:
    """One embedding's columns: their places in `categorical`, and its number."""

    lookup: Lookup
    places: tuple[int, ...]
    number: int


_Part = int | _Indices | str
"""A place in `numeric`, the columns of an embedding, or a tensor's name."""


def _parts(features: Features) -> dict[str, tuple[_Part, ...]]:
    """Return what each group, cleaned column and prepared column is made of."""
    numbers = {name: place for place, name in enumerate(features.numeric_columns)}
    indices: dict[str, _Indices] = {}
    column = 0
    for number, lookup in enumerate(features.lookups):
        indices[lookup.name] = _Indices(lookup, tuple(range(column, column + lookup.width)), number)
        column += lookup.width
    marked = {feature.name: feature.indicator for feature in features.numeric if feature.indicator is not None}
    of_dates: dict[str, tuple[_Part, ...]] = {}
    for date in features.dates:
        parts: tuple[_Part, ...] = tuple(indices[name] if date.is_index else numbers[name] for name in date.columns)
        of_dates[date.name] = of_dates.get(date.name, ()) + parts
    groups: dict[str, tuple[_Part, ...]] = {
        "numeric": tuple(numbers.values()),
        "categories": tuple(indices.values()),
        "categorical": tuple(indices[feature.name] for feature in features.categorical),
        "bucketize": tuple(indices[feature.column] for feature in features.bucketized),
        "multi_valued": tuple(indices[feature.name] for feature in features.multi_valued),
        "dates": tuple(part for parts in of_dates.values() for part in parts),
        "tensors": tuple(feature.name for feature in features.tensors),
        "images": tuple(feature.name for feature in features.images),
    }
    columns: dict[str, tuple[_Part, ...]] = {
        **{name: (part,) for name, part in indices.items()},
        **{name: (place,) for name, place in numbers.items()},
        **{name: (numbers[name], numbers[indicator]) for name, indicator in marked.items()},
    }
    # Of a column with several uses, all of them.
    for name, parts in of_dates.items():
        columns[name] = columns.get(name, ()) + parts
    for bucket in features.bucketized:
        columns[bucket.name] = (*columns.get(bucket.name, ()), indices[bucket.column])
    columns |= {feature.name: (feature.name,) for feature in features.arrays}
    return {**columns, **{name: parts for name, parts in groups.items() if parts}}


def _once(parts: Any) -> list[Any]:
    return list(dict.fromkeys(parts))


def _pooled(embedding: keras.layers.Layer, columns: list[Any]) -> Any:
    """Return the sum of the embeddings of a list's values; what fills the list up (index 0) adds nothing."""
    indices = keras.ops.stack(columns, axis=1)
    there = keras.ops.cast(keras.ops.expand_dims(keras.ops.not_equal(indices, 0), -1), embedding.compute_dtype)
    return keras.ops.sum(embedding(indices) * there, axis=1)
