"""A study: what was tried, what came of it and what to try next, in a journal that outlives whoever writes it."""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import TrialState

from lakefit.config.train import keras_name_and_arguments
from lakefit.config.tune import Choices, Range, Tune, greater_is_better
from lakefit.dataset.layout import JOURNAL

State = Literal["running", "complete", "pruned", "failed"]
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial as it stands.

    number: from 0. values: of the searched keys. epochs: how many have been reported. value: of the objective, the last
    one reported where it has not come to its end. attributes: as `note` and `finish` were given them; `same_as` is the
    trial that had the same values before, whose result this is.
    """

    number: int
    state: State
    values: Mapping[str, Any]
    epochs: int
    value: float | None
    attributes: Mapping[str, Any]

    @property
    def overrides(self) -> tuple[str, ...]:
        """What `--set` would be given for these values."""
        return overrides_of(self.values)


def overrides_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `section.key=value`, as `--set` takes them."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items())


class Study:
    """The trials of one `tune` section over one dataset. All of it is safe to be called from several threads; one
    process at a time has it open, which is for its caller to see to."""

    def __init__(self, folder: Path, tune: Tune, epochs: int) -> None:
        """epochs: that a trial can have at most."""
        folder.mkdir(parents=True, exist_ok=True)
        self._tune = tune
        self._lock = threading.RLock()
        journal = folder / JOURNAL
        _mend(journal)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock_obj=_Lock()))
        self._study = optuna.create_study(
            storage=storage,
            study_name="tune",
            direction="maximize" if tune.maximize else "minimize",
            pruner=_pruner(tune, epochs),
            load_if_exists=True,
        )
        for one in self.trials():
            if one.state == "running":
                # The process may have been killed before it had all of them.
                self._drawn(one.number)

    def trials(self) -> list[Trial]:
        """Return all trials, by number."""
        with self._lock:
            return [_as_trial(one) for one in self._study.get_trials(deepcopy=False)]

    def best(self) -> Trial | None:
        """Return the best of those that came to their end; the first of equals."""
        complete = [one for one in self.trials() if one.state == "complete" and one.value is not None]
        sign = -1 if self._tune.maximize else 1
        return min(complete, key=lambda one: (sign * (one.value or 0.0), one.number), default=None)

    def reported(self, number: int) -> dict[int, float]:
        """Return what was reported of a trial, by epoch."""
        with self._lock:
            return dict(self._study.get_trials(deepcopy=False)[number].intermediate_values)

    def ask(self) -> Trial:
        """Return a new trial, which is running from now on. Of one that has the values of an earlier one that runs no
        more, that one's result is taken: it would be the same."""
        with self._lock:
            number = len(self._study.get_trials(deepcopy=False))
            trial = self._study.ask()
            values = self._drawn(number)
            for other in self.trials()[:number]:
                if other.values == values and other.state != "running":
                    trial.set_user_attr("same_as", other.number)
                    self._tell(number, other.state, other.value)
                    break
            return self.trials()[number]

    def _drawn(self, number: int) -> dict[str, Any]:
        """Return the values of a trial, of which those that it has not are drawn now."""
        # Of its number: what a study that goes on draws is not what it has drawn before.
        self._study.sampler = _sampler(self._tune, number)
        trial = self._running(number)
        return {key: _suggested(trial, key, among) for key, among in self._tune.ranges.items()}

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note the objective after an epoch, counted from 1; return whether the trial is not worth going on with."""
        with self._lock:
            trial = self._running(number)
            if epoch not in self.reported(number):
                trial.report(value, epoch)
            return bool(trial.should_prune())

    def finish(self, number: int, state: State, value: float | None = None, **attributes: Any) -> None:
        """Note how a trial has ended."""
        with self._lock:
            self.note(number, **attributes)
            self._tell(number, state, value)

    def note(self, number: int, **attributes: Any) -> None:
        """Note something of a running trial."""
        with self._lock:
            trial = self._running(number)
            for name, found in attributes.items():
                trial.set_user_attr(name, found)

    def figures(self, folder: Path) -> list[str]:
        """Draw the study into PNG files; return their names."""
        from lakefit.tune.plots import draw

        return draw(self._study, self._tune, folder)

    def _running(self, number: int) -> optuna.Trial:
        # Also of one that another process has begun.
        return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _tell(self, number: int, state: State, value: float | None) -> None:
        states = {name: of_optuna for of_optuna, name in _STATES.items()}
        self._study.tell(number, value if state == "complete" else None, state=states[state])


class _Lock(BaseJournalFileLock):
    """Of this process alone: the run's own lock keeps others out, and does not outlive a killed one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self) -> bool:
        return self._lock.acquire()

    def release(self) -> None:
        self._lock.release()


def _mend(journal: Path) -> None:
    """Take away what a killed process has written of a line: the next one would be appended to it."""
    if not journal.exists():
        return
    with open(journal, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


def _pruner(tune: Tune, epochs: int) -> optuna.pruners.BasePruner:
    if tune.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(2, epochs // 5))
    if tune.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _sampler(tune: Tune, number: int) -> optuna.samplers.BaseSampler:
    seed = (tune.seed * 1_000_003 + number) % 2**32
    if tune.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # Ten at random first; of those that still run the worst is supposed, so that others are not tried beside them.
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, constant_liar=True)


def _suggested(trial: optuna.Trial, key: str, among: Range | Choices) -> Any:
    if isinstance(among, Choices):
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in among.values]))
    if among.whole:
        return trial.suggest_int(key, int(among.low), int(among.high), log=among.log)
    return trial.suggest_float(key, among.low, among.high, log=among.log)


def _as_trial(one: optuna.trial.FrozenTrial) -> Trial:
    # A choice is JSON: Optuna takes no lists.
    chosen = {key for key, of in one.distributions.items() if isinstance(of, CategoricalDistribution)}
    values = {key: json.loads(value) if key in chosen else value for key, value in one.params.items()}
    reported = one.intermediate_values
    epochs = max(reported, default=0)
    value = one.value if one.state == TrialState.COMPLETE else reported.get(epochs)
    return Trial(one.number, _STATES.get(one.state, "running"), values, epochs, value, dict(one.user_attrs))


def restored_epoch(history: Mapping[str, Sequence[float]], callbacks: Sequence[Any]) -> int:
    """Return the epoch, counted from 0, whose weights a training has ended with: its last one, or the one that
    `EarlyStopping` has restored, by its own rule (keras.callbacks.EarlyStopping)."""
    last = len(next(iter(history.values()))) - 1
    for callback in callbacks:
        name, given = keras_name_and_arguments(callback)
        if name != "EarlyStopping" or not given.get("restore_best_weights"):
            continue
        monitor = given.get("monitor", "val_loss")
        mode = given.get("mode", "auto")
        greater = mode == "max" or (mode == "auto" and greater_is_better(monitor))
        least = abs(given.get("min_delta", 0))
        best, found = None, last
        for epoch, value in enumerate(history.get(monitor, ())):
            if epoch < given.get("start_from_epoch", 0):
                continue
            if best is None or (value - least > best if greater else value + least < best):
                best, found = value, epoch
        return found
    return last
