"""Pictures of the predictions on the validation split, for TensorBoard."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lakefit.dataset.features import LabelFeature
from lakefit.dataset.predictions import prefix_of
from lakefit.evaluate.rows import SplitRows

_BINS = 10
_NAMED = 20
"""Classes whose names are written at a confusion matrix, and whose counts stand in it."""


def write_plots(
    folder: Path, labels: Sequence[LabelFeature], rows: SplitRows, predicted: Mapping[str, NDArray[Any]]
) -> None:
    """Write the images as TensorBoard's events into a folder, in place of what is there.

    predicted: as `evaluate.stage.predict` returns it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        for label in labels:
            for name, figure in _figures(label, rows.labels[label.name], predicted[label.name]):
                tf.summary.image(f"{prefix_of(label, labels)}{name}", _pixels(figure)[None])
    writer.close()


def _figures(label: LabelFeature, truth: NDArray[Any], predicted: NDArray[Any]) -> Iterator[tuple[str, Any]]:
    if label.kind == "regression":
        yield "predicted_against_true", _scatter(truth, predicted)
    elif label.kind == "binary":
        yield "confusion_matrix", _confusion(truth.astype(int), (predicted >= 0.5).astype(int), ("0", "1"))
        yield "calibration", _calibration(truth, predicted, "share of 1")
    elif label.kind == "multi_label":
        yield "calibration", _calibration(truth.ravel(), predicted.ravel(), "share of rows that have the class")
    else:
        chosen = predicted.argmax(axis=1)
        yield "confusion_matrix", _confusion(truth.astype(int), chosen, label.classes)
        right = (chosen == truth).astype(float)
        yield "calibration", _calibration(right, predicted.max(axis=1), "share that is right")


def counts_of_confusion(truth: NDArray[np.int64], chosen: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how many rows of each class (down) were taken for each (across), (classes, classes)."""
    return np.bincount(truth * classes + chosen, minlength=classes * classes).reshape(classes, classes)


def calibration(truth: NDArray[Any], probability: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return by tenth of probability, of those with rows: its mean, the share that is true, and the rows."""
    place = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    rows = np.bincount(place, minlength=_BINS)
    some = rows > 0
    mean, share = (np.bincount(place, weights=of, minlength=_BINS)[some] / rows[some] for of in (probability, truth))
    return mean, share, rows[some]


def _confusion(truth: NDArray[Any], chosen: NDArray[Any], classes: Sequence[str]) -> Any:
    counts = counts_of_confusion(truth, chosen, len(classes))
    figure, axes = _figure()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title="rows of each class, by what they were taken for")
    if len(classes) <= _NAMED:
        places = range(len(classes))
        axes.set_xticks(places, classes, rotation=90 if len(classes) > 4 else 0)
        axes.set_yticks(places, classes)
        for down in places:
            for across in places:
                color = "white" if shares[down, across] > 0.5 else "black"
                axes.text(across, down, f"{counts[down, across]:,}", ha="center", va="center", color=color)
    return figure


def _calibration(truth: NDArray[Any], probability: NDArray[Any], what: str) -> Any:
    mean, share, rows = calibration(truth, probability)
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    axes.plot(mean, share, marker="o", label="model")
    for x, y, count in zip(mean, share, rows, strict=True):
        axes.annotate(f"{count:,}", (x, y), textcoords="offset points", xytext=(6, -10), fontsize=7)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel=what, title="calibration, with rows")
    axes.legend(loc="upper left")
    return figure


def _scatter(truth: NDArray[Any], predicted: NDArray[Any]) -> Any:
    figure, axes = _figure()
    axes.hexbin(truth, predicted, gridsize=50, bins="log", cmap="Blues")
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    axes.plot([low, high], [low, high], color="grey", linestyle="--")
    axes.set(xlabel="true", ylabel="predicted", title="predictions against the truth")
    return figure


def _figure() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _pixels(figure: Any) -> NDArray[np.uint8]:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
