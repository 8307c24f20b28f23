"""What TensorBoard is given while a model trains."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data
from tensorboard.util.tensor_util import make_ndarray

from fitting import fit, write_dataset
from lakefit.config import ConfigError
from lakefit.train import meter
from lakefit.train.probe import Probe
from lakefit.train.tensorboard import Curves
from models import SIGMOID

SECTION: dict[str, Any] = {
    "devices": "cpu",
    "model": {"sequential": [{"Dense": {"units": 4, "activation": "relu", "name": "hidden"}}, SIGMOID]},
    "compile": {"optimizer": {"Adam": {"learning_rate": 0.01}}, "metrics": ["accuracy"]},
    "fit": {"epochs": 3, "batch_size": 32},
}


NO_PROBE: Any = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all that can be asked for."""
    dataset, run_dir = write_dataset(tmp_path_factory.mktemp("dataset")), tmp_path_factory.mktemp("run")
    section = {**SECTION, "tensorboard": {"histograms": True, "profile": [2, 4]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "ENOUGH", 1)
        fit(dataset, run_dir, section)
    return run_dir / "tensorboard"


def values(folder: Path) -> list[tuple[int, Any]]:
    """Return what was written, with the step of each."""
    (file,) = folder.glob("events.out.tfevents.*")
    return [(event.step, value) for event in EventFileLoader(str(file)).Load() for value in event.summary.value]


def points(folder: Path) -> Counter[str]:
    return Counter(value.tag for _, value in values(folder))


def test_training_and_validation_are_on_one_chart(folder: Path) -> None:
    train, validation = points(folder / "train"), points(folder / "validation")
    assert {tag for tag in train if tag in validation} == {"epoch_loss", "epoch_accuracy"}
    assert {tag for tag in train if tag.startswith("epoch_")} == {
        "epoch_loss", "epoch_accuracy", "epoch_learning_rate", "epoch_gradient_norm", "epoch_weight_norm",
        "epoch_dead_units",
    }  # fmt: skip
    assert {number for tag, number in (train | validation).items() if tag.startswith("epoch_")} == {3}


def test_a_point_is_what_the_epoch_had(folder: Path) -> None:
    history = json.loads((folder.parent / "history.json").read_text())
    for split, prefix in (("train", ""), ("validation", "val_")):
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for step, value in values(folder / split):
            if value.tag.startswith("epoch_"):
                found[value.tag.removeprefix("epoch_")].append((step, make_ndarray(value.tensor).item()))
        for name in ("loss", "accuracy"):
            assert found[name] == list(enumerate(np.float32(history[f"{prefix}{name}"]).tolist()))
        if split == "train":
            assert found["learning_rate"] == list(enumerate(np.float32([0.01] * 3).tolist()))


def test_settings_are_what_the_section_says_of_the_model_and_its_training(folder: Path) -> None:
    (written,) = [value for _, value in values(folder / "validation") if value.tag == "_hparams_/session_start_info"]
    found = parse_session_start_info_plugin_data(written.metadata.plugin_data.content).hparams
    assert {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()} == {
        "model.sequential.0.Dense.units": 4,
        "model.sequential.0.Dense.activation": "relu",
        "model.sequential.0.Dense.name": "hidden",
        "model.sequential.1.Dense.units": 1,
        "model.sequential.1.Dense.activation": "sigmoid",
        "compile.optimizer.Adam.learning_rate": 0.01,
        "compile.metrics.0": "accuracy",
        "compile.steps_per_execution": 1,
        "compile.jit_compile": "auto",
        "compile.auto_scale_loss": True,
        "fit.epochs": 3,
        "fit.batch_size": 32,
        "seed": 0,
        "dtype_policy": "float32",
    }


def test_curves_go_on_from_what_a_checkpoint_has_of_them(tmp_path: Path) -> None:
    names = ("train/events.out.tfevents.1", "train/events.out.tfevents.2", "speed/events.out.tfevents.3")
    for path in (tmp_path / name for name in names):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    curves = Curves(tmp_path, NO_PROBE, histograms=False, settings={}, failed=pytest.fail)
    curves.go_on_from({names[0]: 5, names[1]: 3})
    # The third one was begun after the checkpoint.
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.glob("*/*")}
    assert found == {names[0]: b"12345", names[1]: b"123"}


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
