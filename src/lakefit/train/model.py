"""The model of a pipeline file: its layers on the dataset's inputs, or what a function of the user's makes of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem, nearest
from lakefit.config.file import Key
from lakefit.config.train import Compile, Functional, KerasObject, Model, Train, TrainImages, keras_name_and_arguments
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.predictions import as_given, by_label
from lakefit.train.application import application_output, top_of
from lakefit.train.compiled import compile_model, losses_of
from lakefit.train.inputs import DatasetDescription, Inputs
from lakefit.train.normalize import MOST_WHITENED, is_normalized
from lakefit.train.objects import make, refusal
from lakefit.train.own_model import (
    MODEL,
    OfArrays,
    call_function,
    inputs_of,
    last_activation,
    losses_compiled,
    try_model,
)
from lakefit.train.task import as_probabilities, check_output, one_hot, wants_one_hot
from lakefit.train.workers import GONE

# Layers that combine several tensors; all others take one.
_COMBINING = (
    keras.layers.Add, keras.layers.Average, keras.layers.Concatenate, keras.layers.Dot, keras.layers.Maximum,
    keras.layers.Minimum, keras.layers.Multiply, keras.layers.Subtract, keras.layers.Attention,
    keras.layers.AdditiveAttention,
)  # fmt: skip
# Layers that take a category's index, not its embedding.
_OF_INDICES = (keras.layers.Embedding, keras.layers.CategoryEncoding)


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A compiled model and how it goes with the dataset.

    losses: by label, None where a model compiled by the user's function has its own way. logged: the names in its logs,
    None where they are not known. of_arrays: from the dataset's arrays to what the model takes.
    """

    model: keras.Model
    description: DatasetDescription
    losses: Mapping[str, Any]
    logged: list[str] | None
    of_arrays: OfArrays

    @property
    def takes_batches_as_they_are(self) -> bool:
        """True where `batch` has nothing to do."""
        return self.of_arrays is dict and not any(map(self._is_one_hot, self.description.labels))

    def _is_one_hot(self, label: LabelFeature) -> bool:
        return wants_one_hot(label, self.losses.get(label.name))

    def batch(self, arrays: Mapping[str, Any], target: Any, *weight: Any) -> tuple[Any, ...]:
        """Return a batch of the feed as the model takes it, with one-hot labels for losses that compare with them."""
        return (self.of_arrays(arrays), self.target(target), *weight)

    def target(self, target: Any) -> Any:
        """Return labels of the feed as the loss compares with them."""
        labels = self.description.labels
        targets = by_label(target, labels)
        for label in labels:
            if self._is_one_hot(label):
                targets[label.name] = one_hot(targets[label.name], len(label.classes))
        return as_given(targets, labels)

    def predictor(self) -> keras.Model:
        """Return the model of the dataset's arrays by name that gives probabilities or numbers, by label if several."""
        inputs = self.description.inputs().tensors
        labels = self.description.labels
        outputs = by_label(self.model(self.of_arrays(inputs)), labels)
        for label in labels:
            output = as_probabilities(outputs[label.name], label, self.losses.get(label.name))
            outputs[label.name] = keras.ops.cast(output, "float32")
        return keras.Model(inputs, as_given(outputs, labels), name="lakefit_model")


def build_model(description: DatasetDescription, train: Train, source: PipelineSource) -> BuiltModel:
    """Return the compiled model of a pipeline file.

    Raises:
        ConfigError: an unknown layer, loss, optimizer or metric, an argument that Keras refuses, what does not belong
            to the label, or a function of the user's that makes no model of the dataset. NotLearnedError: such a
            function asks for what has not been learned yet.
    """
    with _policy(train.dtype_policy):
        if isinstance(train.model, str):
            return _of_function(train.model, description, train, source)
        section = train.compile or Compile()
        losses = losses_of(section, description.labels, source)
        inputs = description.inputs()
        _check_whitening(train.images, description, source)
        if train.model.functional is not None:
            outputs = _functional(train.model.functional, inputs, description.labels, source)
        else:
            outputs = _sequential(train.model, inputs, description, source)
        for label in description.labels:
            tensor, layer, key = outputs[label.name]
            activation = getattr(getattr(layer, "activation", None), "__name__", None)
            check_output(label, tuple(tensor.shape), activation, losses[label.name], key, source)
        tensors = {name: tensor for name, (tensor, _, _) in outputs.items()}
        model = keras.Model(inputs.tensors, as_given(tensors, description.labels), name="lakefit_model")
        logged = compile_model(model, section, losses, description.labels, source)
    if any(train.own_code()):
        try_model(model, dict, description, source)
    return BuiltModel(model, description, losses, logged, dict)


