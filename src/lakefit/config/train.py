"""`train`: devices, model, compile, fit and callbacks, by Keras's own names and arguments."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lakefit.config.file import Key
from lakefit.config.sections import Section, with_tuples
from lakefit.config.source import PathText

KerasObject = str | dict[str, dict[str, Any] | None]
"""`Dense` or `{Dense: {units: 128}}`: the name of a Keras class, or `module:Name` of one's own, and its arguments."""


def keras_name_and_arguments(spec: KerasObject) -> tuple[str, dict[str, Any]]:
    """Return the class name and the arguments of `Dense` or `{Dense: {units: 128}}`."""
    if isinstance(spec, str):
        return spec, {}
    ((name, arguments),) = spec.items()
    return name, dict(arguments or {})


OneKerasObject = str | Annotated[dict[str, dict[str, Any] | None], Field(min_length=1, max_length=1)]
Metrics = Annotated[tuple[OneKerasObject, ...] | dict[str, tuple[OneKerasObject, ...]], BeforeValidator(with_tuples)]
FunctionName = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]


class Layer(Section):
    """One layer of a functional model.

    layer: `Dense`, `{Dense: {units: 64}}`, or `module:Name`. inputs: the layer above where nothing is said; else a
    name or a list: of a layer above, an entry of `inputs`, a group of features (numeric, categorical, bucketize,
    multi_valued, dates, tensors, or categories for all that is embedded) or a column. Layers that combine, such as
    `Concatenate`, and those of one's own get a list of what is named, others get it side by side. `Embedding` gets a
    category's index; every other layer gets it embedded.
    """

    layer: OneKerasObject
    inputs: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class Functional(Section):
    """Layers with names, and what each takes.

    inputs: names for columns and groups of features that are laid side by side. layers: by name, in order. outputs: the
    layer that gives the prediction; of several labels, one for each by its name. Without it: the layer of the label's
    name, or the last one where there is one label.
    """

    inputs: Annotated[dict[str, Annotated[tuple[str, ...], Field(min_length=1)]], BeforeValidator(with_tuples)] = Field(
        default_factory=dict
    )
    layers: Annotated[dict[str, Layer], Field(min_length=1)]
    outputs: str | dict[str, str] | None = None


class Model(Section):
    """The layers of the model, by the names and arguments of `keras.layers`; `module:Name` is a layer of one's own.

    sequential: what follows the inputs (numbers concatenated, categories embedded), in order: `Dense`, or `{Dense:
    {units: 128}}`. functional: layers that say what they take, of several inputs, to several outputs. application: one
    of `keras.applications`, such as `MobileNetV2` or `{MobileNetV2: {alpha: 0.35}}`, without its top and with its
    preprocessing, on the column of images; what it gives, averaged over the image, and all other inputs beside it are
    what `sequential` takes; without that, a Dense layer as the label asks for. weights: a file of the application's
    weights without top (`..._no_top.h5`, or what `save_weights` writes), or `none`: nothing is downloaded. trainable:
    of the application's weights, `all` or none (`top`: what follows alone).
    """

    sequential: Annotated[tuple[OneKerasObject, ...], Field(min_length=1)] | None = None
    functional: Functional | None = None
    application: OneKerasObject | None = None
    weights: PathText | None = None
    trainable: Literal["top", "all"] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Model":
        if self.application is None:
            if (self.sequential is None) == (self.functional is None):
                raise ValueError("expected either sequential: [layers], functional: {layers: ...} or application")
            if self.weights is not None or self.trainable is not None:
                raise ValueError("weights and trainable are of an application")
            return self
        if self.functional is not None:
            raise ValueError("what follows an application is sequential: [layers]; functional has no place for one")
        if self.weights in ("imagenet", "noisy-student"):
            raise ValueError(
                f"weights: {self.weights} would be downloaded, and nothing is: name a file of them, or none"
            )
        if self.weights is None or self.trainable is None:
            raise ValueError("an application needs weights (a file, or none) and trainable (top or all)")
        return self


class TrainImages(Section):
    """What becomes of images between the file and the model's own layers.

    normalize: by the training split's pixels, in the model itself: `center` takes from each channel its mean,
    `standard` divides by its deviation as well, `zca` whitens (of small images: it learns a matrix of all pixels'
    covariances). zca_epsilon: what is added to each variance there. augment: layers of `keras.layers`, or
    `module:Name`, that change images of training batches at random, from 0 to 255, before all else: `RandomFlip`,
    `{RandomRotation: {factor: 0.1, fill_mode: nearest}}`, `{MixUp: {alpha: 0.2}}` (docs/images.md).
    """

    normalize: Literal["none", "center", "standard", "zca"] = "none"
    zca_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    augment: tuple[OneKerasObject, ...] = ()

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "TrainImages":
        # The default stands in rendered files.
        if self.zca_epsilon != 1e-6 and self.normalize != "zca":
            raise ValueError(f"zca_epsilon is of normalize: zca, and normalize is {self.normalize}")
        return self


