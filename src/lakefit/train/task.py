"""What a label asks of the model: how many outputs, which last activation, which losses."""

import re
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem
from lakefit.config.file import Key
from lakefit.config.train import Train, keras_name_and_arguments
from lakefit.dataset.features import LabelFeature

_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_SPARSE = ("sparse_categorical_crossentropy",)
_ONE_HOT = ("categorical_crossentropy", "categorical_focal_crossentropy", "kl_divergence", "categorical_hinge")
_HINGE = ("hinge", "squared_hinge")
_PROBABILITIES = (*_BINARY, *_SPARSE, *_ONE_HOT)

_SAID = {
    "binary": "a label of 0 and 1",
    "classes": "a label of one class of several",
    "regression": "a label that is a number",
}
_EXPECTED = {
    "binary": "loss: binary_crossentropy, and {Dense: {units: 1, activation: sigmoid}} as the last layer",
    "classes": "loss: sparse_categorical_crossentropy (or categorical_crossentropy), and {Dense: {units: %d, "
    "activation: softmax}} as the last layer",
    "regression": "loss: mean_squared_error (or another one of keras.losses for numbers), and {Dense: {units: 1}} as "
    "the last layer",
}


def check_task(
    shape: tuple[Any, ...], layer: keras.layers.Layer, train: Train, label: LabelFeature, source: PipelineSource
) -> None:
    """Raise ConfigError, in plain words, where last layer, loss and label can't belong together.

    shape: of the model's output. layer: the last one. A loss of the user's own is not judged.
    """
    name, from_logits = loss_of(train)
    expected = f"for {_SAID[label.kind]}, expected {_EXPECTED[label.kind]}".replace("%d", str(len(label.classes)))
    loss_key: Key = ("train", "compile", "loss")
    refused = {
        "binary": (*_SPARSE, *_ONE_HOT),
        "classes": (*_BINARY, *_HINGE),
        "regression": (*_PROBABILITIES, *_HINGE),
    }[label.kind]
    if name in refused:
        raise source.error(Problem(loss_key, f"{name} is no loss {expected}"))
    last: Key = ("train", "model", "sequential", len(train.model.sequential) - 1)
    outputs = max(1, len(label.classes))
    if shape != (None, outputs):
        raise source.error(Problem(last, f"the last layer gives {shape}, and (None, {outputs}) is due; {expected}"))
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    wrong = None
    if label.kind == "regression":
        if activation == "softmax" or (activation == "sigmoid" and (label.offset, label.scale) != (0.0, 1.0)):
            wrong = "keeps predictions between 0 and 1, where the label does not stay"
    elif name in _PROBABILITIES and activation is not None:
        due = "linear" if from_logits else "sigmoid" if label.kind == "binary" else "softmax"
        if activation != due:
            wrong = f"is not {due}, which {name}{' with from_logits: true' if from_logits else ''} wants"
    if wrong is not None:
        raise source.error(Problem(last, f"the last layer's activation, {activation}, {wrong}; {expected}"))


def loss_of(train: Train) -> tuple[str, bool]:
    """Return the loss in snake case, as Keras calls its function, and whether it takes logits."""
    name, arguments = keras_name_and_arguments(train.compile.loss)
    return snake_case(_ALIASES.get(name, name)), bool(arguments.get("from_logits", False))


_ALIASES = {"KLDivergence": "kl_divergence", "kld": "kl_divergence", "bce": "binary_crossentropy"}


def snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it for the function."""
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def wants_one_hot(train: Train) -> bool:
    """Say whether the loss compares with one number for each class."""
    return loss_of(train)[0] in _ONE_HOT


def with_probabilities(model: keras.Model, train: Train, label: LabelFeature) -> keras.Model:
    """Return the model with the activation that its loss applied: probabilities are evaluated and exported."""
    _, from_logits = loss_of(train)
    if not from_logits or label.kind == "regression":
        return model
    activation = "sigmoid" if label.kind == "binary" else "softmax"
    return keras.Model(model.input, keras.layers.Activation(activation, name="lakefit_probability")(model.output))


def with_one_hot(inputs: Any, label: Any, *weight: Any, classes: int) -> tuple[Any, ...]:
    """Return a batch with its label, (n, 1) places of classes, as (n, classes) of 0 and 1."""
    return (inputs, keras.ops.one_hot(keras.ops.cast(label[:, 0], "int32"), classes), *weight)
