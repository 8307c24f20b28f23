"""`lakefit tune`: a study survives whatever is killed, repeats nothing, and what it finds is what every run uses."""

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSelector

from faulty import PLAIN
from lakefit.cli import main
from lakefit.console import Console
from lakefit.run.trials import _Running
from lakefit.run.tune import _study_of
from object_store import object_store
from shop import events, write_shop
from standalone import children, kill_tree, standalone

# At the rate 1e30 the loss is no number, which is a trial's result and no end of the study.
TUNE = """
train:
  model: {sequential: [{Dense: {units: 4, activation: relu}}, {Dense: {units: 1, activation: sigmoid}}]}
  compile: {optimizer: Adam, metrics: [AUC]}
  fit: {epochs: 4, batch_size: 64}
  checkpoint: {every: 2 steps}
tune:
  trials: 4
  parallel: 2
  pruner: none
  objective: val_auc
  search:
    train.compile.optimizer.Adam.learning_rate: [0.01, 0.02, 1.0e+30]
    train.model.sequential.0.Dense.units: int(4, 64)
"""


def write_tuned_shop(folder: Path) -> None:
    write_shop(folder, 1500)
    head, _, _ = PLAIN.partition("train: {")
    (folder / "shop.yaml").write_text(head + TUNE, encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, lakefit: Callable[..., Any]) -> Path:
    """A folder with a prepared dataset."""
    folder = tmp_path_factory.mktemp("prepared")
    write_tuned_shop(folder)
    done = lakefit("prepare", "shop.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def _read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""


def _trains(pid: int) -> bool:
    return "lakefit.train.worker" in _read(pid, "cmdline")


class Tuning:
    """A study in a process of its own, which can be killed; its lines are read while it goes on."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "lakefit", "tune", "shop.yaml", "--json"]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.said: list[dict[str, Any]] = []

    def until(self, event: str, count: int) -> None:
        """Read until so many events of a kind have been said."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += events(line) if line.startswith("{") else []
            if sum(one["event"] == event for one in self.said) >= count:
                return

    def end(self) -> int:
        output, errors = self.process.communicate(timeout=300)
        self.said += events("\n".join(line for line in output.splitlines() if line.startswith("{")))
        assert self.said, errors
        return self.process.returncode

    def of(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["event"] == event]

    def trainings(self) -> list[int]:
        """Return the processes that train."""
        return [pid for pid in children(self.process.pid) if _trains(pid)]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tune.search={train.fit.batch: [1, 2]}", "tune.search.train.fit.batch: "),
        ("tune.search={train.model.sequential.5.Dense.units: [1, 2]}", "train.model.sequential.5.Dense.units: "),
        ("tune.search={train.compile.optimizer.Adam.lr: [0.1, 0.2]}", "tune.search.train.compile.optimizer.Adam.lr: "),
        ("tune.search={train.fit.batch_size: [16, many]}", "tune.search.train.fit.batch_size: "),
        ("tune.search={train.fit.batch_size: 'log(1, 0)'}", "an empty range: 1 is not less than 0"),
        (
            "tune.objective=val_accuracy",
            "tune.objective: 'val_accuracy' is not measured; there are loss, auc, val_loss",
        ),
        ("tune.objective=val_acu", "more of val_acu better, or less? Say mode: max or min"),
        (
            "tune.search={train.model.sequential.0.Dense.activation: [relu, gelou]}",
            """tune.search.train.model.sequential.0.Dense.activation: "gelou": Keras has no activation 'gelou'""",
        ),
        (
            "tune.search={train.compile.optimizer: [Adam, SGD], train.compile.optimizer.Adam.beta_1: 'uniform(0, 1)'}",
            "train.compile.optimizer.Adam.beta_1 is a part of train.compile.optimizer, which is searched as well",
        ),
        ("tune=null", "has no section `tune`, which says what is searched"),
        ("split.seed=4", "tune needs what prepare makes, and its inputs or its settings have changed"),
    ],
)
def test_what_can_not_be_searched_is_said_before_the_first_trial(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, said: str
) -> None:
    monkeypatch.chdir(prepared)
    assert main(["tune", "shop.yaml", "--set", override]) == 2
    assert said in capsys.readouterr().err
    assert not list(prepared.glob("lake/shop/studies/*/trials/*"))


