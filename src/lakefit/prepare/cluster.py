"""What is to be known of the cluster behind a session, a classic one or one of Spark Connect."""

from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def is_connect(spark: SparkSession) -> bool:
    """Say whether a session is one of Spark Connect; its module can't be imported where gRPC is missing."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def cores(spark: SparkSession) -> int:
    """Return how many tasks run at once, as Spark sees it when it is asked: what a range of numbers is cut into."""
    if not is_connect(spark):
        return int(spark.sparkContext.defaultParallelism)
    return int(spark.range(1 << 16).select(F.spark_partition_id().alias("task")).distinct().count())


def local_folder(spark: SparkSession) -> str | None:
    """Return `spark.local.dir`, where that can be asked for: the setting of a server is not told."""
    return None if is_connect(spark) else spark.sparkContext.getConf().get("spark.local.dir")
