"""Spark Connect: the same stages against a real server, and the same bytes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest

from lakefit.launch.java import java_environment
from shop import events, parquet_bytes, write_shop

HOME = Path(pyspark.__file__).parent
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server on a free port of loopback, with settings that are not ours; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("connect")
    settings = {
        "spark.connect.grpc.binding.port": port,
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.pyspark.python": sys.executable,
        "spark.sql.session.timeZone": "Asia/Tokyo",
        # Rows that are joined by a shuffle arrive in another order.
        "spark.sql.autoBroadcastJoinThreshold": "-1",
        "spark.sql.ansi.enabled": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "7",
        "spark.local.dir": folder,
        "spark.sql.warehouse.dir": folder / "warehouse",
    }
    options = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    command = [HOME / "bin/spark-submit", "--class", SERVER, "--master", "local[3]", *options, "spark-internal"]
    environment = {**os.environ, **java_environment(), "SPARK_HOME": str(HOME), "PYSPARK_PYTHON": sys.executable}
    with open(folder / "log", "w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server:
        try:
            for _ in range(600):
                assert server.poll() is None, (folder / "log").read_text()
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"sc://127.0.0.1:{port}"
        finally:
            server.terminate()


def shop(folder: Path) -> Path:
    """Write a shop whose dataset would be another one in another time zone."""
    folder.mkdir()
    write_shop(folder, 1000)
    cities = (folder / "cities.csv").read_text(encoding="utf-8").splitlines()
    founded = ["founded", *(f"2026-01-01 {hour:02}:30:00" for hour in range(len(cities) - 1))]
    lines = [f"{city},{at}" for city, at in zip(cities, founded, strict=True)]
    (folder / "cities.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = (folder / "shop.yaml").read_text(encoding="utf-8")
    for old, new in {
        "size DOUBLE": "size DOUBLE, founded TIMESTAMP",
        "SELECT o.*, c.size": "SELECT o.*, c.size, c.founded",
        "features:": "features:\n  dates: {columns: [founded], parts: [hour]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "shop.yaml").write_text(f"{text}score: {{input: orders-0.csv, output: scored, keys: [id]}}\n")
    for file in folder.glob("*.csv"):
        os.utime(file, ns=(10**18, 10**18))
    return folder


def test_a_run_against_a_server_of_spark_connect_makes_the_same_dataset_and_the_same_predictions(
    address: str, lakefit: Command, tmp_path: Path
) -> None:
    here, there = shop(tmp_path / "here"), shop(tmp_path / "there")
    results = {}
    for folder, environment in ((here, {}), (there, {"SPARK_REMOTE": address})):
        done = lakefit("run", "shop.yaml", "--json", cwd=folder, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        results[folder] = events(done.stdout)[-1]
    assert results[there]["ledger"] == results[here]["ledger"]
    dataset = results[here]["paths"]["dataset"]
    assert results[there]["paths"]["dataset"] == dataset
    assert parquet_bytes(there / dataset) == parquet_bytes(here / dataset)
    scored = [pq.read_table(folder / "scored").sort_by("id") for folder in (here, there)]
    assert scored[0].num_rows > 0
    assert scored[0] == scored[1]


@pytest.mark.parametrize(
    ("columns", "join", "problem"),
    [
        ("c.size, c.founded", "JOIN cities c ON c.city = o.city WHERE o.id > 500", "rows come out for"),
        ("CAST(3e9 + c.size AS INT) AS size, c.founded", "LEFT JOIN cities c ON c.city = o.city", "CAST_OVERFLOW"),
    ],
    ids=["rows", "overflow"],
)
def test_a_query_that_drops_rows_or_digits_is_found_there_too(
    address: str, lakefit: Command, tmp_path: Path, columns: str, join: str, problem: str
) -> None:
    folder = shop(tmp_path / "shop")
    query = f"source.query=SELECT o.*, {columns} FROM orders o {join}"
    done = lakefit("prepare", "shop.yaml", "--json", "--set", query, cwd=folder, env={"SPARK_REMOTE": address})
    assert done.returncode == 2, done.stdout + done.stderr
    assert problem in events(done.stdout)[-1]["message"]
    assert not (folder / "lake/shop/current.json").exists()


def test_a_server_that_is_not_there_is_named(lakefit: Command, tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    secret = {"SPARK_REMOTE": "sc://user:secret@127.0.0.1:9"}
    done = lakefit("prepare", "shop.yaml", "--json", cwd=folder, env=secret)
    assert done.returncode == 2
    last = events(done.stdout)[-1]
    assert last["message"].startswith("no Spark Connect server answers at sc://127.0.0.1:9")
    record = next((folder / "lake/shop/history").glob("*.json"))
    assert json.loads(record.read_text())["exit_code"] == 2
    assert "secret" not in record.read_text() + done.stdout + done.stderr
