"""`train.compile` and `train.callbacks`: loss, optimizer, metrics and callbacks, checked against the labels."""

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem, nearest
from lakefit.config.file import Key
from lakefit.config.train import Compile, KerasObject, Train, keras_name_and_arguments
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.predictions import as_given, prefix_of
from lakefit.train.checkpoint import keeps_its_state
from lakefit.train.objects import classes, functions, make, unknown
from lakefit.train.task import accuracy_of, check_loss, check_metric, default_loss, snake_case

_COMPILE: Key = ("train", "compile")


def losses_of(section: Compile, labels: Sequence[LabelFeature], source: PipelineSource) -> dict[str, Any]:
    """Return the loss of each label by its name; where none is named, the one that goes with such a label.

    Raises:
        ConfigError: Keras has no such loss, it can't belong to the label, or there is no such label.
    """
    given = section.loss
    key: Key = (*_COMPILE, "loss")
    names = [label.name for label in labels]
    if isinstance(given, dict) and (len(labels) > 1 or set(given) & set(names)):
        _must_be_labels(given, names, key, source)
        specs = {name: (spec, (*key, name)) for name, spec in given.items()}
    elif given is not None and len(labels) > 1:
        raise source.error(Problem(key, f"there are several labels: give each a loss, {{{names[0]}: ..., ...}}"))
    else:
        specs = {labels[0].name: (given, key)} if given is not None else {}
    losses: dict[str, Any] = {}
    for label in labels:
        spec, at = specs.get(label.name, (default_loss(label), key))
        losses[label.name] = _object(keras.losses, spec, at, source)  # type: ignore[arg-type]  # mypy: by label, a spec is left
        check_loss(label, losses[label.name], at, source)
    return losses


def compile_model(
    model: keras.Model,
    section: Compile,
    losses: Mapping[str, Any],
    labels: Sequence[LabelFeature],
    source: PipelineSource,
) -> list[str]:
    """Compile a model whose outputs are one tensor, or several by label; return what its logs are called.

    Raises:
        ConfigError: an unknown optimizer or metric, an argument that Keras refuses, a metric of another kind of label.
    """
    optimizer = make(keras.optimizers, section.optimizer, (*_COMPILE, "optimizer"), source)
    metrics = {
        name: _metrics_of(getattr(section, name), losses, labels, prefix, (*_COMPILE, name), source)
        for name, prefix in (("metrics", ""), ("weighted_metrics", "weighted_"))
    }
    if section.loss_weights is not None:
        key: Key = (*_COMPILE, "loss_weights")
        _must_be_labels(section.loss_weights, [label.name for label in labels], key, source)
    model.compile(
        optimizer=optimizer,
        loss=as_given(losses, labels),
        loss_weights=None if section.loss_weights is None or len(labels) == 1 else dict(section.loss_weights),
        metrics=as_given(metrics["metrics"], labels),
        weighted_metrics=as_given(metrics["weighted_metrics"], labels),
        jit_compile=section.jit_compile,
        steps_per_execution=section.steps_per_execution,
        auto_scale_loss=section.auto_scale_loss,
    )
    names = ["loss"]
    for label in labels:
        prefix = prefix_of(label, labels)
        made = [*metrics["metrics"][label.name], *metrics["weighted_metrics"][label.name]]
        names += [f"{prefix}loss"] if prefix else []
        names += [f"{prefix}{getattr(metric, 'name', None) or getattr(metric, '__name__', '')}" for metric in made]
    return [*names, *(f"val_{name}" for name in names)]


