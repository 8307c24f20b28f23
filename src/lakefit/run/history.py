"""`history`: what ran when, on which data, how it ended and what had changed."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from lakefit.config import Pipeline
from lakefit.config.evaluate import compared_metric
from lakefit.dataset.layout import Layout
from lakefit.dataset.publish import read_json
from lakefit.run.lock import holder
from lakefit.run.record import RUNNING, Fields, newest_first
from lakefit.run.report import Table

_WIDTH = 160


def history(pipeline: Pipeline, layout: Layout, last: int) -> tuple[dict[str, Any], list[Table]]:
    """Return the last records as fields, oldest first, and as tables."""
    records = [*islice(newest_first(layout), max(last, 0))][::-1]
    current = (read_json(layout.current) or {}).get("run")
    held_by = holder(layout.lock)
    for fields in records:
        if fields.get("state") == RUNNING and any(held_by.get(key) != fields[key] for key in ("pid", "host")):
            # Whoever is killed writes no end.
            fields["state"] = "killed"
        fields.pop("settings", None)
        fields["is_in_use"] = current is not None and fields.get("run") == current
    metric = compared_metric(pipeline.evaluate, pipeline.label)
    head = ("began", "command", "ended", "took", "dataset", "run", "rows in", "kept", f"test {metric}", "in use")
    rows = [_row(fields, metric) for fields in records]
    sections: list[Table] = [("Runs", [head, *rows] if rows else [("none yet",)])]
    changed: list[tuple[str, ...]] = []
    for fields in records:
        began = fields["began"].replace("+00:00", "Z")
        changed += [("" if place else began, text) for place, text in enumerate(_notes(fields))]
    if changed:
        sections.append(("What had changed, and what went wrong", changed))
    return {"runs": records}, sections


def _row(fields: Fields, metric: str) -> tuple[str, ...]:
    ended = f"{fields['exit_code']}" if "exit_code" in fields else fields.get("state", "")
    ledger: Mapping[str, Any] = fields.get("ledger", {})
    value = fields.get("metrics", {}).get("test", {}).get(metric)
    return (
        fields["began"].replace("+00:00", "Z"),
        fields["command"],
        ended,
        f"{fields['seconds']:,.0f} s" if "seconds" in fields else "",
        fields.get("dataset") or "",
        fields.get("run") or "",
        f"{ledger['rows_in']:,}" if ledger else "",
        f"{sum(ledger['kept'].values()):,}" if ledger else "",
        "" if value is None else f"{value:.4f}",
        "now" if fields["is_in_use"] else "",
    )


def _notes(fields: Fields) -> list[str]:
    reason = [] if fields.get("exit_code", 0) in (0, 10) else [" ".join(fields["reason"].split())]
    return [text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…" for text in (*fields.get("changed", ()), *reason)]
