"""What makes Keras's `fit` work over several devices and workers: two overrides, for keras-team/keras #20585.

tests/train/test_workers.py is red with the first Keras that needs them no more, or breaks them (3.15.1 needs both).
"""

from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer


def build_without_data(model: keras.Model, data: tf.data.Dataset) -> None:
    """Make the variables of loss and metrics, under a strategy's scope, of the shapes of a dataset's batches.

    Under a strategy `fit` would read a batch for that, and add up the devices' shares of it, which fails where the
    first batch can't be shared equally, and over several workers always.
    """
    batch = tf.nest.map_structure(lambda spec: tf.zeros((1, *spec.shape[1:]), spec.dtype), data.element_spec)
    model._symbolic_build(data_batch=batch)
    model._maybe_symbolic_build = lambda **_: None


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
