"""Curves for TensorBoard: a point an epoch, training and validation on one chart."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


class Curves(keras.callbacks.Callback):
    """Writes each epoch's loss and metrics below `train` and `validation`, and the learning rate, as Keras's own
    callback does; but that one is called at every batch, which costs a small model up to a tenth of its speed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._writers = {split: tf.summary.create_file_writer(str(folder / split)) for split in ("train", "validation")}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values: dict[str, dict[str, Any]] = {"train": {"learning_rate": self._learning_rate()}, "validation": {}}
        for name, value in (logs or {}).items():
            of_validation = name.startswith("val_")
            values["validation" if of_validation else "train"][name.removeprefix("val_")] = value
        for split, writer in self._writers.items():
            with writer.as_default():
                for name, value in values[split].items():
                    tf.summary.scalar(f"epoch_{name}", value, step=epoch)
            writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for writer in self._writers.values():
            writer.close()

    def _learning_rate(self) -> float:
        optimizer = self.model.optimizer
        # Of float16, whose loss is scaled.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
