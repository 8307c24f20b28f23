"""What Petastorm's own readers need to know of a dataset with images: a Unischema beside each split's files."""

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lakefit.petastorm
from lakefit.config import Pipeline
from lakefit.dataset.features import ImageFeature
from lakefit.dataset.manifest import Manifest, SplitFiles
from lakefit.dataset.object_path import AnyPath, open_input
from lakefit.dataset.publish import new_file
from lakefit.petastorm.schema import KEY, to_json

COMMON_METADATA = "_common_metadata"
_SCALARS = {pa.float32(): np.float32, pa.int32(): np.int32, pa.int64(): np.int64}


def write_unischema(folder: AnyPath, manifest: Manifest, pipeline: Pipeline) -> None:
    """Write `_common_metadata` into each split's folder, by which `petastorm.make_reader` decodes its images.

    Images are fields of CompressedImageCodec, or NdarrayCodec where they are stored as pixels. Columns that a Unischema
    has no codec for (lists) or no name for (Lakefit's own, `_position` and the like) are left out of it. Of images with
    four channels, which Petastorm's codec does not decode, nothing is written. A pickle, as Petastorm wants it, and the
    same as JSON, as `lakefit.petastorm` reads it.
    """
    splits = [split for split in manifest.splits.values() if split.files]
    if not splits or any(image.shape[2] == 4 for image in manifest.features.images):
        return
    with open_input(folder / splits[0].files[0].path) as file:
        schema = pq.read_schema(file)
    unischema = _unischema(schema, manifest, pipeline)
    pickled = pickle.dumps(unischema, protocol=2)
    for split in splits:
        metadata = {
            b"dataset-toolkit.unischema.v1": pickled,
            b"dataset-toolkit.num_row_groups_per_file.v1": _row_groups(split).encode(),
            KEY: to_json(unischema, pickled).encode(),
        }
        with new_file((folder / split.files[0].path).parent / COMMON_METADATA) as temporary:
            pq.write_metadata(schema.with_metadata(metadata), temporary)


def _unischema(schema: pa.Schema, manifest: Manifest, pipeline: Pipeline) -> Any:
    lakefit.petastorm.install()
    from petastorm.codecs import ScalarCodec
    from petastorm.unischema import Unischema, UnischemaField
    from pyspark.sql.types import FloatType, IntegerType, LongType

    spark = {np.float32: FloatType(), np.int32: IntegerType(), np.int64: LongType()}
    images = {image.name: image for image in manifest.features.images}
    fields = []
    for column in schema:
        if column.name in images:
            fields.append(_image(images[column.name], pipeline))
        elif not column.name.startswith("_") and (dtype := _SCALARS.get(column.type)) is not None:
            fields.append(UnischemaField(column.name, dtype, (), ScalarCodec(spark[dtype]), False))
    return Unischema(manifest.name, fields)


def _image(image: ImageFeature, pipeline: Pipeline) -> Any:
    from petastorm import codecs
    from petastorm.unischema import UnischemaField

    steps = [step.image for step in pipeline.clean if step.image is not None and image.name in step.columns]
    stored = steps[-1].store if steps else "as_is"
    height, width, channels = image.shape
    if stored == "array":
        return UnischemaField(image.name, np.uint8, image.shape, codecs.NdarrayCodec(), False)
    # Its constructor wants OpenCV, with which it decodes: whoever reads needs that, whoever writes does not.
    codec = codecs.CompressedImageCodec.__new__(codecs.CompressedImageCodec)
    codec.__dict__.update(_image_codec=".jpeg" if stored == "jpeg" else ".png", _quality=95)
    size = (height, width) if image.interpolation is None else (None, None)
    return UnischemaField(image.name, np.uint8, size if channels == 1 else (*size, channels), codec, False)


def _row_groups(split: SplitFiles) -> str:
    return json.dumps({file.path.rpartition("/")[2]: len(file.row_groups) for file in split.files})
