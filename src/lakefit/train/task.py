"""What a label asks of the model: how many outputs, which last activation, which losses and metrics."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem
from lakefit.config.file import Key
from lakefit.dataset.features import LabelFeature

_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_SPARSE = ("sparse_categorical_crossentropy",)
_ONE_HOT = ("categorical_crossentropy", "categorical_focal_crossentropy", "kl_divergence", "categorical_hinge")
_HINGE = ("hinge", "squared_hinge")
_PROBABILITIES = (*_BINARY, *_SPARSE, *_ONE_HOT)
_DEFAULT_LOSS = {
    "binary": "binary_crossentropy",
    "classes": "sparse_categorical_crossentropy",
    "multi_label": "binary_crossentropy",
    "regression": "mean_squared_error",
}

_SAID = {
    "binary": "a label of 0 and 1",
    "classes": "a label of one class of several",
    "multi_label": "a label of any number of classes",
    "regression": "a label that is a number",
}
_EXPECTED = {
    "binary": "loss: binary_crossentropy, and {Dense: {units: 1, activation: sigmoid}} as the last layer",
    "classes": "loss: sparse_categorical_crossentropy (or categorical_crossentropy), and {Dense: {units: %s, "
    "activation: softmax}} as the last layer",
    "multi_label": "loss: binary_crossentropy, and {Dense: {units: %s, activation: sigmoid}} as the last layer",
    "regression": "loss: mean_squared_error (or another one of keras.losses for numbers), and {Dense: {units: 1}} as "
    "the last layer",
}
_REFUSED = {
    "binary": (*_SPARSE, *_ONE_HOT),
    "classes": (*_BINARY, *_HINGE),
    "multi_label": (*_SPARSE, *_ONE_HOT, *_HINGE),
    "regression": (*_PROBABILITIES, *_HINGE),
}

# Metrics, in snake case, by what they compare.
_OF_SPARSE = ("sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy", "sparse_categorical_crossentropy")
_OF_ONE_HOT = ("categorical_accuracy", "top_k_categorical_accuracy", "categorical_crossentropy")
_OF_EACH = (
    "auc", "precision", "recall", "f1_score", "fbeta_score", "precision_at_recall", "recall_at_precision",
    "sensitivity_at_specificity", "specificity_at_sensitivity", "true_positives", "true_negatives", "false_positives",
    "false_negatives",
)  # fmt: skip
_OF_BINARY = ("binary_accuracy", "binary_crossentropy", "binary_io_u")
_OF_CLASSES = (*_OF_SPARSE, *_OF_ONE_HOT, *_OF_EACH, *_OF_BINARY, "accuracy", "io_u", "mean_io_u", "one_hot_io_u")
_UNFIT = {
    "binary": (*_OF_SPARSE, *_OF_ONE_HOT),
    "multi_label": (*_OF_SPARSE, *_OF_ONE_HOT),
    "sparse": (*_OF_ONE_HOT, *_OF_EACH, *_OF_BINARY),
    "one_hot": (*_OF_SPARSE, *_OF_BINARY),
    "regression": _OF_CLASSES,
}
_FITTING = {
    "binary": "accuracy, AUC, Precision, Recall",
    "multi_label": "accuracy, AUC, Precision, Recall",
    "sparse": "accuracy, SparseCategoricalAccuracy, SparseTopKCategoricalAccuracy (others compare one number a class: "
    "they go with loss: categorical_crossentropy)",
    "one_hot": "accuracy, CategoricalAccuracy, TopKCategoricalAccuracy, F1Score, AUC",
    "regression": "MeanAbsoluteError, RootMeanSquaredError, R2Score",
}


def default_loss(label: LabelFeature) -> str:
    """Return the loss of a label for which none is named."""
    return _DEFAULT_LOSS[label.kind]


def check_loss(label: LabelFeature, loss: Any, key: Key, source: PipelineSource) -> None:
    """Raise ConfigError where a loss can't belong to a label. One of the user's own is not judged."""
    name, _ = loss_of(loss)
    if name in _REFUSED[label.kind]:
        raise source.error(Problem(key, f"{name} is no loss {expected(label)}"))


def check_output(
    label: LabelFeature,
    shape: Sequence[int | None],
    activation: str | None,
    loss: Any,
    key: Key,
    source: PipelineSource,
) -> None:
    """Raise ConfigError, in plain words, where what the model gives can't belong to label and loss.

    shape: of the output. activation: of the layer that gives it, None where that is not known. key: of that layer.
    """
    due = label.outputs if label.classes else None
    right = len(shape) == 2 and shape[0] is None and shape[1] == (due or (shape[1] if _has_classes(label) else 1))
    if not right:
        wanted = f"(None, {due or ('classes' if _has_classes(label) else 1)})"
        shown = f"({', '.join(map(str, shape))})"
        raise source.error(Problem(key, f"the last layer gives {shown}, and {wanted} is due; {expected(label)}"))
    name, from_logits = loss_of(loss)
    wrong = None
    if label.kind == "regression":
        if activation == "softmax" or (activation == "sigmoid" and (label.offset, label.scale) != (0.0, 1.0)):
            wrong = "keeps predictions between 0 and 1, where the label does not stay"
    elif name in _PROBABILITIES and activation is not None:
        of_label = "linear" if from_logits else "softmax" if label.kind == "classes" else "sigmoid"
        if activation != of_label:
            wrong = f"is not {of_label}, which {name}{' with from_logits: true' if from_logits else ''} wants"
    if wrong is not None:
        raise source.error(Problem(key, f"the last layer's activation, {activation}, {wrong}; {expected(label)}"))


def check_metric(
    label: LabelFeature, name: str, arguments: Mapping[str, Any], loss: Any, key: Key, source: PipelineSource
) -> None:
    """Raise ConfigError where a metric of Keras can't be of such a label, or measures something else than it says."""
    kind = ("one_hot" if wants_one_hot(label, loss) else "sparse") if label.kind == "classes" else label.kind
    if metric_name(name) in _UNFIT[kind]:
        message = f"{name} is no metric for {_SAID[label.kind]}; expected such as {_FITTING[kind]}"
        raise source.error(Problem(key, message))
    _, from_logits = loss_of(loss)
    if from_logits and metric_name(name) == "auc" and not arguments.get("from_logits"):
        raise source.error(
            Problem(key, "the loss takes logits, and AUC probabilities: give it from_logits: true as well")
        )