def test_as_many_run_at_once_as_memory_holds_of_what_the_first_one_takes(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prepared)
    with _study_of("shop.yaml", ("tune.parallel=8", "tune.seed=9"), Console("plain")) as (_, trials):
        trials._running[0] = _Running(trials.study.ask(), memory_bytes=2_000_000_000)
        for left_bytes, at_once in ((100_000_000_000, 8), (10_000_000_000, 5), (1_000_000_000, 1)):
            trials._left_bytes = left_bytes
            trials._reduce()
            assert trials._at_once == at_once
    said = capsys.readouterr().out
    assert "tune.parallel is 8; a trial takes 2.0 GB, and 10.0 GB are left on its machine: 5 at once" in said
    assert "1.0 GB are left on its machine: 1 at once" in said


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["driver", "all"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_that_is_stopped_goes_on(prepared: Path, tmp_path: Path, number: int, group: bool) -> None:
    """The driver alone, or Spark's process with it, as a terminal and systemd do."""
    folder = tmp_path / "shop"
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("studies", "runs"))
    first = Tuning(folder)
    while first.process.poll() is None and not glob.glob(
        "lake/shop/studies/*/trials/*/checkpoints/*.npz", root_dir=folder
    ):
        time.sleep(0.02)
    running = first.trainings()
    if group:
        os.killpg(first.process.pid, number)
    else:
        first.process.send_signal(number)
    assert first.end() == 4, first.said[-1]
    assert "the study goes on with the trials that ran" in first.said[-1]["message"]
    assert not any(map(_trains, running))
    second = Tuning(folder)
    assert second.end() == 0, second.said[-1]
    ended = [one["trial"] for one in first.of("trial") + second.of("trial")]
    assert sorted(ended) == [0, 1, 2, 3], "each came to its end once"


@pytest.mark.slow
def test_trials_are_tasks_of_a_cluster_and_go_on_where_an_executor_is_killed(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("studies", "runs"))
    with standalone(tmp_path, 2) as cluster:
        process = cluster.submit("tune", "shop.yaml", "--json", cwd=folder)
        while process.poll() is None and not glob.glob(
            "lake/shop/studies/*/trials/*/checkpoints/*.npz", root_dir=folder
        ):
            time.sleep(0.05)
        executors = [pid for pid in cluster.executors() if any(map(_trains, children(pid)))]
        kill_tree(executors[0])
        output, _ = process.communicate(timeout=500)
    said = events("\n".join(line for line in output.splitlines() if line.startswith("{")))
    assert process.returncode == 0, said[-1]
    ended = {one["trial"]: one for one in said if one["event"] == "trial"}
    assert sorted(ended) == [0, 1, 2, 3]
    rate = "train.compile.optimizer.Adam.learning_rate"
    for one in ended.values():
        assert one["state"] == ("complete" if one["values"][rate] < 1 else "failed"), one


@pytest.mark.slow
def test_a_study_of_a_dataset_in_a_store_lies_there_and_goes_on(tmp_path: Path, lakefit: Callable[..., Any]) -> None:
    write_tuned_shop(tmp_path)
    with object_store() as store:
        store.make("lakes")
        there = ("--set", "output.path=s3://lakes/out", "--exit-code")
        codes = [
            lakefit(*command, *there, cwd=tmp_path, env=store.environment).returncode
            for command in (
                ("prepare", "shop.yaml"),
                ("tune", "shop.yaml"),
                ("tune", "shop.yaml"),
                ("run", "shop.yaml"),
            )
        ]
        files, base = store.make("lakes")
        found = [file.path for file in files.get_file_info(FileSelector(base, recursive=True))]
    assert codes == [0, 0, 10, 10]
    assert any(path.endswith("/study/journal.log") for path in found)
    assert any(path.endswith("/study/plots/history.png") for path in found)


