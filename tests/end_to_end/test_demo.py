"""The demo, whole: raw flights to a scored model, by the command, in processes of their own."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from lakefit.example import flights
from shop import ROOT, events, parquet_bytes

Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Demo:
    folder: Path
    written: flights.Written
    events: list[dict[str, Any]]

    @property
    def result(self) -> dict[str, Any]:
        return self.events[-1]

    def path(self, name: str) -> Path:
        return self.folder / str(self.result["paths"][name])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, lakefit: Command) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    written = flights.write(folder / "data/flights")
    shutil.copytree(ROOT / "conf", folder / "conf")
    done = lakefit("run", "conf/flights.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return Demo(folder, written, events(done.stdout))


@pytest.fixture(scope="module")
def scoring(demo: Demo) -> Iterator[subprocess.Popen[str]]:
    """`lakefit score` over all raw rows, under way beside the tests that come before those that need it."""
    command = [sys.executable, "-m", "lakefit", "score", "conf/flights.yaml", "--json"]
    paths = ["--input", "data/flights/raw/flights-*.csv", "--output", "all"]
    with (demo.folder / "score.txt").open("w") as errors:
        process = subprocess.Popen(
            [*command, *paths], cwd=demo.folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def scored(demo: Demo, scoring: subprocess.Popen[str]) -> pa.Table:
    """All raw rows with what the exported model says of them."""
    output, _ = scoring.communicate(timeout=300)
    assert scoring.returncode == 0, (demo.folder / "score.txt").read_text()
    counts = events(output)[-1]
    assert counts["rows_in"] == demo.written.rows_in
    assert counts["scored"] == demo.written.rows_in - demo.written.unparsable
    return pq.read_table(demo.folder / "all")


@pytest.mark.usefixtures("scoring")
def test_spark_submit_on_one_core_over_other_cuts_gives_the_same_bytes(demo: Demo, tmp_path: Path) -> None:
    """The raw files cut into other pieces and named in another order, on one core where the demo had all of them."""
    raw = tmp_path / "data/flights/raw"
    raw.mkdir(parents=True)
    shutil.copy(demo.folder / "data/flights/raw/weather.csv", raw)
    header, lines = b"", []
    for file in sorted((demo.folder / "data/flights/raw").glob("flights-*.csv"), reverse=True):
        header, *rest = file.read_bytes().splitlines(keepends=True)
        lines += rest
    cuts = [0, 40_000, 40_001, 200_000, len(lines)]
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        (raw / f"flights-{9 - number}.csv").write_bytes(header + b"".join(lines[start:end]))
    binaries = Path(sys.executable).parent
    submit = binaries / "spark-submit"
    # As in an activated environment: spark-submit looks for `python3` on PATH.
    env = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "PYSPARK_PYTHON": sys.executable}
    job = [
        str(submit),
        "--master",
        "local[1]",
        str(ROOT / "jobs/prepare.py"),
        str(ROOT / "conf/flights.yaml"),
        "--set",
        "score=null",  # what it would score is the extract that is cut up here
        "--json",
    ]
    done = subprocess.run(job, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = events(done.stdout)[-1]
    assert parquet_bytes(tmp_path / result["paths"]["dataset"]) == parquet_bytes(demo.path("dataset"))
    assert result["ledger"]["rows_in"] == demo.written.rows_in


def test_the_ledger_holds_exactly_what_the_example_wrote(demo: Demo) -> None:
    ledger, written = demo.result["ledger"], demo.written
    assert ledger["rows_in"] == written.rows_in
    assert ledger["duplicates"] == written.duplicates
    assert ledger["rejected"] == {
        "columns shifted": written.shifted,
        "cancelled or diverted": written.without_arrival,
        "the line does not fit the schema": written.unparsable,
    }
    assert sum(ledger["kept"].values()) == written.kept
    by_file = {name: file["rows_in"] for name, file in ledger["files"].items()}
    assert by_file == {name: lines for name, lines in written.lines.items() if name.startswith("flights")}


def test_the_model_comes_near_gradient_boosting_and_beats_the_prior(demo: Demo) -> None:
    test, baselines = demo.result["metrics"]["test"], demo.result["baselines"]
    assert test["auc"] >= baselines["gradient_boosting"]["test"]["auc"] - 0.03
    assert test["auc"] > 0.65
    assert baselines["prior"]["test"]["auc"] == 0.5
    assert test["log_loss"] < baselines["prior"]["test"]["log_loss"]


def test_no_day_is_in_two_splits(demo: Demo, scored: pa.Table) -> None:
    """Proven from the rows: predictions of all raw rows give each identity its day."""
    days: dict[str, set[bytes]] = {}
    by_row = {row["_row"]: (row["month"], row["day"]) for row in scored.to_pylist()}
    for split in ("train", "validation", "test"):
        rows = pq.read_table(demo.path("dataset") / split, columns=["_row"])["_row"].to_pylist()
        days[split] = {by_row[row] for row in rows}
    assert not days["train"] & days["test"]
    assert not days["train"] & days["validation"]
    assert not days["validation"] & days["test"]
    assert len(days["train"] | days["validation"] | days["test"]) == 365


def test_scoring_the_raw_rows_of_the_test_split_gives_what_evaluate_computed(demo: Demo, scored: pa.Table) -> None:
    evaluated = pq.read_table(demo.path("run") / "predictions").to_pandas()
    raw = scored.to_pandas()
    joined = evaluated.merge(raw, on="_row", suffixes=("", "_raw"))
    assert len(joined) == len(evaluated) == demo.result["ledger"]["kept"]["test"]
    assert np.abs(joined["probability"] - joined["probability_raw"]).max() <= 1e-6
    assert roc_auc_score(joined["label"], joined["probability_raw"]) > 0.65
    # Not vacuous: nulls and categories that training has not seen are among them.
    test = pq.read_table(demo.path("dataset") / "test").to_pandas()
    assert (test["temp_missing"] == 1).any()
    assert any((test[name] == 1).any() for name in ("carrier", "dest", "hour"))
    assert set(raw["_artifact"]) == {demo.path("artifact").name}


def test_the_exported_model_loads_without_lakefit_and_takes_nulls(demo: Demo) -> None:
    script = """
