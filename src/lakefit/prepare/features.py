"""From cleaned rows to the model's numbers: `model_input` (cleaned values), then `encode` (what was learned)."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.config.features import Features as FeaturesSection
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature


def model_input(table: pa.Table, features: FeaturesSection) -> dict[str, pa.Array]:
    """Return the model's input contract: numeric columns as float64, categorical ones as text, null where null."""
    columns: dict[str, pa.Array] = {}
    for name in features.numeric.columns if features.numeric else ():
        column = _one(table[name])
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        columns[name] = column.cast(pa.float64())
    for name in features.categorical.columns if features.categorical else ():
        column = _one(table[name])
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        columns[name] = column.cast(pa.string())
    return columns


def encode(table: pa.Table, features: Features) -> dict[str, pa.Array]:
    """Return the prepared columns of staged rows: float32 numbers, float32 indicators, int32 indices; no nulls."""
    columns: dict[str, pa.Array] = {}
    for feature in features.numeric:
        columns[feature.name] = pa.array(_normalized(_one(table[feature.name]), feature))
    for feature in features.numeric:
        if feature.indicator is not None:
            missing = pc.is_null(_one(table[feature.name])).to_numpy(zero_copy_only=False)
            columns[feature.indicator] = pa.array(missing.astype(np.float32))
    for category in features.categorical:
        columns[category.name] = _indices(_one(table[category.name]), category)
    return columns


def _normalized(column: pa.Array, feature: NumericFeature) -> NDArray[np.float32]:
    values = pc.fill_null(column, feature.fill).to_numpy(zero_copy_only=False)
    # In float64 until the end: a column of mean 1e9 and deviation 1e-3 would lose everything in float32.
    normalized: NDArray[np.float32] = ((values - feature.offset) / feature.scale).astype(np.float32)
    return normalized


def _indices(column: pa.Array, feature: CategoricalFeature) -> pa.Array:
    found = pc.index_in(column, value_set=pa.array(feature.vocabulary, pa.string()), skip_nulls=True)
    known = pc.add(pc.fill_null(found, -1), 2)
    return pc.if_else(pc.is_null(column), pa.scalar(0, pa.int32()), known.cast(pa.int32()))


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return pa.concat_arrays(combined.chunks) if combined.num_chunks else pa.array([], combined.type)
    return combined
