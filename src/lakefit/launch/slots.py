"""How many tasks a Spark session can run at once: what executors there are, not what was asked for."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PATIENCE_S = 30.0
"""How long executors of a cluster may take to come, as Spark itself waits for them."""


def slots(spark: "SparkSession", wanted: int) -> int | None:
    """Return how many tasks can run at once, as soon as there are as many as wanted, or else after half a minute.

    None where that can't be told: over Spark Connect, and where executors are made as tasks come.
    """
    if is_connect(spark) or makes_executors(spark):
        return None
    context = spark.sparkContext._jsc.sc()
    profile = context.resourceProfileManager().defaultResourceProfile()
    patience = 0 if str(spark.sparkContext.master).startswith("local") else PATIENCE_S
    until = time.monotonic() + patience
    while (found := int(context.maxNumConcurrentTasks(profile))) < wanted and time.monotonic() < until:
        time.sleep(0.2)
    return found


def machines(spark: "SparkSession") -> int:
    """Return how many machines tasks run on, or that is what executors are taken for: each of its own."""
    context = spark.sparkContext
    if str(context.master).startswith("local"):
        return 1
    # The driver is one of them.
    return max(1, int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1)


def is_connect(spark: "SparkSession") -> bool:
    """Say whether a session is one of Spark Connect; its module can't be imported where gRPC is missing."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def makes_executors(spark: "SparkSession") -> bool:
    """Say whether the session makes executors as tasks come."""
    return str(spark.conf.get("spark.dynamicAllocation.enabled", "false")) == "true"


def none_came(spark: "SparkSession") -> str:
    """Return what to say where there is no executor at all."""
    return (
        f"{spark.sparkContext.master} has given no executor in {PATIENCE_S:.0f} s: is a worker up that has as much "
        "memory and as many cores free as spark.executor.memory and spark.executor.cores ask for? Its pages say more"
    )
