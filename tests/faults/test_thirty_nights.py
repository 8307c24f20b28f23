"""A year of flights in thirty nights, unattended: what goes wrong is planted, and every night is held against it."""

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lakefit.cli import main
from lakefit.example import flights
from shop import events

pytestmark = pytest.mark.slow

FIRST, DAYS = 46, 11
"""The first night brings so many days of flights, each other so many; and each the first of the next, not yet flown."""
KEY = [flights._COLUMNS.index(name) for name in flights.KEY]
ARRIVAL, CARRIER = (flights._COLUMNS.index(name) for name in ("arr_delay", "carrier"))
KEEP = 4
DISK = 2 << 30

PIPELINE = """
name: nightly
source:
  tables:
    flights:
      path: raw/flights-*.csv*
      format: csv
      options: {header: true, nullValue: NA}
      schema: >-
        year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT,
        sched_arr_time INT, arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING,
        air_time INT, distance INT, hour INT, minute INT, time_hour TIMESTAMP, extracted_at TIMESTAMP
  rows: flights
  query: SELECT f.*, dayofweek(f.time_hour) AS weekday FROM flights f
deduplicate: {key: [year, month, day, carrier, flight, origin, sched_dep_time], keep: last by extracted_at}
reject:
  - {when: "arr_delay IS NULL", because: cancelled or diverted}
expect: {result: [drift(carrier) < 0.05]}
split: {by: [year, month, day], train: 0.7, validation: 0.15, test: 0.15, seed: 42}
features:
  numeric: {columns: [distance], normalize: standard}
  categorical: {columns: [weekday, hour, carrier, origin], min_count: 20}
label: {expression: arr_delay > 15}
output: {path: lake, keep: 4, grace: 1 second}
train:
  model: {sequential: [{Dense: {units: 32, activation: relu}}, {Dense: {units: 1, activation: sigmoid}}]}
  compile: {optimizer: {Adam: {learning_rate: 0.003}}}
  fit: {epochs: 4, batch_size: 512}
evaluate: {baseline_rows: 50000, require: {auc: ">= 0.55", vs_current: ">= -0.05"}}
score: {input: raw/newest.csv, output: predictions}
hooks: {on_failure: "sh -c 'cat >> failures.jsonl; echo >> failures.jsonl'"}
"""
UNLEARNED = ("--set", "train.compile={optimizer: {SGD: {learning_rate: 0.0}}}")


@dataclass
class Raw:
    """The files that have arrived, and the ledger that they must give: counted here, line by line."""

    folder: Path
    flown: dict[int, list[list[str]]]
    rows: dict[str, list[list[str]]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)

    def day(self, night: int) -> datetime:
        """Return the day on which a night's extract is taken."""
        return datetime(2013, 1, 1) + timedelta(days=FIRST + DAYS * (night - 1))

    def extract(self, night: int) -> list[list[str]]:
        """Return the flights of a night's days, and the first day of the next as it stood before."""
        taken = f"{self.day(night):%Y-%m-%d} 04:00:00"
        rows = [[*row, taken] for row in self.flown[night]]
        first = self.day(night)
        for row in self.flown.get(night + 1, []):
            if (int(row[1]), int(row[2])) == (first.month, first.day):
                early = [("NA" if place in flights._KNOWN_ONCE_FLOWN else text) for place, text in enumerate(row)]
                rows.append([*early, taken])
        return rows

    def write(self, name: str, rows: list[list[str]], damaged: int = 0) -> Path:
        lines = [",".join(row) for row in rows]
        lines += [line[: 20 + place] for place, line in enumerate(lines[:damaged])]
        path = self.folder / name
        path.write_text("\n".join([f"{','.join(flights._COLUMNS)},extracted_at", *lines, ""]), encoding="utf-8")
        self.rows[name], self.damaged[name] = rows, damaged
        return path

    def newest(self, name: str) -> None:
        """What is scored each night: a copy outside of the glob."""
        shutil.copyfile(self.folder / name, self.folder / "newest.csv")

    def ledger(self) -> dict[str, int]:
        latest: dict[tuple[str, ...], list[str]] = {}
        count = 0
        for rows in self.rows.values():
            for row in rows:
                count += 1
                key = tuple(row[place] for place in KEY)
                if key not in latest or latest[key][-1] < row[-1]:
                    latest[key] = row
        cancelled = sum(row[ARRIVAL] == "NA" for row in latest.values())
        damaged = sum(self.damaged.values())
        return {
            "rows_in": count + damaged,
            "kept": len(latest) - cancelled,
            "duplicates": count - len(latest),
            "cancelled or diverted": cancelled,
            "the line does not fit the schema": damaged,
        }


