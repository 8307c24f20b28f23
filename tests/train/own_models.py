"""Models, layers and losses as a user may write them: `own_models:NAME` in a pipeline file."""

import os
import signal
import time
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from lakefit.train.inputs import DatasetDescription


def on_inputs(data: DatasetDescription) -> keras.Model:
    inputs = data.inputs()
    hidden = keras.layers.Dense(4, activation="relu")(inputs.encoded())
    return keras.Model(inputs.tensors, keras.layers.Dense(data.label.outputs, activation="sigmoid")(hidden))


def on_flat_images(data: DatasetDescription) -> keras.Model:
    inputs = data.inputs()
    flat = keras.layers.Flatten()(inputs.encoded("image"))
    return keras.Model(inputs.tensors, keras.layers.Dense(1, activation="sigmoid")(flat))


def on_raw_images(data: DatasetDescription) -> keras.Model:
    inputs = data.inputs()
    flat = keras.layers.Flatten()(inputs.tensors["image"])
    return keras.Model(inputs.tensors, keras.layers.Dense(1, activation="sigmoid")(flat))


def compiled(data: DatasetDescription) -> keras.Model:
    model = on_inputs(data)
    model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def numbers_alone(data: DatasetDescription) -> keras.Model:
    x = keras.Input((len(data.numeric_columns),), name="numeric")
    return keras.Model(x, keras.layers.Dense(1, activation="sigmoid")(x))


def sequential(data: DatasetDescription) -> keras.Model:
    return keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1, activation="sigmoid")])


class Wide(keras.Model):
    """A subclass with an embedding of its own, that can't be made again from a configuration."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.embeddings = [keras.layers.Embedding(size, 3) for size in sizes]
        self.hidden = keras.layers.Dense(4, activation="relu")
        self.dropout = keras.layers.Dropout(0.5)
        self.out = keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs: Any, training: bool = False) -> Any:
        embedded = [layer(inputs["categorical"][:, place]) for place, layer in enumerate(self.embeddings)]
        x = self.hidden(keras.ops.concatenate([inputs["numeric"], *embedded], axis=1))
        return self.out(self.dropout(x, training=training))


def subclass(data: DatasetDescription) -> keras.Model:
    return Wide([data.categories(column) for column in data.categorical_columns])


def small_embedding(data: DatasetDescription) -> keras.Model:
    return Wide([data.categories(column) - 1 for column in data.categorical_columns])


def of_more_columns(data: DatasetDescription) -> keras.Model:
    return Wide([9, 9])


def of_vocabulary(data: DatasetDescription) -> keras.Model:
    assert data.vocabulary("city")
    return subclass(data)


def raises(data: DatasetDescription) -> keras.Model:
    return keras.Model(data.no_such_thing)


def nothing(data: DatasetDescription) -> None:
    data.inputs()


def a_layer(data: DatasetDescription) -> keras.layers.Layer:
    return keras.layers.Dense(1)


def wrong_width(data: DatasetDescription) -> keras.Model:
    x = keras.Input((99,), name="numeric")
    return keras.Model(x, keras.layers.Dense(1, activation="sigmoid")(x))


def wrong_name(data: DatasetDescription) -> keras.Model:
    x, y = keras.Input((2,), name="numeric"), keras.Input((1,), name="wether")
    return keras.Model([x, y], keras.layers.Dense(1, activation="sigmoid")(x + y))


def two_outputs(data: DatasetDescription) -> keras.Model:
    inputs = data.inputs()
    return keras.Model(inputs.tensors, keras.layers.Dense(2, activation="sigmoid")(inputs.encoded()))


class Twice(keras.Model):
    """Takes every step with two optimizers, one of which Keras does not know."""

    def train_step(self, data: Any) -> Any:
        x, truth = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, truth, self(x, training=True))
        gradients = tape.gradient(loss, [variable.value for variable in self.trainable_variables])
        for optimizer in (self.optimizer, self.second):
            optimizer.apply(gradients, self.trainable_variables)
        self.metrics[0].update_state(loss)
        return {"loss": self.metrics[0].result()}


def two_optimizers(data: DatasetDescription) -> keras.Model:
    inputs = data.inputs()
    model = Twice(inputs.tensors, keras.layers.Dense(1, activation="sigmoid")(inputs.encoded()))
    model.second = keras.optimizers.SGD(0.1, momentum=0.9)
    model.second.build(model.trainable_variables)
    return model


class Gate(keras.layers.Layer):
    """A layer with an argument and weights."""

    def __init__(self, start: float = 1.0, **rest: Any) -> None:
        super().__init__(**rest)
        self.start = start

    def build(self, shape: Any) -> None:
        self.gate = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.Constant(self.start))

    def call(self, x: Any) -> Any:
        return x * self.gate

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


def half_loss(truth: Any, found: Any) -> Any:
    return 0.5 * keras.losses.binary_crossentropy(truth, found)


def scaled_loss(growth_steps: int) -> keras.optimizers.Optimizer:
    """An optimizer whose scale grows after so many steps, and falls where the gradients are too large for it."""
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), dynamic_growth_steps=growth_steps)


class Worst(keras.metrics.Metric):
    """The largest error so far."""

    def __init__(self, name: str = "worst", **rest: Any) -> None:
        super().__init__(name=name, **rest)
        self.largest = self.add_variable((), "zeros")

    def update_state(self, truth: Any, found: Any, sample_weight: Any = None) -> None:
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(keras.ops.abs(truth - found))))

    def result(self) -> Any:
        return self.largest.value


class Batches(keras.callbacks.Callback):
    """Notes at which batches it is called."""

    called: ClassVar[list[tuple[str, int]]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.called.append(("train begin", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert isinstance(logs["loss"], float)
        self.called.append(("train end", batch))

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.called.append(("test begin", batch))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        assert isinstance(logs["loss"], float)
        self.called.append(("test end", batch))


class Losses(keras.callbacks.Callback):
    """Notes the loss after each call of the model, and the steps that were done then."""

    noted: ClassVar[list[tuple[int, float]]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.noted.append((batch + 1, logs["loss"]))


class Cooling(keras.callbacks.Callback):
    """Lowers the learning rate at every seventh batch, counted from the first of all: it must know where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        if self.batches % 7 == 0:
            self.model.optimizer.learning_rate = 0.9 * float(np.asarray(self.model.optimizer.learning_rate))

    def get_state(self) -> dict[str, int]:
        return {"batches": self.batches}

    def set_state(self, state: dict[str, int]) -> None:
        self.batches = state["batches"]


class Odd(Cooling):
    """Keeps what can't be written."""

    def get_state(self) -> Any:
        return {"seen": [{1, 2}]}


class Slow(keras.callbacks.Callback):
    """Takes its time after every step."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(self.seconds)


class StopsAt(keras.callbacks.Callback):
    """Ends the training within an epoch, after so many of its steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 == self.steps:
            self.model.stop_training = True


class Terminated(keras.callbacks.Callback):
    """Is sent SIGTERM when an instant of the training, such as `train_end`, comes for the n-th time."""

    def __init__(self, instant: str, number: int = 1) -> None:
        super().__init__()
        self.left = number
        setattr(self, f"on_{instant}", self._come)

    def _come(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGTERM)

    def get_state(self) -> dict[str, int]:
        return {}  # it counts from the begin of each process

    def set_state(self, state: dict[str, int]) -> None:
        assert not state
