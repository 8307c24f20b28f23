"""Several layers that move pixels, as one movement: where each of them would have moved them."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lakefit.train.geometry import moved, runs

HOW = {"fill_mode": "nearest", "interpolation": "bilinear"}


def smooth(height: int = 40, width: int = 48) -> Any:
    """Return images that interpolating once or often leaves nearly the same."""
    y, x = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 4, width), indexing="ij")
    images = [128 + 100 * np.sin(x + i) * np.cos(y - i) for i in range(6)]
    return tf.constant(np.stack(images)[..., None].repeat(3, axis=-1), tf.float32)


def layers() -> list[keras.layers.Layer]:
    return [
        keras.layers.RandomFlip("horizontal", seed=1),
        keras.layers.RandomRotation(0.06, seed=2, **HOW),
        keras.layers.RandomZoom(0.2, seed=3, **HOW),
        keras.layers.RandomFlip("vertical", seed=4),
        keras.layers.RandomTranslation(0.1, 0.1, seed=5, **HOW),
        keras.layers.RandomShear(0.1, 0.1, seed=6, **HOW),
        keras.layers.RandomFlip("horizontal_and_vertical", seed=7),
    ]


@pytest.mark.parametrize("kinds", [[0, 1], [1, 0], [2, 4], [0, 1, 2], [3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]])
def test_one_movement_is_all_of_them_in_order(kinds: list[int]) -> None:
    run, apart = [layers()[kind] for kind in kinds], [layers()[kind] for kind in kinds]
    images = smooth()

    found = moved(images, run).numpy()

    due = images
    for layer in apart:
        due = layer(due, training=True)
    # What one of them has moved from outside, another one can't move back: the borders are left out.
    inner = (slice(None), slice(10, -10), slice(12, -12))
    assert np.abs(found - images.numpy())[inner].mean() > 5
    np.testing.assert_allclose(found[inner], due.numpy()[inner], atol=1.5)


def test_a_flip_among_others_is_exact() -> None:
    still = keras.layers.RandomRotation(0.0, **HOW)
    images = smooth()
    found = moved(images, [keras.layers.RandomFlip("horizontal", seed=3), still]).numpy()
    for image, other in zip(images.numpy(), found, strict=True):
        assert min(np.abs(image - other).max(), np.abs(image[:, ::-1] - other).max()) < 1e-3
    assert np.abs(images.numpy() - found).max() > 1


def test_what_can_be_together_is() -> None:
    flip, turn, zoom = keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1), keras.layers.RandomZoom(0.1)
    bright, near = keras.layers.RandomBrightness(0.1), keras.layers.RandomZoom(0.1, fill_mode="nearest")
    assert [*runs([flip, turn, zoom])] == [[flip, turn, zoom]]
    assert [*runs([flip, bright, turn, zoom])] == [[flip], [bright], [turn, zoom]]
    assert [*runs([turn, near, flip])] == [[turn], [near, flip]]
    assert [*runs([flip, flip])] == [[flip], [flip]]
    assert [*runs([])] == []
