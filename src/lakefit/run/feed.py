"""`lakefit plan`: what feeding the dataset in use will take, before anything starts."""

from typing import Any

from lakefit.config import Pipeline
from lakefit.errors import InputError
from lakefit.feed.dataset import Dataset
from lakefit.feed.plan import feed_plan
from lakefit.launch.memory import memory_left
from lakefit.run.report import Table


def plan_feed(
    pipeline: Pipeline, dataset: Dataset, workers: int, batch_size: int | None, rows_per_s: float
) -> tuple[dict[str, Any], list[Table], list[str]]:
    """Return the plan as fields, as tables, and its warnings. rows_per_s: that each worker trains.

    Raises:
        InputError: so many workers can't share the batch.
    """
    rows_a_batch = pipeline.train.fit.batch_size if batch_size is None else batch_size
    feed = pipeline.train.feed
    try:
        plan = feed_plan(
            dataset, "train", batch_size=rows_a_batch, lanes=feed.lanes, remainder=feed.remainder, workers=workers
        )
    except ValueError as error:
        raise InputError(f"{error} Choose --batch-size and --workers anew.") from None
    warnings = list(plan.warnings)
    available = memory_left()
    if available is not None and plan.memory > available:
        warnings.append(
            f"Rows take {plan.memory / 1e9:,.1f} GB of a worker's memory, and this machine has {available / 1e9:,.1f} "
            "GB free: lower train.feed.lanes or output.rows_per_group."
        )
    most_bytes = max(plan.file_bytes)
    # Each worker trains rows_per_s of its share of the rows.
    needed = most_bytes / max(plan.rows / workers, 1) * rows_per_s
    fields = {
        "dataset": dataset.manifest.fingerprint,
        "batch_size": rows_a_batch,
        "lanes": feed.lanes,
        "workers": workers,
        "rows": plan.rows,
        "steps": plan.steps,
        "remainder": plan.remainder,
        "row_groups": plan.row_groups,
        "row_groups_per_worker": list(plan.read),
        "memory_bytes": plan.memory,
        "file_bytes_per_worker": list(plan.file_bytes),
        "bytes_per_s": round(needed),
    }
    fate = "dropped, others in each epoch" if feed.remainder == "drop" else "a smaller last batch"
    read = f"{min(plan.read)}" if min(plan.read) == max(plan.read) else f"{min(plan.read)} to {max(plan.read)}"
    rows: list[tuple[str, ...]] = [
        ("rows", f"{plan.rows:,}, in row groups: {plan.row_groups:,}"),
        ("steps an epoch", f"{plan.steps:,} of {rows_a_batch:,} rows"),
        ("remainder", f"{plan.remainder:,} rows, {fate}" if plan.remainder else "none"),
        ("a worker's share", f"{' or '.join(f'{share:,}' for share in sorted(set(plan.share)))} rows a step"),
        ("row groups a worker", f"{read} of {plan.row_groups:,}"),
        ("memory a worker", f"{plan.memory / 1e6:,.0f} MB for rows, whatever the number of rows"),
        ("read an epoch", f"{most_bytes / 1e6:,.0f} MB a worker"),
        ("needed of the store", f"{needed / 1e6:,.0f} MB/s a worker, at {rows_per_s:,.0f} rows/s"),
    ]
    return fields, [("Feed of the training split", rows)], warnings
