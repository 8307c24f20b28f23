"""The pipeline file that `lakefit init` writes for data of somebody's own runs as it stands."""

import csv
import random
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from lakefit.cli import main
from lakefit.dataset.manifest import Manifest, read_manifest


def manifest_of(folder: Path, name: str) -> Manifest:
    (dataset,) = (folder / "lake" / name / "datasets").iterdir()
    return read_manifest(dataset)


def write_orders(path: Path, rows: int) -> None:
    numbers = random.Random(5)
    with open(path, "w", newline="", encoding="cp1252") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["order id", "customer_id", "age", "price", "bought on", "city", "tags", "score", "churn"])
        for i in range(rows):
            age = 999 if i % 50 == 0 else numbers.randrange(18, 90)
            price = f"{numbers.lognormvariate(7, 1):,.2f} €".translate(str.maketrans(",.", ".,"))
            day = f"{i % 28 + 1:02d}.{i % 12 + 1:02d}.2023"
            tags = "|".join(numbers.sample(["red", "green", "blue"], i % 3 + 1))
            city = numbers.choice(["Köln", "köln ", "Bonn"])
            score = numbers.choice(["NA", "1.5", "2.5"])
            churn = "ja" if numbers.random() < 0.3 else "nein"
            writer.writerow([f"O{i:05d}", f"C{numbers.randrange(300):04d}", age, price, day, city, tags, score, churn])
        file.write("O1;broken\n")


@pytest.mark.usefixtures("spark")
def test_messy_text_becomes_a_trained_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_orders(tmp_path / "orders.csv", 1500)
    assert main(["init", "orders.csv", "--label", "churn"]) == 0
    assert main(["prepare", "orders.yaml"]) == 0
    manifest = manifest_of(tmp_path, "orders")
    ledger = manifest.ledger
    assert (ledger.rows_in, sum(ledger.kept.values()), ledger.duplicates) == (1501, 1500, 0)
    assert {reason: rows for reason, rows in ledger.rejected.items() if rows} == {"the line does not fit the schema": 1}
    assert ledger.unparsable == {} or not any(ledger.unparsable.values())
    assert manifest.statistics["age"].high == 89
    assert manifest.statistics["age"].nulls > 0
    assert {value for value, _ in manifest.statistics["city"].most_frequent or ()} == {"köln", "bonn"}


@pytest.mark.usefixtures("spark")
def test_parquet_of_pandas_runs_with_its_nanoseconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = 1500
    times = pd.date_range("1969-12-30 00:00:00.000001999", periods=rows, freq="37min")
    frame = pd.DataFrame({"t": times, "x": [i * 37 % 101 / 7 for i in range(rows)], "y": [i % 2 for i in range(rows)]})
    frame["nested"] = [{"a": 1}] * rows
    frame.to_parquet("events.parquet")
    assert main(["init", "events.parquet"]) == 0
    assert main(["prepare", "events.yaml"]) == 0
    low, high = (
        manifest_of(tmp_path, "events").statistics["t"].low,
        manifest_of(tmp_path, "events").statistics["t"].high,
    )
    assert low is not None
    assert high is not None
    # Of the training split; microseconds are rounded down, before 1970 too.
    assert times[0].timestamp() - 1e-6 <= low <= high <= times[-1].timestamp()
    assert round(low % 1, 6) == 0.000001


def test_a_table_of_the_catalog(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    query = """SELECT id, id % 7 + rand(3) AS x, map('a', id) AS m, array(map('a', id)) AS n,
        interval '1' day * id AS d, interval '1' month * id AS ym, id % 2 = 0 AS won FROM range(1500)"""
    spark.sql(query).write.mode("overwrite").saveAsTable("lakefit_games")
    try:
        assert main(["init", "default.lakefit_games", "--label", "won"]) == 0
        assert main(["prepare", "lakefit_games.yaml"]) == 0
    finally:
        spark.sql("DROP TABLE lakefit_games")
    manifest = manifest_of(tmp_path, "lakefit_games")
    assert manifest.ledger.rows_in == sum(manifest.ledger.kept.values()) == 1500
    assert [numeric.name for numeric in manifest.features.numeric] == ["x"]


def test_what_is_not_there(lakefit: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    for name in ("nothing.csv", "no/such/folder"):
        ended = lakefit("init", name, cwd=tmp_path)
        assert ended.returncode == 2
        assert name in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stderr.splitlines()[-1] == f"Once that is mended: lakefit init {name}"
