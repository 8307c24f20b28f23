"""From cleaned rows to the model's numbers: the model's input contract, then what was learned."""

import re
from functools import lru_cache
from typing import Any, TypeAlias

import farmhash
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.config.features import Features as FeaturesSection
from lakefit.dataset.features import (
    CategoricalFeature,
    Features,
    ImageFeature,
    LabelFeature,
    MultiValuedFeature,
    TensorFeature,
    fixed_features,
)
from lakefit.dataset.transform import LARGEST, bucket_index, date_columns, normalized
from lakefit.errors import InputError
from lakefit.prepare.arrays import one_array
from lakefit.prepare.images import is_array, shape_of
from lakefit.prepare.staged import as_numbers

Column: TypeAlias = pa.Array | pa.ChunkedArray
Floats: TypeAlias = NDArray[np.float64]

# As the text of an integer is: nothing else equals it.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
# A table of so many indices stays in a core's cache.
_NEAR = 1 << 17


def as_text(column: Column) -> pa.Array:
    """Return a categorical column as the model takes it: text; integers and booleans (0, 1) in decimal."""
    array = one_array(column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    return array.cast(pa.string())


def as_lists(column: Column) -> pa.ListArray:
    """Return a multi-valued column as lists of text, "" in them as null."""
    lists = one_array(column).cast(pa.list_(pa.string()))
    empty = pc.equal(lists.values, "")
    if not pc.any(empty).as_py():
        return lists
    texts = pc.if_else(pc.fill_null(empty, False), pa.scalar(None, pa.string()), lists.values)
    # Arrow takes a mask only where the offsets are no slice, and a sum is none.
    return pa.ListArray.from_arrays(pc.add(lists.offsets, 0), texts, mask=lists.is_null())


def model_inputs(table: pa.Table, section: FeaturesSection) -> dict[str, NDArray[Any]]:
    """Return the inputs of the exported model, by column: its contract with whoever calls it.

    Numbers, and times as seconds since 1970 UTC (whole ones, rounded down, before 1697 and after 2242): (n, 1) float64
    with NaN for null. Text: (n, 1) with "" for null. Lists of text: (n, max_values), the first values of each, filled
    up with "". Lists of numbers: (n, *shape) float32. Images: (n,) bytes.
    """
    tensors = {name: group.shape for group in section.tensors for name in group.columns}
    images = {feature.name: feature for feature in fixed_features(section).images}
    widths = {name: multi.max_values for multi in section.multi_valued for name in multi.columns}
    inputs: dict[str, NDArray[Any]] = {}
    for name, kind in section.inputs():
        if name in inputs:
            continue
        if kind == "text":
            inputs[name] = np.array(pc.fill_null(as_text(table[name]), "").to_pylist(), object)[:, None]
        elif kind == "texts":
            rows = [[value or "" for value in values or ()] for values in as_lists(table[name]).to_pylist()]
            padded = [(values + [""] * widths[name])[: widths[name]] for values in rows]
            inputs[name] = np.array(padded, object).reshape(len(padded), widths[name])
        elif kind == "image":
            inputs[name] = np.array(as_images(table[name], images[name]).to_pylist(), object)
        elif kind == "tensor":
            feature = TensorFeature(name=name, shape=tensors[name])
            values = as_tensors(table[name], feature).flatten().to_numpy()
            inputs[name] = values.reshape(len(table), *feature.shape)
        else:
            inputs[name] = as_numbers(table[name])[:, None]
    return inputs


def as_tensors(column: Column, feature: TensorFeature) -> pa.FixedSizeListArray:
    """Return lists of numbers as float32 lists of one length.

    Raises:
        InputError: a list is NULL, has a NULL in it, or has another length.
    """
    lists = one_array(column).cast(pa.list_(pa.float64()))
    lengths = pc.list_value_length(lists)
    wrong = pc.fill_null(pc.not_equal(lengths, feature.size), True)
    if pc.any(wrong).as_py():
        first = lengths.filter(wrong)[0].as_py()
        found = "NULL" if first is None else f"a list of {first}"
        raise InputError(
            f"features.tensors: {feature.name!r} is {found} in {pc.sum(wrong).as_py():,} rows of a block, and shape "
            f"{list(feature.shape)} wants {feature.size} numbers: reject such rows, or correct them in the query."
        )
    values = lists.flatten()
    if values.null_count:
        raise InputError(f"features.tensors: {feature.name!r} has NULL, NaN or infinity in a list: reject such rows.")
    with np.errstate(over="ignore"):
        numbers = np.clip(values.to_numpy(), -LARGEST, LARGEST).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), feature.size)


