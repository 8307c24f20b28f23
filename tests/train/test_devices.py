"""One, two and four devices train the same: gradients and weights, uneven last batches and embeddings included."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitting import fit, section_of, start, weight_arrays, write_dataset, write_splits

BATCH = 16
# Batches of 16 rows, and what remains: 0, 1, R - 1 (1 and 3) and 3 rows, and 5, which 4 devices cut into 2, 2, 1 and 0.
REMAINDERS = (0, 1, 3, 5)

TRAIN = """
import json, sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from lakefit.config import PipelineSource
from lakefit.config.train import Compile, Train
from lakefit.dataset.manifest import Manifest
from lakefit.feed.split import SplitFeed
from lakefit.train.devices import strategy, weighted_by_rows
from lakefit.train.distributed_fit import build_without_data
from lakefit.train.inputs import DatasetDescription
from lakefit.train.model import build_model

folder, replicas, batch, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tf.config.experimental.enable_op_determinism()
SOURCE = PipelineSource("p.yaml", {}, {}, "")
devices = strategy(f"cpu:{replicas}", SOURCE)
found = {}
for path in sorted(folder.iterdir()):
    manifest = Manifest.model_validate_json((path / "manifest.json").read_text())
    section = Train.model_validate({
        "model": {"sequential": [{"Dense": {"units": 8, "activation": "relu"}},
                                 {"Dense": {"units": 1, "activation": "sigmoid"}}]},
        "compile": {"optimizer": {"SGD": {"learning_rate": 0.01}}, "metrics": ["accuracy"]},
        "fit": {"epochs": 1, "batch_size": batch},
    }, strict=False)
    keras.utils.set_random_seed(1)
    with devices.scope():
        data = DatasetDescription(manifest.features, manifest.labels, {})
        model = build_model(data, section, SOURCE).model
    feed = SplitFeed(path, manifest, "train", batch_size=batch, seed=1)
    data = feed.to_tf()
    if replicas > 1:
        data = weighted_by_rows(data, replicas)
        with devices.scope():
            build_without_data(model, data)
    first = []
    # As in a training run: Keras asks for an iteration more than it has epochs.
    remember = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: setattr(feed, "epoch", epoch),
        on_epoch_end=lambda *_: first or first.extend(model.get_weights()),
    )
    # The long way once; the others for an epoch.
    epochs = -(-steps // feed.batches) if path.name == "3" else 1
    history = model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=[remember])
    # Momentum after one step is the gradient, in all its digits; the whole split is the batch.
    keras.utils.set_random_seed(1)
    momentum = {"SGD": {"momentum": 0.9, "learning_rate": 1.0}}
    section = section.model_copy(update={"compile": Compile(optimizer=momentum)})
    with devices.scope():
        stepped = build_model(DatasetDescription(manifest.features, manifest.labels, {}), section, SOURCE).model
    whole = SplitFeed(path, manifest, "train", batch_size=feed.rows, seed=1)
    data = whole.to_tf()
    if replicas > 1:
        data = weighted_by_rows(data, replicas)
        with devices.scope():
            build_without_data(stepped, data)
    stepped.fit(data, verbose=0, shuffle=False)
    found[path.name] = {
        "gradient": [np.asarray(v).tolist() for v in stepped.optimizer.variables if "momentum" in v.path],
        "first epoch": [weight.tolist() for weight in first],
        "weights": [weight.tolist() for weight in model.get_weights()],
        "accuracy": history.history["accuracy"],
        "loss": history.history["loss"],
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training split for each remainder."""
    return write_splits(tmp_path_factory.mktemp("splits"), BATCH, REMAINDERS)


def trained(folder: Path, replicas: int, steps: int) -> Any:
    command = [sys.executable, "-c", TRAIN, str(folder), str(replicas), str(BATCH), str(steps)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one(folder: Path) -> Any:
    return trained(folder, 1, 100)


@pytest.mark.parametrize("replicas", [2, 4])
def test_more_devices_end_with_the_same_weights(folder: Path, one: Any, replicas: int) -> None:
    more = trained(folder, replicas, 100)

    for remainder in map(str, REMAINDERS):
        assert len(one[remainder]["gradient"]) == 5
        for mine, theirs in zip(one[remainder]["gradient"], more[remainder]["gradient"], strict=True):
            off = np.linalg.norm(np.array(theirs) - np.array(mine)) / np.linalg.norm(mine)
            assert off <= 1e-6, f"{remainder} rows: the gradient is {off} off"
        for stage in ("first epoch", "weights"):
            for mine, theirs in zip(one[remainder][stage], more[remainder][stage], strict=True):
                np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-6, err_msg=f"{remainder} rows, {stage}")
        assert more[remainder]["accuracy"] == pytest.approx(one[remainder]["accuracy"])
        assert more[remainder]["loss"] == pytest.approx(one[remainder]["loss"], rel=1e-6)


SAME = """
import hashlib, json, sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from lakefit.config import PipelineSource
from lakefit.config.train import Train
from lakefit.dataset.manifest import Manifest
from lakefit.feed.split import SplitFeed
from lakefit.train.devices import strategy
from lakefit.train.distributed_fit import build_without_data
from lakefit.train.inputs import DatasetDescription
from lakefit.train.model import build_model
from lakefit.train.stage import batches_for
from lakefit.train.workers import Workers

path, replicas, models = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
tf.config.experimental.enable_op_determinism()
SOURCE = PipelineSource("p.yaml", {}, {}, "")
devices = strategy(f"cpu:{replicas}", SOURCE)
manifest = Manifest.model_validate_json((path / "manifest.json").read_text())
found = {}
for name, model in models.items():
    section = Train.model_validate({"fit": {"epochs": 2, "batch_size": 16}, **model}, strict=False)
    keras.utils.set_random_seed(section.seed)
    with devices.scope():
        built = build_model(DatasetDescription(manifest.features, manifest.labels, {}), section, SOURCE)
    feed = SplitFeed(path, manifest, "train", batch_size=16, seed=1)
    batches = batches_for(built, feed, devices, Workers(devices))
    with devices.scope():
        build_without_data(built.model, batches)
    history = built.model.fit(batches, epochs=2, verbose=0, shuffle=False)
    digest = hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in built.model.variables))
    found[name] = [digest.hexdigest(), float(history.history["loss"][-1]).hex()]
