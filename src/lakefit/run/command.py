"""`lakefit run` and its single stages as one command: validated, run, and written down however it ends."""

from dataclasses import dataclass, replace
from typing import Any

from lakefit.console import Beside, Console
from lakefit.errors import InputError
from lakefit.launch.place import place
from lakefit.launch.stop import Stop
from lakefit.run.plan import StageName, read_again
from lakefit.run.record import recorded, what_changed
from lakefit.run.stages import Run, run_stages, summary, train_beside
from lakefit.run.tuned import load_tuned, say_tuned
from lakefit.run.validate import check_inputs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command ended with. was_current: there was nothing to do. summary: as `lakefit.run.stages.summary`."""

    was_current: bool
    summary: dict[str, Any]


def run_command(
    path: str, overrides: tuple[str, ...], only: StageName | None, console: Console, *, fresh: bool = False
) -> Outcome:
    """Run the stages of a pipeline file that are not current, or `only` one; write a record of it into `history/`.

    Raises:
        LakefitError: as `run_stages`; the command of `hooks.on_failure` has been told.
    """
    at = place()
    if at is not None and at.worker:
        return _take_part(path, overrides, only, console, fresh=fresh)
    with recorded(path, overrides, only or "run", console) as record, Stop().listening():
        pipeline, source, overrides, tuned = load_tuned(path, overrides)
        record.about(pipeline)
        say_tuned(tuned, console)
        valid = replace(check_inputs(pipeline, source), overrides=overrides)
        if only in (None, "prepare"):
            read_again(pipeline)
        run = Run(valid, console)
        was_current = not fresh and all(step.current for step in run.plan() if only in (None, step.stage))
        about = {"dataset": run.prints.dataset, "run": run.prints.run, "artifact": run.prints.artifact}

        def begin() -> None:
            changed = what_changed(run.layout, pipeline, valid.inputs, run.prints.dataset)
            record.begin({**about, "changed": changed})

        try:
            run_stages(run, only, fresh=fresh, begin=begin)
        finally:
            record.add({**about, **_result(run)})
        return Outcome(was_current, summary(run))


def _take_part(
    path: str, overrides: tuple[str, ...], only: StageName | None, console: Console, *, fresh: bool
) -> Outcome:
    """Train at a place beside the chief's, who holds the lock and writes down what comes of it."""
    if only != "train":
        raise InputError(
            "TF_CONFIG: this process is not the chief of its workers, and these do nothing but train together: run "
            f"`lakefit train {path}` in all of them, once `lakefit prepare {path}` has run."
        )
    with Stop().listening():
        pipeline, source, overrides, _ = load_tuned(path, overrides)
        beside = Beside(console.mode, verbose=console.verbose)
        run = Run(replace(check_inputs(pipeline, source), overrides=overrides), beside)
        (step,) = (step for step in run.plan() if step.stage == only)
        if step.current and not fresh:
            console.event("current", f"train is current: {step.why}", stage=only)
            return Outcome(True, summary(run))
        train_beside(run)
        console.event("done", "train is done; the chief has written what came of it", stage=only)
        return Outcome(False, summary(run))


def _result(run: Run) -> dict[str, Any]:
    """Return what a record says of what there is, whether or not all went well."""
    found = summary(run)
    fields: dict[str, Any] = {"stages": run.took}
    if "ledger" in found:
        # Of one that read 10^5 files, a line a file would stand in every record.
        fields["ledger"] = {key: value for key, value in found["ledger"].items() if key != "files"}
    return {**fields, **{key: found[key] for key in ("metrics", "gate") if key in found}}
