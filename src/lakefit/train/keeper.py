"""What is done between steps and at each epoch's end: receipts, checkpoints, history, and stopping well."""

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lakefit.config.train import Checkpointing, seconds_of
from lakefit.console import Console
from lakefit.errors import LakefitError, StoppedError
from lakefit.feed.split import SplitFeed
from lakefit.launch.stop import Stop
from lakefit.train.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    restore_callbacks,
    restore_variables,
    snapshot,
)
from lakefit.train.health import diverged, unhealthy
from lakefit.train.logs import numbers
from lakefit.train.meter import Meter
from lakefit.train.steps import Steps
from lakefit.train.tensorboard import Curves
from lakefit.train.workers import Watch, Workers

# Between two agreements: what is fast now may be slow in a second.
_MOST_CALLS = 1000


def since_start() -> float:
    """Return the seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class Keeper(keras.callbacks.Callback):
    """Keeps what a night's work has come to: the last of the callbacks, so that it sees what the others have made.

    history: a list a metric, of the epochs that are done.
    """

    def __init__(
        self,
        *,
        training: SplitFeed,
        validation: SplitFeed,
        callbacks: list[keras.callbacks.Callback],
        curves: Curves,
        folder: CheckpointFolder,
        settings: Checkpointing,
        about: Mapping[str, Any],
        found: Checkpoint | None,
        epochs: int,
        stop: Stop,
        console: Console,
        workers: Workers,
        watch: Watch,
    ) -> None:
        """callbacks: whose state is kept. about: what a checkpoint says of its run. found: the one to go on from."""
        super().__init__()
        self._training, self._validation = training, validation
        # Its rule for what is better, and the epoch that was best. It never stops.
        mode = "min" if settings.mode == "auto" else settings.mode
        self.best = keras.callbacks.EarlyStopping(settings.monitor, mode=mode, patience=epochs + 1)
        self._callbacks = [*callbacks, self.best]
        self._curves, self._folder, self._about, self._found = curves, folder, about, found
        self._epochs, self._stop, self._console, self._workers = epochs, stop, console, workers
        self._watch = watch
        self._next_agreement, self._agreed_at = 1, (0, time.monotonic())
        of_steps = settings.every.endswith("steps")
        self._every_steps = int(settings.every.removesuffix("steps")) if of_steps else None
        self._every_seconds = 0 if of_steps else seconds_of(settings.every)
        self.epoch = found.epoch if found is not None else 0
        self.batch_size = training.batch_size
        self._began = self._kept = time.monotonic()
        self._kept_step = self._done_before = 0
        self._first_step_said = False
        self._before_validation: Checkpoint | None = None
        self._last: tuple[int, int, Any] | None = None
        self._gradient_norms: list[float] = []
        self._warned: set[str] = set()
        self.history: dict[str, list[float]] = dict(found.meta["history"]) if found is not None else {}
        self.steps: Steps
        self.meter: Meter

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._found is not None:
            self._restore(self._found)

    def _restore(self, found: Checkpoint) -> None:
        restore_variables(found, self.model, self._workers)
        restore_callbacks(found, self._callbacks)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch, self._kept_step, self._done_before = epoch, 0, 0
        found, self._found = self._found, None
        if found is not None and found.batch and found.epoch == epoch:
            # In the middle of it: what callbacks do at an epoch's begin was done before, and metrics go on.
            self._restore(found)
            self._kept_step = self._done_before = found.batch
            self.steps.begin_epoch(found.batch, found.meta["logs"])
        else:
            self.steps.begin_epoch()
        self._began = time.monotonic()

    def logs(self) -> dict[str, float]:
        """Return loss and metrics of the running epoch so far. Safe to call from another thread."""
        return numbers(self.steps.logs)

    def _agreed(self) -> tuple[bool, bool]:
        """Return whether all workers end here, and whether a checkpoint is due by the clock: for all at the same step.

        To ask each other costs them a millisecond or more, so they do it about once in a second.
        """
        self._watch.beats += 1
        self._watch.at_steps = True
        calls = self._watch.beats
        now = time.monotonic()
        due = self._every_steps is None and now - self._kept >= self._every_seconds
        if self._workers.count == 1:
            return self._stop.asked, due
        if calls < self._next_agreement:
            return False, False
        before, began = self._agreed_at
        a_second = min(_MOST_CALLS, max(1.0, (calls - before) / max(now - began, 1e-3)))
        asked, due_of, rates = self._workers.sums(self._stop.asked, due, a_second)
        self._next_agreement = calls + max(1, round(rates / self._workers.count))
        self._agreed_at = calls, now
        return asked > 0, due_of > 0

    def after_steps(self) -> None:
        """To be called between steps."""
        if not self._first_step_said:
            self._say_first_step()
        self._check_loss()
        if isinstance(self.steps.logs, dict) and "loss" in self.steps.logs:
            self._last = (self.steps.done - self.steps.last, self.steps.done, self.steps.logs["loss"])
        if self.model.stop_training:
            if self._workers.count > 1:
                # TerminateOnNaN has seen it in this worker's share, and the others go on.
                self._check_loss()
            return  # a callback ends the epoch here; what is still to come of it is no part of a checkpoint within it
        asked, due = self._agreed()
        if asked:
            self._end(self._snapshot(self.epoch, self.steps.done))
        if self._every_steps is not None:
            due = self.steps.done - self._kept_step >= self._every_steps
        if due and self.steps.done < self.steps.steps:
            self._keep(self._snapshot(self.epoch, self.steps.done))

    def _check_loss(self) -> None:
        """Look at the loss of the block before the last one: a GPU has that ready, and need not be waited for."""
        if self._last is None:
            return
        first, end, loss = self._last
        self._last = None
        value = float(np.asarray(loss))
        if not math.isfinite(value):
            groups = self._training.groups_of(self.epoch, first, end)
            more = f" and {len(groups) - 8} more" if len(groups) > 8 else ""
            steps = f"step {end:,}" if end - first == 1 else f"steps {first + 1:,} to {end:,}"
            where = f"in epoch {self.epoch + 1}, {steps}, whose rows are from {'; '.join(groups[:8])}{more}"
            raise LakefitError(diverged(value, where))

    def _say_first_step(self) -> None:
        self._first_step_said = True
        seconds = round(since_start(), 1)
        self._console.event("first_step", f"the first step was done {seconds} s after the start", seconds=seconds)

    def before_validation(self) -> None:
        """To be called before callbacks learn of it: the validation may change metrics, seeds and what callbacks keep,
        and some swap weights for it."""
        self._watch.at_steps = False
        self._before_validation = None
        if not self.model.stop_training:
            self._before_validation = self._snapshot(self.epoch, self.steps.done)

    def after_validation_steps(self) -> None:
        """To be called between steps of the validation."""
        asked, _ = self._agreed()
        if asked and self._before_validation is not None:
            self._end(self._before_validation)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._watch.at_steps = False
        self._before_validation = None
        self._check_loss()
        seconds = time.monotonic() - self._began
        if self.steps.done == self.steps.steps:
            if not self.steps.skipped:
                self._training.check(epoch)
                self._training.check_all(epoch, self._workers.added)
        else:
            # The loop ends then: see Keras's fit.
            text = f"a callback stopped the training in epoch {epoch + 1}, after {self.steps.done:,} of its steps"
            self._console.event("stopped", text, epoch=epoch + 1, steps=self.steps.done)
        self._validation.check()
        values = numbers(logs)
        if not math.isfinite(values.get("loss", 0.0)):
            raise LakefitError(diverged(values["loss"], f"in epoch {epoch + 1}"))
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        self._keep(self._snapshot(epoch + 1, 0))
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        rows = min(self.steps.done * self.batch_size, self._training.rows) - self._done_before * self.batch_size
        rows_per_s = rows / seconds if seconds else 0.0
        self._console.event(
            "epoch",
            f"epoch {epoch + 1}/{self._epochs}  {shown}  {rows_per_s:,.0f} rows/s",
            epoch=epoch + 1,
            **values,
            rows_per_s=round(rows_per_s),
            **self._blame(),
        )
        self._say_unhealthy()
        if self._workers.any(self._stop.asked):
            self._end(None)

    def _blame(self) -> dict[str, Any]:
        shares = self._curves.shares
        if shares is None:
            return {}
        of = {name: round(getattr(shares, name), 3) for name in ("input", "computing", "synchronizing", "python")}
        return {"shares": of, "blame": shares.blame()}

    def _say_unhealthy(self) -> None:
        """Say what does not look well, once for each that begins to."""
        findings = self._curves.findings
        if findings is None:
            return
        said = unhealthy(self.history, findings, self._gradient_norms)
        if findings.gradient_norm is not None:
            self._gradient_norms.append(findings.gradient_norm)
        for name, text in said.items():
            if name not in self._warned:
                self._console.event("health", f"warning: {text}", problem=name, epoch=self.epoch + 1)
        self._warned = set(said)

    def _snapshot(self, epoch: int, batch: int) -> Checkpoint:
        return snapshot(
            epoch,
            batch,
            self.model,
            self._callbacks,
            {
                **self._about,
                "history": {name: list(values) for name, values in self.history.items()},
                "logs": self.logs(),
                "stopped": bool(self.model.stop_training),
                "curves": self._curves.sizes(),
            },
            self._workers,
        )

    def _keep(self, checkpoint: Checkpoint) -> None:
        self._kept, self._kept_step = time.monotonic(), self.steps.done
        if self._workers.is_chief:
            self._folder.save(checkpoint, self.best.best_epoch + 1 if self.best.best is not None else None)

    def _end(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            self._keep(checkpoint)
        self._folder.flush()
        # Nobody leaves before the chief has written it.
        self._workers.any(False)
        done = f"epoch {self.epoch + 1}, step {self.steps.done:,} of {self.steps.steps:,}"
        failed = self._folder.failed
        kept = "a checkpoint holds all of it" if failed is None else f"no checkpoint of it could be written: {failed}"
        raise StoppedError(f"Stopped at {done}, as asked; {kept}.")