def build_callbacks(train: Train, logged: Sequence[str] | None, source: PipelineSource) -> list[Any]:
    """Return the callbacks that the pipeline file names. logged: what they may monitor, None where it is not known.

    Raises:
        ConfigError: an unknown callback, an argument that Keras refuses, or nothing is called as `monitor` says.
    """
    callbacks = []
    monitor = train.checkpoint.monitor
    if logged is not None and monitor not in logged:
        message = f"nothing is called {monitor!r}{nearest(monitor, logged)}"
        raise source.error(Problem(("train", "checkpoint", "monitor"), message))
    for place, spec in enumerate(train.callbacks):
        name, arguments = keras_name_and_arguments(spec)
        if logged is not None and "monitor" in arguments and arguments["monitor"] not in logged:
            key: Key = ("train", "callbacks", place, name, "monitor")
            message = f"nothing is called {arguments['monitor']!r}{nearest(str(arguments['monitor']), logged)}"
            raise source.error(Problem(key, message))
        callback = make(keras.callbacks, spec, ("train", "callbacks", place), source)
        if not isinstance(callback, keras.callbacks.Callback):
            key = ("train", "callbacks", place)
            raise source.error(Problem(key, f"{name} makes a {type(callback).__name__}; expected a keras Callback"))
        if train.checkpoint.resume == "exact" and not keeps_its_state(callback):
            message = (
                f"{name} may keep what no checkpoint holds, and checkpoint.resume: exact is asked for: give it "
                "get_state() and set_state(state) (docs/train.md), or leave it out, or resume: auto"
            )
            raise source.error(Problem(("train", "callbacks", place), message))
        callbacks.append(callback)
    return callbacks


def _metrics_of(
    given: Any,
    losses: Mapping[str, Any],
    labels: Sequence[LabelFeature],
    prefix: str,
    key: Key,
    source: PipelineSource,
) -> dict[str, list[Any]]:
    if isinstance(given, dict):
        _must_be_labels(given, [label.name for label in labels], key, source)
    elif given and len(labels) > 1:
        raise source.error(Problem(key, f"there are several labels: name each metric's, {{{labels[0].name}: [...]}}"))
    found: dict[str, list[Any]] = {}
    for label in labels:
        specs, at = (given.get(label.name, ()), (*key, label.name)) if isinstance(given, dict) else (given, key)
        found[label.name] = []
        for place, spec in enumerate(specs):
            taken = [getattr(metric, "name", "") for metric in found[label.name]]
            found[label.name].append(_metric(spec, label, losses[label.name], taken, prefix, (*at, place), source))
    return found


def _metric(
    spec: KerasObject,
    label: LabelFeature,
    loss: Any,
    taken: Sequence[str],
    prefix: str,
    key: Key,
    source: PipelineSource,
) -> Any:
    """taken: names of other metrics of the label. prefix: of this one's, where it has none of its own."""
    name, arguments = keras_name_and_arguments(spec)
    at: Key = key if isinstance(spec, str) else (*key, name)
    if ":" in name:
        return make(keras.metrics, spec, key, source)
    check_metric(label, name, arguments, loss, at, source)
    # `accuracy` is Keras's word for whichever accuracy fits the label; any other name is a class or its function.
    if name in ("accuracy", "acc"):
        return accuracy_of(label, loss, str(arguments.get("name", f"{prefix}{name}")))
    if name in classes(keras.metrics) and "name" not in arguments:
        # Keras would count through all metrics of the process, and of other labels.
        default = inspect.signature(getattr(keras.metrics, name)).parameters.get("name")
        called = prefix + str((default.default if default is not None else None) or snake_case(name))
        again = sum(other == called or other.startswith(f"{called}_") for other in taken)
        spec = {name: {**arguments, "name": f"{called}_{again}" if again else called}}
    return _object(keras.metrics, spec, key, source)


def _object(module: ModuleType, spec: KerasObject, key: Key, source: PipelineSource) -> Any:
    """Return an object of a class, or what Keras calls by a function's name."""
    if not isinstance(spec, str) or ":" in spec or spec in classes(module):
        return make(module, spec, key, source)
    try:
        return module.get(spec)
    except ValueError:
        names = [*classes(module), *functions(module), *(["accuracy"] if module is keras.metrics else [])]
        raise unknown(module, spec, names, key, source) from None


def _must_be_labels(given: Mapping[str, Any], names: Sequence[str], key: Key, source: PipelineSource) -> None:
    for name in given:
        if name not in names:
            raise source.error(Problem((*key, name), f"there is no label {name!r}{nearest(name, names)}"))
