"""`evaluate`: metrics of validation and test beside the baselines, and the test split's predictions by row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.config.pipeline import Evaluate
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.layout import METRICS, PREDICTIONS
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.predictions import prediction_columns
from lakefit.dataset.publish import staged_folder, write_json
from lakefit.evaluate.baselines import gradient_boosting_metrics, prior_metrics
from lakefit.evaluate.metrics import metrics_of
from lakefit.evaluate.rows import SplitRows, read_identities, read_split

EVALUATED = ("validation", "test")
# Measured: prediction is twice as fast at 8,192 rows a batch as at 1,024.
BATCH_SIZE = 8_192


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Which model on which dataset; `fingerprint` is written beside the metrics."""

    section: Evaluate
    manifest: Manifest
    dataset_dir: Path
    run_dir: Path
    fingerprint: str


def evaluate(job: EvaluateJob, model: keras.Model) -> dict[str, Any]:
    """Write metrics.json and predictions/test.parquet into the run's folder; return the metrics and baselines.

    predictions/test.parquet, in the order of the dataset's files: `_row`, `_occurrence`, label, and probability
    (float32); of classes the names label and class, the class's probability, and all in probabilities; of a regression
    label and prediction (float64), in the label's unit.
    """
    label = job.manifest.label
    splits = {split: read_split(job.dataset_dir, job.manifest, split) for split in EVALUATED}
    predictions = {split: predict(model, rows, label) for split, rows in splits.items()}
    training = read_split(job.dataset_dir, job.manifest, "train", job.section.baseline_rows)
    report = {
        "fingerprint": job.fingerprint,
        "metrics": {split: metrics_of(label, rows.label, predictions[split]) for split, rows in splits.items()},
        "baselines": {
            "prior": prior_metrics(_prior(job.manifest, training), splits, label),
            "gradient_boosting": gradient_boosting_metrics(training, splits, job.manifest.features, label),
        },
        "baseline_rows": len(training.label),
    }
    with staged_folder(job.run_dir / PREDICTIONS) as folder:
        table = read_identities(job.dataset_dir, job.manifest, "test")
        test = splits["test"].label
        names = pa.array(label.classes).take(pa.array(test.astype("int64"))) if label.kind == "classes" else None
        table = table.append_column("label", pa.array(test) if names is None else names)
        for name, column in prediction_columns(predictions["test"], label.kind, label.classes).items():
            table = table.append_column(name, column)
        pq.write_table(table, folder / "test.parquet")
    write_json(job.run_dir / METRICS, report)
    return report


def _prior(manifest: Manifest, training: SplitRows) -> Any:
    """Return what is right most often without looking: shares of classes, or the mean."""
    split, label = manifest.splits["train"], manifest.label
    if label.kind == "regression":
        return np.array([training.label.mean()])
    return np.array([split.classes.get(name, 0) for name in label.classes or ("1",)]) / split.rows


def predict(model: keras.Model, rows: SplitRows, label: LabelFeature) -> Any:
    """Return the probability of each row, float32 (n,), or of its classes (n, classes); or its number, float64 (n,)."""
    inputs: dict[str, Any] = {}
    if rows.numeric.shape[1]:
        inputs["numeric"] = rows.numeric
    if rows.categorical.shape[1]:
        inputs["categorical"] = rows.categorical
    found = model.predict(inputs, batch_size=BATCH_SIZE, verbose=0)
    if label.kind == "classes":
        return found
    return found[:, 0] if label.kind == "binary" else label.undone(found[:, 0].astype(np.float64))
