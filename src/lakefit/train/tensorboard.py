"""What TensorBoard shows while the model trains: a point an epoch, training and validation on one chart."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lakefit.train.logs import numbers
from lakefit.train.meter import Meter, Shares, seconds_to_synchronize
from lakefit.train.probe import Findings, Probe


class Curves(keras.callbacks.Callback):
    """Writes each epoch's loss and metrics below `train` and `validation`, the learning rate and the norms of gradients
    and weights, and below `speed` rows a second and where the time went.

    Keras's own callback is called at every batch, which costs a small model up to a tenth of its speed.

    findings, shares: what the probe has found after the last epoch, and where its time went.
    """

    def __init__(
        self,
        folder: Path,
        probe: Probe,
        *,
        histograms: bool,
        settings: Mapping[str, Any],
        failed: Callable[[Exception], None],
    ) -> None:
        """histograms: of all weights. settings: what the tab HPARAMS shows. failed: called once, with what went wrong
        when nothing could be written; the training goes on."""
        super().__init__()
        self.findings: Findings | None = None
        self.shares: Shares | None = None
        self.meter: Meter
        self._folder = folder
        self._probe = probe
        self._histograms = histograms
        self._settings = settings
        self._failed: Callable[[Exception], None] | None = failed
        self._writers: dict[str, Any] = {}
        self._described = False

    def sizes(self) -> dict[str, int]:
        """Return how much has been written, by file."""
        return {str(path.relative_to(self._folder)): path.stat().st_size for path in self._files()}

    def go_on_from(self, sizes: Mapping[str, int]) -> None:
        """Take away what was written after a checkpoint, whose `sizes` these are: it will be written again."""
        self._described = bool(sizes)
        for path in self._files():
            size = sizes.get(str(path.relative_to(self._folder)), 0)
            if not size:
                path.unlink()
            elif path.stat().st_size > size:
                os.truncate(path, size)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._failed is None:
            return
        try:
            self._look()
            self._write(epoch, numbers(logs))
            for writer in self._writers.values():
                writer.flush()
        except Exception as error:
            # A full disk, or a model that can't be looked at so: no reason to end its training.
            self.findings = None
            self.say_failed(error)

    def say_failed(self, error: Exception) -> None:
        """Say, once, that the curves could not be written."""
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(error)

    def _look(self) -> None:
        several = self.model.distribute_strategy.num_replicas_in_sync > 1
        if several and not self.meter.sync_seconds:
            self.meter.sync_seconds = seconds_to_synchronize(self.model)
        self.shares = self.meter.take()
        self.findings = self._probe.look()

    def _write(self, epoch: int, logs: Mapping[str, float]) -> None:
        if not self._described:
            self._describe()
        found = self.findings
        assert found is not None
        values: dict[str, dict[str, Any]] = {"train": {"learning_rate": self._learning_rate()}, "validation": {}}
        for name, value in logs.items():
            of_validation = name.startswith("val_")
            values["validation" if of_validation else "train"][name.removeprefix("val_")] = value
        seen = {"gradient_norm": found.gradient_norm, "weight_norm": found.weight_norm, "dead_units": found.dead}
        values["train"] |= {name: value for name, value in seen.items() if value is not None}
        for split, of_split in values.items():
            with self._writer(split).as_default(step=epoch):
                for name, value in of_split.items():
                    tf.summary.scalar(f"epoch_{name}", value)
        if self._histograms:
            with self._writer("train").as_default(step=epoch):
                for variable in self.model.trainable_variables:
                    tf.summary.histogram(variable.path, tf.convert_to_tensor(variable.value))
        self._write_speed(epoch)

    def _write_speed(self, epoch: int) -> None:
        shares = self.shares
        if shares is None:
            return
        with self._writer("speed").as_default(step=epoch):
            tf.summary.scalar("rows_per_s", shares.steps * self.meter.feed.batch_size / shares.seconds)
            for name in ("input", "computing", "synchronizing", "python"):
                tf.summary.scalar(f"share/{name}", getattr(shares, name))

    def _describe(self) -> None:
        """Write what stays the same: the settings, and the graph of the model."""
        from tensorboard.plugins.hparams import api

        self._described = True
        with self._writer("validation").as_default():
            api.hparams(dict(self._settings))
        traced = tf.function(lambda x: self.model(x, training=False)).get_concrete_function(self._probe.inputs)
        with self._writer("train").as_default():
            tf.summary.graph(traced.graph)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for writer in self._writers.values():
            with suppress(OSError, tf.errors.OpError):
                writer.close()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
        return self._writers[name]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*/events.out.tfevents.*"))

    def _learning_rate(self) -> float:
        optimizer = self.model.optimizer
        # Of float16, whose loss is scaled.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return a section's numbers, truths and texts by the names of their keys, joined by dots."""
    if isinstance(settings, Mapping):
        pairs = [(str(key), value) for key, value in settings.items()]
    elif isinstance(settings, list | tuple):
        pairs = [(str(place), value) for place, value in enumerate(settings)]
    else:
        return {prefix: settings} if isinstance(settings, bool | int | float | str) else {}
    found: dict[str, Any] = {}
    for key, value in pairs:
        found |= flat(value, f"{prefix}.{key}" if prefix else key)
    return found
