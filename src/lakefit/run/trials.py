"""The trials of a study: each a training in a task of Spark's, so many at once as cores and memory allow."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lakefit.config import ConfigError, Problem, load_pipeline
from lakefit.config.tune import Tune
from lakefit.dataset.fingerprint import fingerprint
from lakefit.dataset.layout import CHECKPOINTS, HISTORY, WEIGHTS
from lakefit.dataset.mirror import Mirror
from lakefit.dataset.object_path import AnyPath
from lakefit.dataset.publish import read_json, remove_tree
from lakefit.errors import InputError, LakefitError, StoppedError
from lakefit.launch.slots import machines
from lakefit.launch.stop import Stop
from lakefit.run.model_check import check_model
from lakefit.run.plan import fingerprints
from lakefit.run.stages import Run, train_job
from lakefit.run.validate import Validated
from lakefit.run.workers import gpus_of_tasks
from lakefit.tune.study import Study, Trial, restored_epoch
from lakefit.tune.table import outcome, table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakefit.launch.barrier import Ended, Heard, Message
    from lakefit.train.stage import TrainJob

ATTEMPTS = 3
"""How often a trial is begun again whose process was killed."""
_LEAVES = 0.9
"""Of the memory that is left, what more trials may take: those to come may take more than the first."""
_STATES_SHOWN = ("running", "complete", "pruned", "failed")
_SHOWN = 12
_STOPPED = "Stopped, as asked; the study goes on with the trials that ran."


def check_prepared(run: Run) -> None:
    """Raise InputError where the dataset is not there: nothing here prepares one."""
    prepared = run.plan()[0]
    if not prepared.current:
        path = run.valid.source.path
        raise InputError(f"tune needs what prepare makes, and {prepared.why}. Run `lakefit prepare {path}` first.")


def folder_of(run: Run) -> AnyPath:
    """Return the folder of a pipeline's study: in `study` its journal and pictures, in `trials` what each has made."""
    return run.layout.study(study_fingerprint(run.valid))


def study_fingerprint(valid: Validated) -> str:
    """Return what the trials of a study have in common: the dataset, and all that trains, but for what is searched."""
    assert valid.pipeline.tune is not None
    of_study = valid.pipeline.tune.model_dump(mode="json", exclude={"trials", "parallel"})
    return fingerprint({"run": fingerprints(valid).run, "tune": of_study})


@dataclass(slots=True)
class _Running:
    """A trial that runs: who asks it to stop, why, and what it has said."""

    trial: Trial
    stop: Stop = field(default_factory=Stop)
    pruned: bool = False
    failed: str | None = None
    memory_bytes: int = 0
    host: str = ""


