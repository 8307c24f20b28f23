"""Images normalized by the training split's pixels, as layers of Keras that learn nothing more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lakefit.config.train import TrainImages
from lakefit.dataset.features import ImageFeature
from lakefit.feed.split import SplitFeed

MOST_WHITENED = 4_096
"""Numbers of an image that `zca` whitens: its matrix has their square."""
_BESIDE = 1e-6
"""What ImageDataGenerator adds to a deviation."""


def normalized(tensor: Any, feature: ImageFeature, normalize: str) -> Any:
    """Return (n, height, width, channels) float32 through layers that `learn_normalization` gives their weights.

    Layers of Keras's own alone, so that the exported model needs none of ours; never trained.
    """
    if normalize == "none":
        return tensor
    frozen: dict[str, Any] = {"trainable": False, "dtype": "float32"}
    channels, pixels = _names(feature.name)
    # With nothing learned in training, batch normalization is (x - mean) / deviation.
    x = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-12, name=channels, **frozen)(tensor)
    if normalize == "zca":
        x = keras.layers.Flatten(name=f"{pixels}_flat", dtype="float32")(x)
        x = keras.layers.Dense(x.shape[1], use_bias=False, name=pixels, **frozen)(x)
        x = keras.layers.Reshape(feature.shape, name=f"{pixels}_image", dtype="float32")(x)
    return x


def is_normalized(model: keras.Model, features: Sequence[ImageFeature]) -> bool:
    """Say whether a model has the layers of `normalized` for all columns of images."""
    names = {layer.name for layer in model.layers}
    return all(_names(feature.name)[0] in names for feature in features)


def learn_normalization(model: keras.Model, images: TrainImages, feed: SplitFeed) -> None:
    """Give the layers of `normalized` what they do to pixels: means, deviations and, for ZCA, the covariances of a
    split's images.

    Whitening is by V (L + epsilon)^-1/2 V', where V L V' are the centred pixels' covariances (A. J. Bell, T. J.
    Sejnowski, The "independent components" of natural scenes are edge filters, 1997), as ImageDataGenerator's. Pixels
    are taken as whole numbers, so that their sums are the same in whichever order.
    """
    whitens = images.normalize == "zca"
    for name, sums in _sums(feed, whitens=whitens).items():
        channels, pixels = _names(name)
        mean, deviation = sums.of_channels()
        divisor = deviation + _BESIDE if images.normalize == "standard" else np.ones_like(mean)
        _set(model.get_layer(channels), [mean, divisor**2])
        if whitens:
            values, vectors = np.linalg.eigh(sums.covariances(mean))
            scale = 1 / np.sqrt(np.maximum(values, 0.0) + images.zca_epsilon)
            _set(model.get_layer(pixels), [(vectors * scale) @ vectors.T])


@dataclass
class _Sums:
    """Over images of one shape: their number, and the sums of pixels, of squares, and of products of two pixels."""

    count: int = 0
    pixels: Any = 0.0
    squares: Any = 0.0
    products: Any = 0.0

    def add(self, images: NDArray[np.float64], *, whitens: bool) -> None:
        self.count += len(images)
        self.pixels += images.sum(axis=0)
        self.squares += (images**2).sum(axis=0)
        if whitens:
            flat = images.reshape(len(images), -1)
            self.products += flat.T @ flat

    def of_channels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean and the deviation of each channel."""
        each = self.count * self.pixels[..., 0].size
        mean = self.pixels.sum(axis=(0, 1)) / each
        return mean, np.sqrt(np.maximum(self.squares.sum(axis=(0, 1)) / each - mean**2, 0.0))

    def covariances(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean products of two pixels' distances from the means of their channels."""
        means = np.broadcast_to(mean, self.pixels.shape).ravel()
        across = np.outer(self.pixels.ravel() / self.count, means)
        centred: NDArray[np.float64] = self.products / self.count - across - across.T + np.outer(means, means)
        return centred


def _sums(feed: SplitFeed, *, whitens: bool) -> Mapping[str, _Sums]:
    names = [field.name for field in feed.fields if field.image is not None]
    sums = {name: _Sums() for name in names}
    for batch in feed.to_tf(targets={}):
        for name in names:
            sums[name].add(np.rint(batch[name].numpy()).astype(np.float64), whitens=whitens)
    feed.check()
    return sums


def _set(layer: keras.layers.Layer, values: list[NDArray[np.float64]]) -> None:
    layer.set_weights([value.astype(np.float32) for value in values])


def _names(column: str) -> tuple[str, str]:
    return f"lakefit_channels_{column}", f"lakefit_whitening_{column}"
