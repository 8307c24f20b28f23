"""What TensorBoard is given while a model trains."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from fitting import fit, write_dataset
from lakefit.config import ConfigError
from lakefit.train import meter
from lakefit.train.probe import Probe
from models import SIGMOID

SECTION: dict[str, Any] = {
    "devices": "cpu",
    "model": {"sequential": [{"Dense": {"units": 4, "activation": "relu", "name": "hidden"}}, SIGMOID]},
    "compile": {"optimizer": {"Adam": {"learning_rate": 0.01}}, "metrics": ["accuracy"]},
    "fit": {"epochs": 3, "batch_size": 32},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all that can be asked for."""
    dataset, run_dir = write_dataset(tmp_path_factory.mktemp("dataset")), tmp_path_factory.mktemp("run")
    section = {**SECTION, "tensorboard": {"histograms": True, "profile": [2, 4]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "ENOUGH", 1)
        fit(dataset, run_dir, section)
    return run_dir / "tensorboard"


def points(folder: Path) -> Counter[str]:
    (file,) = folder.glob("events.out.tfevents.*")
    return Counter(value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value)


def test_training_and_validation_are_on_one_chart(folder: Path) -> None:
    train, validation = points(folder / "train"), points(folder / "validation")
    assert {tag for tag in train if tag in validation} == {"epoch_loss", "epoch_accuracy"}
    assert {tag for tag in train if tag.startswith("epoch_")} == {
        "epoch_loss", "epoch_accuracy", "epoch_learning_rate", "epoch_gradient_norm", "epoch_weight_norm",
        "epoch_dead_units",
    }  # fmt: skip
    assert {number for tag, number in (train | validation).items() if tag.startswith("epoch_")} == {3}


def test_speed_graph_settings_histograms_and_profile_are_there(folder: Path) -> None:
    assert {"rows_per_s", "share/input", "share/python"} <= set(points(folder / "speed"))
    train = points(folder / "train")
    assert train["__run_graph__"] == 1
    assert train["hidden/kernel"] == 3
    assert points(folder / "validation")["_hparams_/session_start_info"] == 1
    assert list(folder.glob("plugins/profile/*/*.xplane.pb"))


def test_a_profile_of_steps_that_there_are_not_is_refused(tmp_path: Path) -> None:
    section = {**SECTION, "tensorboard": {"profile": [12, 20]}}
    with pytest.raises(ConfigError, match=r"train.tensorboard.profile: an epoch has 11 steps, so none from 12 on"):
        fit(write_dataset(tmp_path / "dataset"), tmp_path / "run", section)


def test_what_can_not_be_looked_at_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Probe) -> None:
        raise ValueError("no such layer")

    monkeypatch.setattr(Probe, "look", broken)
    fit(write_dataset(tmp_path / "dataset"), tmp_path / "run", SECTION)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in said].count("tensorboard_failed") == 1
    assert len(json.loads((tmp_path / "run/history.json").read_text())["loss"]) == 3
