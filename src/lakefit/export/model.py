"""The exported model: cleaned rows to probability. Keras layers and operations alone, so it loads without Lakefit."""

from collections.abc import Sequence
from typing import Any

import keras

from lakefit.dataset.features import CategoricalFeature, Features, LabelFeature
from lakefit.dataset.predictions import as_given, by_label
from lakefit.dataset.transform import bucket_index, date_columns, normalized


def exported_model(trained: keras.Model, features: Features, labels: Sequence[LabelFeature]) -> keras.Model:
    """Return a model of one input a cleaned column, doing in float64 what preparation did.

    It gives a probability (n, 1), or one for each class (n, classes), float32; of a regression a float64 number (n, 1)
    in the label's own unit; of several labels a mapping by their names.

    Numbers, and times as seconds since 1970 UTC: (n, 1) float64 with NaN for null. Text: (n, 1) with "" for null. Lists
    of text: (n, max_values), filled up with "". Lists of numbers and pixels of images: (n, *shape) float32.
    """
    inputs = _inputs(features)
    marked = [feature for feature in features.numeric if feature.indicator is not None]
    numbers = [_as(normalized(keras.ops, inputs[feature.name], feature), "float32") for feature in features.numeric]
    numbers += [_as(keras.ops.isnan(inputs[feature.name]), "float32") for feature in marked]
    indices: list[Any] = []
    for category in features.categorical:
        indices.append(_index(inputs[category.name], category, f"lakefit_lookup_{len(indices)}"))
    buckets = [bucket_index(keras.ops, inputs[feature.name], feature) for feature in features.bucketized]
    indices += [_as(bucket, "int32") for bucket in buckets]
    for date in features.dates:
        columns = date_columns(keras.ops, inputs[date.name], date)
        if date.is_index:
            indices += [_as(column, "int32") for column in columns]
        else:
            numbers += [_as(column, "float32") for column in columns]
    for multi in features.multi_valued:
        indices.append(_looked_up(inputs[multi.name], multi.vocabulary, f"lakefit_lookup_{len(indices)}"))
    prepared: dict[str, Any] = {}
    if numbers:
        prepared["numeric"] = _side_by_side(numbers, "lakefit_numbers")
    if indices:
        prepared["categorical"] = _side_by_side(indices, "lakefit_indices")
    prepared |= {array.name: inputs[array.name] for array in features.arrays}
    outputs = by_label(trained(prepared), labels)
    for label in labels:
        if label.kind == "regression":
            outputs[label.name] = label.undone(_as(outputs[label.name], "float64"))
    return keras.Model(inputs, as_given(outputs, labels), name="lakefit_exported")


def input_contract(features: Features) -> dict[str, str]:
    """Return in words what each input of the exported model takes, by column."""
    contract = {feature.name: "float64 (n, 1), NaN for null" for feature in features.numeric}
    contract |= {feature.name: "float64 (n, 1), NaN for null" for feature in features.bucketized}
    contract |= {feature.name: 'string (n, 1), "" for null' for feature in features.categorical}
    contract |= {f.name: f'string (n, {f.max_values}), filled up with ""' for f in features.multi_valued}
    seconds = "float64 (n, 1), seconds since 1970 UTC, NaN for null"
    contract |= {feature.name: seconds for feature in features.dates}
    contract |= {f.name: f"float32 (n, {', '.join(map(str, f.shape))})" for f in features.tensors}
    pixels = "saved_model: string (n,), image files; model.keras: float32 (n, {}, {}, {}), their pixels, 0 to 255"
    return contract | {image.name: pixels.format(*image.shape) for image in features.images}


def _inputs(features: Features) -> dict[str, Any]:
    numbers: tuple[Any, ...] = (*features.numeric, *features.bucketized, *features.dates)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {feature.name: ((1,), "float64") for feature in numbers}
    shapes |= {feature.name: ((1,), "string") for feature in features.categorical}
    shapes |= {feature.name: ((feature.max_values,), "string") for feature in features.multi_valued}
    shapes |= {feature.name: (feature.shape, "float32") for feature in features.arrays}
    return {name: keras.Input(shapes[name][0], dtype=shapes[name][1], name=name) for name in features.inputs}


# StringLookup refuses an empty vocabulary; these characters are for private use and mean nothing.
_NEVER = "\ue000\uf8ff"


def _index(text: Any, feature: CategoricalFeature, name: str) -> Any:
    if feature.hash_buckets is None:
        return _looked_up(text, feature.vocabulary, name)
    # The mask value has index 0, the hashes begin at 1; at 1 preparation has what a vocabulary lacks.
    hashed = keras.layers.Hashing(feature.hash_buckets + 1, mask_value="", name=name)(text)
    return _as(keras.ops.where(hashed > 0, hashed + 1, hashed), "int32")


def _looked_up(text: Any, vocabulary: tuple[str, ...], name: str) -> Any:
    # The mask token has index 0, what the vocabulary lacks has 1.
    lookup = keras.layers.StringLookup(vocabulary=list(vocabulary) or [_NEVER], mask_token="", name=name)
    return _as(keras.ops.minimum(lookup(text), len(vocabulary) + 1), "int32")


def _as(x: Any, dtype: str) -> Any:
    return keras.ops.cast(x, dtype)


def _side_by_side(columns: list[Any], name: str) -> Any:
    # In the columns' own dtype: a layer would cast indices to its compute dtype.
    return keras.layers.Concatenate(name=name, dtype=columns[0].dtype)(columns) if len(columns) > 1 else columns[0]
