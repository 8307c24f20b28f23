"""Checkpoints: which are kept, which are refused, and what becomes of a training that can write none."""

import errno
import json
import re
import threading
from copy import copy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fitting import fit, result_of, section_of, start, write_dataset
from lakefit.config import ConfigError
from lakefit.console import Console
from lakefit.dataset.features import Features, NumericFeature
from lakefit.errors import InputError, LakefitError, StoppedError
from lakefit.train import checkpoint
from lakefit.train.stage import check_about
from lakefit.train.workers import Workers
from models import SIGMOID, build


def section(**changes: Any) -> dict[str, Any]:
    return section_of(**{"compile": {"optimizer": {"Adam": {"learning_rate": 0.1}}}, **changes})


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


def checkpoints(run_dir: Path) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in (run_dir / "checkpoints").iterdir())


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_last_ones_are_kept_and_the_best(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # While one is written, others wait, and a newer one takes the place of all of them but the best: the first one is
    # written until 20 are made.
    write, save = checkpoint.write_atomically, checkpoint.CheckpointFolder.save
    written, made = [], threading.Event()

    def slow(path: Path, content: bytes) -> None:
        assert made.wait(60)
        written.append(path.name.rsplit("-", 1)[0])
        write(path, content)

    def noted(self: checkpoint.CheckpointFolder, found: checkpoint.Checkpoint, best_epoch: int | None = None) -> None:
        save(self, found, best_epoch)
        if found.epoch == 20:
            made.set()

    monkeypatch.setattr(checkpoint, "write_atomically", slow)
    monkeypatch.setattr(checkpoint.CheckpointFolder, "save", noted)
    kept = {"every": "1h", "keep": 2, "monitor": "loss", "mode": "max"}
    # In its tenth epoch it leaps away from what is good.
    rates = {"PiecewiseConstantDecay": {"boundaries": [99, 110], "values": [0.01, 5.0, 0.01]}}
    leaping = section(compile={"optimizer": {"Adam": {"learning_rate": rates}}}, checkpoint=kept)
    fit(dataset, tmp_path, {**leaping, "fit": {"epochs": 30, "batch_size": 32}})
    losses = json.loads((tmp_path / "history.json").read_text())["loss"]
    best = 1 + losses.index(max(losses))
    assert 1 < best < 20, "the test means something"
    assert len(written) < 20
    assert checkpoints(tmp_path) == [f"epoch-{best:05d}-batch-000000000", *written[-2:]]
    assert written[-1] == "epoch-00030-batch-000000000"


def test_a_damaged_one_is_said_and_the_one_before_is_taken(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    fit(dataset, whole, section(fit={"epochs": 5, "batch_size": 32}))
    fit(dataset, damaged, section())
    newest = max((damaged / "checkpoints").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    fit(dataset, damaged, section(fit={"epochs": 5, "batch_size": 32}))
    said = events(capsys)
    assert [event["event"] for event in said][:2] == ["damaged", "resume"]
    assert newest.name in said[0]["message"]
    assert said[1]["epoch"] < 3
    assert result_of(damaged) == result_of(whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprint": "2"}, "run of this checkpoint: 1; now: 2. Begin anew with --fresh"),
        (
            {"model": {"sequential": [{"Dense": {"units": 5, "activation": "relu"}}, SIGMOID]}},
            r"variables of this checkpoint: .*kernel float32 \(3, 4\); now: .*kernel float32 \(3, 5\)",
        ),
        ({"model": {"sequential": [SIGMOID]}}, r"variables of this checkpoint: .*\(3, 4\); now: .*\(3, 1\)"),
    ],
)
def test_one_of_something_else_is_refused_and_both_are_shown(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    fit(dataset, tmp_path, section())
    fingerprint = changes.pop("fingerprint", "1")
    with pytest.raises(InputError, match=said):
        fit(dataset, tmp_path, section(**changes), fingerprint)


@pytest.mark.parametrize("resume", ["auto", "exact"])
def test_one_of_other_devices(dataset: Path, tmp_path: Path, resume: str) -> None:
    def stopping(after: int, **changes: Any) -> dict[str, Any]:
        stop = {"own_models:Terminated": {"instant": "train_batch_end", "number": after}}
        return section(callbacks=[stop], compile={"metrics": ["accuracy"]}, **changes)

    with pytest.raises(StoppedError, match="Stopped at epoch 1, step 6 of 11"):
        fit(dataset, tmp_path, stopping(6))
    epochs = {"epochs": 4, "batch_size": 32}
    two = stopping(99, devices="cpu:2", fit=epochs, checkpoint={"resume": resume})
    output, _ = start(dataset, tmp_path, two).communicate(timeout=120)
    shown = "devices of this checkpoint: 1 of CPU; now: 2 of CPU. "
    if resume == "exact":
        assert f"InputError: {tmp_path}" in output
        assert f"{shown}Begin anew with --fresh" in output
    else:
        assert f"{shown}Training goes on, and the weights will not be the same to the bit" in output
        fit(dataset, tmp_path / "one", stopping(99, fit=epochs))
        found, due = (json.loads((folder / "history.json").read_text()) for folder in (tmp_path, tmp_path / "one"))
        assert len(found["loss"]) == 4
        # What one device had counted in the first epoch counts once.
        assert {name: values[0] for name, values in found.items()} == pytest.approx(
            {name: values[0] for name, values in due.items()}, rel=1e-5
        )


@pytest.mark.parametrize("resume", ["auto", "exact"])
@pytest.mark.parametrize("name", ["run", "dataset", "feed", "variables", "devices", "versions"])
def test_whatever_is_another_is_refused_but_devices_and_versions_where_the_weights_may_differ(
    capsys: pytest.CaptureFixture[str], name: str, resume: str
) -> None:
    about = {
        "run": "1", "dataset": "2", "feed": {"seed": 3, "lanes": 4}, "variables": [["kernel", "float32", 5]],
        "devices": "1 of CPU", "versions": {"keras": "6"},
    }  # fmt: skip
    other = {
        "run": "7", "dataset": "7", "feed": {"seed": 7, "lanes": 4}, "variables": [["kernel", "float32", 7]],
        "devices": "7 of CPU", "versions": {"keras": "7"},
    }  # fmt: skip
    found = checkpoint.Checkpoint(1, 0, about, {}, Path("epoch.npz"))
    check_about(found, about, resume, Console("json"))
    assert events(capsys) == []
    now = {**about, name: other[name]}
    said = rf"^epoch.npz: {name} of this checkpoint: .*; now: .*7.*\. "
    if name in ("devices", "versions") and resume == "auto":
        check_about(found, now, resume, Console("json"))
        (event,) = events(capsys)
        assert re.match(f"{said}Training goes on", event["message"])
    else:
        with pytest.raises(InputError, match=f"{said}Begin anew with --fresh"):
            check_about(found, now, resume, Console("json"))


REMEMBERED: list[tuple[keras.callbacks.Callback, dict[str, Any]]] = [
    (
        keras.callbacks.EarlyStopping(),
        {"wait": 2, "stopped_epoch": 3, "best": 0.1, "best_epoch": 4,
         "best_weights": [np.array([[0.1, 0.2]], np.float32), np.array([0.3], np.float32)]},
    ),
    (keras.callbacks.ReduceLROnPlateau(), {"wait": 2, "cooldown_counter": 3, "best": np.float32(0.1)}),
    (
        keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True),
        {"best": 0.1, "_batches_seen_since_last_saving": 2, "_last_batch_seen": 3},
    ),
    (keras.callbacks.SwapEMAWeights(), {"_ema_weights_in_model": True}),
    (keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), {}),
    (keras.callbacks.TerminateOnNaN(), {}),
]  # fmt: skip


def test_what_callbacks_of_keras_remember_is_restored(tmp_path: Path) -> None:
    assert {type(callback) for callback, _ in REMEMBERED} == set(checkpoint._REMEMBERED)
    model = build(Features(numeric=(NumericFeature(name="x", fill=0.0),))).model
    kept = [copy(callback) for callback, _ in REMEMBERED]
    restored = [copy(callback) for callback, _ in REMEMBERED]
    for callback in (*kept, *restored):
        callback.on_train_begin()
    for callback, (_, state) in zip(kept, REMEMBERED, strict=True):
        assert vars(callback).keys() >= state.keys(), "Keras calls it otherwise by now"
        assert not any(vars(callback)[name] is state[name] for name in state)
        vars(callback).update(state)
    folder = checkpoint.CheckpointFolder(tmp_path, 1, failed=pytest.fail)
    folder.save(checkpoint.snapshot(1, 0, model, kept, {}, Workers(tf.distribute.get_strategy())))
    folder.flush()
    found = folder.newest(damaged=pytest.fail)
    assert found is not None
    checkpoint.restore_callbacks(found, restored)
    for callback, (_, state) in zip(restored, REMEMBERED, strict=True):
        now = {name: vars(callback)[name] for name in state}
        np.testing.assert_equal(now, state, err_msg=type(callback).__name__)


def test_a_training_that_can_write_none_goes_on_and_says_so(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    whole, without = tmp_path / "whole", tmp_path / "without"
    assert fit(dataset, whole, section()) is None
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    trouble = fit(dataset, without, section())
    assert trouble is not None
    assert "checkpoints: a checkpoint could not be written: the disk is full" in trouble
    assert any(event["event"] == "checkpoint_failed" for event in events(capsys))
    assert result_of(without) == result_of(whole)


def test_a_callback_whose_state_is_in_no_checkpoint_is_refused_where_a_resume_must_be_exact(
    dataset: Path, tmp_path: Path
) -> None:
    forgetful = section(callbacks=["own_models:Batches"])
    fit(dataset, tmp_path, forgetful)
    with pytest.raises(ConfigError, match=r"train.callbacks.0: own_models:Batches may keep what no checkpoint holds"):
        fit(dataset, tmp_path, {**forgetful, "checkpoint": {"resume": "exact"}})
    fit(dataset, tmp_path / "kept", section(callbacks=["own_models:Cooling"], checkpoint={"resume": "exact"}))


def test_a_state_that_can_not_be_written_is_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(LakefitError, match=r"Odd.get_state\(\) returned a set, which a checkpoint can't hold"):
        fit(dataset, tmp_path, section(callbacks=["own_models:Odd"]))


def test_a_damaged_one_takes_no_place_of_those_that_are_kept(dataset: Path, tmp_path: Path) -> None:
    one = {"checkpoint": {"keep": 1, "every": "1h"}}
    fit(dataset, tmp_path, section(**one))
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    fit(dataset, tmp_path, section(**one, fit={"epochs": 2, "batch_size": 32}))
    assert "epoch-00002-batch-000000000" in checkpoints(tmp_path)
    assert sum(path.suffix == ".damaged" for path in (tmp_path / "checkpoints").iterdir()) == 1


CLASSES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        (
            {
                "model": {"sequential": [{"Dense": {"units": 3, "activation": "softmax"}}]},
                "compile": {"loss": "categorical_crossentropy", "metrics": ["F1Score"]},
            },
            {"kind": "classes", "classes": CLASSES},
        ),
        ({"model": {"sequential": [{"Dense": {"units": 4, "dtype": "bfloat16"}}, SIGMOID]}}, {}),
        (
            {
                "dtype_policy": "mixed_float16",
                "compile": {"optimizer": {"own_models:scaled_loss": {"growth_steps": 5}}},
            },
            {},
        ),
        ({"model": "own_models:two_optimizers"}, {}),
    ],
    ids=["a metric that is an array", "weights of 16 bits", "a scaled loss", "an optimizer of its own"],
)
def test_what_a_model_keeps_is_restored(tmp_path: Path, changes: dict[str, Any], label: dict[str, Any]) -> None:
    dataset, whole, parts = tmp_path / "dataset", tmp_path / "whole", tmp_path / "parts"
    write_dataset(dataset, **label)
    changes = {**section(), **changes}
    fit(dataset, whole, changes)
    fit(dataset, parts, {**changes, "fit": {"epochs": 1, "batch_size": 32}})
    fit(dataset, parts, changes)
    found = result_of(parts)
    assert found == result_of(whole)
    # A metric of one number an output is shown as so many.
    assert [name for name in found["history"] if name.startswith("f1_")] == [
        f"f1_score_{place}" for place in range(len(label.get("classes", ())))
    ]


def test_a_callback_may_end_the_training_within_an_epoch(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = section(callbacks=[{"own_models:StopsAt": {"steps": 5}}], checkpoint={"every": "1 steps"})
    fit(dataset, tmp_path, stopping)
    said = events(capsys)
    assert [event["message"] for event in said if event["event"] == "stopped"] == [
        "a callback stopped the training in epoch 1, after 5 of its steps"
    ]
    assert len(json.loads((tmp_path / "history.json").read_text())["val_loss"]) == 1
    before = result_of(tmp_path)
    fit(dataset, tmp_path, stopping)
    assert result_of(tmp_path) == before, "what had ended is not gone on with"
