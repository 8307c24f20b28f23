"""From raw tables to a trained Keras model: prepare on Spark, feed by Petastorm, train with Keras, score on Spark."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakefit.feed.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["__version__", "open_dataset"]


def open_dataset(path: "str | Path") -> "Dataset":
    """Return a dataset, given by its folder, or by a pipeline's output or file, whose dataset in use it is.

    Raises:
        InputError: there is none, or it is not one that this version reads.
    """
    # Here, so that `import lakefit` loads nothing.
    from lakefit.feed import dataset

    return dataset.open_dataset(path)