def as_images(column: Column, feature: ImageFeature) -> pa.BinaryArray:
    """Return bytes of image files.

    Raises:
        InputError: there are none in a row, they can't be read, or are of another size or mode.
    """
    images, (height, width, channels) = one_array(column).cast(pa.binary()), feature.shape
    name = f"features.images: {feature.name!r}"
    if images.null_count:
        raise InputError(
            f"{name} is NULL in {images.null_count:,} rows of a block: reject such rows, as `clean: image` does."
        )
    shapes = [shape_of(image.as_buffer()) for image in images]
    if None in shapes:
        raise InputError(
            f"{name}: {shapes.count(None):,} of {len(images):,} files of a block are no images of 8 bits in grey, RGB "
            f"or RGBA that TensorFlow reads: clean, {{column: {feature.name}, image: {{channels: {channels}}}}}, makes "
            "them such images and rejects the others."
        )
    others = [
        shape
        for image, shape in zip(images, shapes, strict=True)
        if shape and (shape[2] != channels or not (_resizable(image, feature) or shape[:2] == (height, width)))
    ]
    if others:
        (*at, of), resizing = others[0], "" if feature.interpolation is not None else f"resize: [{height}, {width}], "
        raise InputError(
            f"{name}: an image is {at[0]} x {at[1]} (height x width) with {of} channels, and {height} x {width} with "
            f"{channels} are due ({len(others):,} of {len(images):,} in one block of rows are not). Bring them to that "
            f"in clean: {{column: {feature.name}, image: {{{resizing}channels: {channels}}}}}"
            f"{'; of sizes alone, features.images.interpolation resizes them as they are read' if resizing else ''}."
        )
    return images


def _resizable(image: pa.BinaryScalar, feature: ImageFeature) -> bool:
    """Say whether an image of another size is resized as it is read."""
    return feature.interpolation is not None and not is_array(image.as_buffer())


def encode(table: pa.Table, features: Features) -> dict[str, pa.Array]:
    """Return the prepared columns of cleaned rows: float32 numbers, int32 indices; no nulls."""
    columns: dict[str, pa.Array] = {}
    for feature in features.numeric:
        values = as_numbers(table[feature.name])
        # In float64 until the end: a column of mean 1e9 and deviation 1e-3 would lose everything in float32.
        with np.errstate(over="ignore"):
            columns[feature.name] = pa.array(normalized(np, values, feature).astype(np.float32))
        if feature.indicator is not None:
            columns[feature.indicator] = pa.array(np.isnan(values).astype(np.float32))
    for category in features.categorical:
        columns[category.name] = _indices(one_array(table[category.name]), category)
    for bucketized in features.bucketized:
        indices = bucket_index(np, as_numbers(table[bucketized.name]), bucketized)
        columns[bucketized.column] = pa.array(np.asarray(indices).astype(np.int32))
    for date in features.dates:
        dtype = np.int32 if date.is_index else np.float32
        parts = date_columns(np, as_numbers(table[date.name]), date)
        columns |= {
            name: pa.array(np.asarray(part).astype(dtype)) for name, part in zip(date.columns, parts, strict=True)
        }
    for multi in features.multi_valued:
        places = _list_indices(as_lists(table[multi.name]), multi)
        columns |= {name: pa.array(np.ascontiguousarray(places[:, i])) for i, name in enumerate(multi.columns)}
    for tensor in features.tensors:
        columns[tensor.name] = as_tensors(table[tensor.name], tensor)
    for image in features.images:
        columns[image.name] = as_images(table[image.name], image)
    order = (*features.numeric_columns, *features.categorical_columns, *(array.name for array in features.arrays))
    return {name: columns[name] for name in order}


def encode_label(label: Column, weight: Column | None, learned: LabelFeature) -> dict[str, pa.Array]:
    """Return `label_numbers` as float32; what lies beyond its range is infinite."""
    with np.errstate(over="ignore"):
        numbers = label_numbers(label, weight, learned)
        return {name: pa.array(values.astype(np.float32)) for name, values in numbers.items()}


