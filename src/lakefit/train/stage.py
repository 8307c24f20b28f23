"""`train`: fit the model on the training split, watch it on the validation split, end with its weights on disk."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lakefit.config import Pipeline, PipelineSource, Problem, Train
from lakefit.console import Console
from lakefit.dataset.layout import CHECKPOINTS, HISTORY, TENSORBOARD, WEIGHTS
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.publish import write_json
from lakefit.errors import LakefitError
from lakefit.feed.split import SplitFeed
from lakefit.train.checkpoint import latest_checkpoint, restore_callbacks, restore_variables, save_checkpoint
from lakefit.train.compiled import build_callbacks
from lakefit.train.devices import build_without_data, check_share, strategy, weighted_by_rows
from lakefit.train.inputs import describe
from lakefit.train.model import BuiltModel, build_model
from lakefit.train.steps import Callbacks, Steps
from lakefit.train.tensorboard import Curves

AHEAD = 2
"""Batches that are ready when the model asks for them."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What to train on, and where its checkpoints, history, TensorBoard logs and model go."""

    pipeline: Pipeline
    source: PipelineSource
    manifest: Manifest
    dataset_dir: Path
    run_dir: Path


def train(job: TrainJob, console: Console) -> dict[str, list[float]]:
    """Train to the end, from the last checkpoint where there is one; return the history, a list a metric.

    The weights are written as `model.weights.h5` in the run's folder, of which `load_trained` makes the model again.

    Raises:
        ConfigError: what the pipeline file names is none of Keras's. FeedError: an epoch was not delivered whole.
    """
    section = job.pipeline.train
    keras.utils.clear_session()
    keras.utils.set_random_seed(section.seed)
    if section.deterministic:
        tf.config.experimental.enable_op_determinism()
    devices = strategy(section.devices, job.source)
    with devices.scope():
        built = build_model(describe(job.pipeline, job.manifest), section, job.source)
        model = built.model
        model.optimizer.build(model.trainable_variables)
        callbacks = build_callbacks(section, built.logged, job.source)
    batch_size = section.fit.batch_size
    training = SplitFeed(
        job.dataset_dir,
        job.manifest,
        "train",
        batch_size=batch_size,
        seed=section.seed,
        lanes=section.feed.lanes,
        remainder=section.feed.remainder,
    )
    if not training.batches:
        raise job.source.error(
            Problem(
                ("train", "feed", "remainder"),
                f"drop: the training split has {training.rows:,} rows, fewer than a batch of {batch_size:,}, so no "
                "batch would be left; keep the remainder, or lower train.fit.batch_size",
            )
        )
    check_share(section, devices.num_replicas_in_sync, training.rows, job.source)
    validation = SplitFeed(job.dataset_dir, job.manifest, "validation", batch_size=batch_size, shuffle=False)
    checkpoints = job.run_dir / CHECKPOINTS
    found = latest_checkpoint(checkpoints)
    history: dict[str, list[float]] = {}
    first_epoch = 0
    if found is not None:
        path, state = found
        with devices.scope():
            restore_variables(path, model)
        history = state["history"]
        first_epoch = section.fit.epochs if state["stopped"] else state["epoch"]
        console.event("resume", f"train goes on after epoch {state['epoch']}", epoch=state["epoch"])

    steps = Steps(model, training.batches)
    keeper = _EpochKeeper(
        steps=steps,
        feeds=(training, validation),
        callbacks=callbacks,
        checkpoints=checkpoints,
        restore_from=found[0] if found is not None else None,
        history=history,
        console=console,
        epochs=section.fit.epochs,
    )
    training.epoch = first_epoch
    batches = batches_for(built, training, devices, epochs=section.fit.epochs - first_epoch)
    if devices.num_replicas_in_sync > 1:
        with devices.scope():
            build_without_data(model, batches)
    # Ours come last: what they write down is what the others have made of the epoch.
    all_callbacks = [*callbacks, Curves(job.run_dir / TENSORBOARD), keeper]
    with console.progress("train", training.batches * section.fit.epochs, lambda: _progress(model, training, section)):
        try:
            model.fit(
                batches,
                validation_data=batches_for(built, validation, devices),
                epochs=section.fit.epochs,
                initial_epoch=first_epoch,
                # With the steps given, Keras makes one iterator of the training split, and one an epoch for validation.
                steps_per_epoch=training.batches,
                validation_steps=validation.batches,
                callbacks=Callbacks(all_callbacks, model, epochs=section.fit.epochs, steps=training.batches),
                shuffle=False,  # the feed shuffles; Keras would warn that it can not
                verbose=0,
            )
        except tf.errors.OpError:
            for feed in (training, validation):
                if feed.error is not None:
                    raise feed.error from None
            raise
        finally:
            keeper.ended = True
            training.close()
    write_json(job.run_dir / HISTORY, history)
    _save_weights(model, job.run_dir / WEIGHTS)
    return history


