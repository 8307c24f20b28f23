"""Petastorm through the layer, and small Parquet datasets for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakefit.petastorm

ROWS = 400


@pytest.fixture(scope="session")
def petastorm() -> Any:
    lakefit.petastorm.install()
    import petastorm

    return petastorm


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows in 4 files and 16 row groups, with a mark of Spark's beside them."""
    folder = tmp_path_factory.mktemp("plain")
    for file in range(4):
        ids = np.arange(file * 100, file * 100 + 100)
        table = pa.table({"id": ids, "name": [f"row {i}" for i in ids], "share": (ids / ROWS).astype(np.float32)})
        pq.write_table(table, folder / f"part-{file}.parquet", row_group_size=25)
    (folder / "_SUCCESS").touch()
    return folder
