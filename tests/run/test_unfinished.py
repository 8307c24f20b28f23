"""What is said of runs that were never finished, where another one begins."""

import json
from pathlib import Path

import pytest

from lakefit.run.plan import Fingerprints
from lakefit.run.stages import unfinished_runs

PRINTS = Fingerprints("d2", "new", "e", "a")


def unfinished(runs: Path, name: str, dataset: str) -> Path:
    """Write what a killed training leaves."""
    folder = runs / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/epoch-00001-batch-000000000-0.npz").touch()
    (folder / "run.json").write_text(json.dumps({"dataset": dataset}), encoding="utf-8")
    return folder


def test_a_run_of_another_dataset_or_model_that_was_not_finished_is_named_with_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    unfinished(runs, "old1", "d1")
    unfinished(runs, "old2", "d2")
    (unfinished(runs, "done", "d1") / "model.weights.h5").touch()
    (runs / "empty/checkpoints").mkdir(parents=True)
    assert unfinished_runs(runs / "new", PRINTS) == [
        "runs/old1 is not finished, and stays; this run, new, begins anew: the dataset was d1 and is d2",
        "runs/old2 is not finished, and stays; this run, new, begins anew: the model or its settings have changed",
    ]
    unfinished(runs, "new", "d2")
    assert unfinished_runs(runs / "new", PRINTS) == [], "it goes on"
