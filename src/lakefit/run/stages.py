"""The stages as a run executes them: what is not current, in order, under the lock, written down in run.json."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakefit.config import Pipeline, Problem
from lakefit.config.pipeline import Score
from lakefit.console import Console
from lakefit.dataset.conditional import look, replace
from lakefit.dataset.disk import full_disk_named
from lakefit.dataset.drift import stability_index
from lakefit.dataset.layout import (
    ARTIFACT,
    CHECKPOINTS,
    HISTORY,
    METRICS,
    PIPELINE,
    PREDICTIONS,
    ROLLED_BACK,
    RUN,
    SCORE_LOCK,
    TENSORBOARD,
    WEIGHTS,
    Layout,
)
from lakefit.dataset.manifest import MANIFEST, read_manifest
from lakefit.dataset.object_path import AnyPath, ObjectPath, any_path, matching
from lakefit.dataset.publish import check_current, ensure_ours, ensure_writable, read_json, remove_tree, write_json
from lakefit.errors import ContractError, GateError, InputError, LakefitError, text_of
from lakefit.launch.place import place
from lakefit.launch.quiet import import_tensorflow_quietly
from lakefit.launch.stop import Stop
from lakefit.launch.threads import budget_threads
from lakefit.run.gate import Check, judge
from lakefit.run.lock import Lease, run_lock
from lakefit.run.model_check import check_model
from lakefit.run.plan import (
    STAGES,
    Fingerprints,
    StageName,
    StagePlan,
    fingerprints,
    plan,
    relative,
    score_fingerprint,
    score_inputs,
)
from lakefit.run.retention import old_versions, remove_old
from lakefit.run.validate import Validated, validate
from lakefit.run.workers import check_place, train_on_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakefit.train.stage import TrainJob


class Run:
    """One command over a validated pipeline: its fingerprints, its folders, and who is told.

    trouble: what went wrong beside a training that was finished. gate: what the quality gate has found. took: the
    seconds of each stage that was run.
    """

    def __init__(self, valid: Validated, console: Console) -> None:
        self.valid = valid
        self.console = console
        self.prints: Fingerprints = fingerprints(valid)
        self.layout = Layout.of(valid.pipeline)
        check_current(self.layout.current, valid.source.path)
        self.dataset_dir = self.layout.dataset(self.prints.dataset)
        self.run_dir = self.layout.run(self.prints.run)
        self.artifact_dir = self.layout.artifact(self.prints.artifact)
        self.stop = Stop()
        self.gate: tuple[Check, ...] = ()
        self._judged: object = None
        self.took: dict[StageName, float] = {}
        self.trouble: str | None = None
        self.lease: Lease | None = None

    def check_lease(self) -> None:
        """Raise LakefitError where the lock, where it is held, is another run's by now."""
        if self.lease is not None:
            self.lease.check()

    @property
    def pipeline(self) -> Pipeline:
        return self.valid.pipeline

    def plan(self) -> tuple[StagePlan, ...]:
        """Return which stages are current now."""
        return plan(self.valid, self.prints, kept_out=self.kept_out() is not None)

    def checks(self) -> tuple[Check, ...]:
        """Return what the quality gate has found of this run: nothing before it is evaluated, and nothing of a model
        that is in use as it is."""
        in_use = (read_json(self.layout.current) or {}).get("artifact")
        report = read_json(self.run_dir / METRICS)
        made = {"train", "evaluate"} & self.took.keys()
        if not self.pipeline.evaluate.require or report is None or (in_use == self.prints.artifact and not made):
            return ()
        if in_use == self.prints.artifact and self._judged is not None:
            # It has passed, and is in use by now: it was held against what was in use before.
            return self.gate
        asked = (in_use, report["fingerprint"], made)
        if self._judged != asked:
            self._judged, self.gate = asked, judge(self.pipeline, self.layout, self.prints.run)
        return self.gate

    def kept_out(self) -> LakefitError | None:
        """Return why what this run trained is not to be taken into use, where it is not: a GateError, or (for no
        failure) that a person took it back."""
        if ROLLED_BACK in (read_json(self.run_dir / RUN) or {}):
            return LakefitError(
                f"{relative(self.run_dir)} was rolled back, and stays out of use; `lakefit rollback "
                f"{self.valid.source.path} --to {self.prints.run}` takes it into use again"
            )
        if all(check.holds for check in self.checks()):
            return None
        in_use = (read_json(self.layout.current) or {}).get("run")
        stays = f"run {in_use} stays in use" if in_use else "no model is in use"
        broken = "\n".join(f"  {check}" for check in self.checks() if not check.holds)
        return GateError(
            f"the quality gate was not passed, and {stays}:\n{broken}\n{relative(self.run_dir)} holds what was "
            "trained. Look at its data and its curves; evaluate.require says what is asked of a model."
        )


