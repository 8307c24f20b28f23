"""Image files decoded and resized in TensorFlow: the same operations in the feed and in the exported model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from lakefit.dataset.features import ImageFeature
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.object_path import AnyPath
from lakefit.errors import FeedError

if TYPE_CHECKING:
    from lakefit.feed.split import SplitFeed

# Images that are decoded side by side inside a batch: TensorFlow's threads share them.
_AT_ONCE = 16
# What `.npy` begins with, of version 1.
_NPY = b"\x93NUMPY\x01"
_ALL = 2**31 - 1


def decode_batch(contents: Any, feature: ImageFeature) -> Any:
    """Return (n, height, width, channels) float32 of a tensor of n image files; each by itself, so that the result does
    not depend on the others or on threads."""
    spec = tf.TensorSpec(feature.shape, tf.float32)
    return tf.map_fn(
        lambda content: decode(content, feature), contents, fn_output_signature=spec, parallel_iterations=_AT_ONCE
    )


def decode(content: Any, feature: ImageFeature) -> Any:
    """Return (height, width, channels) float32, 0 to 255, of an image file: of a GIF the first frame; or of pixels of 8
    bits as NumPy's `.npy`."""
    return tf.cond(
        tf.strings.substr(content, 0, len(_NPY)) == _NPY,
        lambda: _of_array(content, feature),
        lambda: _of_file(content, feature),
    )


def _of_array(content: Any, feature: ImageFeature) -> Any:
    # The header's length stands behind six bytes of magic and two of the version.
    header = tf.io.decode_raw(tf.strings.substr(content, 8, 2), tf.uint16, little_endian=True)[0]
    pixels = tf.io.decode_raw(tf.strings.substr(content, 10 + tf.cast(header, tf.int32), _ALL), tf.uint8)
    return tf.reshape(tf.cast(pixels, tf.float32), feature.shape)


def _of_file(content: Any, feature: ImageFeature) -> Any:
    height, width, channels = feature.shape
    image = tf.cond(
        tf.io.is_jpeg(content),
        # TensorFlow's own choice is the fast transform, which is off by up to 63 of 255 in fine JPEGs.
        lambda: tf.io.decode_jpeg(content, channels=channels % 4, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(content, channels=channels, expand_animations=False),
    )
    if feature.interpolation is None:
        size = f"{height} x {width} (height x width)"
        said = f"an image is not {size}: resize it first, or give features.images interpolation"
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image)[:2], (height, width), said)]):
            image = tf.cast(image, tf.float32)
    else:
        image = tf.cond(
            tf.reduce_all(tf.shape(image)[:2] == (height, width)),
            lambda: tf.cast(image, tf.float32),
            lambda: _resized(image, feature),
        )
    return tf.ensure_shape(image, feature.shape)


@contextmanager
def named_errors(dataset: AnyPath, manifest: Manifest, *feeds: "SplitFeed") -> Iterator[None]:
    """Raise what a feed raised below TensorFlow as it was, and name the image that could not be decoded, where one is
    why TensorFlow ended what read these feeds of a dataset."""
    try:
        yield
    except tf.errors.OpError as error:
        for feed in feeds:
            if feed.error is not None:
                raise feed.error from None
        if isinstance(error, tf.errors.InvalidArgumentError):
            for feed in feeds:
                damaged = _damaged_image(dataset, manifest, feed.split)
                if damaged is not None:
                    raise damaged from None
        raise


def _damaged_image(dataset: AnyPath, manifest: Manifest, split: str) -> FeedError | None:
    """Return an error that names the first row of a split whose image can't be decoded; None where all can."""
    from lakefit.feed.split import SplitFeed

    feed = SplitFeed(dataset, manifest, split, batch_size=64, shuffle=False)
    images = [field for field in feed.fields if field.image is not None]
    number = 0
    for batch in feed if images else ():
        for place in range(len(batch[images[0].name])):
            for field in images:
                assert field.image is not None
                try:
                    decode(tf.constant(batch[field.name][place]), field.image)
                except (tf.errors.OpError, ValueError) as error:
                    return _damaged(f"{dataset}", manifest, split, number + place, field.name, error)
        number += len(batch[images[0].name])
    return None


def _damaged(dataset: str, manifest: Manifest, split: str, row: int, name: str, error: Exception) -> FeedError:
    for file in manifest.splits[split].files:
        for group, rows in enumerate(file.row_groups):
            if row < rows:
                first = str(getattr(error, "message", error)).splitlines()[0]
                said = re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", first).strip(" .")
                return FeedError(
                    f"{dataset}/{file.path}, row group {group}, row {row}: {name!r} is no whole image any more: "
                    f"{said}. It was one when the file was prepared: the file has been damaged since. Remove the "
                    "dataset's folder and run again."
                )
            row -= rows
    raise AssertionError("the split has fewer rows")


def _resized(image: Any, feature: ImageFeature) -> Any:
    smooth = feature.antialias and feature.interpolation != "nearest"
    resized = tf.image.resize(image, feature.shape[:2], method=feature.interpolation, antialias=smooth)
    resized = tf.cast(resized, tf.float32)
    # It goes beyond.
    return tf.clip_by_value(resized, 0.0, 255.0) if feature.interpolation == "bicubic" else resized
