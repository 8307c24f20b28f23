"""A Spark barrier stage with one process of ours a task: started together, listened to, and ended together.

Spark gives the tasks their places, cores and GPUs, all at once or not at all. What they say, and what they are told,
goes over a connection of each task to the driver, since Spark has none: lines of JSON, after a secret that only the
tasks know.
"""

import hmac
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JJavaError
from pyspark import BarrierTaskContext

from lakefit.errors import InputError, StoppedError, text_of
from lakefit.launch.place import TF_CONFIG, Place
from lakefit.launch.slots import makes_executors, slots
from lakefit.launch.stop import Stop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Message = dict[str, Any]
Heard = Callable[[int, Message], None]
"""Called with a worker's number and what it has said, a JSON object a line of its standard output; `started` with host
and gpus when it begins. Called by threads."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker's process has ended.

    code: of its exit, below 0 the signal that has killed it; None where the task itself was lost. at: on the driver's
    monotonic clock.
    """

    worker: int
    code: int | None
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Task:
    """What each task is to do: all that it needs to know."""

    module: str
    job: str
    host: str
    port: int
    secret: str
    folder: str
    gpus: bool


def workers_at_once(spark: "SparkSession", wanted: int) -> int:
    """Return how many workers could be started, as soon as it is as many as wanted, or else after half a minute.

    Raises:
        InputError: it is a session of Spark Connect, or one that makes executors as tasks come.
    """
    found = slots(spark, wanted)
    if found is not None:
        return found
    if not makes_executors(spark):
        raise InputError("train.workers: workers are tasks of a Spark session, not of Spark Connect: submit the job.")
    raise InputError(
        "train.workers: Spark starts all workers at once, or none, and can't with spark.dynamicAllocation.enabled: "
        "set it to false, and spark.executor.instances to what the workers need."
    )


def run_workers(
    spark: "SparkSession", module: str, job: str, workers: int, *, gpus: bool, heard: Heard, stop: Stop
) -> tuple[list[Ended], str | None]:
    """Run `python -m module` in so many tasks, which get `job` as the first line of their standard input and their
    place as TF_CONFIG; return how they have ended, in the order in which they did, and what Spark says where its stage
    has failed.

    Once one has failed, the others are killed: they would wait for it. When `stop` is asked they all get the line
    "stop". Where an executor is lost, Spark runs the whole stage again, as often as spark.stage.maxConsecutiveAttempts.

    gpus: each task has GPUs of Spark's, and sees no others; else it sees none.
    """
    with _Switchboard(spark, workers, heard, stop) as board:
        task = _Task(module, job, board.host, board.port, board.secret, os.getcwd(), gpus)
        places = spark.sparkContext.parallelize(range(workers), workers).barrier()
        try:
            places.mapPartitions(lambda _: _run_task(task)).collect()
        except Py4JJavaError as error:
            return board.ended(), _reason(text_of(error))
        return board.ended(), None


def _reason(text: str) -> str:
    """Return the line of a failed stage's text that says most: the last error of Python's, or else its first line."""
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .+$", text, re.MULTILINE)
    return str(errors[-1] if errors else text.strip().splitlines()[0])[:500]


@dataclass(slots=True)
class _Link:
    connection: socket.socket
    ended: Ended | None = None

    def tell(self, command: str) -> None:
        with suppress(OSError):
            self.connection.sendall(f"{command}\n".encode())


