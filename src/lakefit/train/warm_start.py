"""`train.warm_start`: begin with the weights of an exported model, embeddings row by row, by what they stand for."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from pydantic import ValidationError

from lakefit.config import PipelineSource, Problem
from lakefit.config.file import Key
from lakefit.config.train import Train
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.layout import ARTIFACT, WEIGHTS
from lakefit.dataset.object_path import AnyPath, any_path
from lakefit.dataset.publish import read_json
from lakefit.train.inputs import DatasetDescription, embedding_name
from lakefit.train.model import BuiltModel, build_model
from lakefit.train.weights import load_all_weights

_KEY: Key = ("train", "warm_start")


def warm_start(built: BuiltModel, train: Train, source: PipelineSource) -> int:
    """Give a model the weights of the artifact that `train.warm_start` names; return how many categories are new.

    A category's embedding goes with its value, wherever that stands in the vocabularies; one that the artifact does not
    know keeps its first weights.

    Raises:
        ConfigError: there is no such artifact, or it is of other features, labels or layers.
    """
    assert train.warm_start is not None
    folder, new = any_path(train.warm_start), built.description
    old = artifact_description(folder, new, source)
    for what, before, now in (
        ("labels", _labels(old), _labels(new)),
        ("numeric columns", old.numeric_columns, new.numeric_columns),
        ("categorical columns", old.categorical_columns, new.categorical_columns),
        (
            "tensors and images",
            [array.name for array in old.features.arrays],
            [array.name for array in new.features.arrays],
        ),
    ):
        if list(before) != list(now):
            raise _other(folder, what, ", ".join(before), ", ".join(now), source)
    first = build_model(old, train, source).model
    # The file holds no optimizer.
    first.optimizer, first.compiled = None, False
    try:
        load_all_weights(first, folder / WEIGHTS)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        message = f"{folder / WEIGHTS}: the weights do not fit the model: {str(error).strip().splitlines()[0]}"
        raise source.error(Problem(_KEY, message)) from error
    rows = {embedding_name(number): _rows(name, old, new) for number, name in enumerate(_lookups(new.features))}
    if any(_is_own_embedding(layer, rows) for layer in built.model._flatten_layers()) and _words(old) != _words(new):
        raise source.error(
            Problem(
                _KEY, f"{folder}: the vocabularies differ, and an Embedding of the model's own can't be moved to them"
            )
        )
    unknown = 0
    for before, now in zip(first.weights, built.model.weights, strict=True):
        layer = now.path.split("/")[-2] if "/" in now.path else ""
        places = rows.get(layer)
        if places is not None and before.shape[1:] == now.shape[1:]:
            values = np.array(now)
            known = places >= 0
            values[known] = np.asarray(before)[places[known]]
            unknown += int((~known).sum())
            now.assign(values)
        elif before.shape == now.shape:
            now.assign(before)
        else:
            hint = " (features.categorical's embedding: N fixes the dimensions)" if places is not None else ""
            raise _other(folder, f"weights {now.path}{hint}", tuple(before.shape), tuple(now.shape), source)
    return unknown


def artifact_description(folder: AnyPath, new: DatasetDescription, source: PipelineSource) -> DatasetDescription:
    """Return what the model of an artifact was told of its dataset. Raises ConfigError where it is no artifact."""
    found = read_json(folder / ARTIFACT)
    if found is None or not (folder / WEIGHTS).is_file():
        missing = ARTIFACT if found is None else WEIGHTS
        raise source.error(Problem(_KEY, f"{folder}: is no artifact of `lakefit export`: there is no {missing} in it"))
    try:
        features = Features.model_validate(found["features"], strict=False)
        labels = tuple(LabelFeature.model_validate(label, strict=False) for label in found["labels"])
    except (KeyError, ValidationError) as error:
        message = f"{folder / ARTIFACT}: was written by another version of Lakefit; export it again"
        raise source.error(Problem(_KEY, message)) from error
    return DatasetDescription(features, labels, new.embeddings, images=new.images)


def _labels(description: DatasetDescription) -> list[str]:
    return [f"{label.name} ({' '.join((label.kind, *label.classes))})" for label in description.labels]


def _lookups(features: Features) -> list[str]:
    return [lookup.name for lookup in features.lookups]


def _words(description: DatasetDescription) -> Mapping[str, tuple[str, ...]]:
    features = description.features
    found = {feature.name: feature.vocabulary for feature in features.categorical if not feature.hash_buckets}
    return found | {feature.name: feature.vocabulary for feature in features.multi_valued}


def _rows(name: str, old: DatasetDescription, new: DatasetDescription) -> Any:
    """Return for each index of a category the index that it had, -1 where it had none."""
    before, now = old.categories(name), new.categories(name)
    words = _words(new).get(name)
    if words is None:
        # Hash buckets, buckets of numbers and parts of dates stand for themselves, where there are as many.
        return np.arange(now) if now == before else np.full(now, -1)
    places = {word: 2 + place for place, word in enumerate(_words(old).get(name, ()))}
    return np.array([0, 1, *(places.get(word, -1) for word in words)])


def _is_own_embedding(layer: Any, ours: Mapping[str, Any]) -> bool:
    return isinstance(layer, keras.layers.Embedding) and layer.name not in ours


def _other(folder: AnyPath, what: str, before: Any, now: Any, source: PipelineSource) -> Exception:
    return source.error(Problem(_KEY, f"{folder}: is of other {what}: there {before}; here {now}"))
