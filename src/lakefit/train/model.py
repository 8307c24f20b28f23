"""The model of a pipeline file: sensible inputs for the dataset's features, then the layers that it names."""

import inspect
import math
from types import ModuleType
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem, nearest
from lakefit.config.file import Key
from lakefit.config.train import Compile, KerasObject, Train, keras_name_and_arguments
from lakefit.dataset.features import Features, LabelFeature
from lakefit.train.task import check_task, snake_case


def build_model(features: Features, label: LabelFeature, train: Train, source: PipelineSource) -> keras.Model:
    """Return the compiled model of inputs `numeric` (n, k) float32 and `categorical` (n, m) int32.

    Each category is embedded in `embedding_size` dimensions and laid beside the numbers, a list's values summed; the
    layers follow.

    Raises:
        ConfigError: an unknown layer, loss, optimizer or metric, an argument that Keras refuses, or what does not
            belong to the label.
    """
    inputs: dict[str, Any] = {}
    parts: list[Any] = []
    if features.numeric_columns:
        inputs["numeric"] = keras.Input((len(features.numeric_columns),), dtype="float32", name="numeric")
        parts.append(inputs["numeric"])
    if features.lookups:
        inputs["categorical"] = keras.Input((len(features.categorical_columns),), dtype="int32", name="categorical")
        column = 0
        for place, lookup in enumerate(features.lookups):
            embedding = keras.layers.Embedding(
                lookup.size, embedding_size(lookup.size), name=f"lakefit_embedding_{place}"
            )
            columns = [keras.ops.take(inputs["categorical"], column + i, axis=1) for i in range(lookup.width)]
            parts.append(embedding(columns[0]) if lookup.width == 1 else _pooled(embedding, columns))
            column += lookup.width
    x = keras.layers.Concatenate(name="lakefit_inputs")(parts) if len(parts) > 1 else parts[0]
    for place, spec in enumerate(train.model.sequential):
        key: Key = ("train", "model", "sequential", place)
        layer = _make(keras.layers, spec, key, source)
        try:
            x = layer(x)
        except (ValueError, TypeError) as error:
            raise source.error(Problem(key, f"the layer does not fit its input {tuple(x.shape)}: {error}")) from error
    check_task(tuple(x.shape), layer, train, label, source)
    model = keras.Model(inputs, x, name="lakefit_model")
    _compile(model, train.compile, source)
    return model


def _pooled(embedding: keras.layers.Layer, columns: list[Any]) -> Any:
    """Return the sum of the embeddings of a list's values; what fills the list up (index 0) adds nothing."""
    indices = keras.ops.stack(columns, axis=1)
    there = keras.ops.cast(keras.ops.expand_dims(keras.ops.not_equal(indices, 0), -1), "float32")
    return keras.ops.sum(embedding(indices) * there, axis=1)


def embedding_size(categories: int) -> int:
    """Return the dimensions of a category's embedding: the root of the number of categories, 16 at most."""
    return min(16, math.ceil(math.sqrt(categories)))


def build_callbacks(train: Train, source: PipelineSource) -> list[keras.callbacks.Callback]:
    """Return the callbacks that the pipeline file names. Raises ConfigError as `build_model` does."""
    metrics = ["loss", *(_metric_name(spec) for spec in train.compile.metrics)]
    monitored = [*metrics, *(f"val_{name}" for name in metrics)]
    for place, spec in enumerate(train.callbacks):
        name, arguments = keras_name_and_arguments(spec)
        if "monitor" in arguments and arguments["monitor"] not in monitored:
            key: Key = ("train", "callbacks", place, name, "monitor")
            message = f"nothing is called {arguments['monitor']!r}{nearest(str(arguments['monitor']), monitored)}"
            raise source.error(Problem(key, message))
    return [
        _make(keras.callbacks, spec, ("train", "callbacks", place), source)
        for place, spec in enumerate(train.callbacks)
    ]


def _compile(model: keras.Model, section: Compile, source: PipelineSource) -> None:
    key: Key = ("train", "compile")
    optimizer = _make(keras.optimizers, section.optimizer, (*key, "optimizer"), source)
    metrics = [_metric(spec, (*key, "metrics", place), source) for place, spec in enumerate(section.metrics)]
    model.compile(optimizer=optimizer, loss=_loss(section.loss, (*key, "loss"), source), metrics=metrics)


def _metric(spec: KerasObject, key: Key, source: PipelineSource) -> Any:
    # `accuracy` is Keras's word for whichever accuracy fits the label; any other name is a class or its function.
    if spec in ("accuracy", "acc") or (isinstance(spec, str) and not hasattr(keras.metrics, spec)):
        try:
            return spec if spec in ("accuracy", "acc") else keras.metrics.get(spec)
        except ValueError:
            names = [*_classes(keras.metrics), "accuracy"]
            raise source.error(Problem(key, f"Keras has no metric {spec!r}{nearest(str(spec), names)}")) from None
    return _make(keras.metrics, spec, key, source)


def _metric_name(spec: KerasObject) -> str:
    """Return what Keras will call a metric in its logs. Making one to ask would use its name up."""
    name, arguments = keras_name_and_arguments(spec)
    if name not in _classes(keras.metrics):
        return name
    default = inspect.signature(getattr(keras.metrics, name)).parameters["name"].default
    return str(arguments.get("name") or default or snake_case(name))


def _loss(spec: KerasObject, key: Key, source: PipelineSource) -> Any:
    if isinstance(spec, str) and spec not in _classes(keras.losses):
        try:
            return keras.losses.get(spec)
        except ValueError:
            names = [*_classes(keras.losses), *(n for n in dir(keras.losses) if n.islower() and not n.startswith("_"))]
            raise source.error(Problem(key, f"Keras has no loss {spec!r}{nearest(spec, names)}")) from None
    return _make(keras.losses, spec, key, source)


def _make(module: ModuleType, spec: KerasObject, key: Key, source: PipelineSource) -> Any:
    name, arguments = keras_name_and_arguments(spec)
    known = _classes(module)
    if name not in known:
        noun = module.__name__.rsplit(".", 1)[-1].rstrip("s")
        raise source.error(Problem((*key, name), f"Keras has no {noun} {name!r}{nearest(name, known)}"))
    cls = getattr(module, name)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        accepted = [p for p in inspect.signature(cls).parameters if p not in ("self", "args", "kwargs")]
        unknown = [argument for argument in arguments if argument not in accepted]
        hint = f"{unknown[0]!r}{nearest(unknown[0], accepted)}" if unknown else str(error).splitlines()[0]
        raise source.error(Problem((*key, name), f"Keras refuses the arguments of {name}: {hint}")) from error


def _classes(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
