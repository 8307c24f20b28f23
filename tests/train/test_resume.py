"""SIGKILL at any instant of a training, then the same again: weights, history and curves of the one never killed."""

import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from faulty import KILLS, dice
from fitting import result_of, start
from models import SIGMOID

Result = tuple[dict[str, Any], dict[str, Any]]
# An epoch has 11 batches, the last one of 10 rows, and the validation 3. The plateau comes early, and so does the end.
SECTION: dict[str, Any] = {
    "model": {"sequential": [{"Dense": {"units": 8, "activation": "relu"}}, {"Dropout": {"rate": 0.3}}, SIGMOID]},
    "compile": {
        "optimizer": {"Adam": {"learning_rate": 0.05, "use_ema": True, "ema_momentum": 0.9}},
        "metrics": ["accuracy", "AUC"],
    },
    "fit": {"epochs": 7, "batch_size": 32},
    "callbacks": [
        {"ReduceLROnPlateau": {"monitor": "val_loss", "patience": 1, "factor": 0.5, "min_delta": 0.01}},
        {"EarlyStopping": {"monitor": "val_loss", "patience": 3, "min_delta": 0.01, "restore_best_weights": True}},
        "own_models:Cooling",
    ],
    "checkpoint": {"every": "4 steps", "resume": "exact"},
}


def ended(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """Return what gives, for devices, their train section and the result of a run that nobody killed."""

    @cache
    def of(devices: str) -> Result:
        section, run_dir = {**SECTION, "devices": devices}, tmp_path_factory.mktemp("whole")
        if devices == "cpu":
            section["compile"] = {**SECTION["compile"], "steps_per_execution": 2}
        ended(start(dataset, run_dir, section))
        found = result_of(run_dir)
        epochs = len(found["history"]["loss"])
        assert 3 < epochs < 7, "it stops early"
        assert len(set(found["history"]["val_loss"])) == epochs
        return section, found

    return of


@pytest.mark.parametrize(
    ("devices", "kills"),
    [
        ("cpu", [("step", 15), ("checkpoint", 2), ("validation", 1)]),
        ("cpu:2", [("step", 17)]),
        *(
            pytest.param(devices, kills, marks=pytest.mark.fault)
            for devices in ("cpu", "cpu:2")
            for kills in (
                [("step", 1), ("step", 17)],
                [("checkpoint", 3), ("checkpoint", 5)],
                [("validation", 2), ("validation", 4)],
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(f"{instant}-{n}" for instant, n in value),
)
def test_a_training_that_was_killed_ends_as_one_that_was_not(
    dataset: Path, tmp_path: Path, whole: Callable[[str], Result], devices: str, kills: list[tuple[str, int]]
) -> None:
    section, expected = whole(devices)
    for kill in kills:
        process = start(dataset, tmp_path, section, *kill)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, output
    ended(start(dataset, tmp_path, section))
    assert result_of(tmp_path) == expected


@pytest.mark.fault
@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_trainings_killed_at_random_instants(
    dataset: Path, tmp_path: Path, whole: Callable[[str], Result], devices: str
) -> None:
    random, (section, expected) = dice(), whole(devices)
    kills: Counter[str] = Counter()
    runs = 0
    while kills.total() < max(KILLS, 50):
        run_dir = tmp_path / str(runs)
        runs += 1
        while True:
            instant = random.choice(["step", "checkpoint", "validation", "milliseconds"])
            number = random.randrange(*{"milliseconds": (1, 1500)}.get(instant, (1, 12)))
            process = start(dataset, run_dir, section, instant, number)
            output, _ = process.communicate(timeout=120)
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, output
            kills[instant] += 1
        assert result_of(run_dir) == expected, (instant, number)
    print(f"{devices}: {runs} runs, killed {kills.total()} times ({dict(kills)}), all equal to the bit")


def test_sigterm_writes_a_checkpoint_of_the_very_step(
    dataset: Path, tmp_path: Path, whole: Callable[[str], Result]
) -> None:
    section, expected = whole("cpu")
    epochs = len(expected["history"]["loss"])
    section = {**section, "checkpoint": {"every": "1h"}}
    for instant, number, epoch, step in (
        ("term at step", 14, 3, 4),
        ("term at validation", 2 * epochs - 5, epochs, 11),
    ):
        output, _ = start(dataset, tmp_path, section, instant, number).communicate(timeout=120)
        said = f"StoppedError: Stopped at epoch {epoch}, step {step} of 11, as asked; a checkpoint holds all of it."
        assert said in output
        assert len(list((tmp_path / "checkpoints").glob(f"epoch-{epoch - 1:05d}-batch-{step:09d}-*.npz"))) == 1
    assert f"train goes on after epoch {epochs - 1} and 11 batches" in ended(start(dataset, tmp_path, section))
    assert result_of(tmp_path) == expected
