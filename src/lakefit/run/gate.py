"""The quality gate: what a new model must reach before it is taken into use (`evaluate.require`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.config import Pipeline
from lakefit.config.evaluate import LOWER_IS_BETTER, VS_CURRENT, compared_metric, within
from lakefit.config.evaluate import METRICS as MEASURED
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.layout import METRICS, PREDICTIONS, RUN, Layout
from lakefit.dataset.manifest import MANIFEST, read_manifest
from lakefit.dataset.object_path import AnyPath, open_input
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
    in_use = read_json(layout.current) or {}
    if in_use.get("run") is None:
        return Check(VS_CURRENT, bound, None, True, "no model is in use yet")
    metric = compared_metric(pipeline.evaluate, pipeline.label)
    new, old = _Evaluated.of_run(layout, run), _Evaluated.in_use(layout, in_use, run)
    if old is None:
        return Check(
            VS_CURRENT, bound, None, False, f"of the model in use, {in_use['run']}, there are no metrics any more"
        )
    label = next(
        one for one in new.labels if metric in {f"{prefix_of(one, new.labels)}{name}" for name in MEASURED[one.kind]}
    )
    same = old.alike(label, new)
    if same is None:
        note = f"the model in use, {in_use['run']}, has no label that is defined like {label.name}"
        return Check(VS_CURRENT, bound, None, False, note)
    name = metric.removeprefix(prefix_of(label, new.labels))
    sides = ((old, same), (new, label))
    shared = _shared_rows(old, new)
    values = [
        side.on_rows(of, name, shared[place]) if len(shared) >= ENOUGH else math.nan
        for (side, of), place in zip(sides, ("old", "new"), strict=True)
    ]
    note = f"{metric}, on the {len(shared):,} rows of both test splits"
    if not all(map(math.isfinite, values)):
        values = [side.metrics[f"{prefix_of(of, side.labels)}{name}"] for side, of in sides]
        note = f"{metric}, each on its own test split: too few of their rows are the same to tell on them"
    before, after = values
    better = before - after if name in LOWER_IS_BETTER else after - before
    return Check(VS_CURRENT, bound, better, within(better, bound), f"{note}; in use: {before:.4f}, this: {after:.4f}")


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What a run's evaluation has left. predictions: of the rows of the test split, or none where they are gone."""

    metrics: Mapping[str, float]
    labels: tuple[LabelFeature, ...]
    definitions: Mapping[str, tuple[str, str]]
    predictions: pa.Table

    @classmethod
    def of_run(cls, layout: Layout, run: str) -> "_Evaluated":
        folder = layout.run(run)
        report = read_json(folder / METRICS)
        assert report is not None, "the run is evaluated"
        dataset = (read_json(folder / RUN) or {})["dataset"]
        return cls._with(layout, report["metrics"]["test"], dataset, folder / PREDICTIONS / "test.parquet")

    @classmethod
    def in_use(cls, layout: Layout, use: Mapping[str, str], run: str) -> "_Evaluated | None":
        """Return what is in use, by the metrics that its artifact was exported with; None where those are gone.

        run: that is judged. Where it is the same, trained again, the old predictions are gone.
        """
        artifact = layout.artifact(str(use.get("artifact")))
        report = read_json(artifact / METRICS)
        if report is None or not (layout.dataset(str(use.get("dataset"))) / MANIFEST).is_file():
            return None
        predictions = layout.run(use["run"]) / PREDICTIONS / "test.parquet" if use["run"] != run else None
        return cls._with(layout, report["metrics"]["test"], str(use["dataset"]), predictions)

    @classmethod
    def _with(
        cls, layout: Layout, metrics: Mapping[str, float], dataset: str, predictions: AnyPath | None
    ) -> "_Evaluated":
        manifest = read_manifest(layout.dataset(dataset))
        definitions = {one["name"]: (one["expression"], one["type"]) for one in manifest.pipeline["label"]}
        if predictions is not None and predictions.is_file():
            with open_input(predictions) as file:
                rows = pq.read_table(file)
        else:
            rows = pa.table({name: pa.array([]) for name in _IDENTITY})
        return cls(metrics, manifest.labels, definitions, rows)

    def alike(self, label: LabelFeature, other: "_Evaluated") -> LabelFeature | None:
        """Return the label that is computed as another run's is, whatever it is called."""
        wanted = other.definitions[label.name]
        return next((one for one in self.labels if self.definitions[one.name] == wanted), None)

    def on_rows(self, label: LabelFeature, metric: str, places: pa.ChunkedArray) -> float:
        """Return a metric of a label on some of the rows; NaN where it can't be told."""
        from lakefit.evaluate.metrics import metrics_of

        values, predictions = read_predictions(self.predictions.take(places), label, self.labels)
        if label.kind in ("binary", "classes") and len(np.unique(values)) < 2:
            return math.nan
        return metrics_of(label, values, predictions)[metric]


def _shared_rows(old: _Evaluated, new: _Evaluated) -> pa.Table:
    """Return the places `old` and `new` of the rows that both have, in the order of the new ones."""
    sides = [
        side.predictions.select(_IDENTITY).append_column(name, pa.array(range(side.predictions.num_rows), pa.int64()))
        for side, name in ((new, "new"), (old, "old"))
    ]
    if 0 in (side.num_rows for side in sides):
        return pa.table({"old": pa.array([], pa.int64()), "new": pa.array([], pa.int64())})
    return sides[0].join(sides[1], _IDENTITY, join_type="inner").sort_by("new")
