"""`train.devices`: one line that says on what the model is trained."""

import tensorflow as tf

from lakefit.errors import InputError


def strategy(devices: str) -> tf.distribute.Strategy:
    """Return a MirroredStrategy over `auto | cpu | gpu | gpu:2 | cpu:4`; must come before TensorFlow's first operation.

    `cpu:4` makes four logical devices of one CPU.

    Raises:
        InputError: more GPUs are asked for than there are.
    """
    gpus = [gpu.name.removeprefix("/physical_device:") for gpu in tf.config.list_physical_devices("GPU")]
    kind, _, number = devices.partition(":")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "gpu":
        wanted = int(number) if number else max(len(gpus), 1)
        if wanted > len(gpus):
            raise InputError(
                f"train.devices: {devices} asks for {wanted} GPU(s), TensorFlow sees {len(gpus)}. Use `auto` or `cpu`, "
                "or install the GPU build (pip install 'lakefit[gpu]') and check nvidia-smi."
            )
        return tf.distribute.MirroredStrategy(gpus[:wanted])
    count = int(number or 1)
    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
