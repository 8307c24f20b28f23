"""Keras objects from the pipeline file: names and arguments of Keras's own, or `module:Name` of the user's."""

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem, nearest
from lakefit.config.file import ConfigError, Key
from lakefit.config.functions import load_function
from lakefit.config.train import KerasObject, keras_name_and_arguments
from lakefit.errors import InputError

_SCHEDULES = keras.optimizers.schedules
# The module whose classes an argument takes, by the argument's name or its end.
_ARGUMENTS: Mapping[str, ModuleType] = {
    "learning_rate": _SCHEDULES,
    "activation": keras.activations,
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
    "layer": keras.layers,
    "cell": keras.layers,
    "cells": keras.layers,
}
_NOUNS = {
    keras.layers: "layer", keras.losses: "loss", keras.metrics: "metric", keras.optimizers: "optimizer",
    keras.callbacks: "callback", keras.activations: "activation", keras.initializers: "initializer",
    keras.regularizers: "regularizer", keras.constraints: "constraint", _SCHEDULES: "learning rate schedule",
}  # fmt: skip


def make(module: ModuleType, spec: KerasObject, key: Key, source: PipelineSource) -> Any:
    """Return the object of a class of a Keras module, or of the user's `module:Name`, with the arguments given.

    Arguments may be objects themselves: schedules, initializers, regularizers, constraints, wrapped layers.

    Raises:
        ConfigError: there is no such class, or it refuses the arguments.
    """
    name, arguments = keras_name_and_arguments(spec)
    at: Key = key if isinstance(spec, str) else (*key, name)
    if ":" in name:
        cls = own(name, at, source)
    else:
        known = classes(module)
        if name not in known:
            raise unknown(module, name, known, at, source)
        cls = getattr(module, name)
    made = {argument: _argument(argument, value, (*at, argument), source) for argument, value in arguments.items()}
    if ":" in name and not inspect.isclass(cls) and not made:
        # A function: a loss or a metric as it is.
        return cls
    try:
        return cls(**made)
    except Exception as error:
        raise _refused(name, cls, arguments, error, at, source) from error


def own(name: str, key: Key, source: PipelineSource) -> Any:
    """Return what `module:Name` of the user's is. Raises ConfigError where it can't be imported."""
    try:
        return load_function(name)
    except InputError as error:
        raise source.error(Problem(key, str(error).rstrip("."))) from error


def unknown(module: ModuleType, name: str, names: Sequence[str], key: Key, source: PipelineSource) -> ConfigError:
    """Return what is said of a name that a Keras module has not. names: that it has."""
    return source.error(Problem(key, f"Keras has no {_NOUNS[module]} {name!r}{nearest(name, names)}"))


def classes(module: ModuleType) -> list[str]:
    """Return the names of the classes of a Keras module."""
    return [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]


def functions(module: ModuleType) -> list[str]:
    """Return the names of the functions of a Keras module, such as `relu`."""
    plumbing = ("get", "serialize", "deserialize")
    return [n for n in dir(module) if n.islower() and not n.startswith("_") and n not in plumbing]


def refusal(error: Exception) -> str:
    """Return the first sentence of what Keras says."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    # A heading whose sentence is below it.
    return f"{text} {lines[1]}" if text.endswith(":") and len(lines) > 1 else text


def _argument(name: str, value: Any, key: Key, source: PipelineSource) -> Any:
    module = next((_ARGUMENTS[end] for end in (name, name.rsplit("_", 1)[-1]) if end in _ARGUMENTS), None)
    if isinstance(value, dict) and len(value) == 1:
        ((inner, arguments),) = value.items()
        if ":" in inner or (module is not None and isinstance(arguments, dict | None)):
            return make(module or keras.layers, value, key, source)
    if isinstance(value, list) and module is keras.layers:
        return [_argument("layer", item, (*key, i), source) for i, item in enumerate(value)]
    if not isinstance(value, str) or module in (None, _SCHEDULES):
        return value
    assert module is not None
    if ":" in value or (module is not keras.activations and value in classes(module)):
        return make(module, value, key, source)
    if module is keras.layers:
        raise unknown(module, value, classes(module), key, source)
    try:
        return module.get(value)
    except (ValueError, TypeError):
        names = functions(module) if module is keras.activations else [*functions(module), *classes(module)]
        raise unknown(module, value, names, key, source) from None


def _refused(
    name: str, cls: Any, arguments: Mapping[str, Any], error: Exception, at: Key, source: PipelineSource
) -> ConfigError:
    """Return what the constructor said, at the argument that it does not know where there is one."""
    accepted = _accepted(cls)
    unknown = [argument for argument in arguments if argument not in accepted]
    if unknown:
        message = f"{name} has no argument {unknown[0]!r}{nearest(unknown[0], accepted)}"
        return source.error(Problem((*at, unknown[0]), message))
    missing = [name for name, parameter in _parameters(cls).items() if _is_due(parameter) and name not in arguments]
    if missing and isinstance(error, TypeError):
        return source.error(Problem(at, f"{name} needs the argument {missing[0]!r}"))
    named = [argument for argument in arguments if f"`{argument}`" in str(error) or f"'{argument}'" in str(error)]
    key = (*at, named[0]) if len(named) == 1 else at
    return source.error(Problem(key, f"{name} refuses its arguments: {refusal(error)}"))


def _accepted(cls: Any) -> list[str]:
    """Return the names of a constructor's arguments, and of its base's where it hands others on."""
    names: dict[str, None] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        parameters = _parameters(base)
        names |= dict.fromkeys(n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return list(names)


def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return {n: p for n, p in inspect.signature(cls).parameters.items() if n != "self"}
    except (TypeError, ValueError):
        return {}


def _is_due(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    )
