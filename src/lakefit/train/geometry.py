"""Layers of Keras that move pixels, one after the other, as one movement: pixels are interpolated once.

Each of these layers gives every image a matrix, by which an output pixel finds its place in the input. So the product
of the matrices does what the layers do, in the time of one of them, and blurs as little as one of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

_MOVING = (
    keras.layers.RandomRotation, keras.layers.RandomTranslation, keras.layers.RandomZoom, keras.layers.RandomShear
)  # fmt: skip
_FLIP = keras.layers.RandomFlip


def runs(layers: Sequence[keras.layers.Layer]) -> Iterator[Sequence[keras.layers.Layer]]:
    """Yield layers in order: neighbours that can be one movement together, each other one by itself.

    What lies outside an image, and how pixels are interpolated, must be the same for all. A flip does neither, and by
    itself is faster as it is.
    """
    run: list[keras.layers.Layer] = []
    for layer in layers:
        hows = {_how(other) for other in (*run, layer) if isinstance(other, _MOVING)}
        if run and not (_moves(layer) and _moves(run[-1]) and len(hows) < 2):
            yield from _together(run)
            run = []
        run.append(layer)
    yield from _together(run)


def moved(images: Any, layers: Sequence[keras.layers.Layer]) -> Any:
    """Return (n, height, width, channels) as all layers of a run move them."""
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    matrix = tf.eye(3, batch_shape=[tf.shape(images)[0]])
    how: dict[str, Any] = {}
    for layer in layers:
        drawn = layer.get_random_transformation(images, training=True)
        if isinstance(layer, _FLIP):
            matrix = matrix @ _flipped(layer, drawn, size)
            continue
        recorder = _Recorder(layer.backend)
        before, layer.backend = layer.backend, recorder
        try:
            layer.transform_images(images, drawn, training=True)
        finally:
            layer.backend = before
        how = recorder.how
        matrix = matrix @ _square(recorder.transform)
    transform = tf.reshape(matrix, (-1, 9))
    return keras.ops.image.affine_transform(images, (transform / transform[:, 8:])[:, :8], **how)


def _together(run: Sequence[keras.layers.Layer]) -> Iterator[Sequence[keras.layers.Layer]]:
    if any(isinstance(layer, _MOVING) for layer in run):
        yield run
    else:
        yield from ([layer] for layer in run)


def _moves(layer: keras.layers.Layer) -> bool:
    # Not of a class of the user's, which may move them otherwise.
    return type(layer) in (*_MOVING, _FLIP)


def _how(layer: keras.layers.Layer) -> tuple[Any, ...]:
    return layer.fill_mode, layer.fill_value, layer.interpolation


class _Recorder:
    """A backend of a layer's that notes the movement in place of making it."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.image = backend, self
        self.transform: Any = None
        self.how: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def affine_transform(self, images: Any, transform: Any, **how: Any) -> Any:
        self.transform, self.how = transform, how
        return images


def _square(transform: Any) -> Any:
    """Return (n, 3, 3) of (n, 8) or (8,), the last number being 1."""
    transform = tf.cast(tf.reshape(transform, (-1, 8)), tf.float32)
    return tf.reshape(tf.concat([transform, tf.ones_like(transform[:, :1])], axis=1), (-1, 3, 3))


def _flipped(layer: Any, drawn: Any, size: Any) -> Any:
    height, width = size[0], size[1]
    zero, one = tf.constant(0.0), tf.constant(1.0)
    across, down = "horizontal" in layer.mode, "vertical" in layer.mode
    flip = tf.stack(
        [
            *((-one, zero, width - 1) if across else (one, zero, zero)),
            *((zero, -one, height - 1) if down else (zero, one, zero)),
            *(zero, zero, one),
        ]
    )
    flips = tf.reshape(drawn["flips"], (-1, 1))
    return tf.reshape(tf.where(flips, flip[None], tf.reshape(tf.eye(3), (1, 9))), (-1, 3, 3))
