"""Training with `train.workers`: in the tasks of a Spark stage, or in the processes that TF_CONFIG names."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakefit.config import Pipeline, PipelineSource, Problem
from lakefit.console import Console
from lakefit.errors import ContractError, InputError, LakefitError, StoppedError
from lakefit.launch.place import LOST, Place
from lakefit.launch.stop import Stop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakefit.launch.barrier import Ended, Message
    from lakefit.train.stage import TrainJob

_KINDS: dict[int, type[LakefitError]] = {
    kind.exit_code: kind for kind in (LakefitError, InputError, ContractError, StoppedError)
}


def check_place(job: "TrainJob", at: Place | None) -> Place | None:
    """Return the place of this process among the workers, None where it is to train alone or to start them.

    Raises:
        ConfigError: TF_CONFIG names another number of them than the pipeline file.
    """
    workers = job.pipeline.train.workers
    if at is None or (workers, at.workers) == (1, 1):
        return None
    if at.workers != workers:
        message = f"{workers}, and TF_CONFIG names {at.workers}: {', '.join(at.addresses[:8])}"
        raise job.source.error(Problem(("train", "workers"), message))
    return at


def train_on_spark(job: "TrainJob", console: Console, stop: Stop) -> str | None:
    """Train in a Spark stage of `train.workers` tasks; return what went wrong beside it, as `train` does.

    Where a worker is lost, all are started again, and go on from the last checkpoint: as often as Spark tries a stage
    (spark.stage.maxConsecutiveAttempts, 4).

    Raises:
        ConfigError: Spark has fewer slots than there are workers, or no GPUs for them. LakefitError: as `train`, of the
        worker that has raised it; workers were lost too often.
    """
    from lakefit.launch.barrier import run_workers, workers_at_once
    from lakefit.launch.session import spark_session

    section = job.pipeline.train
    with spark_session() as spark:
        gpus = gpus_of_tasks(spark, job.pipeline, job.source)
        found = workers_at_once(spark, section.workers)
        if found < section.workers:
            message = (
                f"{section.workers} workers need as many slots at once, and the Spark session at "
                f"{spark.sparkContext.master} has {found}: give it more executors or cores, or ask for fewer workers"
            )
            raise job.source.error(Problem(("train", "workers"), message))
        attempts = int(spark.conf.get("spark.stage.maxConsecutiveAttempts", None) or 4)
        for attempt in range(1, attempts + 1):
            telling = _Telling(console, section.workers)
            with stop.deferred(), console.progress("train", _steps(job), telling.look):
                ended, failed = run_workers(
                    spark,
                    "lakefit.train.worker",
                    job.dumps(),
                    section.workers,
                    gpus=gpus,
                    heard=telling.hear,
                    stop=stop,
                )
            trouble = telling.verdict(ended, failed)
            if trouble is None:
                return telling.trouble
            if stop.asked:
                raise StoppedError("Stopped, as asked; the last checkpoint is kept.")
            if attempt < attempts:
                text = f"{trouble}; all workers are started again, and go on from the last checkpoint"
                console.event("workers_lost", f"{text} (attempt {attempt + 1} of {attempts})", attempt=attempt + 1)
    raise LakefitError(f"{trouble}, {attempts} times; run again to go on from the last checkpoint.")


def gpus_of_tasks(spark: "SparkSession", pipeline: Pipeline, source: PipelineSource) -> bool:
    """Return whether training in Spark's tasks is to have their GPUs. Raises ConfigError where it must, and there are
    none."""
    devices = pipeline.train.devices
    gpus = float(spark.conf.get("spark.task.resource.gpu.amount", None) or 0)
    if devices.startswith("gpu") and not gpus:
        message = (
            f"{devices} in tasks of Spark's, and Spark gives its tasks no GPUs: set spark.task.resource.gpu.amount, "
            "spark.executor.resource.gpu.amount and a discovery script (docs/workers.md)"
        )
        raise source.error(Problem(("train", "devices"), message))
    return devices != "cpu" and gpus > 0


def _steps(job: "TrainJob") -> int:
    section, rows = job.pipeline.train, job.manifest.splits["train"].rows
    size = section.fit.batch_size
    return section.fit.epochs * (rows // size if section.feed.remainder == "drop" else -(-rows // size))


class _Telling:
    """What the workers have said: passed on where it is for people, kept where it decides something.

    trouble: what went wrong beside a training that was finished, as its chief has said.
    """

    def __init__(self, console: Console, workers: int) -> None:
        self.trouble: str | None = None
        self._console, self._workers = console, workers
        self._lock = threading.Lock()
        self._progress: tuple[int, str, dict[str, Any]] = (0, "the workers are coming", {})
        self._failed: dict[int, Message] = {}
        self._why: dict[int, str] = {}

    def look(self) -> tuple[int, str, dict[str, Any]]:
        """Return how far the chief is."""
        return self._progress

    def hear(self, worker: int, message: "Message") -> None:
        """Take note of what a worker says."""
        with self._lock:
            self._hear(worker, {**message})

    def _hear(self, worker: int, message: "Message") -> None:
        kind, text = message.pop("event"), message.pop("message", "")
        if kind == "progress":
            self._progress = message["done"], text, message["fields"]
        elif kind == "failed":
            self._failed[worker] = {"message": text, **message}
        elif kind == "trained":
            if worker == 0:
                self.trouble = message["trouble"]
        elif kind == "started":
            gpus = f", with GPU {', '.join(message['gpus'])}" if message["gpus"] else ""
            text = f"worker {worker} of {self._workers} is at {message['host']}{gpus}"
            self._console.event("worker", text, worker=worker, **message)
        else:
            if kind == "stalled":
                self._why[worker] = message["why"]
            else:
                self._console.event(kind, text, **message)

    def verdict(self, ended: Sequence["Ended"], failed: str | None) -> str | None:
        """Return None where all have done their part, else why not, in words. Raises what a worker has raised.

        failed: what Spark says of its stage, where that has failed.
        """
        with self._lock:
            for worker, said in sorted(self._failed.items(), key=lambda item: (item[1]["code"] == 4, item[0])):
                raise _KINDS.get(said["code"], LakefitError)(
                    said["message"] + ("" if worker == 0 else f" (worker {worker})")
                )
        unfinished = [one for one in ended if one.code != 0]
        if not unfinished:
            came = len(ended)
            return None if came == self._workers else f"{came} of {self._workers} workers have come: {failed}"
        # Those that found others gone, or were killed since another had failed, are not why.
        first = next((one for one in unfinished if one.code != LOST), unfinished[0])
        return f"worker {first.worker} of {self._workers} {self._why.get(first.worker) or _how(first.code, failed)}"


def _how(code: int | None, failed: str | None) -> str:
    if code is None:
        return f"was lost with its task or executor ({failed})"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}: its log says more"
