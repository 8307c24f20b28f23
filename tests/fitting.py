"""The stage `train` by itself on a small dataset, here or in a process that can be killed."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FEATURES = ("x", "y", "z")


def section_of(**changes: Any) -> dict[str, Any]:
    """Return a train section: a small model, three epochs, but for what is given."""
    from models import SIGMOID

    return {
        "devices": "cpu",
        "model": {"sequential": [{"Dense": {"units": 4, "activation": "relu"}}, SIGMOID]},
        "fit": {"epochs": 3, "batch_size": 32},
        **changes,
    }


def write_dataset(folder: Path, rows: int = 330, validation: int = 70, **label: Any) -> Path:
    """Write a training and a validation split, and their manifest, as `prepare` would; return the folder.

    label: as a LabelFeature takes it. Of weighted rows every third one has the weight 0.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feeds import manifest_of
    from lakefit.dataset.features import Features, LabelFeature, NumericFeature
    from lakefit.dataset.manifest import DataFile, SplitFiles

    label_feature, splits = LabelFeature(**label), {}
    for number, (split, count) in enumerate((("train", rows), ("validation", validation))):
        dice = np.random.default_rng(number)
        columns = {name: dice.normal(size=count).astype(np.float32) for name in FEATURES}
        columns["label"] = (columns["x"] + dice.normal(size=count) > 0).astype(np.float32)
        columns["_position"] = np.arange(count) + (number << 56)
        if label_feature.weight is not None:
            columns[label_feature.weight] = (np.arange(count) % 3).astype(np.float32)
        path = folder / split / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path, row_group_size=64)
        groups = tuple(min(64, count - first) for first in range(0, count, 64))
        file = DataFile(path=f"{split}/{path.name}", row_groups=groups, bytes=0, sha256="", first_position=number << 56)
        splits[split] = SplitFiles(rows=count, classes={"label": {}}, files=(file,))
    features = Features(numeric=tuple(NumericFeature(name=name, fill=0.0) for name in FEATURES))
    content = {"splits": splits, "labels": (label_feature,)}
    manifest = manifest_of(splits["train"].files, features).model_copy(update=content)
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True), encoding="utf-8")
    return folder


