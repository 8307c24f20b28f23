"""Nights of one pipeline: what is in use, what is written down and who is told, whatever happens."""

import contextlib
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faulty import PLAIN
from lakefit.cli import main
from lakefit.dataset.conditional import Seen, look
from lakefit.dataset.object_path import AnyPath
from shop import events, order_line, write_shop

SECTIONS = """
evaluate: {require: {auc: ">= 0.6", vs_current: ">= -0.02"}}
score: {input: orders-0.csv, output: scored, keys: [id]}
hooks: {on_failure: tee failure.json}
"""
UNLEARNED = "train.compile={optimizer: {SGD: {learning_rate: 0.0}}}"


class Nights:
    """A folder in which commands are given; `events` and `errors` are what the last one said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_shop(folder, 1500)
        text = PLAIN.replace("{epochs: 1, batch_size: 64}", "{epochs: 30, batch_size: 32}") + SECTIONS
        (folder / "shop.yaml").write_text(text, encoding="utf-8")

    def give(self, command: str, *arguments: str) -> int:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main([command, "shop.yaml", "--json", *arguments])
        self.events, self.errors = events(out.getvalue()), errors.getvalue()
        return code

    def arrive(self, name: str, first: int, rows: int) -> None:
        lines = ["id,day,city,amount,weight,stamp,late", *map(order_line, range(first, first + rows))]
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def in_use(self) -> dict[str, str]:
        return json.loads((self.folder / "lake/shop/current.json").read_text())  # type: ignore[no-any-return]

    @property
    def failure(self) -> dict[str, Any]:
        """What the command of hooks.on_failure was given; it is taken away."""
        path = self.folder / "failure.json"
        fields: dict[str, Any] = json.loads(path.read_text())
        path.unlink()
        return fields

    @property
    def scored_with(self) -> set[str]:
        return set(pq.read_table(self.folder / "scored").column("_artifact").to_pylist())

    def ran(self) -> list[str]:
        return [event["stage"] for event in self.events if event["event"] == "done"]

    def history(self) -> list[dict[str, Any]]:
        assert self.give("history") == 0
        return self.events[-1]["runs"]  # type: ignore[no-any-return]

    def run_json(self, run: str) -> dict[str, Any]:
        return json.loads((self.folder / "lake/shop/runs" / run / "run.json").read_text())  # type: ignore[no-any-return]


def test_nights(spark: Any, tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    # The first night: the model passes.
    assert nights.give("run") == 0
    first = nights.in_use
    assert [check["holds"] for check in nights.events[-1]["gate"]] == [True, True]
    assert nights.scored_with == {first["artifact"]}
    assert not (tmp_path / "failure.json").exists()

    # New rows, and a model that has learned nothing: the old one stays in use, and scores.
    nights.arrive("orders-2.csv", 5000, 300)
    assert nights.give("run", "--set", UNLEARNED) == 6
    assert nights.ran() == ["prepare", "train", "evaluate"]
    assert nights.in_use == first
    assert len(list((tmp_path / "lake/shop/artifacts").iterdir())) == 1
    error = nights.events[-1]
    assert error["message"].startswith(
        f"the quality gate was not passed, and run {first['run']} stays in use:\n  auc >= 0.6: found 0."
    )
    assert error["again"].startswith("Once that is mended: lakefit run shop.yaml")
    told = nights.failure
    assert (told["exit_code"], told["command"], told["state"]) == (6, "run", "ended")
    assert [check["holds"] for check in told["gate"]] == [False, False]
    assert told["in_use"] == first
    assert "settings" not in told
    assert nights.run_json(told["run"])["exit_code"] == 6

    # The same again: nothing is done again, and the answer is the same, also where it was another one meanwhile.
    with_another = {**nights.run_json(told["run"]), "exit_code": 0, "reason": "done"}
    (tmp_path / "lake/shop/runs" / told["run"] / "run.json").write_text(json.dumps(with_another))
    assert nights.give("run", "--set", UNLEARNED) == 6
    assert nights.ran() == []
    again = nights.run_json(told["run"])
    assert (again["exit_code"], again["reason"]) == (6, error["message"])
    # Rows of the old input file that have changed are scored, by the model in use.
    (tmp_path / "orders-0.csv").touch()
    assert nights.give("evaluate", "--set", UNLEARNED) == 2, "prepare has not run for the changed file"

    # A night that learns: a new model is in use.
    assert nights.give("run") == 0
    second = nights.in_use
    assert second["run"] != first["run"]
    assert nights.scored_with == {second["artifact"]}
    # What it was held against is the model that it has taken the place of, not itself.
    (compared,) = (check for check in nights.events[-1]["gate"] if check["metric"] == "vs_current")
    assert "rows of both test splits" in compared["note"]
    assert compared["found"] != 0

    # Trained again, although nothing has changed: what is made of it is made again.
    assert nights.give("run", "--fresh") == 0
    assert nights.ran() == ["train", "evaluate", "export", "score"]
    assert nights.in_use == second
    # The model in use is judged as well where it is trained again.
    assert nights.give("train", "--fresh", "--set", 'evaluate.require={auc: ">= 1.1"}') == 0
    assert nights.give("run", "--set", 'evaluate.require={auc: ">= 1.1"}') == 6
    assert nights.give("run", "--exit-code") == 10

    # A person takes it back: it stays out, and the old one scores.
    assert nights.give("rollback") == 0
    assert nights.in_use == first
    assert nights.give("run") == 0
    assert nights.ran() == ["score"]
    assert nights.scored_with == {first["artifact"]}
    assert any(event["event"] == "kept_out" for event in nights.events)
    assert nights.events[-1]["in_use"] == first
    assert "artifact" not in nights.events[-1]["paths"]
    assert nights.give("run", "--exit-code") == 10
    assert nights.in_use == first
    (tmp_path / "failure.json").unlink()
    assert nights.give("rollback") == 2
    assert "no other run that is still there was in use before" in nights.events[-1]["message"]
    assert nights.give("rollback", "--to", "nothing") == 2
    assert f"There are: {first['run']}, {second['run']}." in nights.events[-1]["message"]
    assert not (tmp_path / "failure.json").exists(), "whoever gives that command sits there"
    assert nights.give("rollback", "--to", second["run"][:9]) == 0
    assert nights.in_use == second
    assert nights.give("run") == 0
    assert nights.scored_with == {second["artifact"]}

    # What would be wrong data on any night.
    (tmp_path / "orders-2.csv").unlink()
    shutil.move(tmp_path / "orders-0.csv", tmp_path / "away")
    assert nights.give("run") == 2
    assert (nights.failure["exit_code"], nights.in_use) == (2, second)
    shutil.move(tmp_path / "away", tmp_path / "orders-0.csv")
    nights.arrive("orders-3.csv", 7000, 50)
    assert nights.give("run", "--set", "expect.result=[rows >= 100000]") == 5
    told = nights.failure
    assert (told["exit_code"], nights.in_use) == (5, second)
    assert "orders: 1 new: orders-3.csv" in told["changed"]
    assert "orders: 1 gone: orders-2.csv" in told["changed"]
    assert 'expect.result: [] -> ["rows >= 100000"]' in told["changed"]

    runs = nights.history()
    ended = [(run["command"], run["exit_code"]) for run in runs]
    assert ended == [
        ("run", 0), ("run", 6), ("run", 6), ("evaluate", 2), ("run", 0), ("run", 0), ("train", 0), ("run", 6),
        ("rollback", 0), ("run", 0), ("rollback", 2), ("rollback", 2), ("rollback", 0), ("run", 0),
        ("run", 2), ("run", 5),
    ]  # fmt: skip
    assert [run["in_use"]["run"] for run in runs] == [
        *[first["run"]] * 4, *[second["run"]] * 4, *[first["run"]] * 4, *[second["run"]] * 4,
    ]  # fmt: skip
    assert runs[1]["changed"][0] == "orders: 1 new: orders-2.csv"
    assert runs[0]["ledger"]["rows_in"] == 1582
    assert runs[1]["ledger"]["rows_in"] == 1882
    assert all("settings" not in run for run in runs)


def test_a_run_that_is_killed_is_shown_as_killed(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    folder = tmp_path / "lake/shop/history"
    folder.mkdir(parents=True)
    said = {
        "began": "2026-01-01T00:00:00+00:00",
        "command": "run",
        "state": "running",
        "pid": 2**22 + 1,
        "host": "here",
    }
    (folder / "1.json").write_text(json.dumps(said))
    assert [run["state"] for run in nights.history()] == ["killed"]
    lock = tmp_path / "lake/shop/lock"
    lock.write_text(json.dumps({"pid": said["pid"], "host": "here", "lease_s": 60}))
    assert [run["state"] for run in nights.history()] == ["running"], "another machine renews its lease"
    (folder / "2.json").write_text("half of a fi")
    assert len(nights.history()) == 1


def test_a_rollback_that_has_lost_its_lock_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nights = Nights(tmp_path)
    lake = tmp_path / "lake/shop"
    uses = [{"dataset": "d", "run": run, "artifact": f"a-{run}"} for run in ("one", "two")]
    for use in uses:
        files = {
            f"datasets/{use['dataset']}/manifest.json": {},
            f"runs/{use['run']}/metrics.json": {},
            f"runs/{use['run']}/run.json": {"dataset": use["dataset"]},
            f"artifacts/{use['artifact']}/artifact.json": {**use, "fingerprint": use["artifact"]},
            "current.json": use,
        }
        for name, content in files.items():
            (lake / name).parent.mkdir(parents=True, exist_ok=True)
            (lake / name).write_text(json.dumps(content))

    def suspended(path: AnyPath) -> Seen:
        (lake / "lock").write_text(json.dumps({"pid": 4711, "host": "other", "lease_s": 60, "token": "other"}))
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr("lakefit.run.rollback.look", suspended)
        assert nights.give("rollback", "--to", "one") == 3
    assert "this run has lost its lock" in nights.events[-1]["message"]
    assert nights.in_use == uses[1]
    assert [nights.run_json(use["run"]) for use in uses] == [{"dataset": "d"}] * 2
    (lake / "lock").unlink()
    assert nights.give("rollback", "--to", "one") == 0
    assert nights.in_use == uses[0]


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("false", "hooks.on_failure: 'false' ended with exit code 1: it said nothing"),
        ("/no/such/command", "hooks.on_failure: '/no/such/command' can't be run: No such file or directory"),
        ("sleep 60", "hooks.on_failure: 'sleep 60' did not end within 1 second, and was ended"),
        ("sh -c 'echo no key >&2; exit 3'", "ended with exit code 3: no key"),
        (r"sh -c 'printf \\351 >&2; exit 1'", "ended with exit code 1: \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_hook_that_fails_is_said_and_changes_no_exit_code(tmp_path: Path, hook: str, said: str) -> None:
    nights = Nights(tmp_path)
    began = time.monotonic()
    override = f"hooks={json.dumps({'on_failure': hook, 'timeout': '1 second'})}"
    # Also where the pipeline file is wrong elsewhere.
    assert nights.give("run", "--set", override, "--set", "nonsense=1") == 2
    assert nights.events[0]["message"].endswith(said)
    assert nights.events[-1]["event"] == "error"
    assert time.monotonic() - began < 30
    assert not (tmp_path / "lake").exists()


def test_a_hook_that_is_no_command_is_refused(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    assert nights.give("validate", "--set", 'hooks={on_failure: "page \'em"}') == 2
    assert "hooks.on_failure: no command: no closing quotation" in nights.events[-1]["message"]
    assert nights.give("history") == 0
    assert nights.events[-1]["runs"] == []
    assert nights.give("rollback") == 2
    assert "nothing is in use yet" in nights.events[-1]["message"]
