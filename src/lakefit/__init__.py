"""From raw tables to a trained Keras model: prepare on Spark, feed by Petastorm, train with Keras, score on Spark."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakefit.feed.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["__version__", "open_dataset"]


def open_dataset(path: "str | Path", *, cache: "str | Path | None" = None, cache_bytes: int = 1 << 36) -> "Dataset":
    """Return a dataset, given by its folder, or by a pipeline's output or file, whose dataset in use it is; or a folder
    of Parquet files that `lakefit index` has looked at.

    path: also the address of such a folder in an object store: "s3://bucket/flights". cache: a folder of this machine
    for what is read there, of `cache_bytes` (64 GiB) at most; it stays, and several datasets may share it.

    Raises:
        InputError: there is none, or it is not one that this version reads.
    """
    # Here, so that `import lakefit` loads nothing.
    from lakefit.feed import dataset
    from lakefit.feed.cache import Cache

    return dataset.open_dataset(path, None if cache is None else Cache(cache, cache_bytes))
