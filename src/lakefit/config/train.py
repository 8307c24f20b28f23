"""`train`: devices, model, compile, fit and callbacks, by Keras's own names and arguments."""

from typing import Annotated, Any, Literal

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
    """The layers of the model, by the names and arguments of `keras.layers`.

    sequential: what follows the inputs (numbers concatenated, categories embedded), in order: `Dense`, or `{Dense:
    {units: 128}}`.
    """

    sequential: tuple[OneKerasObject, ...] = Field(min_length=1)


class Compile(Section):
    """The arguments of `keras.Model.compile`, by Keras's own names.

    optimizer: of `keras.optimizers`. loss: of `keras.losses`. metrics: of `keras.metrics`, reported each epoch.
    """

    optimizer: OneKerasObject = "Adam"
    loss: OneKerasObject = "binary_crossentropy"
    metrics: tuple[OneKerasObject, ...] = ()


class Fit(Section):
    """How long and in which steps the model is trained.

    epochs: passes over the training split. batch_size: rows a step, over all devices together.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Feed(Section):
    """In which order rows come to the model.

    lanes: row groups that a batch mixes; more of them shuffle better and take more memory (docs/feed.md). remainder:
    what becomes of the rows that fill no batch at an epoch's end: `keep`, a smaller batch, or `drop`; they are others
    in each epoch.
    """

    lanes: Annotated[int, Field(ge=1, le=1024)] = 8
    remainder: Literal["keep", "drop"] = "keep"


class Train(Section):
    """How the model is made and trained, by Keras's own names and arguments.

    devices: auto, cpu, gpu, or so many of them: gpu:2; cpu:4 makes four logical devices, for tests. seed: of the first
    weights, of dropout and of the order of rows. model: the layers. compile: optimizer, loss and metrics. fit: epochs
    and batch size. feed: the order of rows. callbacks: of `keras.callbacks`, such as `{EarlyStopping: {patience: 3}}`.
    """

    devices: Annotated[str, Field(pattern=r"^(auto|(cpu|gpu)(:[1-9]\d*)?)$")] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: Model
    compile: Compile = Field(default_factory=Compile)
    fit: Fit
    feed: Feed = Field(default_factory=Feed)
    callbacks: tuple[OneKerasObject, ...] = ()
