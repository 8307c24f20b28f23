"""A model that a function of the user's makes (`train.model: module:function`), held against the dataset."""

import inspect
import re
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lakefit.config import PipelineSource, Problem
from lakefit.config.file import ConfigError, Key
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.predictions import by_label
from lakefit.train.inputs import DatasetDescription, NotLearnedError
from lakefit.train.objects import own, refusal
from lakefit.train.workers import GONE

MODEL: Key = ("train", "model")
OfArrays = Callable[[Mapping[str, Any]], Any]
"""From the dataset's arrays by name to what a model takes."""


def call_function(name: str, description: DatasetDescription, source: PipelineSource) -> keras.Model:
    """Return the model that the function `name` makes of the dataset's description.

    Raises:
        ConfigError: it can't be imported, raises, or returns no model. NotLearnedError: it asks for what has not been
            learned yet.
    """
    function = own(name, MODEL, source)
    try:
        model = function(description)
    except (NotLearnedError, *GONE):
        raise
    except Exception as error:
        raise source.error(Problem(MODEL, f"{name} raised {_raised(error)}")) from error
    if not isinstance(model, keras.Model):
        found = "nothing" if model is None else f"a {type(model).__name__}"
        raise source.error(Problem(MODEL, f"{name} returned {found}; expected a keras.Model"))
    return model


def inputs_of(name: str, model: keras.Model, description: DatasetDescription, source: PipelineSource) -> OfArrays:
    """Return what makes a model's inputs of the dataset's arrays; the model is held against these."""
    given = {tensor: tuple(value.shape) for tensor, value in description.inputs().tensors.items()}
    has = ", ".join(f"{tensor} {_shape(shape)}" for tensor, shape in given.items())
    if not (isinstance(model, keras.Sequential) or hasattr(model, "_inputs_struct")):
        # A subclass of the user's takes them as they come.
        return dict
    struct = getattr(model, "_inputs_struct", None)
    if not model.built or struct is None:
        # Sequential without a shape of its own.
        if len(given) > 1:
            message = f"{name} returned a Sequential model, which takes one input, and the dataset gives {has}: "
            raise source.error(Problem(MODEL, message + "build on data.inputs() (docs/train.md)"))
        return lambda arrays: arrays[next(iter(given))]
    tensors = struct if isinstance(struct, dict) else {tensor.name: tensor for tensor in model.inputs}
    if len(given) == len(tensors) == 1 and not set(tensors) & set(given):
        # There is no doubt which one is meant.
        tensors = dict(zip(given, tensors.values(), strict=True))
        alone = True
    else:
        alone = not isinstance(struct, dict)
    for wanted, tensor in tensors.items():
        if wanted not in given:
            message = f"the model of {name} has an input {wanted!r}, and the dataset gives {has}"
            raise source.error(Problem(MODEL, f"{message}: build on data.inputs() (docs/train.md)"))
        if tuple(tensor.shape[1:]) not in (given[wanted][1:], (None,) * (len(given[wanted]) - 1)):
            message = f"the model of {name} takes {wanted} {_shape(tensor.shape)}, and the dataset gives {has}"
            raise source.error(Problem(MODEL, f"{message}: build on data.inputs() (docs/train.md)"))
    names = list(tensors)
    if alone:
        return lambda arrays: arrays[names[0]] if len(names) == 1 else [arrays[wanted] for wanted in names]
    return lambda arrays: {wanted: arrays[wanted] for wanted in names}


def losses_compiled(model: keras.Model, labels: Sequence[LabelFeature]) -> dict[str, Any]:
    """Return the losses that a model was compiled with, by label; nothing of those that can't be told."""
    given = model.loss
    by_name = given if isinstance(given, dict) else {labels[0].name: given} if len(labels) == 1 else {}
    return {
        label.name: keras.losses.get(by_name[label.name])
        if isinstance(by_name[label.name], str)
        else by_name[label.name]
        for label in labels
        if by_name.get(label.name) is not None
    }


def last_activation(model: keras.Model, label: LabelFeature) -> str | None:
    """Return the activation of the layer that gives a label, where the model's graph tells."""
    output = getattr(model, "_outputs_struct", None)
    output = output.get(label.name) if isinstance(output, dict) else output
    layer = getattr(output, "_keras_history", (None,))[0]
    return getattr(getattr(layer, "activation", None), "__name__", None)


def try_model(
    model: keras.Model, of_arrays: OfArrays, description: DatasetDescription, source: PipelineSource
) -> dict[str, Any]:
    """Run the model on two rows, of zeros and of the highest index of each category; return its outputs by label.

    Raises:
        ConfigError: it fails on them, an embedding is smaller than its vocabulary, or an output is missing.
    """
    arrays: dict[str, Any] = {}
    for name, tensor in description.inputs().tensors.items():
        arrays[name] = np.zeros((2, *tensor.shape[1:]), tensor.dtype)
    highest = [lookup.size - 1 for lookup in description.features.lookups for _ in range(lookup.width)]
    if highest:
        arrays["categorical"][1] = highest
    try:
        # GPUs give zeros for an index that an embedding does not have; CPUs refuse.
        with tf.device("CPU:0"), warnings.catch_warnings():
            # Keras warns that it can't build a subclass without a call; this is the call.
            warnings.simplefilter("ignore")
            outputs = model(of_arrays({name: tf.constant(value) for name, value in arrays.items()}))
    except Exception as error:
        outside = re.search(r"indices\[.*\] = (\d+) is not in \[0, (\d+)\)", str(error))
        if outside:
            size, there = int(outside[1]) + 1, int(outside[2])
            columns = [lookup.name for lookup in description.features.lookups if lookup.size == size]
            message = (
                f"an embedding has {there:,} indices, and {' or '.join(map(repr, columns[:3]))} has {size:,} (missing, "
                f"unknown and {size - 2:,} values): give it input_dim: {size}, or ask data.categories(column)"
            )
            raise source.error(Problem(MODEL, message)) from error
        shapes = ", ".join(f"{name} {_shape((None, *value.shape[1:]))}" for name, value in arrays.items())
        raise source.error(
            Problem(MODEL, f"the model fails on rows of the dataset ({shapes}): {_raised(error)}")
        ) from error
    labels = description.labels
    if len(labels) == 1 and isinstance(outputs, dict):
        raise _output_error(labels, f"a mapping with {', '.join(outputs)}", source)
    if len(labels) > 1 and not (isinstance(outputs, dict) and set(outputs) == {label.name for label in labels}):
        found = f"a mapping with {', '.join(outputs)}" if isinstance(outputs, dict) else f"a {type(outputs).__name__}"
        raise _output_error(labels, found, source)
    return by_label(outputs, labels)


def _output_error(labels: Sequence[LabelFeature], found: str, source: PipelineSource) -> ConfigError:
    names = ", ".join(label.name for label in labels)
    wanted = "one tensor" if len(labels) == 1 else f"a mapping with {names}"
    return source.error(Problem(MODEL, f"the model gives {found}; expected {wanted}, the prediction of {names}"))


def _raised(error: Exception) -> str:
    """Return an error's type, text, and the innermost line of the user's own code."""
    here = inspect.getfile(keras).rsplit("/", 1)[0], inspect.getfile(tf).rsplit("/", 1)[0], __file__.rsplit("/", 1)[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(here)]
    at = f" ({frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {refusal(error)}{at}"


def _shape(shape: Sequence[int | None]) -> str:
    return f"({', '.join(map(str, shape))})"
