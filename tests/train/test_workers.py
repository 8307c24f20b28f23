"""Several processes that train one model: the same weights as one, to the bit in every run, and after any kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitting import places, result_of, section_of, start, weight_arrays, write_dataset, write_splits
from lakefit.errors import FeedError, InputError, LakefitError
from lakefit.feed.split import SplitFeed
from lakefit.launch.place import TF_CONFIG, Place, place
from lakefit.train.workers import Watch, is_lost, lost_of
from models import SIGMOID

BATCH = 16
# What remains for the last batch: 0, 1 and 3 rows, and one fewer than there are workers, of 2, 3 and 4.
REMAINDERS = (0, 1, 2, 3)

TRAIN = """
import json, os, sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from lakefit.config import PipelineSource
from lakefit.config.train import Compile, Train
from lakefit.dataset.manifest import Manifest
from lakefit.feed.split import SplitFeed
from lakefit.launch.place import place
from lakefit.train.devices import strategy
from lakefit.train.distributed_fit import build_without_data, reduce_logs_here
from lakefit.train.inputs import DatasetDescription
from lakefit.train.model import build_model
from lakefit.train.workers import Workers, distributed, shares

folder, batch, steps, at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), place()
worker, count = (at.worker, at.workers) if at is not None else (0, 1)
tf.config.experimental.enable_op_determinism()
SOURCE = PipelineSource("p.yaml", {}, {}, "")
devices = strategy("cpu", SOURCE, count)
workers = Workers(devices, worker, count)
reduce_logs_here()
found = {}

def fitted(manifest, path, batch, epochs, optimizer):
    section = Train.model_validate({
        "model": {"sequential": [{"Dense": {"units": 8, "activation": "relu"}},
                                 {"Dense": {"units": 1, "activation": "sigmoid"}}]},
        "compile": {"optimizer": {"SGD": optimizer}, "metrics": ["accuracy"]},
        "fit": {"epochs": 1, "batch_size": batch},
    }, strict=False)
    keras.utils.set_random_seed(1)
    feed = SplitFeed(path, manifest, "train", batch_size=batch, seed=1, worker=worker, workers=count)
    data = feed.to_tf(epochs=epochs)
    data = shares(data, feed, workers) if count > 1 else data
    with devices.scope():
        model = build_model(DatasetDescription(manifest.features, manifest.labels, {}), section, SOURCE).model
        build_without_data(model, data)
    epoch_ends = []
    history = model.fit(
        distributed(data, devices, workers), epochs=epochs, steps_per_epoch=feed.batches, verbose=0, shuffle=False,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: epoch_ends.append(model.get_weights()))],
    )
    return model, [w.tolist() for w in epoch_ends[0]], history.history

