"""What is to be known of the cluster behind a session, a classic one or one of Spark Connect."""

import re
from collections.abc import Callable

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakefit.launch.slots import is_connect


def cores(spark: SparkSession) -> int:
    """Return how many tasks run at once, as Spark sees it when it is asked: what a range of numbers is cut into."""
    if not is_connect(spark):
        return int(spark.sparkContext.defaultParallelism)
    return int(spark.range(1 << 16).select(F.spark_partition_id().alias("task")).distinct().count())


# An estimate of what a Python worker takes, with room: a bucket of 64 MiB of raw rows, or TensorFlow with a model.
WORKER_BYTES = 1 << 30
_UNITS = {"": 20, "m": 20, "mb": 20, "k": 10, "kb": 10, "b": 0, "g": 30, "gb": 30, "t": 40, "tb": 40}


def memory_problem(setting: Callable[[str], str | None]) -> str | None:
    """Return what is wrong with the memory of executors, for which YARN or Kubernetes would end them; None where
    nothing is, or nobody counts it.

    setting: returns a setting of Spark's, None where it is not given.
    """
    master = setting("spark.master") or ""
    if not master.startswith(("yarn", "k8s://")) or setting("spark.executor.pyspark.memory") is not None:
        return None
    # Spark's own defaults.
    factor = float(setting("spark.executor.memoryOverheadFactor") or (0.4 if master.startswith("k8s") else 0.1))
    heap = _bytes(setting("spark.executor.memory") or "1g")
    given = setting("spark.executor.memoryOverhead")
    overhead = _bytes(given) if given is not None else max(factor * heap, 384 << 20)
    tasks = int(setting("spark.executor.cores") or 1)
    if overhead >= tasks * WORKER_BYTES:
        return None
    return (
        f"spark.executor.memoryOverhead is {overhead / 2**30:.1f} GiB{'' if given is not None else ' by default'}, and "
        f"an executor runs {tasks} Python workers at once, which may take {WORKER_BYTES >> 30} GiB each: "
        f"{master.partition(':')[0]} may end it. Set spark.executor.memoryOverhead={tasks * WORKER_BYTES >> 30}g."
    )


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([a-z]*)", text.strip().lower())
    return int(found[1]) << _UNITS[found[2]] if found is not None and found[2] in _UNITS else 0


def local_folder(spark: SparkSession) -> str | None:
    """Return `spark.local.dir`, where that can be asked for: the setting of a server is not told."""
    return None if is_connect(spark) else spark.sparkContext.getConf().get("spark.local.dir")