def run_stages(
    run: Run, only: StageName | None = None, *, fresh: bool = False, begin: Callable[[], None] = lambda: None
) -> None:
    """Run the stages that are not current, in order, or `only` one whose predecessors are current.

    fresh: train from the first step, whatever there is of this run. begin: called once, before anything is done.

    Raises:
        LakefitError: a stage failed; run.json has the exit code and the reason. GateError: what was trained does not
        keep `evaluate.require`.
    """
    console = run.console
    steps = [step for step in run.plan() if only in (None, step.stage)]
    if all(step.current for step in steps) and not fresh:
        for step in steps:
            console.event("current", f"{step.stage} is current: {step.why}", stage=step.stage)
        _use_again(run, begin)
        try:
            _check_use(run, only)
        except GateError as error:
            with suppress(OSError):
                _record(run, error.exit_code, str(error))
            raise
        return
    for step in run.plan():
        if only is not None and not step.current and _before(step.stage, only):
            raise InputError(
                f"{only} needs what {step.stage} makes, and {step.why}. Run `lakefit {step.stage} "
                f"{run.valid.source.path}` first, or `lakefit run`."
            )
    ensure_writable(run.layout.root)
    _check_model(run, steps)
    with full_disk_named(run.layout.root), _locked(run) as lease, _recorded(run), run.stop.listening():
        begin()
        if fresh:
            _forget_training(run)
        planned = {step.stage: step for step in run.plan()}
        for stage in STAGES:
            if stage == "export":
                # Whether there is anything to export is known now.
                planned = {step.stage: step for step in run.plan()}
            if stage not in planned or only not in (None, stage):
                continue
            step = planned[stage]
            if step.current and _REMADE_AFTER.get(stage, set()) & run.took.keys():
                # It is there, of what was trained before.
                step = StagePlan(stage, False, "what it is made of was made anew")
            if step.current:
                console.event("current", f"{step.stage} is current: {step.why}", stage=step.stage)
            else:
                if step.stage == "score":
                    # What is exported is in use, whether or not new rows can be scored with it.
                    _set_current(run, lease)
                _run_stage(run, step, lease)
        _set_current(run, lease)
        _remove_old(run)
        _check_use(run, only)
        if run.trouble is not None:
            raise LakefitError(f"{run.trouble}. What was trained is finished and in its place.")


def _locked(run: Run) -> AbstractContextManager[Lease]:
    return run_lock(run.layout.lock, waiting=lambda text: run.console.event("waiting", text))


def _check_use(run: Run, only: StageName | None) -> None:
    """Say that what was trained is not in use, where it is not: GateError where it should have been."""
    why_not = run.kept_out() if only in (None, "evaluate", "export") else None
    if isinstance(why_not, GateError):
        raise why_not
    if why_not is not None:
        run.console.event("kept_out", str(why_not), run=run.prints.run)


def _forget_training(run: Run) -> None:
    """Remove what was trained and kept of this run; what is exported stays in use until there is a new one."""
    for name in (CHECKPOINTS, TENSORBOARD, PREDICTIONS):
        remove_tree(run.run_dir / name)
    for name in (WEIGHTS, HISTORY, METRICS):
        (run.run_dir / name).unlink(missing_ok=True)


def _check_model(run: Run, steps: Sequence[StagePlan]) -> None:
    """Build the model in a process of its own, where preparation would run before it is known to be wrong.

    Without preparation the stage `train` builds it at once itself.
    """
    to_run = {step.stage for step in steps if not step.current}
    if {"prepare", "train"} <= to_run:
        put_off = check_model(run.valid.source.path, run.valid.overrides, None)
        if put_off is not None:
            run.console.event("model", f"the model is checked after prepare: {put_off}")


def _before(stage: StageName, other: StageName) -> bool:
    return STAGES.index(stage) < STAGES.index(other)


