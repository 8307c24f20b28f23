"""`lakefit tune`: trials of other values over the one prepared dataset; the best becomes the run."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lakefit.config import load_pipeline
from lakefit.config.tune import Tune
from lakefit.console import Console
from lakefit.dataset.disk import full_disk_named
from lakefit.dataset.layout import HISTORY, STUDY, TUNED
from lakefit.dataset.mirror import mirrored
from lakefit.dataset.publish import ensure_writable, read_json, write_json
from lakefit.errors import InputError
from lakefit.launch.stop import Stop
from lakefit.run.lock import run_lock
from lakefit.run.plan import relative
from lakefit.run.record import recorded
from lakefit.run.stages import Run, run_stages, summary
from lakefit.run.trials import Trials, check_prepared, folder_of, study_fingerprint
from lakefit.run.tuned import load_tuned, tuned_of
from lakefit.run.validate import check_inputs
from lakefit.tune.study import Trial, restored_epoch
from lakefit.tune.table import table


@dataclass(frozen=True, slots=True)
class Tuned:
    """What `lakefit tune` ends with. was_current: there was nothing to do."""

    was_current: bool
    summary: dict[str, Any]
    trials: list[tuple[str, ...]]


def run_again(path: str, overrides: tuple[str, ...], number: int, console: Console) -> bool:
    """Run one trial of a study again, alone; return whether it comes to the same, to the bit.

    Raises:
        InputError: there is no such trial, or no study of these settings and this dataset.
    """
    with _study_of(path, overrides, console) as (_, trials):
        return trials.again(number)


@contextmanager
def _study_of(path: str, overrides: tuple[str, ...], console: Console) -> Iterator[tuple[Run, Trials]]:
    """Yield what `tune` of a pipeline file is about, under the output's lock.

    Raises:
        InputError: there is no `tune`, or no prepared dataset.
    """
    pipeline, source = load_pipeline(path, overrides)
    if pipeline.tune is None:
        raise InputError(f"{path}: has no section `tune`, which says what is searched (docs/tune.md).")
    valid = replace(check_inputs(pipeline, source), overrides=overrides)
    run = Run(valid, console)
    check_prepared(run)
    ensure_writable(run.layout.root)
    with (
        full_disk_named(run.layout.root),
        run_lock(run.layout.lock, waiting=lambda text: console.event("waiting", text)) as lease,
        mirrored(folder_of(run) / STUDY) as mirror,
    ):
        yield run, Trials(run, pipeline.tune, mirror, lease.check)


def tune_command(path: str, overrides: tuple[str, ...], console: Console) -> Tuned:
    """Run the trials of `tune` that are still due, train with the best one's values, and take that into use as
    `lakefit run` does.

    Raises:
        InputError: there is no `tune`, no prepared dataset, or what is searched can't be set. LakefitError: no trial
        came to its end; else as `run_stages`.
    """
    with recorded(path, overrides, "tune", console) as record, Stop().listening():
        record.about(load_pipeline(path, overrides)[0])
        with _study_of(path, overrides, console) as (run, trials):
            record.begin({"dataset": run.prints.dataset, "changed": []})
            due = trials.due()
            best = trials.run()
            trials.check()
            _write_tuned(run, best)
            # Of a store the journal is here within the block alone.
            tune, tried = trials.tune, trials.study.trials()
        pipeline, source, all_overrides, _ = load_tuned(path, overrides)
        tuned = Run(replace(check_inputs(pipeline, source), overrides=all_overrides), console)
        was_current = not due and all(step.current for step in tuned.plan())
        console.event(
            "tuned",
            f"trial {best.number} is the best of {len(tried)}, with {tune.objective} {best.value:.6g}: "
            f"{' '.join(best.overrides)}",
            trial=best.number, value=best.value, values=dict(best.values),
        )  # fmt: skip
        try:
            run_stages(tuned)
        finally:
            record.add({"dataset": tuned.prints.dataset, "run": tuned.prints.run, "artifact": tuned.prints.artifact})
        _compare(tuned, tune, best)
        fields = {**summary(tuned), "tune": {"best": best.number, "value": best.value, "values": dict(best.values)}}
        fields["paths"] |= {"study": relative(trials.folder)}
        return Tuned(was_current, fields, table(tried, tune))


def _write_tuned(run: Run, best: Trial) -> None:
    content = {
        "of": tuned_of(run.pipeline),
        "study": study_fingerprint(run.valid),
        "dataset": run.prints.dataset,
        "trial": best.number,
        "value": best.value,
        "overrides": best.overrides,
    }
    before = read_json(run.layout.root / TUNED) or {}
    if {**before, "overrides": tuple(before.get("overrides", ())), "at": None} != {**content, "at": None}:
        write_json(run.layout.root / TUNED, {**content, "at": datetime.now(UTC).isoformat(timespec="seconds")})


def _compare(run: Run, tune: Tune, best: Trial) -> None:
    """Say where the training with the best values has not come to what the trial has: on other threads or devices."""
    history = read_json(run.run_dir / HISTORY)
    if history is None or best.value is None:
        return
    found = history[tune.objective][restored_epoch(history, run.pipeline.train.callbacks)]
    if not math.isclose(found, best.value, rel_tol=1e-6):
        text = f"trained again, {tune.objective} is {found:.6g}; the trial had {best.value:.6g}"
        run.console.event("retrained", text, value=found, trial=best.value)
