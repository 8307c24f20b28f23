"""The exported model: cleaned rows to probability. Keras layers and operations alone, so it loads without Lakefit."""

from typing import Any

import keras
import numpy as np

from lakefit.dataset.features import Features, NumericFeature


def exported_model(trained: keras.Model, features: Features) -> keras.Model:
    """Return a model of one input a column, each (n, 1): float64 with NaN for null, text with "" for null.

    It does in float64 what preparation did (fill, indicate, normalize, look up) and hands the numbers to `trained`.
    """
    inputs: dict[str, Any] = {}
    prepared: dict[str, Any] = {}
    if features.numeric:
        columns = [keras.Input((1,), dtype="float64", name=feature.name) for feature in features.numeric]
        inputs |= {feature.name: column for feature, column in zip(features.numeric, columns, strict=True)}
        prepared["numeric"] = _numeric(columns, features.numeric)
    if features.categorical:
        indices: list[Any] = []
        for feature in features.categorical:
            inputs[feature.name] = keras.Input((1,), dtype="string", name=feature.name)
            # The mask token has index 0, what the vocabulary lacks has 1.
            lookup = keras.layers.StringLookup(
                vocabulary=list(feature.vocabulary) or [_NEVER], mask_token="", name=f"lakefit_lookup_{len(indices)}"
            )
            indices.append(keras.ops.cast(lookup(inputs[feature.name]), "int32"))
        prepared["categorical"] = _side_by_side(indices, "lakefit_indices")
    return keras.Model(inputs, trained(prepared), name="lakefit_exported")


# StringLookup refuses an empty vocabulary; these characters are for private use and mean nothing.
_NEVER = "\ue000\uf8ff"


def _numeric(columns: list[Any], features: tuple[NumericFeature, ...]) -> Any:
    raw = _side_by_side(columns, "lakefit_numbers")
    missing = keras.ops.isnan(raw)
    fill, offset, scale = (
        np.array([[getattr(feature, name) for feature in features]], np.float64) for name in ("fill", "offset", "scale")
    )
    filled = keras.ops.where(missing, fill, raw)
    normalized = keras.ops.cast(keras.ops.divide(keras.ops.subtract(filled, offset), scale), "float32")
    marked = [place for place, feature in enumerate(features) if feature.indicator is not None]
    if not marked:
        return normalized
    indicators = keras.ops.take(keras.ops.cast(missing, "float32"), np.array(marked, np.int32), axis=1)
    return keras.layers.Concatenate(name="lakefit_numeric_and_indicators")([normalized, indicators])


def _side_by_side(columns: list[Any], name: str) -> Any:
    # In the columns' own dtype: a layer would cast float64 to its compute dtype and lose what this is for.
    return keras.layers.Concatenate(name=name, dtype=columns[0].dtype)(columns) if len(columns) > 1 else columns[0]