def label_numbers(label: Column, weight: Column | None, learned: LabelFeature) -> dict[str, Floats]:
    """Return the label's columns (the place of a class) and, where rows are weighed, its weights.

    Raises:
        InputError: a label is not among the classes.
    """
    column = one_array(label)
    if learned.kind == "multi_label":
        numbers = _of_each_class(column, learned)
    elif learned.kind == "classes":
        place = pc.index_in(column, value_set=pa.array(learned.classes))
        if place.null_count:
            unknown = column.filter(pc.is_null(place))[0].as_py()
            raise InputError(f"{learned.name}: {unknown!r} is not among the classes {', '.join(learned.classes[:20])}.")
        numbers = {learned.name: place.to_numpy(zero_copy_only=False).astype(np.float64)}
    else:
        numbers = {learned.name: (as_numbers(column) - learned.offset) / learned.scale}
    if learned.weight is not None:
        weights = as_numbers(weight) if weight is not None else np.ones(len(column))
        if learned.class_weights:
            weights = weights * np.array(learned.class_weights)[numbers[learned.name].astype(np.int64)]
        numbers[learned.weight] = weights
    return numbers


def _of_each_class(lists: pa.ListArray, learned: LabelFeature) -> dict[str, Floats]:
    """Return a column of 0 and 1 a class: whether it stands in the row's list."""
    values = pc.list_flatten(lists)
    place = pc.index_in(values, value_set=pa.array(learned.classes))
    unknown = values.filter(pc.and_(pc.is_null(place), pc.is_valid(values)))
    if len(unknown):
        raise InputError(
            f"{learned.name}: {unknown[0].as_py()!r} is not among the classes {', '.join(learned.classes[:20])}."
        )
    known = pc.is_valid(place).to_numpy(zero_copy_only=False)
    found = np.zeros((len(lists), len(learned.classes)))
    rows = pc.list_parent_indices(lists).to_numpy()
    found[rows[known], place.drop_null().to_numpy()] = 1.0
    return dict(zip(learned.columns, found.T, strict=True))


def hash_index(text: str, buckets: int) -> int:
    """Return 2 + the FarmHash fingerprint of the text modulo `buckets`: what keras.layers.Hashing does, from 2 on."""
    return 2 + int(farmhash.fingerprint64(text)) % buckets


def _indices(column: pa.Array, feature: CategoricalFeature) -> pa.Array:
    near = _near_integers(feature.vocabulary) if pa.types.is_signed_integer(column.type) else None
    if feature.hash_buckets is None and near is not None:
        low, table = near
        values = pc.fill_null(column, 0).to_numpy().astype(np.int64)
        found = table[np.clip(values, low, low + len(table) - 1) - low]
        return pa.array(np.where(pc.is_null(column).to_numpy(False), 0, found) if column.null_count else found)
    # Each distinct value is looked up once.
    encoded = column.dictionary_encode()
    texts = as_text(encoded.dictionary)
    if feature.hash_buckets is not None:
        places = pa.array([hash_index(text, feature.hash_buckets) for text in texts.to_pylist()], pa.int32())
    else:
        found = pc.index_in(texts, value_set=pa.array(feature.vocabulary, pa.string()))
        places = pc.add(pc.fill_null(found, -1), pa.scalar(2, pa.int32()))
    return pc.fill_null(places.take(encoded.indices), 0)


@lru_cache(maxsize=1024)
def _near_integers(vocabulary: tuple[str, ...]) -> tuple[int, NDArray[np.int32]] | None:
    """Return the indices of all integers from one below the vocabulary's to one above, and the first of these.

    None where it holds something else, or integers too far apart.
    """
    if not vocabulary or not all(_INTEGER.fullmatch(text) for text in vocabulary):
        return None
    numbers = np.array([int(text) for text in vocabulary], object)
    low, high = min(numbers) - 1, max(numbers) + 1
    if high - low > _NEAR or low < -(2**63) or high >= 2**63:
        return None
    table = np.ones(high - low + 1, np.int32)
    table[(numbers - low).astype(np.int64)] = 2 + np.arange(len(numbers), dtype=np.int32)
    return low, table


def _list_indices(lists: pa.ListArray, feature: MultiValuedFeature) -> NDArray[np.int32]:
    """Return the indices of each list's first values, shape (rows, max_values), filled up with 0."""
    values = pc.list_flatten(lists)
    found = pc.index_in(values, value_set=pa.array(feature.vocabulary, pa.string()), skip_nulls=True)
    indices = np.where(
        pc.is_null(values).to_numpy(zero_copy_only=False),
        0,
        pc.fill_null(found, -1).to_numpy(zero_copy_only=False) + 2,
    )
    rows = pc.list_parent_indices(lists).to_numpy()
    first = np.searchsorted(rows, np.arange(len(lists)))
    place = np.arange(len(rows)) - first[rows]
    inside = place < feature.max_values
    filled = np.zeros((len(lists), feature.max_values), np.int32)
    filled[rows[inside], place[inside]] = indices[inside]
    return filled
