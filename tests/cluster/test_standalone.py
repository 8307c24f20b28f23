"""`spark-submit jobs/….py` in client mode on a standalone cluster: the same bytes, whatever is killed."""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faulty import MANY, Shop, dice
from shop import events
from standalone import Cluster, kill_tree, standalone

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
        code, last = shop.job(name)
        assert code == 0, (name, last, (cluster.folder / "submit.log").read_text()[-3000:])
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


@pytest.mark.parametrize("kills", [3, MANY])
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