def _run_stage(run: Run, step: StagePlan, lease: Lease) -> None:
    # What another run has made meanwhile is not this one's to replace.
    lease.check()
    run.lease = lease
    run.console.event("start", f"{step.stage} starts: {step.why}", stage=step.stage)
    began = time.monotonic()
    _note(run, step.stage, "running")
    try:
        _STAGES[step.stage](run)
    except BaseException:
        # A run that has taken over removes what this one has staged.
        lease.check()
        with suppress(OSError):
            _note(run, step.stage, "failed")
        raise
    seconds = round(time.monotonic() - began, 1)
    run.took[step.stage] = seconds
    _note(run, step.stage, "done", seconds=seconds)
    run.console.event("done", f"{step.stage} is done in {seconds:.0f} s", stage=step.stage, seconds=seconds)


def _prepare(run: Run) -> None:
    from lakefit.launch.session import spark_session
    from lakefit.prepare.stage import Job, prepare

    valid = run.valid
    job = Job(
        run.pipeline,
        valid.source,
        valid.inputs,
        run.prints.dataset,
        run.dataset_dir,
        excluded=valid.excluded,
        check=run.check_lease,
    )
    with spark_session() as spark:
        _look_at(run, spark)
        if run.pipeline.score is not None:
            # Before hours of training, and not after.
            _check_score(run, spark)
        manifest = prepare(spark, job)
    for file in manifest.excluded:
        run.console.event("excluded", f"excluded: {file.reason} ({file.bytes:,} bytes)", **file.model_dump())
    small = [stratum for stratum in manifest.strata if 0 in stratum.rows.values()]
    if small:
        named = ", ".join("NULL" if value is None else value for value in small[0].values)
        message = (
            f"{len(small):,} of {len(manifest.strata):,} strata have no row in some split, such as {named} "
            f"({', '.join(f'{split} {rows:,}' for split, rows in small[0].rows.items())}); manifest.json lists all"
        )
        run.console.event("strata", message, without=len(small), strata=len(manifest.strata))


def _start_tensorflow() -> None:
    import_tensorflow_quietly()
    budget_threads()


def _train(run: Run) -> None:
    _start_tensorflow()
    from lakefit.train.stage import train

    for text in unfinished_runs(run.run_dir, run.prints):
        run.console.event("unfinished", text)
    job = train_job(run)
    at = check_place(job, place())
    if at is None and run.pipeline.train.workers > 1:
        run.trouble = train_on_spark(job, run.console, run.stop)
    else:
        run.trouble = train(job, run.console, run.stop, at)


def train_beside(run: Run) -> None:
    """Train in a process that is not the chief of its workers."""
    _start_tensorflow()
    from lakefit.train.stage import train

    job = train_job(run)
    train(job, run.console, run.stop, check_place(job, place()))


def unfinished_runs(run_dir: AnyPath, prints: Fingerprints) -> list[str]:
    """Return a sentence for each run beside this one that has a checkpoint and was never finished, where this one has
    none to go on from: whoever expects to go on should know what has changed."""
    if any((run_dir / CHECKPOINTS).glob("*.npz")):
        return []
    said = []
    for checkpoints in matching(run_dir.parent, f"*/{CHECKPOINTS}"):
        other = checkpoints.parent
        if other == run_dir or (other / WEIGHTS).is_file() or not any(checkpoints.glob("*.npz")):
            continue
        dataset = (read_json(other / RUN) or {}).get("dataset")
        change = (
            "the model or its settings have changed"
            if dataset == prints.dataset
            else f"the dataset was {dataset} and is {prints.dataset}"
        )
        said.append(f"{relative(other)} is not finished, and stays; this run, {prints.run}, begins anew: {change}")
    return said


def train_job(run: Run) -> "TrainJob":
    """Return what to train, and what was trained. Raises InputError where the dataset is not the run's own."""
    from lakefit.train.stage import TrainJob

    manifest = read_manifest(run.dataset_dir)
    if (manifest.fingerprint, manifest.name) != (run.prints.dataset, run.pipeline.name):
        raise InputError(
            f"{relative(run.dataset_dir / MANIFEST)}: is dataset {manifest.fingerprint} of the pipeline "
            f"{manifest.name!r}; expected {run.prints.dataset} of {run.pipeline.name!r}. Somebody has put it there: "
            "remove the folder and run `lakefit prepare`."
        )
    return TrainJob(run.pipeline, run.valid.source, manifest, run.dataset_dir, run.run_dir, run.prints.run)


