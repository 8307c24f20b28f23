"""Images of training batches as Keras's layers change them at random: the same again for the same seed and batch."""

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lakefit.config import PipelineSource, Problem
from lakefit.config.file import Key
from lakefit.config.train import KerasObject, Train, keras_name_and_arguments
from lakefit.dataset.features import ImageFeature
from lakefit.feed.split import SplitFeed
from lakefit.train.geometry import moved, runs
from lakefit.train.model import BuiltModel
from lakefit.train.objects import make, refusal
from lakefit.train.task import wants_one_hot

_AUGMENT: Key = ("train", "images", "augment")
_MIXING = (keras.layers.MixUp, keras.layers.CutMix)
_FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Layers for each column of images, and what seeds them.

    seed: of the training, and of the worker: each has other rows of a batch.
    """

    layers: Mapping[str, Sequence[keras.layers.Layer]]
    seed: str

    def apply(self, number: Any, arrays: Mapping[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        """Return the arrays of a batch with other images, and its label, which some layers mix as well.

        number: of the batch, counted from the training's first one on, which a resumed training knows. Every draw of a
        random number is by the seed, the number of the batch and the place of the draw in the layers, and by no state.
        """
        given = (dict(arrays), target)
        # A worker's share of a small batch may have no rows, which some layers take for a mistake.
        some = tf.shape(tf.nest.flatten(target)[0])[0] > 0
        return tf.cond(some, lambda: self._changed(number, *given), lambda: given)  # type: ignore[no-any-return]

    def _changed(self, number: Any, arrays: Mapping[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        changed = dict(arrays)
        for column, layers in self.layers.items():
            images = changed[column]
            for place, layer in enumerate(layers):
                _draw_by(layer, number, f"{self.seed} {column} {place}")
            for run in runs(layers):
                if len(run) > 1:
                    images = moved(images, run)
                else:
                    images, target = _through(run[0], images, target)
            changed[column] = tf.ensure_shape(images, arrays[column].shape)
        return changed, target


def build_augmentation(built: BuiltModel, train: Train, source: PipelineSource, worker: int = 0) -> Augmentation | None:
    """Return what `train.images.augment` asks for; None where it asks for nothing.

    Raises:
        ConfigError: there is no such layer, it refuses its arguments or its input, images end in another size, or
            labels are mixed that can't be.
    """
    if not train.images.augment:
        return None
    features = built.description.features.images
    made = {feature.name: _layers(train.images.augment, feature, source) for feature in features}
    for place, layer in enumerate(made[features[0].name]):
        if isinstance(layer, _MIXING):
            why = _why_not_mixed(built)
            if why is not None:
                at = (*_AUGMENT, place)
                raise source.error(Problem(at, f"{type(layer).__name__} mixes images and their labels, and {why}"))
    return Augmentation(made, f"{train.seed} {worker}")


def augmented(data: tf.data.Dataset, feed: SplitFeed, built: BuiltModel, augmentation: Augmentation) -> tf.data.Dataset:
    """Return a feed's batches with other images, as the model takes them; several are made at once."""

    def changed(number: Any, batch: Any) -> tuple[Any, ...]:
        arrays, target, *weight = batch
        arrays, target = augmentation.apply(number, arrays, built.target(target))
        return (built.of_arrays(arrays), target, *weight)

    first = feed.epoch * feed.batches + feed.first_batch
    at_once = len(os.sched_getaffinity(0))
    # Converted by nobody: Keras's layers are written for graphs as they are.
    as_it_is = tf.autograph.experimental.do_not_convert(changed)
    return data.enumerate(first).map(as_it_is, num_parallel_calls=at_once)


def _layers(
    specs: Sequence[KerasObject], feature: ImageFeature, source: PipelineSource
) -> tuple[keras.layers.Layer, ...]:
    layers: list[keras.layers.Layer] = []
    images = tf.zeros((2, *feature.shape))
    for place, spec in enumerate(specs):
        at: Key = (*_AUGMENT, place)
        layer = make(keras.layers, spec, at, source)
        name, _ = keras_name_and_arguments(spec)
        if not isinstance(layer, keras.layers.Layer):
            raise source.error(Problem(at, f"{name} makes a {type(layer).__name__}; expected a keras Layer"))
        if isinstance(layer, keras.layers.RandomFlip) and layer.mode not in _FLIPS:
            # Keras takes any word, and does nothing.
            message = f"{layer.mode!r} is no way to flip; expected {', '.join(_FLIPS)}"
            raise source.error(Problem((*at, name, "mode"), message))
        before = tuple(images.shape[1:])
        try:
            images, _ = _through(layer, images, tf.zeros((2, 1)))
        except Exception as error:
            message = f"the layer does not fit images of {before}: {refusal(error)}"
            raise source.error(Problem(at, message)) from error
        if layer.trainable_weights:
            raise source.error(Problem(at, f"{name} has weights to train, and here nothing is trained: give it to the "
                                           "model"))  # fmt: skip
        layers.append(layer)
    if tuple(images.shape[1:]) != feature.shape:
        raise source.error(
            Problem(
                _AUGMENT,
                f"images of {feature.name!r} end as {tuple(images.shape[1:])}, and the model takes {feature.shape}: "
                f"end with {{Resizing: {{height: {feature.shape[0]}, width: {feature.shape[1]}}}}}",
            )
        )
    return tuple(layers)


def _through(layer: keras.layers.Layer, images: Any, target: Any) -> tuple[Any, Any]:
    """Return images and labels as a layer leaves them."""
    if not isinstance(layer, _MIXING):
        return layer(images, training=True), target
    mixed = layer({"images": images, "labels": target}, training=True)
    return mixed["images"], mixed["labels"]


def _why_not_mixed(built: BuiltModel) -> str | None:
    labels = built.description.labels
    if len(labels) > 1:
        return "there are several labels"
    if len(built.description.features.images) > 1:
        return "there are several columns of images"
    (label,) = labels
    if label.kind == "classes" and not wants_one_hot(label, built.losses.get(label.name)):
        return "a class's number can't be mixed: it takes loss: categorical_crossentropy"
    if label.weighted or label.class_weights:
        return "rows of other weights can't be mixed: leave out the weights"
    return None


def _draw_by(layer: keras.layers.Layer, number: Any, name: str) -> None:
    """Let all random numbers of a layer, and of those in it, be drawn by the number of the batch."""
    draws = itertools.count()

    def seed(ordered: bool = True) -> Any:
        digest = hashlib.blake2b(f"{name} {next(draws)}".encode(), digest_size=4).digest()
        return tf.stack([int.from_bytes(digest) & _MOST, tf.cast(number % _MOST, tf.int32)])

    for inner in layer._flatten_layers():
        for generator in inner._seed_generators:
            generator.next = seed
