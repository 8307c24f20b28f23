"""`train.devices`: one line that says on what the model is trained."""

from typing import Any

import tensorflow as tf

from lakefit.config import PipelineSource, Problem, Train
from lakefit.config.file import Key
from lakefit.config.train import keras_name_and_arguments


def strategy(devices: str, source: PipelineSource, workers: int = 1) -> tf.distribute.Strategy:
    """Return a strategy over `auto | cpu | gpu | gpu:2 | cpu:4`; must come before TensorFlow's first operation.

    Of several workers it is a MultiWorkerMirroredStrategy over such devices of each; it returns when all of them
    have come. Of several devices it is a MirroredStrategy. Of one it is TensorFlow's default: the same arithmetic
    without what mirroring takes, a fifth of a second an epoch. `cpu:4` makes four logical devices of one CPU.

    Raises:
        ConfigError: more GPUs are asked for than there are.
    """
    gpus = tf.config.list_physical_devices("GPU")
    kind, _, number = devices.partition(":")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "gpu":
        wanted = int(number) if number else max(len(gpus), 1)
        if wanted > len(gpus):
            message = (
                f"{devices} asks for {wanted} GPU(s), and TensorFlow sees {len(gpus)}: use `auto` or `cpu`, or install "
                "the GPU build (pip install 'lakefit[gpu]') and look at nvidia-smi"
            )
            raise source.error(Problem(("train", "devices"), message))
        if wanted < len(gpus):
            tf.config.set_visible_devices(gpus[:wanted], "GPU")
        if workers > 1:
            return tf.distribute.MultiWorkerMirroredStrategy()
        if wanted == 1:
            return tf.distribute.get_strategy()
        return tf.distribute.MirroredStrategy([gpu.name.removeprefix("/physical_device:") for gpu in gpus[:wanted]])
    if gpus:
        tf.config.set_visible_devices([], "GPU")
    if workers > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    count = int(number or 1)
    if count == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])


def check_share(train: Train, replicas: int, rows: int | None, source: PipelineSource) -> None:
    """Raise ConfigError where a batch has fewer rows than there are devices, or what is asked for works on one alone.

    rows: of the split, where it is known.
    """
    name, arguments = keras_name_and_arguments(train.compile.optimizer) if train.compile is not None else ("", {})
    if replicas > 1 and arguments.get("gradient_accumulation_steps"):
        key: Key = ("train", "compile", "optimizer", name, "gradient_accumulation_steps")
        message = f"Keras accumulates gradients on one device only, and there are {replicas}: raise fit.batch_size"
        raise source.error(Problem(key, message))
    if replicas > 1 and train.compile is not None and train.compile.steps_per_execution > 1:
        key = ("train", "compile", "steps_per_execution")
        message = f"Keras runs several steps at once on one device only, and there are {replicas}: raise fit.batch_size"
        raise source.error(Problem(key, message))
    smallest = train.fit.batch_size if rows is None else min(train.fit.batch_size, rows)
    if smallest < replicas:
        has = f"; the training split has {rows:,}" if rows is not None else ""
        message = (
            f"a batch of {smallest:,} rows can't be shared by {replicas} devices ({train.devices}"
            f"{f', {train.workers} workers' if train.workers > 1 else ''}), of which each needs one{has}"
        )
        raise source.error(Problem(("train", "fit", "batch_size"), message))


def weighted_by_rows(data: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Return batches of (inputs, label, weight, even) with which every row counts the same, on whichever replica it is.

    MirroredStrategy cuts a batch of n rows into pieces of ceil(n / replicas), the last ones smaller or empty, and takes
    the mean of the replicas' means: rows of a small piece would count more. So each row of a piece of k rows weighs
    k x replicas / n, which is 1 where pieces are equal; Keras's losses divide by the number of rows, not by the sum of
    weights. even: n / replicas, for each row, by which the loss that is shown counts (`distributed_fit`).
    """

    def weighted(inputs: Any, label: Any, weight: Any = None) -> tuple[Any, Any, Any, Any]:
        rows = tf.shape(tf.nest.flatten(label)[0])[0]
        piece = (rows + replicas - 1) // replicas
        first = tf.range(rows) // tf.maximum(piece, 1) * piece
        share = tf.cast(tf.minimum(piece, rows - first) * replicas, tf.float32) / tf.cast(rows, tf.float32)
        even = tf.fill([rows], tf.cast(rows, tf.float32) / replicas)
        if weight is None:
            return inputs, label, tf.nest.map_structure(lambda _: share, label), even
        return inputs, label, tf.nest.map_structure(lambda of_label: share * of_label, weight), even

    return data.map(weighted)