class Compile(Section):
    """The arguments of `keras.Model.compile`, by Keras's own names; of several labels, losses and metrics by label.

    optimizer: of `keras.optimizers`, with its own arguments: learning_rate may be a schedule ({CosineDecay: {...}}),
    clipnorm, global_clipnorm and clipvalue clip, gradient_accumulation_steps accumulates, weight_decay and use_ema do
    what they say. loss: of `keras.losses`, or `module:Name`. loss_weights: by label, what each loss counts. metrics: of
    `keras.metrics`, or `module:Name`, reported each epoch. weighted_metrics: the same, with the rows' weights.
    jit_compile: true compiles by XLA, which needs `deterministic: false`; auto leaves it to Keras.
    steps_per_execution: batches between two returns to Python. auto_scale_loss: of mixed_float16, so that small
    gradients are not lost.
    """

    optimizer: OneKerasObject = "Adam"
    loss: OneKerasObject | dict[str, OneKerasObject] | None = None
    loss_weights: dict[str, float] | None = None
    metrics: Metrics = ()
    weighted_metrics: Metrics = ()
    jit_compile: bool | Literal["auto"] = "auto"
    steps_per_execution: Annotated[int, Field(ge=1)] = 1
    auto_scale_loss: bool = True


class Fit(Section):
    """How long and in which steps the model is trained.

    epochs: passes over the training split. batch_size: rows a step, over all devices together.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Feed(Section):
    """How rows come to the model, and in which order.

    lanes: row groups that a batch mixes; more of them shuffle better and take more memory (docs/feed.md). remainder:
    what becomes of the rows that fill no batch at an epoch's end: `keep`, a smaller batch, or `drop`; they are others
    in each epoch. in_memory_mb: a split that takes no more memory than this, decoded, is read in the first epoch and
    kept; a larger one is read in each. It changes nothing but speed.
    """

    lanes: Annotated[int, Field(ge=1, le=1024)] = 8
    remainder: Literal["keep", "drop"] = "keep"
    in_memory_mb: Annotated[int, Field(ge=0)] = 256


class Checkpointing(Section):
    """What a run that was stopped or killed goes on from.

    every: besides each epoch's end, after so much time or so many steps: `10min`, `30s`, `2h`, `1000 steps`. keep: the
    last so many checkpoints, and the one of the best epoch. monitor, mode: what is best, by a name in the logs; of a
    loss the least, of anything else `min` or `max` says. resume: `exact` refuses callbacks whose state is in no
    checkpoint, and goes on only on the same devices and versions, so that the weights are the same to the bit; `auto`
    goes on as well as it can, and says where.
    """

    every: str = "10min"
    keep: Annotated[int, Field(ge=1)] = 2
    monitor: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"
    resume: Literal["auto", "exact"] = "auto"

    @field_validator("every")
    @classmethod
    def _is_a_time_or_steps(cls, every: str) -> str:
        if re.fullmatch(r"[1-9]\d* ?(s|min|h|steps)", every) is None:
            raise ValueError("expected a time (30s, 10min, 2h) or a number of steps (1000 steps)")
        return every

    @model_validator(mode="after")
    def _knows_what_is_better(self) -> "Checkpointing":
        if self.mode == "auto" and not self.monitor.endswith("loss"):
            raise ValueError(f"mode: min or max is due, since monitor: {self.monitor} is no loss")
        return self


class TensorBoard(Section):
    """What TensorBoard is given besides curves.

    histograms: of all weights, an epoch each. profile: the first and the last step to be profiled, counted from 1.
    """

    histograms: bool = False
    profile: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "TensorBoard":
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError("profile: expected [first, last], two steps from 1 on")
        return self


class Train(Section):
    """How the model is made and trained, by Keras's own names and arguments.

    devices: auto, cpu, gpu, or so many of them: gpu:2; cpu:4 makes four logical devices, for tests. workers: processes,
    each with such devices, that share every batch: tasks of one stage on Spark, or those of TF_CONFIG
    (docs/workers.md). step_timeout: workers that do no step for so long are ended, and started again from the last
    checkpoint. seed: of the first weights, of dropout and of the order of rows. deterministic: the same weights, to the
    bit, in every run on the same devices; false lets TensorFlow take faster operations where it has any
    (docs/train.md). dtype_policy: mixed_float16
    or mixed_bfloat16 compute in 16 bits and keep weights in 32. model: the layers, or `module:function`, which takes a
    description of the dataset and returns a keras.Model (docs/train.md). compile: optimizer, loss and metrics; a model
    that the function has compiled needs none. fit: epochs and batch size. images: how images are normalized and
    augmented. feed: the order of rows. callbacks: of
    `keras.callbacks`, or `module:Name`, such as `{EarlyStopping: {patience: 3}}`. checkpoint: what a run goes on from.
    tensorboard: what is shown of it. warm_start: the folder of an artifact, whose weights the model begins with.
    """

    devices: Annotated[str, Field(pattern=r"^(auto|(cpu|gpu)(:[1-9]\d*)?)$")] = "auto"
    workers: Annotated[int, Field(ge=1)] = 1
    step_timeout: str = "10min"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    deterministic: bool = True
    dtype_policy: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    model: Model | FunctionName
    compile: Compile | None = None
    fit: Fit
    images: TrainImages = Field(default_factory=TrainImages)
    feed: Feed = Field(default_factory=Feed)
    callbacks: tuple[OneKerasObject, ...] = ()
    checkpoint: Checkpointing = Field(default_factory=Checkpointing)
    tensorboard: TensorBoard = Field(default_factory=TensorBoard)
    warm_start: PathText | None = None

    @field_validator("step_timeout")
    @classmethod
    def _is_a_time(cls, timeout: str) -> str:
        if re.fullmatch(r"[1-9]\d{0,6} ?(s|min|h)", timeout) is None or seconds_of(timeout) < 5:
            raise ValueError("expected a time of at least 5s, such as 30s, 10min or 2h")
        return timeout

    @model_validator(mode="after")
    def _has_a_row_a_worker(self) -> "Train":
        if self.fit.batch_size < self.workers:
            raise ValueError(f"fit.batch_size: {self.fit.batch_size} rows can't be shared by {self.workers} workers")
        return self

    @model_validator(mode="after")
    def _leaves_xla_its_way(self) -> "Train":
        if self.deterministic and self.compile is not None and self.compile.jit_compile is True:
            raise ValueError(
                "compile.jit_compile: true needs deterministic: false; Keras does not use XLA where operations must be "
                "deterministic"
            )
        return self

    @model_validator(mode="after")
    def _has_one_cpu_a_worker(self) -> "Train":
        if self.workers > 1 and self.devices.startswith("cpu:") and self.devices != "cpu:1":
            raise ValueError(
                f"devices: {self.devices} is of one process; TensorFlow gives each of several workers one CPU device: "
                "raise workers instead"
            )
        return self

    @model_validator(mode="after")
    def _can_be_exact(self) -> "Train":
        if self.checkpoint.resume == "exact" and not self.deterministic:
            raise ValueError("checkpoint.resume: exact needs deterministic: true")
        return self

    @model_validator(mode="after")
    def _is_preprocessed_once(self) -> "Train":
        if self.images.normalize != "none" and isinstance(self.model, Model) and self.model.application is not None:
            raise ValueError("images.normalize: an application has its own preprocessing; leave it out")
        return self

    @property
    def application_weights(self) -> str | None:
        """The file of weights that an application begins with, where there is one."""
        return self.model.weights if isinstance(self.model, Model) and self.model.weights != "none" else None

    def own_code(self) -> Iterator[tuple[Key, str]]:
        """Yield (key in the file, `module:Name`) of all code of the user's."""
        if isinstance(self.model, str):
            yield ("train", "model"), self.model
        data = self.model_dump(mode="json", by_alias=True)
        for name in ("model", "compile", "images", "callbacks"):
            if not isinstance(data[name], str):
                yield from _named(data[name], ("train", name))


_UNITS = {"s": 1, "min": 60, "h": 3600}


def seconds_of(time: str) -> int:
    """Return the seconds of a time such as `30s`, `10min` or `2h`."""
    number, unit = re.fullmatch(r"(\d+) ?([a-z]+)", time).groups()  # type: ignore[union-attr]  # mypy: the keys' patterns
    return int(number) * _UNITS[unit]


def _named(data: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(data, str) and _is_own(data):
        yield key, data
    elif isinstance(data, dict):
        for name, value in data.items():
            if _is_own(name):
                yield (*key, name), name
            yield from _named(value, (*key, name))
    elif isinstance(data, list):
        for place, value in enumerate(data):
            yield from _named(value, (*key, place))


def _is_own(text: str) -> bool:
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))