def batches_for(
    built: BuiltModel, feed: SplitFeed, devices: tf.distribute.Strategy, epochs: int = 1
) -> tf.data.Dataset:
    """Return a feed's batches of so many epochs as the model takes them, some ahead of it, on its device where that is
    one GPU."""
    data = feed.to_tf(epochs=epochs)
    if not built.takes_batches_as_they_are:
        data = data.map(built.batch)
    if devices.num_replicas_in_sync > 1:
        # The strategy fetches ahead itself.
        return weighted_by_rows(data, devices.num_replicas_in_sync)
    gpus = tf.config.get_visible_devices("GPU")
    return data.apply(tf.data.experimental.prefetch_to_device("/GPU:0", AHEAD)) if gpus else data.prefetch(AHEAD)


def load_trained(job: TrainJob) -> keras.Model:
    """Return the model that `train` has made, of the dataset's arrays by name: it gives probabilities, or a
    regression's prediction as the dataset has labels; of several labels, a mapping by their names.

    It is built anew, outside of any strategy, for a model of the user's own code can't always be saved.

    Raises:
        ConfigError: as `build_model`; the user's code has changed since.
    """
    built = build_model(describe(job.pipeline, job.manifest), job.pipeline.train, job.source)
    # Else the optimizer would be looked for in the file, and belong to what is exported.
    built.model.optimizer, built.model.compiled = None, False
    built.model.load_weights(job.run_dir / WEIGHTS)
    return built.predictor()


def _save_weights(model: keras.Model, path: Path) -> None:
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    model.optimizer = None  # its state is two or three times the weights, and of no use any more
    model.save_weights(temporary)
    os.replace(temporary, path)


def _progress(model: keras.Model, training: SplitFeed, section: Train) -> tuple[int, str]:
    """Return the steps done in all epochs together, and epoch and loss in words.

    Asked for by another thread: a callback at each batch would make Keras wait for it, and for the loss's value.
    """
    done = int(np.asarray(model.optimizer.iterations))
    text = f"epoch {min(done // training.batches + 1, section.fit.epochs)}/{section.fit.epochs}"
    tracker = next((metric for metric in model.metrics if metric.name == "loss"), None)
    count = float(np.asarray(tracker.count)) if tracker is not None else 0.0
    if tracker is None or not count:
        return done, text
    return done, f"{text}  loss {float(np.asarray(tracker.total)) / count:.4f}"


def since_start() -> float:
    """Return the seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class _EpochKeeper(keras.callbacks.Callback):
    """At each epoch's end: check the receipts, write the checkpoint, say how it went."""

    def __init__(
        self,
        *,
        steps: Steps,
        feeds: tuple[SplitFeed, SplitFeed],
        callbacks: list[keras.callbacks.Callback],
        checkpoints: Path,
        restore_from: Path | None,
        history: dict[str, list[float]],
        console: Console,
        epochs: int,
    ) -> None:
        super().__init__()
        self._steps = steps
        self._training, self._validation = feeds
        self._others = callbacks
        self._checkpoints = checkpoints
        self._restore_from = restore_from
        self._history = history
        self._console = console
        self._epochs = epochs
        self.ended = False
        self._began = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._restore_from is not None:
            restore_callbacks(self._restore_from, self._others)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._began:
            threading.Thread(target=self._say_first_step, daemon=True).start()
        self._steps.begin_epoch()
        self._began = time.monotonic()

    def _say_first_step(self) -> None:
        """Say how long the start took. Looked at from outside: Keras would wait for a callback at every batch."""
        before = int(np.asarray(self.model.optimizer.iterations))
        while int(np.asarray(self.model.optimizer.iterations)) == before:
            if self.ended:
                return
            time.sleep(0.02)
        seconds = round(since_start(), 1)
        self._console.event("first_step", f"the first step was done {seconds} s after the start", seconds=seconds)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._training.check(epoch)
        self._validation.check()
        seconds = time.monotonic() - self._began
        values = {name: float(np.asarray(value)) for name, value in (logs or {}).items()}
        if not np.isfinite(values.get("loss", 0.0)):
            raise LakefitError(
                f"The loss is {values['loss']} in epoch {epoch + 1}: training has diverged. Lower "
                "train.compile.optimizer's learning_rate, or look for extreme values in the numeric features "
                "(features.numeric of the dataset's manifest has their range). Nothing was exported."
            )
        for name, value in values.items():
            self._history.setdefault(name, []).append(value)
        save_checkpoint(
            self._checkpoints,
            epoch + 1,
            self.model,
            self._others,
            {"history": self._history, "stopped": bool(self.model.stop_training)},
        )
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        rows_per_s = self._training.rows / seconds if seconds else 0.0
        self._console.event(
            "epoch",
            f"epoch {epoch + 1}/{self._epochs}  {shown}  {rows_per_s:,.0f} rows/s",
            epoch=epoch + 1,
            **values,
            rows_per_s=round(rows_per_s),
        )
