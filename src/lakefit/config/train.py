"""`train`: devices, model, compile, fit and callbacks, by Keras's own names and arguments."""

from typing import Annotated, Any

from pydantic import Field

from lakefit.config.sections import Section

KerasObject = str | dict[str, dict[str, Any] | None]
"""`Dense` or `{Dense: {units: 128}}`: the name of a Keras class and its arguments."""


def keras_name_and_arguments(spec: KerasObject) -> tuple[str, dict[str, Any]]:
    """Return the class name and the arguments of `Dense` or `{Dense: {units: 128}}`."""
    if isinstance(spec, str):
        return spec, {}
    ((name, arguments),) = spec.items()
    return name, dict(arguments or {})


OneKerasObject = str | Annotated[dict[str, dict[str, Any] | None], Field(min_length=1, max_length=1)]


class Model(Section):
    """`sequential`: the layers that follow the inputs (numbers concatenated, categories embedded), in order."""

    sequential: tuple[OneKerasObject, ...] = Field(min_length=1)


class Compile(Section):
    """The arguments of `keras.Model.compile`."""

    optimizer: OneKerasObject = "Adam"
    loss: OneKerasObject = "binary_crossentropy"
    metrics: tuple[OneKerasObject, ...] = ()


class Fit(Section):
    """`batch_size` is global: over all devices together."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Train(Section):
    """`devices: auto | cpu | gpu | gpu:2 | cpu:4`; cpu:4 makes four logical devices, for tests."""

    devices: Annotated[str, Field(pattern=r"^(auto|(cpu|gpu)(:[1-9]\d*)?)$")] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: Model
    compile: Compile = Field(default_factory=Compile)
    fit: Fit
    callbacks: tuple[OneKerasObject, ...] = ()
