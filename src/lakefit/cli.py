"""The `lakefit` command. It parses, calls and turns errors into exit codes; the work is in `run` and the stages."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from lakefit import __version__
from lakefit.console import Console
from lakefit.errors import STORE_ADVICE, InputError, LakefitError, text_of, without_credentials

# Everything heavy is imported by the command that needs it: `lakefit --help` answers at once.
if TYPE_CHECKING:
    from lakefit.run.plan import StageName

EXIT_CODES = """exit codes:
  0  done, or all was current (10 for the latter with --exit-code)
  2  the pipeline file, its inputs or the place are wrong
  3  failed
  4  stopped; run again to go on
  5  a contract of `expect` broke; the old version stays in use
  6  the quality gate was not passed; the old model stays in use
"""


def main(arguments: Sequence[str] | None = None, typed: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises for what a user can cause. typed: what a person would type
    to run it again, where that is not `lakefit` and the arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    again = ["lakefit", *given] if typed is None else typed
    options = _parser().parse_args(given)
    console = Console("json" if getattr(options, "json", False) else None, verbose=options.verbose)
    command: Callable[[argparse.Namespace, Console], int] = options.command
    try:
        return command(options, console)
    except LakefitError as error:
        _fail(console, str(error), error.exit_code, _again(again, error.exit_code))
        return error.exit_code
    except KeyboardInterrupt:
        _fail(console, "Stopped by Ctrl-C; what is finished is kept.", 4, _again(again, 4))
        return 4
    except BrokenPipeError:
        # Whoever read our output has gone (`lakefit … | head`).
        sys.stderr.close()
        return 3
    except OSError as error:
        if options.verbose:
            raise
        from lakefit.dataset.object_path import REFUSED, of_the_store

        where = error.filename or ("The object store" if of_the_store(error) else "The system")
        # To wait and try again is of no use where the store has understood and says no.
        code, advice = (2, f". {STORE_ADVICE}") if REFUSED.search(str(error)) else (3, "")
        _fail(console, f"{where}: {error.strerror or error}{advice}", code, _again(again, code))
        return code
    except Exception as error:
        if options.verbose:
            raise
        message = f"{type(error).__name__}: {(text_of(error).strip().splitlines() or [''])[0]}"
        _fail(console, f"{message}\nThis is a fault of Lakefit; -v shows where.", 3, _again(again, 3))
        return 3


def job(stage: "StageName | Literal['tune'] | None") -> int:
    """Run a script of jobs/: `PIPELINE [--set …] [--json]` for one stage or `tune`, or for all of them (None)."""
    typed = ["spark-submit" if "PYSPARK_GATEWAY_PORT" in os.environ else "python", *sys.argv]
    return main([stage or "run", *sys.argv[1:]], typed)


def _fail(console: Console, message: str, exit_code: int, again: str) -> None:
    message = without_credentials(message)
    if console.mode == "json":
        console.event("error", message, exit_code=exit_code, again=again)
        return
    print(f"error: {message}\n{again}", file=sys.stderr, flush=True)


def _again(typed: Sequence[str], exit_code: int) -> str:
    """Return the last line of a failed run: the command to go on with."""
    import shlex

    # What a run that was begun anew has done since is to be gone on with.
    command = without_credentials(shlex.join(word for word in typed if word != "--fresh"))
    # Running again changes nothing of a wrong input, a broken contract or a model that is not good enough.
    return f"{'Once that is mended' if exit_code in (2, 5, 6) else 'To go on'}: {command}"


def _run(options: argparse.Namespace, console: Console) -> int:
    from lakefit.run.command import run_command
    from lakefit.run.report import tables

    if getattr(options, "dry_run", False):
        return _say_plan(options, console)
    only: StageName | None = options.stage
    fresh = getattr(options, "fresh", False)
    ended = run_command(options.pipeline, tuple(options.set), only, console, fresh=fresh)
    console.result({"exit_code": 0, "current": ended.was_current, **ended.summary}, tables(ended.summary))
    return 10 if ended.was_current and options.exit_code else 0


def _tune(options: argparse.Namespace, console: Console) -> int:
    from lakefit.launch.stop import Stop
    from lakefit.run.ranges import batch_range, lr_range
    from lakefit.run.report import tables
    from lakefit.run.tune import run_again, tune_command

    if options.lr_range or options.batch_range:
        with Stop().listening():
            (lr_range if options.lr_range else batch_range)(options.pipeline, tuple(options.set), console)
        return 0
    if options.trial is not None:
        return 0 if run_again(options.pipeline, tuple(options.set), options.trial, console) else 3
    ended = tune_command(options.pipeline, tuple(options.set), console)
    sections = [("Trials", ended.trials), *tables(ended.summary)]
    console.result({"exit_code": 0, "current": ended.was_current, **ended.summary}, sections)
    return 10 if ended.was_current and options.exit_code else 0


def _say_plan(options: argparse.Namespace, console: Console) -> int:
    from dataclasses import replace

    from lakefit.prepare.reader import reader_of
    from lakefit.run.stages import Run
    from lakefit.run.tuned import load_tuned, say_tuned
    from lakefit.run.validate import check_inputs

    pipeline, source, overrides, tuned = load_tuned(options.pipeline, tuple(options.set))
    say_tuned(tuned, console)
    valid = replace(check_inputs(pipeline, source), overrides=overrides)
    run = Run(valid, console)
    why_not = run.kept_out()
    if why_not is not None:
        console.event("kept_out", str(why_not), run=run.prints.run)
    for step in run.plan():
        verb = "is current" if step.current else "would run"
        console.event("plan", f"{step.stage} {verb}: {step.why}", stage=step.stage, current=step.current, why=step.why)
    reader = reader_of(valid.pipeline, valid.inputs)
    console.event("reader", f"rows are read by {reader}", reader=reader)
    return 0


def _history(options: argparse.Namespace, console: Console) -> int:
    from lakefit.config import load_pipeline
    from lakefit.dataset.layout import Layout
    from lakefit.run.history import history

    pipeline, _ = load_pipeline(options.pipeline, tuple(options.set))
    fields, sections = history(pipeline, Layout.of(pipeline), options.last)
    console.result({"exit_code": 0, **fields}, sections)
    return 0


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from lakefit.dataset.object_path import any_path
    from lakefit.run.doctor import Doctor

    return 0 if Doctor(any_path(options.path), options.master, console).examine() else 2


def _rollback(options: argparse.Namespace, console: Console) -> int:
    from lakefit.run.rollback import rollback

    before, after = rollback(options.pipeline, tuple(options.set), options.to, console)
    message = f"run {after['run']} is in use, in place of {before.get('run')}"
    console.event("rollback", message, exit_code=0, before=before, in_use=after)
    return 0


def _validate(options: argparse.Namespace, console: Console) -> int:
    from lakefit.run.validate import validate

    valid = validate(options.pipeline, tuple(options.set))
    files = sum(len(files) for files in valid.inputs.values())
    size = sum(file.size for files in valid.inputs.values() for file in files)
    message = f"{options.pipeline} is valid: {files} files, {size / 1e6:,.1f} MB, {len(valid.inputs)} tables"
    console.event("valid", message, files=files, bytes=size)
    if options.model:
        from lakefit.dataset.manifest import MANIFEST
        from lakefit.run.model_check import check_model
        from lakefit.run.stages import Run

        dataset = Run(valid, console).dataset_dir
        there = (dataset / MANIFEST).is_file()
        put_off = check_model(options.pipeline, tuple(options.set), dataset if there else None, search=True)
        said = "can be built" if put_off is None else f"can't be checked before prepare has run: {put_off}"
        console.event("model", f"the model {said}", checked=put_off is None)
    return 0


def _plan(options: argparse.Namespace, console: Console) -> int:
    from lakefit.config import load_pipeline
    from lakefit.dataset.layout import Layout
    from lakefit.feed.dataset import open_dataset
    from lakefit.run.feed import plan_feed

    pipeline, _ = load_pipeline(options.pipeline, tuple(options.set))
    dataset = open_dataset(Layout.of(pipeline).root)
    fields, sections, warnings = plan_feed(pipeline, dataset, options.workers, options.batch_size, options.rows_per_s)
    for warning in warnings:
        console.event("warning", warning)
    console.result({"exit_code": 0, **fields, "warnings": warnings}, sections)
    return 0


def _tensorboard(options: argparse.Namespace, console: Console) -> int:
    from lakefit.config import load_pipeline
    from lakefit.dataset.layout import Layout
    from lakefit.launch.board import RUNS, STUDIES, serve

    pipeline, _ = load_pipeline(options.pipeline, tuple(options.set))
    folder, curves = ("studies", STUDIES) if options.studies else ("runs", RUNS)
    serve(Layout.of(pipeline).root / folder, curves, options.port, console)
    return 0


def _score(options: argparse.Namespace, console: Console) -> int:
    from pydantic import ValidationError

    from lakefit.config.pipeline import Score
    from lakefit.run.stages import Run, score_with_artifact
    from lakefit.run.validate import validate

    valid = validate(options.pipeline, tuple(options.set))
    try:
        section = Score(input=options.input, output=options.output)
    except ValidationError as error:
        raise InputError("; ".join(f"--{one['loc'][0]}: {one['msg']}" for one in error.errors())) from None
    counts = score_with_artifact(Run(valid, console), section)
    message = f"score is done: {counts['scored']:,} of {counts['rows_in']:,} rows in {options.output}"
    console.event("done", message, stage="score", output=options.output, **counts)
    return 0


def _render(options: argparse.Namespace, console: Console) -> int:
    from lakefit.config import load_pipeline
    from lakefit.config.render import rendered

    pipeline, _ = load_pipeline(options.pipeline, tuple(options.set))
    if console.mode == "json":
        console.result({"exit_code": 0, "pipeline": pipeline.dump()}, [])
    else:
        print(rendered(pipeline), end="")
    return 0


def _schema(options: argparse.Namespace, console: Console) -> int:
    import json

    from lakefit.config import render
    from lakefit.dataset import manifest

    schema = manifest.json_schema() if options.of == "manifest" else render.json_schema()
    print(json.dumps(schema, indent=None if console.mode == "json" else 2, ensure_ascii=False))
    return 0


def _inspect(options: argparse.Namespace, console: Console) -> int:
    from lakefit.dataset.describe import describe
    from lakefit.feed.dataset import open_dataset

    dataset = open_dataset(options.path)
    fields, sections = describe(dataset.path, dataset.manifest)
    console.result({"exit_code": 0, **fields}, sections)
    return 0


def _index(options: argparse.Namespace, console: Console) -> int:
    from lakefit.dataset.describe import describe_index
    from lakefit.dataset.index import index_folder

    found = index_folder(options.path)
    fields, sections = describe_index(options.path, found.index)
    for column in found.index.left_out:
        console.event("warning", f"column {column.name!r} is left out: {column.reason}", column=column.name)
    for warning in found.warnings:
        console.event("warning", warning)
    console.result({"exit_code": 0, "current": found.current, **fields}, sections)
    return 0


def _diff(options: argparse.Namespace, console: Console) -> int:
    from lakefit.dataset.describe import difference, find_dataset
    from lakefit.dataset.object_path import any_path

    fields, sections = difference(find_dataset(any_path(options.one)), find_dataset(any_path(options.two)))
    console.result({"exit_code": 0, **fields}, sections)
    return 0


def _init(options: argparse.Namespace, console: Console) -> int:
    from lakefit.init.pipeline import init

    path, roles, sample = init(options.path, options.label, options.output)
    label = roles.label
    guessed = "" if label.given else " (a guess: see --label)"
    console.event("sample", f"{options.path}: {sample.described}, {len(sample.columns)} columns", rows=sample.rows)
    console.event(
        "init",
        f"{path} predicts {label.expression}{guessed} from {len(roles.features)} columns: "
        f"lakefit run {path}",
        pipeline=str(path), label=label.expression, type=label.type, guessed=not label.given,
        features=[feature.column for feature in roles.features], left_out=dict(roles.left_out),
    )  # fmt: skip
    return 0


def _example(options: argparse.Namespace, console: Console) -> int:
    from lakefit.example import digits, flights, tables
    from lakefit.example.pipeline import write_pipeline

    if options.name in tables.TABLES:
        file, rows = tables.write(options.name, options.directory)
        lines = [f"{rows:,} rows in {file}"]
    elif options.name == "digits":
        written = digits.write(options.directory)
        lines = [
            f"{written.files:,} files below {options.directory}/raw:",
            f"  {written.images:,} images, {written.copies} copies of them in another format",
            f"  {written.damaged} that are damaged, empty or no images",
        ]
    else:
        lines = list(flights.summary_lines(flights.write(options.directory)))
    path = write_pipeline(options.name, options.directory)
    for line in lines:
        console.event("example", line)
    console.event("example", f"{path} is its pipeline file: lakefit run {path}", pipeline=str(path))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lakefit",
        description="From raw tables to a trained Keras model, by one pipeline file.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lakefit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _command(commands, "run", "the stages that are not current, in order", _run)
    run.add_argument("--dry-run", action="store_true", help="say what would run and why, and run nothing")
    run.set_defaults(stage=None)
    check = "all that can be known from the file, paths, CSV headers and Parquet footers, every error at once"
    valid = _command(commands, "validate", check, _validate)
    valid.add_argument("--model", action="store_true", help="also build the model, in a process of its own")
    stages = {
        "prepare": "raw files to a dataset of Parquet",
        "train": "the model on the dataset",
        "evaluate": "metrics beside the baselines",
        "export": "the model of cleaned rows",
    }
    for stage, what in stages.items():
        _command(commands, stage, what, _run).set_defaults(stage=stage)
    _command(commands, "tune", "trials of other values for train; the best is trained and taken into use", _tune)
    instead = commands.choices["tune"].add_mutually_exclusive_group()
    instead.add_argument("--lr-range", action="store_true", help="no study: the loss by learning rate, drawn")
    instead.add_argument("--batch-range", action="store_true", help="no study: rows/s and memory by batch size")
    instead.add_argument(
        "--trial", type=int, metavar="N", help="run this trial again, alone, and see whether it comes to the same"
    )
    for name in ("run", "tune", *stages):
        commands.choices[name].add_argument(
            "--exit-code", action="store_true", help="exit with 10 where all is current"
        )
    for name in ("run", "train"):
        commands.choices[name].add_argument(
            "--fresh", action="store_true", help="train from the first step, whatever there is of this run"
        )
    past = _command(commands, "history", "what ran when, on which data, how it ended and what had changed", _history)
    past.add_argument("--last", type=int, default=20, metavar="N", help="the last so many runs (default: 20)")
    back = _command(commands, "rollback", "take the model that was in use before into use again", _rollback)
    back.add_argument("--to", metavar="RUN", help="this run's model (its fingerprint, or the beginning of it)")
    board = _command(
        commands, "tensorboard", "the curves of all runs in a browser, on this machine alone", _tensorboard
    )
    board.add_argument("--studies", action="store_true", help="the trials of `lakefit tune` in place of the runs")
    board.add_argument("--port", type=int, default=6006, metavar="N", help="0 takes any (default: 6006)")
    plan = _command(commands, "plan", "what feeding the dataset will take: steps, memory, bytes; nothing starts", _plan)
    plan.add_argument("--workers", type=int, default=1, metavar="N", help="training processes that share each batch")
    plan.add_argument("--batch-size", type=int, metavar="ROWS", help="in place of train.fit.batch_size")
    plan.add_argument(
        "--rows-per-s", type=float, default=1e6, metavar="N", help="what a worker trains (default: 1000000)"
    )
    score = _command(commands, "score", "new raw files with the exported model", _score)
    score.add_argument("--input", required=True, metavar="PATH", help="a file, folder or glob like the followed table")
    score.add_argument("--output", required=True, metavar="PATH", help="a folder, replaced when all rows are scored")

    _command(commands, "render", "the pipeline file with every default", _render)
    schema = commands.add_parser("schema", help="the JSON schema of pipeline files, for editors")
    schema.add_argument("--of", choices=["pipeline", "manifest"], default="pipeline", help="or of manifest.json")
    _common(schema)
    schema.set_defaults(command=_schema)
    look = commands.add_parser("inspect", help="what is in a dataset: rows, contracts, statistics")
    where = "a dataset; or a pipeline's file or output, then the dataset in use"
    look.add_argument("path", metavar="PATH", help=where)
    _common(look)
    look.set_defaults(command=_inspect)
    index = commands.add_parser(
        "index", help="write the manifest of a folder of Parquet files, so that they can be fed to a model"
    )
    index.add_argument("path", metavar="PATH", help="a folder, or its address: s3://bucket/folder")
    _common(index)
    index.set_defaults(command=_index)
    diff = commands.add_parser("diff", help="what differs between two datasets: settings, columns, rows, drift")
    diff.add_argument("one", metavar="A", help=where)
    diff.add_argument("two", metavar="B", help=where)
    _common(diff)
    diff.set_defaults(command=_diff)

    init = commands.add_parser("init", help="write a pipeline file for data of your own, from a sample of it")
    init.add_argument("path", metavar="PATH", help="a file, a folder, a glob, or a table of Spark's catalog")
    init.add_argument("--label", metavar="COLUMN", help="what to predict: a column or a Spark SQL expression")
    init.add_argument("--output", metavar="FILE", help="the pipeline file (NAME.yaml, never written over)")
    _common(init)
    init.set_defaults(command=_init)

    what = "a hundred rows through Java, Spark, its executors, Petastorm, TensorFlow and storage, and what is wrong"
    doctor = commands.add_parser("doctor", help=what, description=what)
    doctor.add_argument("--master", metavar="URL", help="spark://host:7077, local[4], sc://host:15002 (Spark Connect)")
    doctor.add_argument("--path", default=".", metavar="DIR", help="where data would go, which executors see as well")
    _common(doctor)
    doctor.set_defaults(command=_doctor)

    example = commands.add_parser("example", help="write an example's raw data and its pipeline file")
    example.add_argument("name", choices=["flights", "classification", "multiclass", "regression", "digits"])
    example.add_argument("directory", metavar="DIR")
    _common(example)
    example.set_defaults(command=_example)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    what: str,
    command: Callable[[argparse.Namespace, Console], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what)
    parser.add_argument("pipeline", metavar="PIPELINE", help="a pipeline file, such as conf/flights.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="train.fit.batch_size=512; may be repeated"
    )
    _common(parser)
    parser.set_defaults(command=command)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON line an event")
    parser.add_argument("-v", "--verbose", action="store_true", help="details, and the place of an unexpected error")