def _evaluate(run: Run) -> None:
    _start_tensorflow()
    from lakefit.evaluate.stage import EvaluateJob, evaluate
    from lakefit.train.stage import load_trained

    trained = train_job(run)
    job = EvaluateJob(run.pipeline.evaluate, trained.manifest, run.dataset_dir, run.run_dir, run.prints.evaluation)
    evaluate(job, load_trained(trained))


def _export(run: Run) -> None:
    _start_tensorflow()
    from lakefit.export.stage import ExportJob, export
    from lakefit.train.stage import load_trained

    report = read_json(run.run_dir / METRICS)
    assert report is not None, "evaluate is current"
    trained = train_job(run)
    prints = run.prints
    job = ExportJob(
        run.pipeline,
        trained.manifest,
        report,
        prints.artifact,
        prints.run,
        run.run_dir,
        run.artifact_dir,
        run.check_lease,
    )
    export(job, load_trained(trained))


def _score(run: Run) -> None:
    assert run.pipeline.score is not None, "the plan has a score stage"
    score_with_artifact(run, run.pipeline.score)


_STAGES: dict[StageName, Callable[[Run], None]] = {
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "score": _score,
}


_REMADE_AFTER: dict[StageName, set[StageName]] = {"export": {"train", "evaluate"}, "score": {"export"}}


def score_with_artifact(run: Run, section: Score) -> dict[str, Any]:
    """Score `section.input` into `section.output` with the model in use, by its own pipeline file; return the counts
    and the artifact."""
    from lakefit.launch.session import spark_session
    from lakefit.score.stage import ScoreJob, score

    in_use = (read_json(run.layout.current) or {}).get("artifact")
    artifact_dir = run.layout.artifact(str(in_use))
    if in_use is None:
        raise InputError(
            f"{relative(run.layout.current)}: no exported model is in use. Run `lakefit run {run.valid.source.path}` "
            "first."
        )
    if not (artifact_dir / ARTIFACT).is_file():
        raise InputError(
            f"{relative(run.layout.current)}: names the artifact {in_use}, which is not there. `lakefit rollback "
            f"{run.valid.source.path}` takes another one into use."
        )
    output = any_path(section.output)
    ensure_ours(output)
    ensure_writable(output if isinstance(output, ObjectPath) else output.parent)
    # Source and clean as they were at export, and side tables from where they are now.
    shipped = validate(artifact_dir / PIPELINE, to_train=False)
    inputs = score_inputs(shipped, section.input)
    wanted = score_fingerprint(in_use, inputs)
    with run.stop.listening(), ExitStack() as held, spark_session() as spark:
        _look_at(run, spark)
        check = run.check_lease
        if isinstance(output, ObjectPath):
            # There is no rename there that would keep the files of two of them apart.
            check = held.enter_context(run_lock(output / SCORE_LOCK)).check
        counts = score(spark, ScoreJob(shipped.pipeline, shipped.source, inputs, artifact_dir, output, wanted, check))
    return {**counts, "artifact": in_use}


def _check_score(run: Run, spark: "SparkSession") -> None:
    """Raise InputError where Arrow can read the raw files for preparation, and Spark can't read them to score them."""
    from lakefit.prepare.read import lacks_connector

    for name, table in run.pipeline.source.tables.items():
        files = run.valid.inputs[name]
        if files and table.format == "parquet" and lacks_connector(spark, files[0].path):
            message = (
                f"score reads Parquet with Spark, which has no connector for the store of {files[0].path}: give it one "
                "(spark.jars.packages, docs/object-stores.md), or leave `score` out of the pipeline"
            )
            raise run.valid.source.error(Problem(("source", "tables", name, "path"), message))


def _look_at(run: Run, spark: "SparkSession") -> None:
    """Say what does not look well of a session that is about to be used."""
    from lakefit.launch.slots import none_came, slots
    from lakefit.prepare.cluster import memory_problem

    if slots(spark, 1) == 0:
        run.console.event("warning", f"{none_came(spark)}. It is waited for")
    problem = memory_problem(lambda name: spark.conf.get(name, None))
    if problem is not None:
        run.console.event("warning", problem)


def _note(run: Run, stage: StageName, state: str, **fields: Any) -> None:
    """Write a stage's state into run.json."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = read_json(run.run_dir / RUN) or {}
    content |= {"fingerprint": run.prints.run, "dataset": run.prints.dataset}
    content.setdefault("stages", {})[stage] = {"state": state, "at": now, **fields}
    write_json(run.run_dir / RUN, content)


@contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Write exit code and reason into run.json, however the block ends short of a SIGKILL."""
    try:
        yield
    except BaseException as error:
        code = 4 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 3)
        with suppress(OSError):
            _record(run, code, text_of(error) or type(error).__name__)
        raise
    _record(run, 0, "done")