def write_splits(folder: Path, batch: int, remainders: Sequence[int]) -> Path:
    """Write a training split of nine batches and what remains for each remainder, called by it; return the folder."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feeds import manifest_of
    from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
    from lakefit.dataset.manifest import DataFile

    dice = np.random.default_rng(1)
    for remainder in remainders:
        rows = 9 * batch + remainder
        path = folder / str(remainder)
        (path / "train").mkdir(parents=True)
        columns: dict[str, Any] = {name: dice.normal(size=rows).astype(np.float32) for name in ("x", "y")}
        columns |= {"c": dice.integers(2, 10, rows).astype(np.int32), "_position": np.arange(rows)}
        columns["label"] = (columns["x"] + columns["c"] > 5).astype(np.float32)
        pq.write_table(pa.table(columns), path / "train/part-00000.parquet")
        file = DataFile(path="train/part-00000.parquet", row_groups=(rows,), bytes=0, sha256="", first_position=0)
        features = Features(
            numeric=tuple(NumericFeature(name=name, fill=0.0) for name in ("x", "y")),
            categorical=(CategoricalFeature(name="c", vocabulary=tuple("abcdefgh"), counts=(1,) * 8, rare=0),),
        )
        (path / "manifest.json").write_text(manifest_of([file], features).model_dump_json(by_alias=True))
    return folder


def fit(folder: Path, run_dir: Path, section: dict[str, Any], fingerprint: str = "1") -> str | None:
    """Train on the dataset in a folder by a pipeline file's train section; return what went wrong beside it."""
    from lakefit.config import PipelineSource
    from lakefit.config.pipeline import Pipeline
    from lakefit.console import Console
    from lakefit.dataset.manifest import read_manifest
    from lakefit.launch.place import place
    from lakefit.launch.quiet import import_tensorflow_quietly
    from lakefit.launch.stop import Stop

    import_tensorflow_quietly()
    from lakefit.train.stage import TrainJob, train

    manifest = read_manifest(folder)
    features: dict[str, Any] = {"numeric": {"columns": FEATURES}}
    if manifest.features.images:
        (image,) = manifest.features.images
        features = {"images": {"columns": [image.name], "size": image.shape[:2], "channels": image.shape[2]}}
    pipeline = Pipeline.model_validate_json(
        json.dumps(
            {
                "name": "fitting",
                "source": {"tables": {"t": {"path": "-", "format": "parquet"}}, "rows": "t"},
                "features": features,
                "label": {"expression": "answer > 0"},
                "output": {"path": "-"},
                "train": section,
            }
        ),
        strict=True,
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    job = TrainJob(pipeline, PipelineSource("p.yaml", {}, {}, ""), manifest, folder, run_dir, fingerprint)
    stop = Stop()
    with stop.listening():
        return train(job, Console("json"), stop, place())


def kill_at(instant: str, number: int) -> None:
    """Make this process kill itself, by SIGKILL, the n-th time it comes to an instant: `step`, before a step;
    `checkpoint`, when a checkpoint's bytes are written and have not got their name; `validation`, between its steps; or
    send itself SIGTERM: `term at step`, `term at validation`. `milliseconds` are counted from the training's begin."""
    from lakefit.dataset import publish
    from lakefit.train import checkpoint, keeper, steps

    count = 0
    save = checkpoint.CheckpointFolder.save

    def written(self: Any, *arguments: Any) -> None:
        # Steps take a millisecond here, and none would be written between two of them.
        save(self, *arguments)
        self.flush()

    checkpoint.CheckpointFolder.save = written  # type: ignore[method-assign]

    def killing(function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGTERM if instant.startswith("term") else signal.SIGKILL)
            return function(*arguments)

        return counted

    if instant == "milliseconds":
        begin = keeper.Keeper.on_train_begin

        def began(self: Any, logs: Any = None) -> None:
            threading.Timer(number / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
            begin(self, logs)

        keeper.Keeper.on_train_begin = began  # type: ignore[method-assign]
    elif instant.endswith("step"):
        steps.Steps.__call__ = killing(steps.Steps.__call__)  # type: ignore[method-assign]
    elif instant.endswith("validation"):
        validation = keeper.Keeper.after_validation_steps
        keeper.Keeper.after_validation_steps = killing(validation)  # type: ignore[method-assign]
    else:
        replace, counted = os.replace, killing(os.replace)
        publish.os.replace = lambda a, b: (counted if ".npz" in str(b) else replace)(a, b)  # type: ignore[assignment]


def start(
    folder: Path, run_dir: Path, section: dict[str, Any], *kill: str | int, **environment: str
) -> "subprocess.Popen[str]":
    """Start `fit` in a process of its own, which is killed at an instant where one is given."""
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), str(run_dir), json.dumps(section), *map(str, kill)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parent / "train",
        env={**os.environ, **environment},
    )  # fmt: skip


def places(workers: int) -> list[dict[str, str]]:
    """Return the environment of each of so many processes that are to train together on this machine."""
    from lakefit.launch.place import TF_CONFIG, Place

    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in held)
    for server in held:
        server.close()
    return [{TF_CONFIG: Place(worker, addresses).tf_config()} for worker in range(workers)]


def result_of(run_dir: Path) -> dict[str, Any]:
    """Return what must be the same to the bit after a kill: weights, history, and TensorBoard's points in order."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    points = []
    for split in ("train", "validation"):
        for file in sorted((run_dir / "tensorboard" / split).iterdir()):
            for event in EventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    content = make_ndarray(value.tensor) if value.HasField("tensor") else value.simple_value
                    # The graph's bytes and the settings stand in no fixed order.
                    points.append((split, value.tag, event.step, str(content) if "epoch_" in value.tag else ""))
    history = json.loads((run_dir / "history.json").read_text())
    return {"weights": weights(run_dir / "model.weights.h5"), "history": history, "points": sorted(points)}


def weights(file: Path) -> str:
    """Return a digest of a file of weights by their names (the file itself holds times)."""
    digest = hashlib.sha256()
    for name, array in weight_arrays(file).items():
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def weight_arrays(file: Path) -> dict[str, Any]:
    """Return what a file of weights holds by name."""
    import h5py
    import numpy as np

    arrays: dict[str, Any] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item)

    with h5py.File(file) as found:
        found.visititems(take)
    return arrays


if __name__ == "__main__":
    if sys.argv[4:]:
        kill_at(sys.argv[4], int(sys.argv[5]))
    code = 0
    try:
        fit(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    # As the product's workers end: at times the interpreter waits for ever for TensorFlow's threads, that call it.
    os._exit(code)
