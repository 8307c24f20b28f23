"""What makes Keras's `fit` work over several devices and workers: two overrides, for keras-team/keras #20585, and a
mean of the loss in which every row counts the same.

tests/train/test_workers.py is red with the first Keras that needs the two no more, or breaks them (3.15.1 needs both).
"""

import threading
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer
from keras.src.utils.tracking import DotNotTrackScope


def build_without_data(model: keras.Model, data: tf.data.Dataset) -> None:
    """Make the variables of loss and metrics, under a strategy's scope, of the shapes of a dataset's batches.

    Under a strategy `fit` would read a batch for that, and add up the devices' shares of it, which fails where the
    first batch can't be shared equally, and over several workers always.

    data: batches of (inputs, label[, weight]), or of (inputs, label, weight, even), as `devices.weighted_by_rows` gives
    them, after which the loss that is shown is the mean over rows.
    """
    batch = tf.nest.map_structure(lambda spec: tf.zeros((1, *spec.shape[1:]), spec.dtype), data.element_spec[:3])
    if len(data.element_spec) > 3:
        tracker = _LossOfRows()
        with DotNotTrackScope():
            # As Keras's own is: none of the model's state.
            model._loss_tracker = tracker
        model.train_step, model.test_step = (_with_even(step, tracker) for step in (model.train_step, model.test_step))
    model._symbolic_build(data_batch=batch)
    model._maybe_symbolic_build = lambda **_: None


class _LossOfRows(keras.metrics.Mean):
    """The mean of the loss over rows, from what each device makes of its piece of a batch.

    A piece's loss is its rows' sum x devices / rows of the batch. Keras would count it by the piece's rows, of which
    pieces have as many only where they are equal; here it counts by the batch's rows / devices.
    """

    def __init__(self) -> None:
        super().__init__(name="loss")
        # A strategy traces its devices' steps in a thread each.
        self.here = threading.local()

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """values: a piece's loss. sample_weight: how many rows it has."""
        self.total.assign_add(tf.cast(values, self.dtype) * self.here.even)
        self.count.assign_add(tf.cast(sample_weight, self.dtype))


def _with_even(step: Callable[[Any], Any], tracker: _LossOfRows) -> Callable[[Any], Any]:
    """Return a model's step which takes batches of (inputs, label, weight, even)."""

    def with_even(data: Any) -> Any:
        inputs, label, weight, even = data
        # The same for each row; an empty piece has none.
        tracker.here.even = tf.reduce_max(tf.concat([even, [0.0]], 0))
        return step((inputs, label, weight))

    return with_even


def reduce_logs_here() -> None:
    """Make `fit` reduce logs over the devices of this process alone, where there are several workers.

    Keras would take their mean over the first axis of what all workers have, and a scalar has none. Logs of single
    steps are of the worker's share then; those of epochs are read from the metrics' variables, which are added up over
    all workers.
    """
    original = keras_trainer.reduce_per_replica
    if original.__module__ == __name__:
        return

    def reduce_per_replica(values: Any, strategy: Any, reduction: str) -> Any:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return original(values, strategy, reduction)
        return keras.tree.map_structure(
            lambda value: tf.reduce_mean(strategy.experimental_local_results(value), axis=0), values
        )

    keras_trainer.reduce_per_replica = reduce_per_replica