@dataclass
class Nights:
    """The folder of the pipeline, and the commands of its nights."""

    folder: Path
    raw: Raw
    said: list[dict[str, Any]] = field(default_factory=list)
    table: list[tuple[str, ...]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lakefit", "run", "nightly.yaml", "--json", "--exit-code", *arguments]
        with open(self.folder / "stderr.txt", "a", encoding="utf-8") as errors:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )

    def run(self, *arguments: str, at_epoch: signal.Signals | None = None) -> int:
        """Run to the end; or send the signal once an epoch is done, SIGKILL to all processes of it."""
        self.said = []
        with self.start(*arguments) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.said.append(json.loads(line))
                if at_epoch is not None and self.said[-1]["event"] == "epoch":
                    (os.killpg if at_epoch == signal.SIGKILL else os.kill)(process.pid, at_epoch)
                    at_epoch = None
        return process.returncode

    @property
    def in_use(self) -> dict[str, str]:
        return json.loads((self.folder / "lake/nightly/current.json").read_text())  # type: ignore[no-any-return]

    @property
    def failures(self) -> list[dict[str, Any]]:
        path = self.folder / "failures.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def command(self, name: str) -> tuple[int, list[dict[str, Any]]]:
        out = io.StringIO()
        with redirect_stdout(out):
            code = main([name, str(self.folder / "nightly.yaml"), "--json"])
        return code, events(out.getvalue())