def _check_whitening(images: TrainImages, description: DatasetDescription, source: PipelineSource) -> None:
    for feature in description.features.images if images.normalize == "zca" else ():
        size = math.prod(feature.shape)
        if size > MOST_WHITENED:
            message = f"zca learns a matrix of {size:,} x {size:,} numbers for {feature.name!r}, and the most is "
            raise source.error(Problem(("train", "images", "normalize"), f"{message}{MOST_WHITENED:,}: standard"))


def _of_function(name: str, description: DatasetDescription, train: Train, source: PipelineSource) -> BuiltModel:
    model, labels = call_function(name, description, source), description.labels
    of_arrays = inputs_of(name, model, description, source)
    # What the pipeline file says stands above what the function has compiled.
    compiled = bool(model.compiled) and train.compile is None
    section = train.compile or Compile()
    losses = losses_compiled(model, labels) if compiled else losses_of(section, labels, source)
    _check_whitening(train.images, description, source)
    if train.images.normalize != "none" and not is_normalized(model, description.features.images):
        message = f"{name} takes images as they are: description.inputs().encoded('<column>') are the normalized ones"
        raise source.error(Problem(("train", "images", "normalize"), message))
    outputs = try_model(model, of_arrays, description, source)
    for label in labels:
        shape, activation = (None, *outputs[label.name].shape[1:]), last_activation(model, label)
        check_output(label, shape, activation, losses.get(label.name), MODEL, source)
    logged = None if compiled else compile_model(model, section, losses, labels, source)
    return BuiltModel(model, description, losses, logged, of_arrays)


@contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


_Output = tuple[Any, Any, Key]
"""A tensor, the layer that gives it, and where that stands in the pipeline file."""


def _sequential(
    section: Model, inputs: Inputs, description: DatasetDescription, source: PipelineSource
) -> dict[str, _Output]:
    labels = description.labels
    key: Key = (*MODEL, "application" if section.sequential is None else "sequential")
    if len(labels) > 1:
        names = ", ".join(label.name for label in labels)
        raise source.error(Problem(key, f"one layer after the other gives one prediction, and the labels are {names}: "
                                        "write a functional model, with a layer for each"))  # fmt: skip
    if section.application is not None:
        x = application_output(section, description.features.images, inputs, source)
    else:
        try:
            x = inputs.encoded()
        except ValueError as error:
            raise source.error(Problem(key, str(error))) from error
    layer: Any = None
    specs = section.sequential or (top_of(labels[0]),)
    for place, spec in enumerate(specs):
        at: Key = (*key, place) if section.sequential is not None else key
        layer = _layer(spec, at, source, last=place == len(specs) - 1)
        x = _applied(layer, x, at, source)
    return {labels[0].name: (x, layer, at)}


def _functional(
    section: Functional, inputs: Inputs, labels: Sequence[LabelFeature], source: PipelineSource
) -> dict[str, _Output]:
    key: Key = (*MODEL, "functional")
    for name in section.layers:
        if name in inputs.names or name in section.inputs:
            what = "an entry of inputs" if name in section.inputs else "a column or a group of features"
            raise source.error(Problem((*key, "layers", name), f"{name!r} is the name of {what}; choose another one"))
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in inputs.names}
    for name, columns in section.inputs.items():
        for place, column in enumerate(columns):
            if column not in inputs.names:
                message = f"there is no column or group {column!r}{nearest(column, inputs.names)}"
                raise source.error(Problem((*key, "inputs", name, place), message))
        groups[name] = columns
    outputs = _outputs(section, labels, (*key, "outputs"), source)
    made: dict[str, _Output] = {}
    used: set[str] = set(outputs.values())
    above: str | None = None
    for name, entry in section.layers.items():
        at: Key = (*key, "layers", name)
        layer = _layer(entry.layer, (*at, "layer"), source, last=name in outputs.values())
        if entry.inputs is None and above is None:
            raise source.error(Problem(at, "the first layer has none above it: say what its inputs are"))
        given: tuple[Any, ...] = entry.inputs if isinstance(entry.inputs, tuple) else (entry.inputs or above,)
        for place, wanted in enumerate(given):
            if wanted not in made and wanted not in groups:
                where: Key = (*at, "inputs") if isinstance(entry.inputs, str) else (*at, "inputs", place)
                later = f"; {wanted!r} stands below, and a layer takes what stands above" * (wanted in section.layers)
                known = [*made, *section.inputs, *inputs.names]
                raise source.error(
                    Problem(where, f"nothing is called {wanted!r}{later or nearest(str(wanted), known)}")
                )
            used.add(str(wanted))
        x = _taken(layer, entry.layer, [str(name) for name in given], made, groups, inputs, at, source)
        made[name] = (_applied(layer, x, at, source), layer, at)
        above = name
    idle = next((name for name in (*section.layers, *section.inputs) if name not in used), None)
    if idle is not None:
        where = (*key, "layers" if idle in section.layers else "inputs", idle)
        raise source.error(Problem(where, f"nothing takes {idle!r}, and it is no output"))
    return {label: made[layer] for label, layer in outputs.items()}


