"""Checkpoints: everything that the next step depends on, in one file, written atomically and beside the training.

A file is called by the epochs and the batches that are done, and by the first digits of its SHA-256, so that a damaged
one is known. It is NumPy's .npz, without pickles: arrays, and JSON in `meta`.
"""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lakefit.dataset.object_path import AnyPath, ObjectPath, matching, of_the_store
from lakefit.dataset.publish import move_aside, write_atomically
from lakefit.errors import LakefitError
from lakefit.train.workers import Workers

_DIGITS = 16
_VARIABLE, _CALLBACK = "variable", "callback"
# What Keras's own callbacks remember; the others that a pipeline file can name keep nothing, or keep it outside.
_REMEMBERED: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.LearningRateScheduler: (),
    keras.callbacks.TerminateOnNaN: (),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of the training, or what is read of one.

    epoch: epochs done. batch: batches of the next one that are done. meta: plain data. arrays: by name.
    """

    epoch: int
    batch: int
    meta: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    path: AnyPath = field(default=Path())


def keeps_its_state(callback: keras.callbacks.Callback) -> bool:
    """Return False for a callback that begins anew after a kill: it may remember what no checkpoint holds."""
    return type(callback) in _REMEMBERED or (hasattr(callback, "get_state") and hasattr(callback, "set_state"))


def snapshot(
    epoch: int,
    batch: int,
    model: keras.Model,
    callbacks: Sequence[keras.callbacks.Callback],
    meta: dict[str, Any],
    workers: Workers,
) -> Checkpoint:
    """Return a copy of all variables (weights, optimizer, metrics, and seed generators, which a .keras file does not
    hold) and of what the callbacks remember. All workers ask for it at the same step.

    Raises:
        LakefitError: a callback's get_state returned what can't be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    variables = _variables(model)
    # Of a metric each device counts its own share.
    counted = iter(workers.gathered([variable for variable, is_metric in variables if is_metric]))
    for number, (variable, is_metric) in enumerate(variables):
        parts = next(counted) if is_metric else [np.array(part) for part in _components(model, variable)]
        same = not is_metric and all(part.tobytes() == parts[0].tobytes() for part in parts)
        for place, part in enumerate(parts[:1] if same else parts):
            arrays[f"{_VARIABLE}-{number:05d}-{place:03d}"] = part
    remembered = []
    for place, callback in enumerate(callbacks):
        found: list[NDArray[Any]] = []
        remembered.append(_plain(_state_of(callback), found, type(callback).__name__))
        arrays |= {f"{_CALLBACK}-{place:03d}-{number:05d}": array for number, array in enumerate(found)}
    described = described_variables(model)
    return Checkpoint(epoch, batch, {**meta, "variables": described, "callbacks": remembered}, arrays)


def described_variables(model: keras.Model) -> list[list[Any]]:
    """Return path, dtype and shape of all variables, as a checkpoint's `meta["variables"]` has them."""
    return [[variable.path, str(variable.dtype), *variable.shape] for variable, _ in _variables(model)]


def restore_variables(checkpoint: Checkpoint, model: keras.Model, workers: Workers) -> None:
    """Set all variables of a model that has the same ones. On another number of devices, the first of them takes over
    what all have counted."""
    for number, (variable, is_metric) in enumerate(_variables(model)):
        names = (f"{_VARIABLE}-{number:05d}-{place:03d}" for place in count())
        saved = [checkpoint.arrays[name] for name in takewhile(checkpoint.arrays.__contains__, names)]
        if saved[0].dtype.kind == "V":
            # NumPy has no name for bfloat16 in its files.
            saved = [part.view(tf.as_dtype(variable.dtype).as_numpy_dtype) for part in saved]
        parts = _components(model, variable)
        if is_metric:
            if len(saved) != workers.replicas:
                saved = [sum(saved[1:], saved[0]), *[np.zeros_like(saved[0])] * (workers.replicas - 1)]
            here = workers.worker * len(parts)
            saved = saved[here : here + len(parts)]
        elif len(saved) != len(parts):
            saved = [saved[0]] * len(parts)
        for part, value in zip(parts, saved, strict=True):
            part.assign(value)