for path in sorted(folder.iterdir()):
    manifest = Manifest.model_validate_json((path / "manifest.json").read_text())
    rows = manifest.splits["train"].rows
    epochs = -(-steps // (-(-rows // batch))) if path.name == "3" else 1
    model, first, history = fitted(manifest, path, batch, epochs, {"learning_rate": 0.01})
    # Momentum after one step is the gradient, in all its digits; the whole split is the batch.
    stepped, _, _ = fitted(manifest, path, rows, 1, {"momentum": 0.9, "learning_rate": 1.0})
    found[path.name] = {
        "gradient": [np.asarray(v).tolist() for v in stepped.optimizer.variables if "momentum" in v.path],
        "first epoch": first,
        "weights": [weight.tolist() for weight in model.get_weights()],
        "accuracy": history["accuracy"],
        "loss": history["loss"],
    }
print(json.dumps(found), flush=True)
os._exit(0)  # as `fitting` does
"""


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("splits"), BATCH, REMAINDERS)


def trained(folder: Path, workers: int, steps: int = 100) -> list[Any]:
    """Return what each of so many workers ends with."""
    environments = places(workers) if workers > 1 else [{}]
    command = [sys.executable, "-c", TRAIN, str(folder), str(BATCH), str(steps)]
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        )
        for environment in environments
    ]  # fmt: skip
    ended = [process.communicate(timeout=300) for process in running]
    assert not any(process.returncode for process in running), ended[0][1][-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]


@pytest.fixture(scope="module")
def one(splits: Path) -> Any:
    return trained(splits, 1)[0]


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_more_workers_end_with_the_same_weights(splits: Path, one: Any, workers: int) -> None:
    ended = trained(splits, workers)

    assert all(other == ended[0] for other in ended[1:]), "each worker has the same weights, to the bit"
    for remainder in map(str, REMAINDERS):
        more = ended[0][remainder]
        assert len(one[remainder]["gradient"]) == 5
        for mine, theirs in zip(one[remainder]["gradient"], more["gradient"], strict=True):
            off = np.linalg.norm(np.array(theirs) - np.array(mine)) / np.linalg.norm(mine)
            assert off <= 1e-6, f"{remainder} rows: the gradient is {off} off"
        for stage in ("first epoch", "weights"):
            for mine, theirs in zip(one[remainder][stage], more[stage], strict=True):
                np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-6, err_msg=f"{remainder} rows, {stage}")
        assert more["accuracy"] == pytest.approx(one[remainder]["accuracy"])
        assert more["loss"] == pytest.approx(one[remainder]["loss"], rel=1e-6)


# An epoch has 11 batches, the last one of 10 rows.
SECTION = section_of(
    model={"sequential": [{"Dense": {"units": 8, "activation": "relu"}}, {"Dropout": {"rate": 0.3}}, SIGMOID]},
    compile={"optimizer": {"Adam": {"learning_rate": 0.05}}, "metrics": ["accuracy", "AUC"]},
    fit={"epochs": 4, "batch_size": 32},
    callbacks=[{"ReduceLROnPlateau": {"monitor": "val_loss", "patience": 1, "factor": 0.5, "min_delta": 0.01}}],
    checkpoint={"every": "4 steps", "resume": "exact"},
    workers=2,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


def together(dataset: Path, run_dir: Path, section: dict[str, Any], *kill: str | int, worker: int = 1) -> list[str]:
    """Train in two processes, of which one is killed at an instant; return what they said, and how each ended."""
    running = [
        start(dataset, run_dir, section, *(kill if number == worker else ()), **environment)
        for number, environment in enumerate(places(2))
    ]
    said = [process.communicate(timeout=200)[0] for process in running]
    return [f"{output}\nexit code {process.returncode}" for output, process in zip(said, running, strict=True)]


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """Return what gives the result of two workers that nobody killed."""

    @cache
    def result() -> dict[str, Any]:
        run_dir = tmp_path_factory.mktemp("whole")
        ended = together(dataset, run_dir, SECTION)
        assert all(output.endswith("exit code 0") for output in ended), ended
        return result_of(run_dir)

    return result


def test_two_workers_of_which_one_is_killed_go_on_to_the_same_weights(
    dataset: Path, tmp_path: Path, whole: Callable[[], dict[str, Any]]
) -> None:
    chief, other = together(dataset, tmp_path, SECTION, "step", 18)
    assert other.endswith(f"exit code {-signal.SIGKILL}")
    assert "LostError: worker 0 of 2 has lost worker 1 at 127.0.0.1:" in chief
    assert list((tmp_path / "checkpoints").glob("epoch-00001-batch-*4-*.npz")), "it had got into the second epoch"
    chief, other = together(dataset, tmp_path, SECTION)
    assert "train goes on after epoch 1 and 4 batches" in chief
    assert (chief[-1], other[-1]) == ("0", "0"), (chief, other)
    # Weights, history and curves; only the chief has written any.
    assert result_of(tmp_path) == whole()


def test_sigterm_for_one_worker_stops_all_at_the_same_step_with_a_checkpoint(
    dataset: Path, tmp_path: Path, whole: Callable[[], dict[str, Any]]
) -> None:
    chief, other = together(dataset, tmp_path, SECTION, "term at step", 18)
    for output in (chief, other):
        assert "StoppedError: Stopped at epoch " in output
    assert chief.split("StoppedError: ")[1].split(",")[0] == other.split("StoppedError: ")[1].split(",")[0]
    together(dataset, tmp_path, SECTION)
    assert result_of(tmp_path) == whole()


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_workers_share_ends_the_run_with_its_row_groups(
    dataset: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    broken = tmp_path / "dataset"
    shutil.copytree(dataset, broken)
    path = broken / "train/part-00000.parquet"
    table = pq.read_table(path)
    label = table["label"].to_numpy().copy()
    label[100] = np.nan
    place = table.column_names.index("label")
    pq.write_table(table.set_column(place, "label", [label]), path, row_group_size=64)
    section = {**SECTION, "callbacks": ["TerminateOnNaN"], "step_timeout": "30s"}
    ended = together(broken, tmp_path / "run", section)
    assert all(output.endswith("exit code 1") for output in ended), ended
    (named,) = (output for output in ended if "row group 1" in output)
    assert re.search(r"LakefitError: .*nan.* in epoch 1, step \d+", named), named
    assert "LostError" in "".join(ended)


@pytest.mark.slow
def test_one_worker_more_or_less_is_no_exact_resume(dataset: Path, tmp_path: Path) -> None:
    together(dataset, tmp_path, SECTION, "term at step", 18)
    output, _ = start(dataset, tmp_path, {**SECTION, "workers": 1}).communicate(timeout=120)
    assert "devices of this checkpoint: 2 of CPU, on 2 workers; now: 1 of CPU" in output
    # Not to the bit, where that is not asked for: the one takes over what two have counted.
    section = {**SECTION, "workers": 1, "checkpoint": {"every": "4 steps"}}
    process = start(dataset, tmp_path, section)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len(json.loads((tmp_path / "history.json").read_text())["loss"]) == 4


def test_what_one_worker_writes_is_in_nobodys_way(dataset: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.weights.h5"
    callbacks = [{"ModelCheckpoint": {"filepath": str(kept), "save_weights_only": True}}]
    section = section_of(fit={"epochs": 1, "batch_size": 32}, callbacks=callbacks, workers=2)
    ended = together(dataset, tmp_path / "run", section)
    assert all(output.endswith("exit code 0") for output in ended), ended
    arrays = weight_arrays(tmp_path / "run/model.weights.h5")
    assert all(np.array_equal(array, weight_arrays(kept)[name]) for name, array in arrays.items())
    assert len(list((tmp_path / "run/tensorboard/train").iterdir())) == 1


FAULTS = """
import sys
import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from lakefit.train.distributed_fit import build_without_data, reduce_logs_here

strategy = tf.distribute.MultiWorkerMirroredStrategy()
strategy.extended.experimental_enable_get_next_as_optional = False

def outcome(build, reduce):
    kept = trainer.reduce_per_replica
    if reduce:
        reduce_logs_here()
    data = tf.data.Dataset.from_tensors((tf.ones((4, 2)), tf.ones((4, 1)))).repeat()
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
        if build:
            build_without_data(model, data)
    try:
        model.fit(strategy.distribute_datasets_from_function(lambda _: data), steps_per_epoch=2, verbose=0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        trainer.reduce_per_replica = kept
    return "fits"

for build, reduce in ((False, True), (True, False), (True, True)):
    print(repr(outcome(build, reduce)), flush=True)
"""


def test_fit_over_workers_needs_both_overrides_and_no_more() -> None:
    """Red with the first Keras that mends keras-team/keras #20585, or that breaks what goes round it."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FAULTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )
        for environment in places(2)
    ]  # fmt: skip
    for output, errors in [process.communicate(timeout=120) for process in running]:
        assert len(output.splitlines()) == 3, errors[-3000:]
        unbuilt, unreduced, both = output.splitlines()
        assert "fits" not in unbuilt, "build_without_data is no longer needed here"
        assert "Invalid reduction dimension 0" in unreduced, "reduce_logs_here is no longer needed"
        assert both == "'fits'"


def test_the_receipt_is_of_all_workers_together(dataset: Path) -> None:
    from lakefit.dataset.manifest import read_manifest

    feeds = [
        SplitFeed(dataset, read_manifest(dataset), "train", batch_size=32, worker=worker, workers=2)
        for worker in (0, 1)
    ]
    counted: list[Any] = []

    def note(mine: Any) -> Any:
        counted.append(mine)
        return mine

    for feed in feeds:
        for _ in feed:
            pass
        with pytest.raises(FeedError, match="of all workers together: the rows delivered are not those"):
            feed.check_all(0, note)
    feeds[0].check_all(0, lambda _: counted[0] + counted[1])
    # The right number of rows, of which some came twice.
    with pytest.raises(FeedError, match="together: the rows delivered are not those of the manifest"):
        feeds[0].check_all(0, lambda _: 2 * counted[0])


def test_a_place_is_what_tf_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for task, worker in (({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": "1"}, 2)):
        monkeypatch.setenv(TF_CONFIG, json.dumps({"cluster": cluster, "task": task}))
        assert place() == Place(worker, ("a:1", "b:1", "c:1"))
    monkeypatch.setenv(TF_CONFIG, Place(1, ("a:1", "b:1")).tf_config())
    assert place() == Place(1, ("a:1", "b:1"))
    for nothing in ("", "{}"):
        monkeypatch.setenv(TF_CONFIG, nothing)
        assert place() is None
    for wrong in (
        "[",
        "[]",
        json.dumps({"cluster": cluster}),
        json.dumps({"cluster": cluster, "task": {"type": "ps"}}),
        json.dumps({"cluster": {"worker": "b:1"}, "task": {"type": "worker", "index": 0}}),
    ):
        monkeypatch.setenv(TF_CONFIG, wrong)
        with pytest.raises(InputError, match="TF_CONFIG: can't be understood"):
            place()
    monkeypatch.setenv(TF_CONFIG, json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 2}}))
    with pytest.raises(InputError, match="task 3 is none of the 3"):
        place()


@pytest.mark.parametrize(
    ("kind", "said", "lost"),
    [
        ("UnavailableError", "failed to connect", True),
        ("AbortedError", "", True),
        ("InternalError", "Connection reset by peer", True),
        ("UnknownError", "CollectiveReduceV2: it was closed", True),
        ("DeadlineExceededError", "heartbeat", True),
        ("InternalError", "cudnn failed", False),
        ("ResourceExhaustedError", "OOM when allocating for a collective", False),
        ("InvalidArgumentError", "shapes differ", False),
    ],
)
def test_an_error_of_a_lost_worker_is_told_from_one_of_ones_own(kind: str, said: str, lost: bool) -> None:
    import tensorflow as tf

    assert is_lost(getattr(tf.errors, kind)(None, None, said)) is lost
    if lost:
        at = Place(0, ("a:1", "b:1", "c:1"))
        assert lost_of(f"{said} /job:worker/replica:0/task:0 and /job:worker/replica:0/task:2", at) == "worker 2 at c:1"
        assert lost_of(said, at) == "the others"


def test_a_training_that_comes_no_further_is_ended() -> None:
    script = "from lakefit.console import Console\nfrom lakefit.train.workers import Watch\nimport time\n"
    script += "watch = Watch(1)\nwatch.at_steps = True\nwith watch.watching(Console('plain')): time.sleep(60)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert ended.returncode == LakefitError.exit_code
    assert re.search(r"has come no further for \d+ s, and is ended \(train.step_timeout\)", ended.stdout)
    assert Watch(1).beats == 0
