"""A checkpoint an epoch: everything that the next epoch depends on, in one file, written atomically."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lakefit.dataset.publish import write_atomically
from lakefit.errors import InputError

KEPT = 2
# What these callbacks remember between epochs; other callbacks of Keras that the pipeline file can name keep nothing.
_REMEMBERED = {
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    "ReduceLROnPlateau": ("wait", "cooldown_counter", "best"),
    "ModelCheckpoint": ("best",),
}


def save_checkpoint(
    folder: Path, epoch: int, model: keras.Model, callbacks: list[keras.callbacks.Callback], state: dict[str, Any]
) -> None:
    """Write the state after `epoch` (counted from 1) epochs; the last two checkpoints are kept.

    Weights, optimizer and seed generators (which a .keras file does not hold) are arrays in the order of the model's
    variables; `state` is plain JSON data.
    """
    arrays = {f"variable-{i:04d}": np.asarray(variable) for i, variable in enumerate(_variables(model))}
    remembered: list[dict[str, Any]] = []
    for place, callback in enumerate(callbacks):
        values: dict[str, Any] = {}
        for name in _REMEMBERED.get(type(callback).__name__, ()):
            value = getattr(callback, name, None)
            if name == "best_weights" and value is not None:
                arrays |= {f"callback-{place:02d}-{i:04d}": np.asarray(weight) for i, weight in enumerate(value)}
            elif value is None or isinstance(value, (bool, int)):
                values[name] = value
            elif name != "best_weights":
                # Exactly, as hexadecimal: the comparison with the next epoch's value must not change.
                values[name] = float(value).hex()
        remembered.append(values)
    meta = {"epoch": epoch, "callbacks": remembered, **state}
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, meta=np.array(json.dumps(meta)), **arrays)
    write_atomically(folder / f"epoch-{epoch:05d}.npz", sink.getvalue())
    for old in sorted(folder.glob("epoch-*.npz"))[:-KEPT]:
        old.unlink()


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be read whole and its state, or None."""
    for path in sorted(folder.glob("epoch-*.npz"), reverse=True):
        try:
            with np.load(path, allow_pickle=False) as file:
                if file.zip.testzip() is None:  # reads all of it and compares checksums
                    return path, json.loads(str(file["meta"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            continue
    return None


def restore_variables(path: Path, model: keras.Model) -> None:
    """Set weights, optimizer and seed generators. Raises InputError where the checkpoint is of another model."""
    with np.load(path, allow_pickle=False) as file:
        variables = _variables(model)
        names = [name for name in file.files if name.startswith("variable-")]
        if len(names) != len(variables):
            raise InputError(
                f"{path}: holds {len(names)} variables, the model has {len(variables)}: it is of another model or "
                "another version of Keras. Remove the run's folder to train afresh."
            )
        for name, variable in zip(names, variables, strict=True):
            variable.assign(file[name])


def restore_callbacks(path: Path, callbacks: list[keras.callbacks.Callback]) -> None:
    """Give callbacks back what they remembered; Keras clears it when training begins, so after that."""
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        for place, (callback, values) in enumerate(zip(callbacks, meta["callbacks"], strict=True)):
            for name, value in values.items():
                setattr(callback, name, float.fromhex(value) if isinstance(value, str) else value)
            weights = [file[name] for name in file.files if name.startswith(f"callback-{place:02d}-")]
            if weights:
                callback.best_weights = weights


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]
