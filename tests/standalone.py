"""A Spark standalone cluster of processes: a master, and workers with addresses and folders of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pyspark

from lakefit.launch.java import java_environment
from shop import ROOT

HOME = Path(pyspark.__file__).parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Cluster:
    """The running processes. `url` is the master's; worker i has the address 127.0.0.<i + 2>."""

    def __init__(self, folder: Path, environment: Mapping[str, str], memory: str) -> None:
        """folder: for logs, and what the workers write. memory: of each worker."""
        self.folder = folder
        self.environment = {
            **environment, **java_environment(), "SPARK_HOME": str(HOME), "SPARK_DAEMON_MEMORY": "256m",
        }  # fmt: skip
        self._memory = memory
        self.url = f"spark://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        self.master = self._start("master", "master.Master", "--host", "127.0.0.1", "--port", port)
        self.workers: list[subprocess.Popen[bytes]] = []
        self._added = 0

    def add_worker(self) -> None:
        number, self._added = self._added, self._added + 1
        local = self.folder / f"local-{number}"
        local.mkdir(exist_ok=True)
        worker = self._start(
            f"worker-{number}", "worker.Worker", "--host", f"127.0.0.{number + 2}", "--cores", "1",
            "--memory", self._memory, "--work-dir", str(self.folder / f"work-{number}"), self.url,
            SPARK_LOCAL_DIRS=str(local),
        )  # fmt: skip
        self.workers.append(worker)

    def _start(self, name: str, role: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [str(HOME / "bin/spark-class"), f"org.apache.spark.deploy.{role}", "--webui-port", "0", *arguments]
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, start_new_session=True
            )

    def submit(self, job: str, *arguments: str, cwd: Path, **settings: str) -> subprocess.Popen[str]:
        """Start `spark-submit jobs/JOB.py …` in client mode; what Spark itself says goes into submit.log."""
        conf = {
            "spark.executor.memory": "512m", "spark.executor.cores": "1", "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1", **{name.replace("_", "."): value for name, value in settings.items()},
        }  # fmt: skip
        options = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        command = [str(HOME / "bin/spark-submit"), "--master", self.url, *options, str(ROOT / f"jobs/{job}.py")]
        with open(self.folder / "submit.log", "ab") as log:
            return subprocess.Popen(
                [*command, *arguments], cwd=cwd, env={**self.environment, "SPARK_LOCAL_DIRS": str(self._driver())},
                stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip

    def _driver(self) -> Path:
        folder = self.folder / "local-driver"
        folder.mkdir(exist_ok=True)
        return folder

    def executors(self) -> list[int]:
        """Return the JVMs in which tasks run, on any worker."""
        return [pid for worker in self.workers for pid in children(worker.pid) if b"ExecutorBackend" in _command(pid)]

    def applications(self) -> set[str]:
        """Return the applications that have had an executor on any worker, also those that have ended."""
        return {path.name for path in self.folder.glob("work-*/app-*")}

    def stop(self) -> None:
        for process in (self.master, *self.workers):
            kill_tree(process.pid)
            process.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all that it has started, at once."""
    tree = [pid, *children(pid)]
    for each in tree:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def standalone(
    folder: Path, workers: int, environment: Mapping[str, str] | None = None, memory: str = "1g"
) -> Iterator[Cluster]:
    """Run a cluster of so many workers of one core each, with logs and folders below `folder`."""
    given = {**os.environ, **(environment or {})}
    cluster = Cluster(
        folder, {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, **given}, memory
    )
    try:
        _wait_for(folder / "master.log", "elected leader", 1)
        for _ in range(workers):
            cluster.add_worker()
        _wait_for(folder / "master.log", "Registering worker", workers)
        yield cluster
    finally:
        cluster.stop()


def _wait_for(log: Path, words: str, times: int) -> None:
    for _ in range(1200):
        if log.exists() and log.read_text(errors="replace").count(words) >= times:
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace"))
