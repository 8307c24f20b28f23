"""`spark-submit jobs/….py` in client mode on a standalone cluster: the same bytes, whatever is killed."""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faulty import KILLS, Shop, dice
from proxy import proxy
from shop import events
from standalone import Cluster, free_port, kill_tree, standalone

ROWS = 3_000
SCORE = "score: {input: orders-0.csv, output: scored, keys: [id]}\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standalone(tmp_path_factory.mktemp("cluster"), 3) as running:
        yield running


class Submitted(Shop):
    """A shop whose jobs are submitted to a cluster."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        super().__init__(folder, ROWS)
        self.cluster = cluster
        path = folder / "shop.yaml"
        path.write_text(path.read_text(encoding="utf-8") + SCORE, encoding="utf-8")

    def job(
        self, name: str, meanwhile: Callable[[], None] = lambda: None, **settings: str
    ) -> tuple[int, dict[str, Any]]:
        """Submit a job and do something meanwhile; return its exit code and its last event."""
        process = self.cluster.submit(name, "shop.yaml", "--json", cwd=self.folder, **settings)
        meanwhile()
        output, _ = process.communicate(timeout=300)
        said = [line for line in output.splitlines() if line.startswith("{")]
        return process.returncode, events("\n".join(said))[-1] if said else {}

    def scored(self) -> bytes:
        """Return what was scored, whoever wrote which file, but for the fingerprint of the artifact."""
        table = pq.read_table(self.folder / "scored").drop_columns(["_artifact"]).sort_by("id")
        return hashlib.sha256(repr(table.to_pydict()).encode()).digest()


@pytest.fixture(scope="module")
def expected(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the stages make on this machine alone."""
    here = Shop(tmp_path_factory.mktemp("expected") / "shop", ROWS, "run")
    path = here.folder / "shop.yaml"
    path.write_text(path.read_text(encoding="utf-8") + SCORE, encoding="utf-8")
    dataset = here.finish()
    return {"dataset": dataset, "scored": Submitted.scored(here)}  # type: ignore[arg-type]


def test_every_job_on_a_cluster_makes_what_it_makes_here(
    cluster: Cluster, expected: dict[str, Any], tmp_path: Path
) -> None:
    shop = Submitted(tmp_path / "shop", cluster)
    for name in ("prepare", "train", "evaluate", "export", "run"):
        before = cluster.applications()
        code, last = shop.job(name)
        assert code == 0, (name, last, (cluster.folder / "submit.log").read_text()[-3000:])
        # Whatever a job does without Spark it does on this machine; `run` has predictions left to make.
        assert len(cluster.applications() - before) == (name in ("prepare", "run")), name
    assert shop.dataset() == expected["dataset"]
    assert shop.scored() == expected["scored"]
    run = json.loads(next((shop.folder / "lake/shop/runs").glob("*/run.json")).read_text())
    assert (run["exit_code"], run["reason"]) == (0, "done")
    code, last = shop.job("run")
    assert (code, last["current"]) == (0, True)


def test_an_error_has_its_exit_code_and_its_words_there_too(cluster: Cluster, tmp_path: Path) -> None:
    shop = Submitted(tmp_path / "shop", cluster)
    path = shop.folder / "shop.yaml"
    path.write_text(path.read_text().replace("LEFT JOIN", "JOIN"), encoding="utf-8")
    code, last = shop.job("prepare")
    assert code == 2
    assert "rows come out for" in last["message"]
    run = json.loads(next((shop.folder / "lake/shop/runs").glob("*/run.json")).read_text())
    assert run["exit_code"] == 2


@pytest.mark.parametrize("kills", [3, pytest.param(max(KILLS, 100), marks=pytest.mark.fault, id="many")])
def test_whatever_is_killed_the_dataset_and_the_predictions_are_the_same(
    cluster: Cluster, expected: dict[str, Any], tmp_path: Path, kills: int
) -> None:
    generator = dice()
    done = 0
    while done < kills:
        shop = Submitted(tmp_path / f"shop-{done}", cluster)
        for name in ("prepare", "run"):
            victim = ("executor", "worker", "driver")[done % 3]
            instant = generator.uniform(0.5, 8)
            code, last = shop.job(name, partial(_kill, cluster, shop.folder, victim, instant, generator))
            done += 1
            print(f"kill {done}: {victim}, {instant:.1f} s after {name} was submitted: exit code {code}")
            shop.assert_whole()
            if code:
                assert victim == "driver", (code, last, (cluster.folder / "submit.log").read_text()[-3000:])
                code, last = shop.job(name)
                assert code == 0, last
        assert shop.dataset() == expected["dataset"]
        assert shop.scored() == expected["scored"]
        assert not list(shop.folder.glob(".staging-*"))