@pytest.mark.slow
def test_ranges_are_measured_before_a_study(prepared: Path, lakefit: Callable[..., Any]) -> None:
    rates = lakefit("tune", "shop.yaml", "--lr-range", "--json", cwd=prepared)
    assert rates.returncode == 0, rates.stderr
    (found,) = [one for one in events(rates.stdout) if one["event"] == "lr_range"]
    assert 1e-4 < found["suggestion"] < 1
    assert (prepared / found["file"]).read_bytes().startswith(b"\x89PNG")
    sizes = lakefit("tune", "shop.yaml", "--batch-range", "--json", cwd=prepared)
    assert sizes.returncode == 0, sizes.stderr
    measured = [one for one in events(sizes.stdout) if one["event"] == "batch_range"]
    assert [one["batch_size"] for one in measured] == [32, 64, 128, 256, 512]
    assert all(one["rows_per_s"] > 0 and one["memory_bytes"] > 1e8 for one in measured)
    assert events(sizes.stdout)[-1]["suggestion"] in [one["batch_size"] for one in measured]


def test_a_study_whose_trials_and_driver_are_killed_goes_on_and_its_best_is_what_every_run_uses(
    prepared: Path, lakefit: Callable[..., Any]
) -> None:
    (dataset,) = (prepared / "lake/shop/datasets").iterdir()
    written = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    first = Tuning(prepared)
    first.until("trial", 1)
    running = first.trainings()
    first.process.kill()
    first.process.communicate()
    done = {one["trial"]: (one["state"], one["value"], one["values"]) for one in first.of("trial")}
    for _ in range(300):
        if not any(_read(pid, "cmdline") for pid in running):
            break
        time.sleep(0.1)
    assert not any(_read(pid, "cmdline") for pid in running), "who trains ends with the driver"

    second = Tuning(prepared)
    while second.process.poll() is None and not second.trainings():
        time.sleep(0.02)
    os.kill(second.trainings()[0], signal.SIGKILL)
    assert second.end() == 0, second.said[-1]
    assert [one["done"] for one in second.of("resume")] == [len(done)]
    assert second.of("trial_lost"), "the trial that was killed is begun again"
    assert not {one["trial"] for one in second.of("trial")} & done.keys(), "no finished trial is repeated"
    ended = done | {one["trial"]: (one["state"], one["value"], one["values"]) for one in second.of("trial")}
    assert sorted(ended) == [0, 1, 2, 3]
    rate = "train.compile.optimizer.Adam.learning_rate"
    assert {state for state, _, values in ended.values() if values[rate] < 1} == {"complete"}
    for one in first.of("trial") + second.of("trial"):
        if one["values"][rate] > 1:
            assert (one["state"], "no number" in one["reason"] or "nan" in one["reason"]) == ("failed", True), one

    # Spark prepared nothing, and the best is trained with its values and in use.
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == written
    assert "prepare" not in [one["stage"] for one in second.of("start")]
    best = max((value, number) for number, (state, value, _) in ended.items() if state == "complete")
    (tuned,) = second.of("tuned")
    assert (tuned["value"], ended[tuned["trial"]][1]) == (best[0], best[0])
    result = second.said[-1]
    assert result["tune"]["values"] == ended[tuned["trial"]][2]
    current = json.loads((prepared / "lake/shop/current.json").read_text())
    assert result["paths"]["run"].endswith(current["run"])
    assert {path.name for path in (prepared / result["paths"]["study"]).glob("study/plots/*")} >= {"history.png"}
    again = lakefit("run", "shop.yaml", "--json", "--exit-code", cwd=prepared)
    assert again.returncode == 10, again.stdout
    assert events(again.stdout)[0]["trial"] == tuned["trial"]
    # As the file is written, where somebody has changed it.
    plan = lakefit("run", "shop.yaml", "--dry-run", "--json", "--set", "train.fit.epochs=7", cwd=prepared)
    assert "tuned" not in [one["event"] for one in events(plan.stdout)]
    assert "tuned.json is of other settings of train or tune, and not used" in plan.stdout

    # Alone, from its number, to the bit: also one that was killed in the middle of it.
    lost = second.of("trial_lost")[0]["trial"]
    number = lost if ended[lost][0] == "complete" else tuned["trial"]
    alone = lakefit("tune", "shop.yaml", "--trial", str(number), "--json", cwd=prepared)
    (told,) = [one for one in events(alone.stdout) if one["event"] == "again"]
    assert (alone.returncode, told["same"], told["found"]) == (0, True, told["before"]), told
    assert not list(prepared.glob("lake/shop/studies/*/trials/*-again"))
