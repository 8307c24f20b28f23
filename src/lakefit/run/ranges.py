"""`lakefit tune --lr-range` and `--batch-range`: measured before a study, so that it need not search everywhere."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lakefit.config import load_pipeline
from lakefit.config.train import keras_name_and_arguments
from lakefit.console import Console
from lakefit.dataset.publish import new_file
from lakefit.errors import InputError
from lakefit.run.model_check import asked
from lakefit.run.plan import relative
from lakefit.run.stages import Run, train_job
from lakefit.run.trials import check_prepared
from lakefit.run.validate import validate

if TYPE_CHECKING:
    from lakefit.tune.ranges import Answer

_FIRST, _LAST = 5, 20
_ENOUGH = 0.9
"""Of the most rows a second: a smaller batch that has as many is as good, and learns more in an epoch."""


def lr_range(path: str, overrides: tuple[str, ...], console: Console) -> None:
    """Train some hundred steps with rates from 1e-7 to 10, draw the loss by rate, and suggest one.

    Raises:
        InputError: no prepared dataset, a schedule in place of a rate, or a model that can't be built.
    """
    from lakefit.tune.plots import draw_rates
    from lakefit.tune.ranges import suggested

    run = Run(validate(path, overrides), console)
    check_prepared(run)
    compile_ = run.pipeline.train.compile
    name, arguments = keras_name_and_arguments(compile_.optimizer if compile_ is not None else "Adam")
    if isinstance(arguments.get("learning_rate"), dict):
        raise InputError(f"--lr-range: the optimizer {name} has a schedule of rates; set a number in its place.")
    found = _asked(run, "rates", overrides)
    rates, losses = found["rates"], found["losses"]
    rate = suggested(rates, losses)
    file = run.layout.root / "studies" / "lr-range.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    with new_file(file) as temporary:
        draw_rates(rates, losses, rate, temporary)
    key = f"train.compile.optimizer.{name}.learning_rate"
    text = (
        f"the loss falls fastest at a learning rate of {rate:.2g}: --set {key}={rate:.2g}"
        if rate
        else "the loss falls at no rate"
    )
    console.event(
        "lr_range", f"{text}; {relative(file)} shows it", suggestion=rate, rates=rates, losses=losses,
        file=relative(file),
    )  # fmt: skip


def batch_range(path: str, overrides: tuple[str, ...], console: Console) -> None:
    """Train for some seconds with batches of 32, 64, … rows; say how many rows a second and how much memory each takes.

    Raises:
        InputError: no prepared dataset, or a model that can't be built.
    """
    run = Run(validate(path, overrides), console)
    check_prepared(run)
    rows = train_job(run).manifest.splits["train"].rows
    found: list[tuple[int, float, int]] = []
    for power in range(_FIRST, _LAST):
        size = 2**power
        if size > rows:
            break
        try:
            one = _asked(run, "speed", (*overrides, f"train.fit.batch_size={size}"))
        except InputError as error:
            if not found:
                raise
            console.event("batch_range", f"{size:,} rows a batch: {error}", batch_size=size, problem=str(error))
            break
        found.append((size, one["rows_per_s"], one["memory_bytes"]))
        text = f"{size:,} rows a batch: {one['rows_per_s']:,.0f} rows/s, {one['memory_bytes'] / 1e6:,.0f} MB"
        console.event("batch_range", text, batch_size=size, **one)
    most = max(speed for _, speed, _ in found)
    enough = next(size for size, speed, _ in found if speed >= _ENOUGH * most)
    table = [("rows a batch", "rows/s", "memory (MB)")]
    table += [(f"{size:,}", f"{speed:,.0f}", f"{memory / 1e6:,.0f}") for size, speed, memory in found]
    fields: dict[str, Any] = {"suggestion": enough}
    console.result(
        {"exit_code": 0, **fields},
        [(f"Batch sizes: {enough:,} rows is the smallest that is about as fast as any", table)],
    )


def _asked(run: Run, what: str, overrides: tuple[str, ...]) -> "Answer":
    pipeline, source = load_pipeline(run.valid.source.path, overrides)
    job = replace(train_job(run), pipeline=pipeline, source=source)
    found: Answer | None
    found, code, said = asked("lakefit.tune.ranges", {"job": job.dumps(), "what": what})
    if found is None:
        raise InputError(f"the model's process ended with exit code {code}: {(said or [''])[-1]}")
    if "problem" in found:
        raise InputError(found["problem"])
    return found
