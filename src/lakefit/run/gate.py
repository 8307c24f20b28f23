"""The quality gate: what a new model must reach before it is taken into use (`evaluate.require`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.config import Pipeline
from lakefit.config.evaluate import LOWER_IS_BETTER, VS_CURRENT, compared_metric, within
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.layout import METRICS, PREDICTIONS, RUN, Layout
from lakefit.dataset.manifest import MANIFEST, read_manifest
from lakefit.dataset.predictions import prefix_of, read_predictions
from lakefit.dataset.publish import read_json

ENOUGH = 100
"""Rows that both test splits must have for a comparison on them."""
_IDENTITY = ["_row", "_occurrence"]


@dataclass(frozen=True, slots=True)
class Check:
    """A bound of the gate and what was found; `found` is None where nothing can be compared.

    note: on which rows, or why there is nothing to compare.
    """

    metric: str
    required: str
    found: float | None
    holds: bool
    note: str = ""

    def __str__(self) -> str:
        found = "nothing" if self.found is None else f"{self.found:.4f}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.metric} {self.required}: found {found}{note}"


def judge(pipeline: Pipeline, layout: Layout, run: str) -> tuple[Check, ...]:
    """Return what the evaluated run `run` was held against, in the order of `evaluate.require`."""
    report = read_json(layout.run(run) / METRICS)
    assert report is not None, "the run is evaluated"
    found: Mapping[str, float] = report["metrics"]["test"]
    checks = []
    for metric, bound in pipeline.evaluate.require.items():
        if metric == VS_CURRENT:
            checks.append(_vs_current(pipeline, layout, run, bound))
        else:
            checks.append(Check(metric, bound, found[metric], within(found[metric], bound)))
    return tuple(checks)


def _vs_current(pipeline: Pipeline, layout: Layout, run: str, bound: str) -> Check:
    current = (read_json(layout.current) or {}).get("run")
    if current is None or not (layout.run(current) / METRICS).is_file():
        return Check(VS_CURRENT, bound, None, True, "no model is in use yet")
    metric = compared_metric(pipeline.evaluate, pipeline.label)
    old, new = (_Evaluated.read(layout, name) for name in (current, run))
    if old.expressions and old.label_of(metric, pipeline) != new.label_of(metric, pipeline):
        note = f"the label of {metric} is another than that of the model in use, {current}"
        return Check(VS_CURRENT, bound, None, False, note)
    values = [side.metrics.get(metric) for side in (old, new)]
    note = f"{metric}, each on its own test split: they share fewer than {ENOUGH} rows"
    shared = _shared_rows(old, new)
    if len(shared) >= ENOUGH:
        values = [
            side.metric_of(metric, side.predictions.take(shared[name]))
            for side, name in ((old, "old"), (new, "new"))
        ]  # fmt: skip
        note = f"{metric}, on the {len(shared):,} rows of both test splits"
    before, after = values
    assert before is not None, "a label that is the same has the same metrics"
    assert after is not None
    lower = any(metric.endswith(name) for name in LOWER_IS_BETTER)
    better = before - after if lower else after - before
    return Check(VS_CURRENT, bound, better, within(better, bound), f"{note}; in use: {before:.4f}, this: {after:.4f}")


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What a run's evaluation has left. predictions: of the rows of the test split, or none where they are gone."""

    metrics: Mapping[str, float]
    labels: tuple[LabelFeature, ...]
    expressions: Mapping[str, Any]
    predictions: pa.Table

    @classmethod
    def read(cls, layout: Layout, run: str) -> "_Evaluated":
        folder = layout.run(run)
        report = read_json(folder / METRICS) or {}
        dataset = layout.dataset((read_json(folder / RUN) or {}).get("dataset", ""))
        path = folder / PREDICTIONS / "test.parquet"
        labels: tuple[LabelFeature, ...] = ()
        expressions: dict[str, Any] = {}
        if (dataset / MANIFEST).is_file():
            manifest = read_manifest(dataset)
            labels = manifest.labels
            expressions = {label["name"]: (label["expression"], label["type"]) for label in manifest.pipeline["label"]}
        predictions = pq.read_table(path) if path.is_file() and labels else pa.table({name: [] for name in _IDENTITY})
        return cls(report["metrics"]["test"], labels, expressions, predictions)

    def label_of(self, metric: str, pipeline: Pipeline) -> tuple[str, Any]:
        """Return the label that a metric is of: its name and what it is computed from."""
        names = [label.name for label in pipeline.label]
        name = names[0] if len(names) == 1 else max((n for n in names if metric.startswith(f"{n}_")), key=len)
        return name, self.expressions.get(name)

    def metric_of(self, metric: str, rows: pa.Table) -> float | None:
        from lakefit.evaluate.metrics import metrics_of

        for label in self.labels:
            prefix = prefix_of(label, self.labels)
            if metric.startswith(prefix):
                found = metrics_of(label, *read_predictions(rows, label, self.labels))
                if metric.removeprefix(prefix) in found:
                    return found[metric.removeprefix(prefix)]
        return None


def _shared_rows(old: _Evaluated, new: _Evaluated) -> pa.Table:
    """Return the places `old` and `new` of the rows that both have, in the order of the new ones."""
    sides = [
        side.predictions.select(_IDENTITY).append_column(name, pa.array(range(side.predictions.num_rows), pa.int64()))
        for side, name in ((new, "new"), (old, "old"))
    ]
    if 0 in (side.num_rows for side in sides):
        return pa.table({"old": pa.array([], pa.int64()), "new": pa.array([], pa.int64())})
    return sides[0].join(sides[1], _IDENTITY, join_type="inner").sort_by("new")