def restore_callbacks(checkpoint: Checkpoint, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Give callbacks back what they remembered; Keras clears it when training begins, so after that."""
    for place, (callback, state) in enumerate(zip(callbacks, checkpoint.meta["callbacks"], strict=True)):
        names = sorted(name for name in checkpoint.arrays if name.startswith(f"{_CALLBACK}-{place:03d}-"))
        found = _restored(state, [checkpoint.arrays[name] for name in names])
        if type(callback) in _REMEMBERED:
            for name, value in found.items():
                setattr(callback, name, value)
        elif keeps_its_state(callback):
            callback.set_state(found)


class CheckpointFolder:
    """The last checkpoints of a run and the best one. They are written by a thread, while the training goes on.

    failed: why a checkpoint could not be written, None where all were.
    """

    def __init__(
        self,
        folder: AnyPath,
        keep: int,
        failed: Callable[[Exception], None],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """failed: called, by the thread, with what went wrong. before: called before each checkpoint is written."""
        self.folder = folder
        self.failed: Exception | None = None
        self._keep = keep
        self._say_failed = failed
        self._before = before
        self._changed = threading.Condition()
        self._waiting: list[Checkpoint] = []
        self._best_epoch: int | None = None
        self._writing = False
        self._thread: threading.Thread | None = None

    def save(self, checkpoint: Checkpoint, best_epoch: int | None = None) -> None:
        """Write a checkpoint soon; one that still waits to be written is left out for it, but for the best.

        best_epoch: the checkpoint after so many epochs is kept, besides the last ones.
        """
        with self._changed:
            best = [waits for waits in self._waiting if (waits.epoch, waits.batch) == (best_epoch, 0)]
            self._waiting, self._best_epoch = [*best, checkpoint], best_epoch
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._write_all, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Return once all is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._writing)

    def newest(self, damaged: Callable[[AnyPath], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, or None. damaged: called with each newer one that is not, which
        is called `.damaged` from then on."""
        for path in reversed(self._files()):
            found = _read(path)
            if found is not None:
                return found
            damaged(path)
            with suppress(OSError):
                move_aside(path, f"{path.name}.damaged")
        return None

    def named(self, name: str) -> Checkpoint:
        """Return the checkpoint that another process has found to be the newest. Raises LakefitError."""
        found = _read(self.folder / name)
        if found is None:
            raise LakefitError(f"{self.folder / name}: the chief goes on from this checkpoint, and here it is damaged.")
        return found

    def _files(self) -> list[AnyPath]:
        return matching(self.folder, "epoch-*-batch-*.npz")

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                checkpoint, best_epoch, self._writing = self._waiting.pop(0), self._best_epoch, True
            try:
                self._write(checkpoint, best_epoch)
            except Exception as error:
                # Whatever it is, the training goes on, and whoever waits for this thread must not wait for ever.
                self.failed = error
                with suppress(Exception):  # where standard output is on the same full disk
                    self._say_failed(error)
            finally:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()

    def _write(self, checkpoint: Checkpoint, best_epoch: int | None) -> None:
        self._before()
        sink = io.BytesIO()
        meta = {"epoch": checkpoint.epoch, "batch": checkpoint.batch, **checkpoint.meta}
        np.savez(sink, allow_pickle=False, meta=np.array(json.dumps(meta)), **checkpoint.arrays)
        content = sink.getvalue()
        digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
        name = f"epoch-{checkpoint.epoch:05d}-batch-{checkpoint.batch:09d}-{digest}.npz"
        write_atomically(self.folder / name, content)
        best = f"epoch-{best_epoch:05d}-batch-{0:09d}-" if best_epoch is not None else name
        for old in self._files()[: -self._keep]:
            if not old.name.startswith(best):
                old.unlink()


def _read(path: AnyPath) -> Checkpoint | None:
    """Return a checkpoint, or None where it is damaged."""
    try:
        content = path.read_bytes(patient=True) if isinstance(path, ObjectPath) else path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:_DIGITS] != path.stem.rsplit("-", 1)[1]:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta")))
        return Checkpoint(meta["epoch"], meta["batch"], meta, arrays, path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        if of_the_store(error):
            # It may well be whole.
            raise
        return None


def _variables(model: keras.Model) -> list[tuple[Any, bool]]:
    """Return all that a training step changes, once each, in an order that is always the same; True of a metric's."""
    # A model with a train_step of its own may have several.
    others = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    optimizers = {id(optimizer): optimizer for optimizer in (model.optimizer, *others)}.values()
    metrics = {id(variable) for variable in model.metrics_variables}
    found = [*model.variables, *(v for one in optimizers for v in one.variables), *model.metrics_variables]
    return [(variable, key in metrics) for key, variable in {id(v): v for v in found}.items()]


def _components(model: keras.Model, variable: Any) -> Sequence[Any]:
    """Return the TensorFlow variable of each device."""
    parts: Sequence[Any] = model.distribute_strategy.experimental_local_results(variable.value)
    return parts


def _state_of(callback: keras.callbacks.Callback) -> Any:
    if type(callback) in _REMEMBERED:
        return {name: getattr(callback, name, None) for name in _REMEMBERED[type(callback)]}
    return callback.get_state() if keeps_its_state(callback) else None


def _plain(value: Any, arrays: list[NDArray[Any]], owner: str) -> Any:
    """Return a value as JSON has it, arrays as their places in `arrays`. Python writes floats so that they return."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        arrays.append(np.array(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(inner, arrays, owner) for key, inner in value.items()}}
    if isinstance(value, list | tuple):
        return [_plain(inner, arrays, owner) for inner in value]
    raise LakefitError(
        f"train.callbacks: {owner}.get_state() returned a {type(value).__name__}, which a checkpoint can't hold: give "
        "numbers, text, arrays, and lists and dicts of them by text."
    )


def _restored(value: Any, arrays: Sequence[NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        return {key: _restored(inner, arrays) for key, inner in value["dict"].items()}
    if isinstance(value, list):
        return [_restored(inner, arrays) for inner in value]
    return value