class Trials:
    """Runs the trials of a study that are due, so many at once.

    Each is a training of its own in a task of Spark's, or in `train.workers` of them, with its checkpoints: one whose
    process is killed goes on, as do those that ran when this process was.
    """

    def __init__(self, run: Run, tune: Tune, mirror: Mirror, check: Callable[[], None]) -> None:
        """check: raises where another run has taken the output over."""
        self._run, self.tune, self._mirror, self.check = run, tune, mirror, check
        self.folder = folder_of(run)
        self.study: Study = Study(mirror.local, tune, run.pipeline.train.fit.epochs)
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._at_once = tune.parallel
        self._free = threading.Condition(self._lock)
        self._fault: LakefitError | None = None
        self._left_bytes: int | None = None
        self._machines = 1
        # Of the values in the file; those of a trial take its place.
        self._job = train_job(run)

    def due(self) -> int:
        """Return how many trials have not come to an end yet."""
        return self._unfinished() + self._to_come()

    def _to_come(self) -> int:
        return max(0, self.tune.trials - len(self.study.trials()))

    def run(self) -> Trial:
        """Run those that are due; return the best of all.

        Raises:
            InputError: what is searched can't be set, or the objective is not measured. StoppedError. LakefitError: no
            trial came to its end.
        """
        from lakefit.launch.session import spark_session

        console = self._run.console
        if self.due():
            valid = self._run.valid
            check_model(valid.source.path, valid.overrides, self._run.dataset_dir, search=True)
            stop = self._run.stop
            with _with_spark(stop), ExitStack() as stack:
                spark = stack.enter_context(spark_session())
                gpus = gpus_of_tasks(spark, self._run.pipeline, self._run.valid.source)
                self._at_once, self._machines = self._slots(spark), machines(spark)
                stack.enter_context(stop.listening())
                stack.enter_context(stop.deferred())
                done = len(self.study.trials()) - self._unfinished()
                stack.enter_context(console.progress("tune", self.tune.trials, self._look))
                if done:
                    console.event("resume", f"the study goes on after {done:,} trials", done=done)
                with ThreadPoolExecutor(self._at_once) as pool:
                    self._go(pool, spark, gpus)
            if self._fault is not None:
                raise self._fault
            if stop.asked:
                raise StoppedError(_STOPPED)
            self.study.figures(self._mirror.local / "plots")
            self._mirror.push()
        best = self.study.best()
        if best is None:
            reasons = sorted({str(one.attributes.get("reason", one.state)).rstrip(".") for one in self.study.trials()})
            raise LakefitError(f"no trial came to its end: {'; '.join(reasons[:5])}. Look at tune.search.")
        return best

    def again(self, number: int) -> bool:
        """Run a trial again, alone, and say whether it comes to the same, epoch by epoch, to the bit.

        Raises:
            InputError: there is no such trial, or it has no result of its own.
        """
        from lakefit.launch.session import spark_session

        trials = self.study.trials()
        if not 0 <= number < len(trials) or not self.study.reported(number):
            with_result = [one.number for one in trials if self.study.reported(one.number)]
            raise InputError(f"--trial {number}: of {len(trials)} trials those with results are {with_result}.")
        trial, before = trials[number], self.study.reported(number)
        job = self.job(trial)
        job = replace(job, run_dir=job.run_dir.with_name(f"{job.run_dir.name}-again"))
        remove_tree(job.run_dir)
        found: dict[int, float] = {}
        failed: list[str] = []

        def hear(worker: int, message: "Message") -> None:
            if message["event"] == "epoch" and worker == 0:
                found[message["epoch"]] = message[self.tune.objective]
            elif message["event"] == "failed":
                failed.append(message["message"])

        stop = self._run.stop
        with _with_spark(stop), spark_session() as spark, stop.listening(), stop.deferred():
            gpus = gpus_of_tasks(spark, self._run.pipeline, self._run.valid.source)
            self._run_once(spark, gpus, job, hear, self._run.stop)
        remove_tree(job.run_dir)
        if self._run.stop.asked:
            raise StoppedError("Stopped, as asked.")
        # Of one that was pruned there is no more than that.
        same = all(found.get(epoch) == value for epoch, value in before.items())
        what = "comes to the same" if same else f"comes to {found}, and had come to {before}"
        text = f"trial {number}, run alone, {what}{f' ({failed[0]})' if failed else ''}"
        self._run.console.event("again", text, trial=number, same=same, before=before, found=found)
        return same

    def _unfinished(self) -> int:
        return sum(one.state == "running" for one in self.study.trials())

    def _go(self, pool: ThreadPoolExecutor, spark: "SparkSession", gpus: bool) -> None:
        left = [one for one in self.study.trials() if one.state == "running"]
        alone = True
        threads = []
        while not self._stopping():
            with self._free:
                # The first one shows how much memory a trial takes.
                while len(self._running) >= (1 if alone else self._at_once) and not self._stopping():
                    self._free.wait(0.2)
                    if alone and any(one.memory_bytes for one in self._running.values()):
                        alone = False
                        self._reduce()
                if self._stopping():
                    break
                if left:
                    trial = left.pop(0)
                elif self._to_come():
                    trial = self.study.ask()
                    if trial.state != "running":
                        self._say(trial)
                        continue
                else:
                    break
                self._running[trial.number] = running = _Running(trial)
            threads.append(pool.submit(self._one, spark, gpus, running))
        while any(not thread.done() for thread in threads):
            if self._stopping():
                with self._lock:
                    for running in self._running.values():
                        running.stop.asked = True
            time.sleep(0.1)
        for thread in threads:
            thread.result()

    def _one(self, spark: "SparkSession", gpus: bool, running: _Running) -> None:
        """Run one trial to its end, and note what came of it."""
        try:
            self._try(spark, gpus, running)
        except LakefitError as error:
            self._fault = self._fault or error
        finally:
            with self._free:
                self._running.pop(running.trial.number)
                self._free.notify_all()

    def _try(self, spark: "SparkSession", gpus: bool, running: _Running) -> None:
        number, began = running.trial.number, time.monotonic()
        self.check()
        try:
            job = self.job(running.trial)
        except ConfigError as error:
            # Values that can be set one by one, but not together.
            self.study.finish(number, "failed", reason="; ".join(problem.message for problem in error.problems))
            self._say(self.study.trials()[number])
            return
        self.study.note(number, seed=job.pipeline.train.seed, overrides=list(running.trial.overrides))
        # Before it has checkpoints: whoever goes on is to give it the same values.
        self._mirror.push()
        for attempt in range(1, ATTEMPTS + 1):
            running.failed = None
            ended, lost = self._run_once(spark, gpus, job, partial(self._hear, running), running.stop)
            if running.pruned or running.failed is not None or self._stopping() or _done(ended, job):
                break
            how = f"its process was ended by signal {-code}" if (code := _code(ended)) < 0 else f"exit code {code}"
            running.failed = f"{lost or how}, {attempt} times"
            if attempt < ATTEMPTS:
                text = f"trial {number}: {lost or how}; it is begun again from its last checkpoint"
                self._run.console.event("trial_lost", text, trial=number, attempt=attempt + 1)
        if self._stopping() and not running.pruned and not _done(ended, job):
            return  # it stays one that runs, and goes on the next time
        seconds = round(time.monotonic() - began, 1)
        self._finish(running, job, seconds)
        remove_tree(job.run_dir / CHECKPOINTS)
        (job.run_dir / WEIGHTS).unlink(missing_ok=True)

    def _run_once(
        self, spark: "SparkSession", gpus: bool, job: "TrainJob", heard: "Heard", stop: Stop
    ) -> "tuple[list[Ended], str | None]":
        from lakefit.launch.barrier import run_workers

        workers = job.pipeline.train.workers
        return run_workers(spark, "lakefit.train.worker", job.dumps(), workers, gpus=gpus, heard=heard, stop=stop)

    def _finish(self, running: _Running, job: "TrainJob", seconds: float) -> None:
        number = running.trial.number
        about: dict[str, Any] = {"seconds": seconds, "memory_bytes": running.memory_bytes, "host": running.host}
        history = read_json(job.run_dir / HISTORY)
        if running.pruned and history is None:
            self.study.finish(number, "pruned", reason="worse than the others", **about)
        elif running.failed is not None or history is None:
            self.study.finish(number, "failed", reason=running.failed or "left no history", **about)
        else:
            if self.tune.objective not in history:
                raise self._unmeasured(list(history))
            epoch = restored_epoch(history, job.pipeline.train.callbacks)
            value = float(history[self.tune.objective][epoch])
            if math.isfinite(value):
                self.study.finish(number, "complete", value, epoch=epoch + 1, **about)
            else:
                self.study.finish(number, "failed", reason=f"{self.tune.objective} is {value}", **about)
        self._mirror.push()
        self._say(self.study.trials()[number])

    def _say(self, trial: Trial) -> None:
        text = f"trial {trial.number} {outcome(trial, self.tune)}: {' '.join(trial.overrides)}"
        fields = {"trial": trial.number, "state": trial.state, "value": trial.value, "values": dict(trial.values)}
        self._run.console.event("trial", text, **fields, **trial.attributes)

    def _hear(self, running: _Running, worker: int, message: "Message") -> None:
        kind, number = message["event"], running.trial.number
        if kind == "started":
            running.host = running.host or message["host"].partition(":")[0]
        elif kind == "failed" and running.failed is None and message["code"] != StoppedError.exit_code:
            running.failed = message["message"]
        elif kind == "epoch" and worker == 0:
            running.memory_bytes = message["memory_bytes"]
            self._left_bytes = message["memory_left_bytes"]
            if self.tune.objective not in message:
                known = [name for name, value in message.items() if isinstance(value, float) and name != "rows_per_s"]
                self._fault = self._unmeasured(known)
                return
            value = message[self.tune.objective]
            if math.isfinite(value) and self.study.report(number, message["epoch"], value) and not running.pruned:
                running.pruned = running.stop.asked = True

    def _unmeasured(self, known: Sequence[str]) -> LakefitError:
        problem = f"{self.tune.objective!r} is not measured; there are {', '.join(known)}"
        return self._run.valid.source.error(Problem(("tune", "objective"), problem))

    def _stopping(self) -> bool:
        return self._run.stop.asked or self._fault is not None

    def job(self, trial: Trial) -> "TrainJob":
        """Return the training of a trial, which is what `lakefit train --set …` would do with its values."""
        valid = self._run.valid
        overrides = (*valid.overrides, *trial.overrides)
        pipeline, source = load_pipeline(valid.source.path, overrides)
        of_trial = replace(valid, pipeline=pipeline, source=source, overrides=overrides)
        return replace(
            self._job,
            pipeline=pipeline,
            source=source,
            run_dir=self.folder / "trials" / f"{trial.number:04d}",
            fingerprint=fingerprints(of_trial).run,
        )

    def _slots(self, spark: "SparkSession") -> int:
        from lakefit.launch.barrier import workers_at_once

        workers = self._run.pipeline.train.workers
        slots = workers_at_once(spark, self.tune.parallel * workers) // workers
        if not slots:
            message = f"a trial takes {workers} slots, and the Spark session at {spark.sparkContext.master} has fewer"
            raise self._run.valid.source.error(Problem(("tune",), message))
        if slots < self.tune.parallel:
            text = f"tune.parallel is {self.tune.parallel}, and Spark has slots for {slots}: so many at once"
            self._run.console.event("warning", text, parallel=slots)
        return min(slots, self.tune.parallel)

    def _reduce(self) -> None:
        """Let fewer run at once where memory is not enough for more of such as run now."""
        takes = max(one.memory_bytes for one in self._running.values())
        if not self._left_bytes or not takes:
            return
        fit = self._machines * (1 + int(_LEAVES * self._left_bytes // takes))
        if fit < self._at_once:
            text = (
                f"tune.parallel is {self.tune.parallel}; a trial takes {takes / 1e9:,.1f} GB, and "
                f"{self._left_bytes / 1e9:,.1f} GB are left on its machine: {fit} at once"
            )
            self._run.console.event("warning", text, parallel=fit)
            self._at_once = fit

    def _look(self) -> tuple[int, str, dict[str, Any]]:
        trials, best = self.study.trials(), self.study.best()
        text = "no trial has come to its end" if best is None else f"best: trial {best.number}, {best.value:.6g}"
        fields: dict[str, Any] = {state: sum(one.state == state for one in trials) for state in _STATES_SHOWN}
        if best is not None:
            fields |= {"best": best.number, "value": best.value}
        if self._run.console.mode == "rich":
            rows = table(trials, self.tune)[: _SHOWN + 1]
            widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
            lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
            text = "\n".join(lines)
        else:
            text += f"; {fields['running']} running, {fields['pruned']} pruned, {fields['failed']} failed"
        return len(trials) - fields["running"], text, fields


@contextmanager
def _with_spark(stop: Stop) -> Iterator[None]:
    """Within the block Spark's process may be stopped with this one, as by Ctrl-C: what then fails is the stop."""
    try:
        yield
    except Exception as error:
        if stop.asked and not isinstance(error, LakefitError):
            raise StoppedError(_STOPPED) from error
        raise


def _code(ended: "Sequence[Ended]") -> int:
    return next((one.code for one in ended if one.code), -9 if ended else 0)


def _done(ended: "Sequence[Ended]", job: "TrainJob") -> bool:
    return len(ended) == job.pipeline.train.workers and not any(one.code != 0 for one in ended)