@dataclass(slots=True)
class _Switchboard:
    """The driver's end of the connections."""

    spark: "SparkSession"
    workers: int
    heard: Heard
    stop: Stop
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    host: str = ""
    _server: socket.socket | None = None
    _links: dict[int, _Link] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.getsockname()[1])

    def __enter__(self) -> "_Switchboard":
        conf = self.spark.sparkContext.getConf()
        self.host = str(conf.get("spark.driver.host", "127.0.0.1"))
        self._server = socket.create_server((str(conf.get("spark.driver.bindAddress", self.host)), 0))
        for target in (self._accept, self._forward_stop):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._server is not None
        self._server.close()
        for link in self._links.values():
            link.tell("kill")
            link.connection.close()

    def ended(self) -> list[Ended]:
        """Return how each worker has ended that has come, the first one first."""
        with self._lock:
            found = [link.ended or Ended(number, None) for number, link in self._links.items()]
        return sorted(found, key=lambda one: one.at)

    def _accept(self) -> None:
        assert self._server is not None
        with suppress(OSError):
            while not self._over.is_set():
                connection, _ = self._server.accept()
                threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
        link: _Link | None = None
        with suppress(OSError, ValueError, KeyError), connection.makefile("r", encoding="utf-8") as lines:
            hello = json.loads(lines.readline(4096))
            if not hmac.compare_digest(str(hello["secret"]), self.secret):
                connection.close()
                return
            link, worker = _Link(connection), int(hello["worker"])
            with self._lock:
                # Of a stage that Spark has begun again, the new one counts.
                self._links[worker] = link
            self.heard(worker, {"event": "started", "host": hello["host"], "gpus": hello["gpus"]})
            for line in lines:
                message = json.loads(line)
                if "ended" in message:
                    link.ended = Ended(worker, message["ended"])
                    if link.ended.code == StoppedError.exit_code:
                        # One that was told to stop, or its machine, takes all with it: Spark is not to begin again.
                        self._stopping = True
                    elif link.ended.code:
                        self._tell("kill")
                else:
                    self.heard(worker, message)
        if link is not None and link.ended is None:
            link.ended = Ended(worker, None)

    def _forward_stop(self) -> None:
        told: set[int] = set()
        while not self._over.wait(0.2):
            with self._lock:
                links = list(self._links.values())
            for link in links:
                if (self.stop.asked or self._stopping) and id(link) not in told:
                    told.add(id(link))
                    link.tell("stop")

    def _tell(self, command: str) -> None:
        with self._lock:
            links = list(self._links.values())
        for link in links:
            if link.ended is None:
                link.tell(command)


def _run_task(task: _Task) -> Iterator[tuple[int, int]]:
    """Run the process of this task to its end, and be its ear and mouth; ends it with this process."""
    context = BarrierTaskContext.get()
    worker = context.partitionId()
    host = context.getTaskInfos()[worker].address.rpartition(":")[0] or context.getTaskInfos()[worker].address
    gpu = context.resources().get("gpu")
    gpus = list(gpu.addresses) if task.gpus and gpu is not None else []
    with reserved_port() as port, socket.create_connection((task.host, task.port), timeout=60) as link:
        link.settimeout(None)
        _say(link, {"secret": task.secret, "worker": worker, "host": f"{host}:{port}", "gpus": gpus})
        place = Place(worker, tuple(context.allGather(f"{host}:{port}")))
        environment = {
            **os.environ,
            TF_CONFIG: place.tf_config(),
            # The port is held until TensorFlow listens there: nobody else gets it meanwhile.
            "TF_GRPC_REUSE_PORT": "true",
            "CUDA_VISIBLE_DEVICES": ",".join(gpus) or "-1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", task.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=task.folder if Path(task.folder).is_dir() else None,
            start_new_session=True,
        )
        try:
            with suppress(ValueError):
                # A task's process that is to end ends well: the signal is the training's.
                signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
            yield worker, _attend(process, link, json.dumps({"job": task.job, "cores": context.cpus()}))
        finally:
            _kill(process)


def _attend(process: "subprocess.Popen[str]", link: socket.socket, first: str) -> int:
    """Hand over what the process says, and to it what it is told, until it ends; return its exit code."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{first}\n")
    process.stdin.flush()

    def obey(to: Any) -> None:
        with suppress(OSError, ValueError):
            for line in link.makefile("r", encoding="utf-8"):
                if line.strip() == "kill":
                    break
                to.write(line)
                to.flush()
        # Without a driver nobody wants what it does.
        _kill(process)

    threading.Thread(target=obey, args=(process.stdin,), daemon=True).start()
    for line in process.stdout:
        message = _message(line)
        if message is None:
            sys.stderr.write(line)
        else:
            _say(link, message)
    code = process.wait()
    _say(link, {"ended": code})
    return code


def _message(line: str) -> Message | None:
    """Return what a line says, or None where it is none of ours: models print as well."""
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "event" in found:
            return found
    return None


def _say(link: socket.socket, message: Mapping[str, Any]) -> None:
    with suppress(OSError):
        link.sendall(f"{json.dumps(message)}\n".encode())


def _kill(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def reserved_port(candidates: Iterable[int] = (0,)) -> Iterator[int]:
    """Yield a port that is this process's to give to a server which reuses ports; another one where it is taken.

    candidates: to be tried in order; 0 is any that is free.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for port in candidates:
            with suppress(OSError):
                held.bind(("", port))
                yield int(held.getsockname()[1])
                return
    raise InputError("no port is free for a worker of train.workers.")