def accuracy_of(label: LabelFeature, loss: Any, name: str) -> keras.metrics.Metric:
    """Return the accuracy that fits label and loss: of whether the class, or each yes or no, is right."""
    if label.kind == "classes":
        sparse, one_hot = keras.metrics.SparseCategoricalAccuracy, keras.metrics.CategoricalAccuracy
        return (one_hot if wants_one_hot(label, loss) else sparse)(name=name)
    # Keras would take several columns of yes and no for one class of several, and logits for probabilities.
    _, from_logits = loss_of(loss)
    return keras.metrics.BinaryAccuracy(name=name, threshold=0.0 if from_logits else 0.5)


def expected(label: LabelFeature) -> str:
    """Return in words what goes with a label."""
    words = _EXPECTED[label.kind].replace("%s", str(len(label.classes) or "N"))
    return f"for {_SAID[label.kind]}, expected {words}"


def loss_of(loss: Any) -> tuple[str, bool]:
    """Return a loss in snake case, as Keras calls its function, and whether it takes logits."""
    function = getattr(loss, "fn", loss)
    name = getattr(function, "__name__", type(loss).__name__)
    return snake_case(name), bool((getattr(loss, "_fn_kwargs", None) or {}).get("from_logits", False))


def snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it for the function."""
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def metric_name(name: str) -> str:
    """Return a metric's name, of a class or in short, in snake case."""
    short = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "acc": "accuracy", "AUC": "auc"}
    return short.get(name, snake_case(name))


def wants_one_hot(label: LabelFeature, loss: Any) -> bool:
    """Say whether the loss compares with one number for each class."""
    return label.kind == "classes" and loss_of(loss)[0] in _ONE_HOT


def as_probabilities(output: Any, label: LabelFeature, loss: Any) -> Any:
    """Return a model's output with the activation that its loss applied: probabilities are evaluated and exported."""
    _, from_logits = loss_of(loss)
    if not from_logits or label.kind == "regression":
        return output
    activation = "softmax" if label.kind == "classes" else "sigmoid"
    return keras.layers.Activation(activation, dtype="float32", name=f"lakefit_probability_{label.name}")(output)


def one_hot(label: Any, classes: int) -> Any:
    """Return (n, 1) places of classes as (n, classes) of 0 and 1."""
    return keras.ops.one_hot(keras.ops.cast(label[:, 0], "int32"), classes)


def _has_classes(label: LabelFeature) -> bool:
    """Say whether a label has classes, which may not be known before preparation has run."""
    return label.kind in ("classes", "multi_label")