def _record(run: Run, exit_code: int, reason: str) -> None:
    content = read_json(run.run_dir / RUN) or {"fingerprint": run.prints.run, "dataset": run.prints.dataset}
    gate = {"gate": [asdict(check) for check in run.gate]} if run.gate else {}
    write_json(run.run_dir / RUN, {**content, **gate, "exit_code": exit_code, "reason": reason})


def _use_again(run: Run, begin: Callable[[], None]) -> None:
    """Take what was made earlier into use, where something else is, and remove what is old.

    Raises:
        ContractError: it has drifted too far from what is in use.
    """
    switched = _found(run) != (read_json(run.layout.current) or {})
    if not switched and not old_versions(run.pipeline):
        # Nothing will be written, so a read-only place or a held lock is no reason to fail.
        return
    ensure_writable(run.layout.root)
    with full_disk_named(run.layout.root), _locked(run) as lease:
        begin()
        if switched:
            _check_drift(run)
            _set_current(run, lease)
        _remove_old(run)


def _check_drift(run: Run) -> None:
    in_use = (read_json(run.layout.current) or {}).get("dataset")
    drifts = [expectation for expectation in run.pipeline.expect.parsed("result") if expectation.fact == "drift"]
    if not drifts or in_use in (None, run.prints.dataset):
        return
    old, new = (read_manifest(run.layout.dataset(name)).statistics for name in (in_use, run.prints.dataset))
    for expectation in drifts:
        (column,) = expectation.columns
        index = stability_index(old[column], new[column]) if column in old else None
        if index is not None and not expectation.holds(index):
            raise ContractError(
                f"expect: {expectation.text} does not hold between the dataset in use, {in_use}, and this one, "
                f"{run.prints.dataset}: found {index:,.6g}. The version in use stays in use."
            )


def _found(run: Run) -> dict[str, Any]:
    """Return what there is of this pipeline and its files, and otherwise what is in use; a run with its artifact."""
    current = read_json(run.layout.current) or {}
    if run.kept_out() is not None:
        return current
    exported = (run.run_dir / METRICS).is_file() and (run.artifact_dir / ARTIFACT).is_file()
    return {
        "dataset": run.prints.dataset if (run.dataset_dir / MANIFEST).is_file() else current.get("dataset"),
        "run": run.prints.run if exported else current.get("run"),
        "artifact": run.prints.artifact if exported else current.get("artifact"),
    }


def _set_current(run: Run, lease: Lease) -> None:
    """Name what is in use now, last and in one write. Raises LakefitError where the lock is another run's by now."""
    seen = look(run.layout.current)
    lease.check()
    found = _found(run)
    if found != seen.value:
        replace(run.layout.current, found, seen)


def _remove_old(run: Run) -> None:
    for path in remove_old(run.pipeline):
        run.console.event("removed", f"removed: {relative(path)} (output.keep)", path=relative(path))


def summary(run: Run) -> dict[str, Any]:
    """Return what a run ends with: ledger, metrics, baselines and paths of whatever there is."""
    fields: dict[str, Any] = {"pipeline": run.pipeline.name}
    paths: dict[str, str] = {}
    if (run.dataset_dir / MANIFEST).is_file():
        ledger = read_manifest(run.dataset_dir).ledger
        fields["ledger"] = ledger.model_dump(mode="json")
        paths["dataset"] = relative(run.dataset_dir)
    report = read_json(run.run_dir / METRICS)
    if report is not None:
        fields |= {"metrics": report["metrics"], "baselines": report["baselines"]}
    if run.gate:
        fields["gate"] = [asdict(check) for check in run.gate]
    if (run.run_dir / TENSORBOARD).is_dir():
        paths |= {"run": relative(run.run_dir), "tensorboard": relative(run.run_dir / TENSORBOARD)}
    if (run.artifact_dir / ARTIFACT).is_file() and run.kept_out() is None:
        paths["artifact"] = relative(run.artifact_dir)
    if run.pipeline.score is not None and any_path(run.pipeline.score.output).is_dir():
        paths["predictions"] = relative(any_path(run.pipeline.score.output))
    return {**fields, "in_use": read_json(run.layout.current) or {}, "paths": paths}
