"""What can be seen of a model on one batch, between two epochs: gradients, weights, predictions, dead units."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lakefit.dataset.predictions import as_given
from lakefit.feed.split import SplitFeed
from lakefit.train.model import BuiltModel


@dataclass(frozen=True, slots=True)
class Findings:
    """gradient_norm, weight_norm: the length of all gradients, and of all weights, as one vector; no gradient where the
    model has no loss of its own, or raises. spread: the standard
    deviation of the predictions over the rows, the largest of all outputs. dead: of the units behind a ReLU, the share
    that gives 0 for every row; None where none can be looked at."""

    gradient_norm: float | None
    weight_norm: float
    spread: float
    dead: float | None


class Probe:
    """The first rows of a split, on which the model is looked at as it predicts: without dropout, and unchanged.

    inputs: of these rows, as the model takes them.
    """

    def __init__(self, built: BuiltModel, feed: SplitFeed) -> None:
        arrays = next(iter(feed.to_tf(targets={})))
        labels = built.description.labels
        inputs = {name: arrays[name] for name in built.description.inputs().tensors}
        target = as_given({label.name: arrays[label.name] for label in labels}, labels)
        self.inputs, self._target = built.batch(inputs, target)[:2]
        self._model = built.model
        self._units = _behind_relu(built.model)

    def look(self) -> Findings:
        """Return what is to be seen now."""
        weights = [variable.value for variable in self._model.trainable_variables]
        predicted, gradient_norm = self._predicted_and_gradient(weights)
        outputs = [np.asarray(output, np.float32) for output in keras.tree.flatten(predicted)]
        return Findings(
            gradient_norm=gradient_norm,
            weight_norm=_length([tf.convert_to_tensor(weight) for weight in weights]),
            spread=max(float(output.reshape(len(output), -1).std(axis=0).max()) for output in outputs),
            dead=self._dead(),
        )

    def _predicted_and_gradient(self, weights: list[Any]) -> tuple[Any, float | None]:
        model = self._model
        with tf.GradientTape() as tape:
            predicted = model(self.inputs, training=False)
            try:
                loss = model.compute_loss(self.inputs, self._target, predicted, None, training=False)
            except Exception:
                # A model with a train_step of its own may have no such loss; that is no reason to end its training.
                return predicted, None
        gradients = [gradient for gradient in tape.gradient(loss, weights) if gradient is not None]
        return predicted, _length(gradients)

    def _dead(self) -> float | None:
        if self._units is None:
            return None
        outputs = [np.asarray(output) for output in keras.tree.flatten(self._units(self.inputs, training=False))]
        dead = [~output.reshape(-1, output.shape[-1]).any(axis=0) for output in outputs]
        return float(np.concatenate(dead).mean())


def _length(parts: list[Any]) -> float:
    parts = [part.values if isinstance(part, tf.IndexedSlices) else part for part in parts]
    return float(tf.linalg.global_norm([tf.cast(part, tf.float32) for part in parts])) if parts else 0.0


def _behind_relu(model: keras.Model) -> Any:
    """Return the model of what comes out of the layers with a ReLU, or None."""
    found = []
    for layer in model.layers:
        activation = getattr(layer, "activation", None)
        if isinstance(layer, keras.layers.ReLU) or getattr(activation, "__name__", "") == "relu":
            try:
                found.append(layer.output)
            except (AttributeError, ValueError):
                continue  # called more than once, or not of a graph of layers
    try:
        return keras.Model(model.inputs, found) if found else None
    except (AttributeError, TypeError, ValueError):
        return None
