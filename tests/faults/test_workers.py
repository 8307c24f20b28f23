"""Tasks that are killed, retried and run twice: no doubled row, no file beside the listed ones, the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from faulty import MANY, PLAIN, Shop, dice, hooked
from standalone import standalone

ROWS = 3_000
DRIVER = """
import json, os, sys
from lakefit.cli import main
from lakefit.launch.java import java_environment
from lakefit.launch.session import spark_defaults

os.environ.update(java_environment())
os.environ["PYSPARK_PYTHON"] = sys.executable
from pyspark.sql import SparkSession

builder = SparkSession.builder
for key, value in {**spark_defaults(), **json.loads(sys.argv[1])}.items():
    builder = builder.config(key, value)
with builder.getOrCreate():
    print("ready", flush=True)
    for line in sys.stdin:
        print("exit code", main(["prepare", "shop.yaml", "--json"]), flush=True)
"""


class Driver:
    """A process with a Spark session of its own that prepares the shop each time it is asked to."""

    def __init__(self, shop: Shop, settings: dict[str, str]) -> None:
        self.shop = shop
        self.armed = shop.folder / "hooks"
        with open(shop.folder / "stderr.txt", "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, json.dumps(settings)], cwd=shop.folder, env=hooked(shop.folder),
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            )  # fmt: skip
        self._read_to("ready")

    def prepare(self, meanwhile: Callable[[], None] = lambda: None) -> dict[str, bytes]:
        """Prepare the shop anew, do something meanwhile, and return the dataset's bytes."""
        shutil.rmtree(self.shop.folder / "lake", ignore_errors=True)
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        meanwhile()
        said = self._read_to("exit code")
        assert said.endswith("exit code 0\n"), said + self.shop.errors
        return self.shop.dataset()

    def _read_to(self, word: str) -> str:
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if line.startswith(word):
                return said
        raise AssertionError(said + self.shop.errors)

    def signal_worker(self, number: signal.Signals, instant: float) -> None:
        """Send a Python worker a signal so many seconds after rows begin to be staged."""
        while not self.shop.has("shop/datasets/.staging-*/.scratch-*/*"):
            time.sleep(0.005)
        time.sleep(instant)
        for worker in python_workers(self.shop.folder)[:1]:
            os.kill(worker, number)


def python_workers(folder: Path) -> list[int]:
    """Return PySpark's workers (children of its daemons) that work on a shop, the youngest first."""
    daemons = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"daemon\0pyspark" in (process / "cmdline").read_bytes() and (
                f"FAULTS={folder}/".encode() in (process / "environ").read_bytes()
            ):
                daemons[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return sorted((worker for worker, parent in daemons.items() if parent in daemons), reverse=True)


@contextmanager
def driver_of(shop: Shop, settings: dict[str, str]) -> Iterator[Driver]:
    driver = Driver(shop, settings)
    try:
        yield driver
    finally:
        os.killpg(driver.process.pid, signal.SIGKILL)
        driver.process.communicate()


@contextmanager
def cluster(shop: Shop) -> Iterator[dict[str, str]]:
    """Run a standalone cluster of two workers; yield the settings by which a session uses it.

    The workers have addresses of their own: a second attempt of a slow task never runs where the first one does.
    """
    with standalone(shop.folder, 2, hooked(shop.folder)) as running:
        yield {
            "spark.master": running.url,
            "spark.executor.memory": "512m",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.speculation": "true",
            "spark.speculation.interval": "100ms",
            "spark.speculation.quantile": "0.5",
            "spark.speculation.minTaskRuntime": "500ms",
        }


FAULTS = ("killed after its file was written", "slow", "killed", "suspended")


@pytest.mark.parametrize("faults", [4, MANY])
def test_a_task_that_is_killed_or_runs_twice_leaves_nothing_doubled(tmp_path: Path, faults: int) -> None:
    random = dice()
    shop = Shop(tmp_path / "shop", ROWS, pipeline=PLAIN)
    with cluster(shop) as settings, driver_of(shop, settings) as driver:
        expected = driver.prepare()
        for number in range(faults):
            fault, instant = FAULTS[number % 4], random.uniform(0, 0.3)
            (driver.armed / "written").unlink()
            if fault in ("killed", "suspended"):
                stop = signal.SIGKILL if fault == "killed" else signal.SIGSTOP
                found = driver.prepare(partial(driver.signal_worker, stop, instant))
            else:
                (driver.armed / fault).touch()
                found = driver.prepare()
                assert not (driver.armed / fault).exists()
                written = (driver.armed / "written").read_text().splitlines()
                assert len(written) > len(set(written)), "\n".join(sorted(written))
            print(f"fault {number + 1}: a worker {fault}, {instant:.2f} s after the first staged file: same dataset")
            assert found == expected