def flown() -> dict[int, list[list[str]]]:
    """Return the flights of each night's days, in columns of text."""
    table, _ = flights._source_tables()
    found: dict[int, list[list[str]]] = {night: [] for night in range(1, 31)}
    for line in table.decode().splitlines()[1:]:
        row = line.split(",")
        day = (datetime(2013, int(row[1]), int(row[2])) - datetime(2013, 1, 1)).days
        found[max(1, (day - FIRST) // DAYS + 2)].append(row)
    return found


def test_thirty_nights(tmp_path: Path, small_disk: Callable[[Path, int], None]) -> None:
    raw = Raw(tmp_path / "raw", flown())
    raw.folder.mkdir()
    (tmp_path / "nightly.yaml").write_text(PIPELINE, encoding="utf-8")
    lake = tmp_path / "lake"
    room = room_of(small_disk, lake)
    nights = Nights(tmp_path, raw)
    codes: list[int | None] = []
    with chdir(tmp_path):
        for night in range(1, 31):
            codes += one_night(nights, night, room)
            check_retention(nights)
        check_history(nights, codes)
    print()
    widths = [max(len(row[place]) for row in nights.table) for place in range(len(nights.table[0]))]
    for row in nights.table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def room_of(small_disk: Callable[[Path, int], None], lake: Path) -> Callable[[int | None], None] | None:
    """Return a function that leaves so many bytes free for the lake (None: all); None where no disk can be mounted."""
    try:
        small_disk(lake, DISK)
    except pytest.skip.Exception as error:
        print(f"night 16 is one like the others: {error}")
        return None
    return lambda free: small_disk(lake, DISK if free is None else shutil.disk_usage(lake).used + free)


def one_night(nights: Nights, night: int, room: Callable[[int | None], None] | None) -> list[int | None]:
    """Let a night's files arrive, with what is planted, and run; return the exit codes (None: nothing was run)."""
    raw, name = nights.raw, f"flights-{night:02}.csv"
    if night == 29:
        # Nothing has come.
        return [expect(nights, night, "nothing new", (10,))]
    path = raw.write(name, raw.extract(night), damaged=night % 4)
    raw.newest(name)
    before = nights.in_use if night > 1 else {}
    if night in (4, 18):
        # What was known of an earlier night was wrong.
        stamp = raw.extract(night)[0][-1]
        wrong = raw.rows["flights-02.csv"]
        cancelled = [row for row in wrong if row[ARRIVAL] == "NA"][:100]
        rows = [*[row for row in wrong if row[ARRIVAL] != "NA"][:200], *cancelled]
        late = [[*row[:ARRIVAL], "99" if row[ARRIVAL] == "NA" else "NA", *row[ARRIVAL + 1 : -1], stamp] for row in rows]
        assert len(late) == 300
        raw.write(f"flights-{night:02}-corrections.csv", late)
        return [expect(nights, night, "300 late corrections", (0,))]
    if night == 7:
        # A transfer that broke off in the middle of a compressed file.
        whole = path.read_bytes()
        path.unlink()
        broken = path.with_suffix(".csv.gz")
        broken.write_bytes(gzip.compress(whole)[:-5000])
        codes = [expect(nights, night, "a broken file", (2,), same=before)]
        broken.unlink()
        path.write_bytes(whole)
        return codes
    if night == 10:
        # A supplier that has changed its codes.
        right = raw.rows[name]
        raw.write(name, [[*row[:CARRIER], f"{row[CARRIER]}X", *row[CARRIER + 1 :]] for row in right])
        codes = [expect(nights, night, "a drifted column", (5,), same=before)]
        raw.write(name, right)
        return codes
    if night == 13:
        return [expect(nights, night, "killed in training", (-signal.SIGKILL,), same=before, at_epoch=signal.SIGKILL)]
    if night == 16 and room is not None:
        room(400_000)
        codes = [expect(nights, night, "a full disk", (3,), same=before)]
        room(None)
        return codes
    if night == 19:
        nights.table.append((f"{night}", "missed: the machine was off", "", "", "", "", "", "", before["run"]))
        return [None]
    if night == 22:
        return [expect(nights, night, "a model that learns nothing", (6,), *UNLEARNED, same=before)]
    if night == 25:
        codes = [expect(nights, night, "stopped in training", (4,), same=before, at_epoch=signal.SIGTERM)]
        codes.append(expect(nights, night, "... and begun again", (0,)))
        assert any(event["event"] == "resume" for event in nights.said)
        return codes
    if night == 27:
        codes = [expect(nights, night, "", (0,))]
        used = nights.in_use
        code, said = nights.command("rollback")
        assert (code, said[-1]["in_use"]) == (0, before)
        codes += [code, expect(nights, night, "rolled back, and run again", (0,), same=before)]
        assert used["run"] != before["run"]
        return codes
    words = {
        8: "the file is whole",
        11: "the codes are back",
        14: "two nights",
        17: "two nights",
        20: "two nights",
        23: "two nights",
    }
    return [expect(nights, night, words.get(night, ""), (0,))]


def expect(
    nights: Nights,
    night: int,
    planted: str,
    codes: tuple[int, ...],
    *arguments: str,
    same: dict[str, str] | None = None,
    at_epoch: signal.Signals | None = None,
) -> int:
    """Run a night and hold it against what was planted: `same` is what must be in use as before."""
    told = len(nights.failures)
    code = nights.run(*arguments, at_epoch=at_epoch)
    errors = (nights.folder / "stderr.txt").read_text()[-3000:]
    assert code in codes, (night, planted, code, nights.said[-1], errors)
    last = nights.said[-1]
    due = nights.raw.ledger()
    metric = ""
    if code in (0, 10):
        ledger = last["ledger"]
        found = {"rows_in": ledger["rows_in"], "kept": sum(ledger["kept"].values()), "duplicates": ledger["duplicates"]}
        found |= {"the line does not fit the schema": 0, **ledger["rejected"]}
        assert found == due, (night, planted)
        metric = f"{last['metrics']['test']['auc']:.4f}"
        scored = set(pq.read_table(nights.folder / "predictions").column("_artifact").to_pylist())
        assert scored == {nights.in_use["artifact"]}
    in_use = nights.in_use
    if same is not None:
        assert in_use == same, (night, planted)
    elif code == 0:
        assert last["paths"]["dataset"].endswith(in_use["dataset"])
        assert last["paths"]["run"].endswith(in_use["run"])
    # The hook hears of all that a process can still tell.
    assert [failure["exit_code"] for failure in nights.failures[told:]] == ([code] if code in (2, 3, 4, 5, 6) else [])
    numbers = [f"{due[name]:,}" for name in ("rows_in", "kept", "duplicates", "cancelled or diverted")]
    if not nights.table:
        nights.table.append(
            ("night", "planted", "exit code", "rows in", "kept", "duplicates", "cancelled", "auc", "in use")
        )
    nights.table.append((f"{night}", planted, f"{code}", *numbers, metric, in_use["run"]))
    return code


def check_retention(nights: Nights) -> None:
    """What is in use is whole; old versions are gone but for those that something names."""
    root = nights.folder / "lake/nightly"
    in_use = nights.in_use
    assert (root / "datasets" / in_use["dataset"] / "manifest.json").is_file()
    assert (root / "runs" / in_use["run"] / "metrics.json").is_file()
    assert (root / "artifacts" / in_use["artifact"] / "artifact.json").is_file()
    for kind in ("datasets", "runs", "artifacts"):
        # Beyond the newest: what is in use and was before; what came since they were last removed; their datasets.
        assert len([path for path in (root / kind).iterdir() if path.name[0] != "."]) <= 2 * KEEP + 2, kind


def check_history(nights: Nights, codes: list[int | None]) -> None:
    code, said = nights.command("history")
    assert code == 0
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["history", "nightly.yaml", "--json", "--last", "99"]) == 0
    runs = events(out.getvalue())[-1]["runs"]
    assert len(said[-1]["runs"]) == 20
    written = [run.get("exit_code", "killed") for run in runs]
    # Of a night with nothing to do, and of one that was not run, nothing is written.
    due = ["killed" if code == -signal.SIGKILL else code for code in codes if code not in (None, 10)]
    assert written == due
    assert [run["state"] for run in runs if "exit_code" not in run] == ["killed"]
    by_night = [run for run in runs if run["command"] == "run" and run.get("changed")]
    assert any("flights: 1 new: flights-02.csv" in run["changed"] for run in by_night)
    assert any("flights: 2 new: flights-19.csv, flights-20.csv" in run["changed"] for run in by_night)