import json, sys
import keras, numpy as np, tensorflow as tf
folder, means = sys.argv[1], json.loads(sys.argv[2])
model = keras.saving.load_model(folder + "/model.keras", safe_mode=True)
loaded = tf.saved_model.load(folder + "/saved_model")
text = {"carrier": ["UA", ""], "origin": ["JFK", "?"], "dest": ["BOS", "nowhere"], "month": ["7", ""],
        "weekday": ["2", "9"], "hour": ["17", ""]}
rows = {t.name: tf.constant([[v] for v in text[t.name]]) if t.name in text
        else tf.constant([[means[t.name]], [float("nan")]], tf.float64) for t in model.inputs}
a, b = model(rows).numpy(), loaded.serve(rows).numpy()
assert "lakefit" not in sys.modules
assert np.allclose(a, b, atol=1e-6), (a, b)
print(json.dumps(a[:, 0].tolist()))
"""
    manifest = json.loads((demo.path("dataset") / "manifest.json").read_text())
    means = json.dumps({name: column["mean"] for name, column in manifest["statistics"].items()})
    done = subprocess.run(
        [sys.executable, "-c", script, str(demo.path("artifact")), means], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert 0 < first < 1
    assert 0 < second < 1
    assert first != second


def test_a_second_run_sees_that_all_is_current_and_says_the_same(demo: Demo, lakefit: Command) -> None:
    done = lakefit("run", "conf/flights.yaml", "--json", "--exit-code", cwd=demo.folder)
    assert done.returncode == 10, done.stderr
    said = events(done.stdout)
    assert [event["event"] for event in said] == ["current"] * 5 + ["result"]
    for key in ("ledger", "metrics", "baselines", "paths"):
        assert said[-1][key] == demo.result[key]
    *plan, reader = events(lakefit("run", "conf/flights.yaml", "--dry-run", "--json", cwd=demo.folder).stdout)
    assert all(step["current"] for step in plan)
    assert (reader["event"], reader["reader"]) == ("reader", "Spark: source.query is SQL")


def test_a_dry_run_says_what_a_changed_setting_would_run(demo: Demo, lakefit: Command) -> None:
    changed = ("--set", "train.fit.batch_size=512", "--dry-run", "--json")
    *plan, _ = events(lakefit("run", "conf/flights.yaml", *changed, cwd=demo.folder).stdout)
    assert {step["stage"]: step["current"] for step in plan} == {
        "prepare": True,
        "train": False,
        "evaluate": False,
        "export": False,
        "score": False,
    }


def test_the_last_extract_is_scored_with_its_keys_and_versions(demo: Demo) -> None:
    table = pq.read_table(demo.path("predictions"))
    lines = demo.written.lines["flights-2013-12.csv"]
    broken = (
        pq.read_table(demo.path("predictions") / "_rejects") if (demo.path("predictions") / "_rejects").exists() else ()
    )
    assert len(table) + len(broken) == lines
    assert set(flights.KEY) | {"_row", "probability", "_artifact", "_dataset", "_lakefit"} == set(table.column_names)


def test_current_json_names_what_is_in_use(demo: Demo) -> None:
    root = demo.folder / "data/flights/lake/flights"
    current = json.loads((root / "current.json").read_text())
    assert current == {
        "dataset": demo.path("dataset").name,
        "run": demo.path("run").name,
        "artifact": demo.path("artifact").name,
    }
    assert not list(root.rglob(".staging-*"))
