"""Image files decoded and resized in TensorFlow: the same operations in the feed and in the exported model."""

from typing import Any

import tensorflow as tf

from lakefit.dataset.features import ImageFeature

# Images that are decoded side by side inside a batch: TensorFlow's threads share them.
_AT_ONCE = 16


def decode_batch(contents: Any, feature: ImageFeature) -> Any:
    """Return (n, height, width, channels) float32 of a tensor of n image files; each by itself, so that the result does
    not depend on the others or on threads."""
    spec = tf.TensorSpec(feature.shape, tf.float32)
    return tf.map_fn(
        lambda content: decode(content, feature), contents, fn_output_signature=spec, parallel_iterations=_AT_ONCE
    )


def decode(content: Any, feature: ImageFeature) -> Any:
    """Return (height, width, channels) float32, 0 to 255, of an image file: of a GIF the first frame."""
    height, width, channels = feature.shape
    image = tf.cond(
        tf.io.is_jpeg(content),
        # TensorFlow's own choice is the fast transform, which is off by up to 63 of 255 in fine JPEGs.
        lambda: tf.io.decode_jpeg(content, channels=channels % 4, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(content, channels=channels, expand_animations=False),
    )
    size = tf.shape(image)[:2]
    image = tf.cond(
        tf.reduce_all(size == (height, width)),
        lambda: tf.cast(image, tf.float32),
        lambda: _resized(image, feature),
    )
    return tf.ensure_shape(image, feature.shape)


def _resized(image: Any, feature: ImageFeature) -> Any:
    smooth = feature.interpolation != "nearest"
    resized = tf.image.resize(image, feature.shape[:2], method=feature.interpolation, antialias=smooth)
    # Bicubic goes beyond.
    return tf.clip_by_value(tf.cast(resized, tf.float32), 0.0, 255.0)