print(json.dumps(found))
"""
SIGMOID = {"Dense": {"units": 1, "activation": "sigmoid"}}
MODELS = {
    "dropout and batch statistics": {
        "model": {"sequential": [{"Dense": {"units": 8}}, "BatchNormalization", {"Dropout": {"rate": 0.5}}, SIGMOID]},
        "compile": {"metrics": ["AUC"]},
    },
    "two inputs, averaged weights": {
        "model": {"functional": {"layers": {
            "a": {"layer": {"Dense": {"units": 8, "activation": "relu"}}, "inputs": "numeric"},
            "b": {"layer": {"Embedding": {"input_dim": 10, "output_dim": 8}}, "inputs": "c"},
            "both": {"layer": "Add", "inputs": ["a", "b"]},
            "out": {"layer": SIGMOID},
        }}},
        "compile": {"optimizer": {"AdamW": {"use_ema": True, "clipnorm": 1.0}}},
    },
    "mixed precision": {
        "dtype_policy": "mixed_bfloat16",
        "model": {"sequential": [{"Dense": {"units": 8}}, {"GaussianNoise": {"stddev": 0.1}}, SIGMOID]},
    },
    "a subclass": {"model": "own_models:subclass"},
}  # fmt: skip


def test_every_model_ends_with_the_same_bits_in_every_run(folder: Path) -> None:
    def once(replicas: int) -> Any:
        command = [sys.executable, "-c", SAME, str(folder / "3"), str(replicas), json.dumps(MODELS)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        run = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent, check=False
        )
        assert run.returncode == 0, run.stderr[-3000:]
        return json.loads(run.stdout.splitlines()[-1])

    first = once(2)
    assert len({digest for digest, _ in first.values()}) == len(MODELS)
    assert once(2) == first


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted rows"])
def test_a_whole_training_on_two_devices_ends_with_the_weights_of_one(tmp_path: Path, weighted: bool) -> None:
    # The last batch has 9 rows, of which one device gets 5.
    dataset = write_dataset(tmp_path / "dataset", rows=329, weighted=weighted)
    section = section_of(compile={"optimizer": {"SGD": {"learning_rate": 0.01}}})
    fit(dataset, tmp_path / "one", section)
    process = start(dataset, tmp_path / "two", {**section, "devices": "cpu:2"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    one, two = (weight_arrays(tmp_path / name / "model.weights.h5") for name in ("one", "two"))
    assert list(two) == list(one)
    for name, mine in one.items():
        np.testing.assert_allclose(two[name], mine, rtol=0, atol=1e-6, err_msg=name)
    # What early stopping and schedules go by, too.
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    assert set(one) >= {"loss", "val_loss"}
    for name, mine in one.items():
        assert two[name] == pytest.approx(mine, rel=1e-5), name
