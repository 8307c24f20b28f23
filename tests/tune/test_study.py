"""A study is what its journal says: whoever goes on with it repeats nothing, and draws what it would have drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakefit.config.tune import Tune
from lakefit.dataset.layout import JOURNAL
from lakefit.tune.study import Study, Trial, restored_epoch

SEARCH = {"train.compile.optimizer.Adam.learning_rate": "log(1e-5, 1e-1)", "train.fit.batch_size": [16, 32, 64]}


def tune_of(**given: Any) -> Tune:
    return Tune(**{"trials": 20, "objective": "val_auc", "search": SEARCH, **given})


def played(study: Study, trials: int) -> list[Trial]:
    """Run trials whose objective is one of their values."""
    for _ in range(trials):
        trial = study.ask()
        rate = trial.values["train.compile.optimizer.Adam.learning_rate"]
        if trial.state == "running":
            study.report(trial.number, 1, rate / 2)
            study.finish(trial.number, "complete", rate, seconds=1.0)
    return study.trials()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_goes_on_draws_what_one_does_that_nobody_stopped(tmp_path: Path, sampler: str) -> None:
    tune = tune_of(sampler=sampler)
    whole = played(Study(tmp_path / "whole", tune, 4), 16)
    parts = []
    for trials in (5, 8, 3):
        parts = played(Study(tmp_path / "parts", tune, 4), trials)
    assert [trial.values for trial in parts] == [trial.values for trial in whole]
    assert len({trial.values["train.compile.optimizer.Adam.learning_rate"] for trial in whole}) == 16
    other = played(Study(tmp_path / "other", tune_of(sampler=sampler, seed=1), 4), 3)
    assert other[0].values != whole[0].values


@pytest.mark.parametrize("cut", [1, 10, 40, 200, 400])
def test_half_a_line_of_a_killed_process_is_no_harm(tmp_path: Path, cut: int) -> None:
    played(Study(tmp_path, tune_of(), 4), 3)
    Study(tmp_path, tune_of(), 4).ask()
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert all(set(trial.values) == set(SEARCH) for trial in Study(tmp_path, tune_of(), 4).trials())
    trials = played(Study(tmp_path, tune_of(), 4), 2)
    assert [trial.state for trial in trials[:3]] == ["complete"] * 3
    assert sum(trial.state == "complete" for trial in Study(tmp_path, tune_of(), 4).trials()) == 5


def test_a_trial_that_ran_is_one_that_runs_and_can_be_finished_by_another_process(tmp_path: Path) -> None:
    study = Study(tmp_path, tune_of(), 4)
    begun = study.ask()
    study.report(begun.number, 1, 0.5)
    again = Study(tmp_path, tune_of(), 4)
    (found,) = again.trials()
    assert (found.state, found.values, found.epochs, found.value) == ("running", begun.values, 1, 0.5)
    # What was reported before the checkpoint comes again.
    again.report(0, 1, 0.5)
    again.report(0, 2, 0.6)
    again.finish(0, "complete", 0.7)
    assert again.best() == Study(tmp_path, tune_of(), 4).trials()[0]


@pytest.mark.parametrize("bad", [0, 16])
def test_values_that_were_tried_are_not_tried_again(tmp_path: Path, bad: int) -> None:
    """Nor those with which a trial has failed."""
    tune = tune_of(search={"train.fit.batch_size": [16, 32]})
    study = Study(tmp_path, tune, 4)
    for _ in range(8):
        trial = study.ask()
        if trial.state == "running":
            size = trial.values["train.fit.batch_size"]
            if size == bad:
                study.finish(trial.number, "failed", reason="the loss is no number")
            else:
                study.finish(trial.number, "complete", float(size))
    ran = [trial for trial in study.trials() if "same_as" not in trial.attributes]
    assert sorted(trial.values["train.fit.batch_size"] for trial in ran) == [16, 32]
    for trial in study.trials():
        assert trial.value == (None if trial.state == "failed" else trial.values["train.fit.batch_size"])
    best = study.best()
    assert best is not None
    assert best in ran


@pytest.mark.parametrize(("objective", "best"), [("val_auc", 0.9), ("val_loss", 0.1)])
def test_the_best_is_of_those_that_came_to_their_end(tmp_path: Path, objective: str, best: float) -> None:
    study = Study(tmp_path, tune_of(objective=objective), 4)
    assert study.best() is None
    for value in (0.5, 0.9, 0.1, 0.9, 0.1):
        study.finish(study.ask().number, "complete", value)
    for state, value in (("failed", None), ("pruned", None)):
        trial = study.ask()
        study.report(trial.number, 1, 100.0 if objective == "val_auc" else 0.0)
        study.finish(trial.number, state, value, reason="so")  # type: ignore[arg-type]
    found = study.best()
    assert found is not None
    assert (found.value, found.number) == (best, 1 if objective == "val_auc" else 2)


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_a_trial_that_is_worse_than_the_others_is_pruned(tmp_path: Path, pruner: str) -> None:
    study = Study(tmp_path, tune_of(pruner=pruner), 9)
    ended = {True: 0, False: 0}
    for number in range(30):
        trial = study.ask()
        bad = number % 3 == 2
        pruned = any(study.report(trial.number, epoch, (0.1 if bad else 0.8) + epoch / 100) for epoch in range(1, 10))
        study.finish(trial.number, "pruned" if pruned else "complete", None if pruned else 0.8)
        ended[bad] += pruned
    if pruner == "none":
        assert ended == {True: 0, False: 0}
    else:
        assert ended[True] >= 5
    if pruner == "median":
        assert ended[False] == 0


def test_a_study_is_drawn(tmp_path: Path) -> None:
    study = Study(tmp_path, tune_of(), 4)
    played(study, 6)
    names = study.figures(tmp_path / "plots")
    assert names == ["history.png", "importance.png", "parallel.png", "slices.png"]
    assert all((tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in names)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1, width=16), min_size=1, max_size=8),
    st.sampled_from([0, 0.1]),
    st.integers(0, 3),
    st.sampled_from(["min", "max"]),
)
def test_the_epoch_that_early_stopping_restores_is_the_one_that_keras_does(
    values: Sequence[float], min_delta: float, start: int, mode: str
) -> None:
    import keras

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    given = {
        "monitor": "val_auc", "mode": mode, "min_delta": min_delta, "patience": 100, "start_from_epoch": start,
        "restore_best_weights": True,
    }  # fmt: skip
    callback = keras.callbacks.EarlyStopping(**given)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), epoch, np.float32)])
        callback.on_epoch_end(epoch, {"val_auc": value})
    callback.on_train_end()
    restored = int(model.get_weights()[0][0, 0])
    assert restored_epoch({"val_auc": values}, [{"EarlyStopping": given}]) == restored
    assert restored_epoch({"val_auc": values}, ["TerminateOnNaN"]) == len(values) - 1