@pytest.mark.slow
def test_a_worker_that_is_cut_off_is_given_up_within_the_timeout(
    cluster: Cluster, expected: dict[str, Any], tmp_path: Path
) -> None:
    shop = Submitted(tmp_path / "shop", cluster)
    ports = [free_port(), free_port()]
    settings = {
        "spark_driver_host": "127.0.0.200",
        "spark_driver_bindAddress": "127.0.0.1",
        "spark_driver_port": str(ports[0]),
        "spark_driver_blockManager_port": str(ports[1]),
        "spark_network_timeout": "10s",
        "spark_network_timeoutInterval": "5s",
        "spark_executor_heartbeatInterval": "2s",
        "spark_scheduler_minRegisteredResourcesRatio": "1.0",
    }
    with proxy("127.0.0.200", ports) as between:
        cut: list[int] = []

        def cut_one() -> None:
            for _ in range(12_000):
                if shop.has("shop/datasets/.staging-*/.scratch-*/*"):
                    break
                time.sleep(0.01)
            else:
                raise AssertionError((cluster.folder / "submit.log").read_text()[-3000:])
            cut.append(cluster.executors()[0])
            between.cut(cut[0])

        began = time.monotonic()
        code, last = shop.job("prepare", cut_one, **settings)
        print(f"an executor was cut off, and the job ended {time.monotonic() - began:.0f} s after it was submitted")
    assert code == 0, (last, (cluster.folder / "submit.log").read_text()[-3000:])
    assert "timed out" in (cluster.folder / "submit.log").read_text(), "it was given up"
    assert cut
    shop.assert_whole()
    code, last = shop.job("run")
    assert code == 0, last
    assert shop.dataset() == expected["dataset"]


@pytest.mark.slow
def test_a_full_disk_of_an_executor_is_named_or_avoided(
    expected: dict[str, Any], tmp_path: Path, small_disk: Callable[[Path, int], None]
) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    small_disk(folder / "local-0", 256 << 10)
    with standalone(folder, 2) as cluster:
        shop = Submitted(tmp_path / "shop", cluster)
        code, last = shop.job("prepare", spark_scheduler_minRegisteredResourcesRatio="1.0")
        print(f"a full disk of one executor of two: exit code {code}")
        shop.assert_whole()
        if code:
            assert code == 3, last
            assert "the disk is full" in last["message"], last
            assert not shop.has("shop/current.json")
        # What Spark has for it: the tasks go where there is room.
        code, last = shop.job(
            "run", spark_excludeOnFailure_enabled="true", spark_scheduler_minRegisteredResourcesRatio="1.0"
        )
        assert code == 0, (last, (cluster.folder / "submit.log").read_text()[-3000:])
        assert shop.dataset() == expected["dataset"]


@pytest.mark.slow
def test_a_master_that_is_not_there_or_has_no_workers_is_named(tmp_path: Path) -> None:
    with standalone(tmp_path, 0) as empty:
        shop = Submitted(tmp_path / "shop", empty)
        waiting = empty.submit("prepare", "shop.yaml", cwd=shop.folder)
        command = [sys.executable, "-m", "lakefit", "doctor", "--master", empty.url]
        doctor = subprocess.run(command, env=empty.environment, capture_output=True, text=True, timeout=200)
        assert doctor.returncode == 2, doctor.stdout
        assert f"{empty.url} has given no executor in 30 s: is a worker up" in doctor.stdout
        assert waiting.stdout is not None
        # One that says nothing would be read from for ever.
        end = threading.Timer(60, kill_tree, [waiting.pid])
        end.start()
        said = next((line for line in waiting.stdout if line.startswith(empty.url)), "it said nothing")
        assert said.strip().endswith("It is waited for")
        end.cancel()
        kill_tree(waiting.pid)
        waiting.communicate()
    # Its master is gone by now.
    process = empty.submit("prepare", "shop.yaml", "--json", cwd=shop.folder)
    output, _ = process.communicate(timeout=200)
    last = json.loads(output.splitlines()[-1])
    assert (process.returncode, last["exit_code"]) == (2, 2), output
    assert f"no Spark master answers at {empty.url}" in last["message"]
    assert last["again"].startswith("Once that is mended: spark-submit ")


def _kill(cluster: Cluster, folder: Path, victim: str, instant: float, generator: random.Random) -> None:
    time.sleep(instant)
    if victim == "executor":
        running = cluster.executors()
        if running:
            kill_tree(generator.choice(running))
    elif victim == "worker":
        kill_tree(cluster.workers[0].pid)
        cluster.workers.pop(0).wait()
        cluster.add_worker()
    else:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                here = os.readlink(process / "cwd") == str(folder)
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if here and b"SparkSubmit" in command:
                kill_tree(int(process.name))