def _outputs(section: Functional, labels: Sequence[LabelFeature], key: Key, source: PipelineSource) -> dict[str, str]:
    """Return the layer of each label."""
    given, names = section.outputs, [label.name for label in labels]
    if isinstance(given, str):
        if len(labels) > 1:
            raise source.error(Problem(key, f"there are several labels: name a layer for each, {{{names[0]}: ...}}"))
        given = {names[0]: given}
    elif given is None:
        given = {name: name for name in names if name in section.layers}
        if len(labels) == 1 and not given:
            given = {names[0]: list(section.layers)[-1]}
    for label, layer in given.items():
        if label not in names:
            raise source.error(Problem((*key, label), f"there is no label {label!r}{nearest(label, names)}"))
        if layer not in section.layers:
            at = key if isinstance(section.outputs, str) else (*key, label)
            raise source.error(Problem(at, f"there is no layer {layer!r}{nearest(layer, section.layers)}"))
    missing = [name for name in names if name not in given]
    if missing:
        message = f"no layer gives the label {missing[0]!r}: name one in outputs, or call it so"
        raise source.error(Problem(key, message))
    return {name: given[name] for name in names}


def _taken(
    layer: Any,
    spec: KerasObject,
    names: Sequence[str],
    made: Mapping[str, _Output],
    groups: Mapping[str, Sequence[str]],
    inputs: Inputs,
    key: Key,
    source: PipelineSource,
) -> Any:
    """Return what a layer takes: one tensor, or a list for layers that combine several and those of the user's."""
    if isinstance(layer, _OF_INDICES):
        columns = [column for name in names if name not in made for column in groups[name]]
        if len(columns) and len(names) == sum(name not in made for name in names):
            try:
                indices = inputs.indices(*columns)
            except ValueError as error:
                raise source.error(Problem((*key, "inputs"), str(error))) from error
            _check_sizes(layer, spec, inputs.sizes(*columns), (*key, "layer"), source)
            return indices[:, 0] if indices.shape[1] == 1 and isinstance(layer, keras.layers.Embedding) else indices
    try:
        tensors = [made[name][0] if name in made else inputs.encoded(*groups[name]) for name in names]
    except ValueError as error:
        raise source.error(Problem((*key, "inputs"), str(error))) from error
    if len(tensors) == 1:
        return tensors[0]
    if isinstance(layer, _COMBINING) or ":" in keras_name_and_arguments(spec)[0]:
        return tensors
    return _applied(keras.layers.Concatenate(), tensors, key, source)


def _check_sizes(layer: Any, spec: KerasObject, sizes: Mapping[str, int], key: Key, source: PipelineSource) -> None:
    argument = "input_dim" if isinstance(layer, keras.layers.Embedding) else "num_tokens"
    there = getattr(layer, argument, None)
    for column, size in sizes.items():
        if isinstance(there, int) and there < size:
            name, _ = keras_name_and_arguments(spec)
            message = (
                f"{column!r} has {size:,} indices (missing, unknown and {size - 2:,} values), more than {there:,}: "
                f"give {argument}: {size}"
            )
            raise source.error(Problem((*key, name, argument), message))


def _layer(spec: KerasObject, key: Key, source: PipelineSource, *, last: bool) -> Any:
    name, arguments = keras_name_and_arguments(spec)
    if last and ":" not in name and "dtype" not in arguments and keras.config.dtype_policy().name != "float32":
        # Probabilities and losses need the digits that 16 bits lack.
        spec = {name: {**arguments, "dtype": "float32"}}
    layer = make(keras.layers, spec, key, source)
    if not isinstance(layer, keras.layers.Layer):
        raise source.error(Problem(key, f"{name} makes a {type(layer).__name__}; expected a keras Layer"))
    return layer


def _applied(layer: Any, x: Any, key: Key, source: PipelineSource) -> Any:
    try:
        return layer(x)
    except GONE:
        raise
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in x] if isinstance(x, list) else tuple(x.shape)
        raise source.error(Problem(key, f"the layer does not fit its input {shapes}: {refusal(error)}")) from error
