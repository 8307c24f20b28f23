"""One of `keras.applications` on a dataset's images, without its top and with its preprocessing."""

import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras

from lakefit.config import PipelineSource, Problem, nearest
from lakefit.config.file import Key
from lakefit.config.train import Model, Train, keras_name_and_arguments
from lakefit.dataset.features import ImageFeature, LabelFeature
from lakefit.dataset.object_path import any_path
from lakefit.train.inputs import Inputs
from lakefit.train.objects import refusal
from lakefit.train.own_model import MODEL
from lakefit.train.weights import load_all_weights

_OURS = ("include_top", "weights", "input_tensor", "input_shape", "pooling", "classes", "classifier_activation")
_KEY: Key = (*MODEL, "application")


def application_output(section: Model, features: Sequence[ImageFeature], inputs: Inputs, source: PipelineSource) -> Any:
    """Return (n, k) float32: what the application gives of the images, averaged, and all other inputs beside it.

    Raises:
        ConfigError: there is no such application, or it refuses its arguments or the images' size.
    """
    assert section.application is not None
    if len(features) > 1:
        columns = ", ".join(feature.name for feature in features)
        raise source.error(Problem(_KEY, f"an application is of one column of images, and there are {columns}"))
    (feature,) = features
    name, arguments = keras_name_and_arguments(section.application)
    names = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    if name not in names:
        raise source.error(Problem(_KEY, f"Keras has no application {name!r}{nearest(name, names)}"))
    key: Key = _KEY if isinstance(section.application, str) else (*_KEY, name)
    ours = next((argument for argument in arguments if argument in _OURS), None)
    if ours is not None:
        raise source.error(Problem((*key, ours), f"{ours!r} is given by train.model and features.images"))
    try:
        application = getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=feature.shape, pooling="avg", **arguments
        )
        images = _module(name).preprocess_input(inputs.encoded(feature.name))
    except Exception as error:
        message = f"{name} does not fit images of {feature.shape}: {refusal(error)}"
        raise source.error(Problem(key, message)) from error
    application.trainable = section.trainable == "all"
    # What is not trained keeps its averages, and drops nothing.
    x = application(images) if application.trainable else application(images, training=False)
    others = [group for group in inputs.everything if group != "images"]
    return keras.layers.Concatenate()([x, inputs.encoded(*others)]) if others else x


def top_of(label: LabelFeature) -> str | dict[str, dict[str, Any] | None]:
    """Return the layer that gives what a label asks for, of the default loss."""
    activation = {"classes": "softmax", "regression": "linear"}.get(label.kind, "sigmoid")
    return {"Dense": {"units": label.outputs, "activation": activation}}


def load_application(model: keras.Model, train: Train, source: PipelineSource) -> None:
    """Give the application in a model the weights of `train.model.weights`.

    Raises:
        ConfigError: there is no such file, or it is of another application.
    """
    if train.application_weights is None:
        return
    application = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    key, path = (*MODEL, "weights"), any_path(train.application_weights)
    try:
        load_all_weights(application, path)
    except FileNotFoundError:
        raise source.error(Problem(key, f"{path}: there is no such file")) from None
    except Exception as error:
        said = "layers or shapes are others: is it of another application, of other arguments, or with its top?"
        if isinstance(error, OSError):
            said = "it can't be read as HDF5"
        message = f"{path}: the weights do not fit {application.name} without its top: {said}"
        raise source.error(Problem(key, message)) from error


def _module(application: str) -> ModuleType:
    """Return the module of an application, which has its preprocessing."""
    modules = (value for value in vars(keras.applications).values() if inspect.ismodule(value))
    return next(module for module in modules if hasattr(module, application) and hasattr(module, "preprocess_input"))
