"""`evaluate`: metrics of validation and test beside the baselines, and the test split's predictions by row."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq

from lakefit.config.evaluate import Evaluate
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.layout import METRICS, PREDICTIONS, TENSORBOARD
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.mirror import mirrored
from lakefit.dataset.object_path import AnyPath
from lakefit.dataset.predictions import by_label, label_column, prediction_columns, prefix_of, rows_at_once
from lakefit.dataset.publish import built_folder, write_json
from lakefit.evaluate.baselines import gradient_boosting_metrics, prior_metrics
from lakefit.evaluate.metrics import metrics_of
from lakefit.evaluate.plots import write_plots
from lakefit.evaluate.rows import SplitRows, read_identities, read_split
from lakefit.feed.images import named_errors
from lakefit.feed.split import SplitFeed

Metrics = dict[str, dict[str, float]]
"""By split and name."""
EVALUATED = ("validation", "test")


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Which model on which dataset; `fingerprint` is written beside the metrics."""

    section: Evaluate
    manifest: Manifest
    dataset_dir: AnyPath
    run_dir: AnyPath
    fingerprint: str


def evaluate(job: EvaluateJob, model: keras.Model) -> dict[str, Any]:
    """Write metrics.json and predictions/test.parquet into the run's folder; return the metrics and baselines.

    predictions/test.parquet, in the order of the dataset's files: `_row`, `_occurrence`, the labels (names of classes,
    numbers in their own unit), and the columns of `dataset.predictions.prediction_columns`.
    """
    labels = job.manifest.labels
    splits = {split: read_split(job.dataset_dir, job.manifest, split) for split in EVALUATED}
    predictions = {split: predict(model, job.dataset_dir, job.manifest, split) for split in splits}
    training = read_split(job.dataset_dir, job.manifest, "train", job.section.baseline_rows)
    metrics: Metrics = {split: {} for split in splits}
    prior: Metrics = {split: {} for split in splits}
    boosting: Metrics = {split: {} for split in splits}
    for label in labels:
        for found, of_label in (
            (
                metrics,
                {
                    s: metrics_of(label, rows.labels[label.name], predictions[s][label.name])
                    for s, rows in splits.items()
                },
            ),
            (prior, prior_metrics(_prior(job.manifest, training, label), splits, label)),
            # Of pixels it learns little, and takes long.
            *(
                [(boosting, gradient_boosting_metrics(training, splits, job.manifest.features, label))]
                if training.inputs and not job.manifest.features.images
                else []
            ),
        ):
            for split, values in of_label.items():
                found[split] |= {f"{prefix_of(label, labels)}{name}": value for name, value in values.items()}
    report = {
        "fingerprint": job.fingerprint,
        "metrics": metrics,
        "baselines": {"prior": prior, **({"gradient_boosting": boosting} if boosting["test"] else {})},
        "baseline_rows": training.rows,
    }
    with built_folder(job.run_dir / PREDICTIONS, "test.parquet") as folder:
        table = read_identities(job.dataset_dir, job.manifest, "test")
        for label in labels:
            table = table.append_column(label.name, label_column(splits["test"].labels[label.name], label))
        of_test = {
            name: of_label if of_label.ndim == 2 else of_label[:, None]
            for name, of_label in predictions["test"].items()
        }
        for name, column in prediction_columns(of_test, labels).items():
            table = table.append_column(name, column)
        pq.write_table(table, folder / "test.parquet")
    with mirrored(job.run_dir / TENSORBOARD / "evaluation") as pictures:
        write_plots(pictures.local, labels, splits["validation"], predictions["validation"])
        pictures.push()
    write_json(job.run_dir / METRICS, report)
    return report


def _prior(manifest: Manifest, training: SplitRows, label: LabelFeature) -> Any:
    """Return what is right most often without looking: shares of classes, or the mean."""
    split = manifest.splits["train"]
    if label.kind == "regression":
        return np.array([training.labels[label.name].mean()])
    return np.array([split.classes[label.name].get(name, 0) for name in label.classes or ("1",)]) / split.rows


def predict(model: keras.Model, dataset_dir: AnyPath, manifest: Manifest, split: str) -> dict[str, Any]:
    """Return by label the probability of each row of a split, float32 (n,), or of its classes (n, classes); or its
    number, float64 (n,). In the order of the files."""
    size = rows_at_once(image.shape for image in manifest.features.images)
    feed = SplitFeed(dataset_dir, manifest, split, batch_size=size, shuffle=False)
    names = [field.name for field in feed.fields if field.name in {tensor.name for tensor in model.inputs}]
    with named_errors(dataset_dir, manifest, feed):
        found = by_label(model.predict(feed.to_tf(names=names, targets={}), verbose=0), manifest.labels)
    feed.check()
    for label in manifest.labels:
        if label.kind == "regression":
            found[label.name] = label.undone(found[label.name][:, 0].astype(np.float64))
        elif label.kind == "binary":
            found[label.name] = found[label.name][:, 0]
    return found
