"""What preparation learns from rows, without Spark."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakefit.config.features import Features as Section
from lakefit.config.features import with_groups_listed
from lakefit.prepare.blocks import KEY_HIGH
from lakefit.prepare.hashing import mix64
from lakefit.prepare.learn import Learner
from lakefit.prepare.staged import SPLIT, Staged, is_number, write_staged
from lakefit.prepare.tally import tally, total

NO_SPARK: Any = None
ROWS = 3_000


def section(**groups: Any) -> Section:
    return Section.model_validate_json(json.dumps(with_groups_listed(groups)))


def learner(table: pa.Table, features: Section, folder: Path, bucket_bits: int = 2, training: int = ROWS) -> Learner:
    """Stage the rows in buckets as preparation does, the first `training` of them in the training split."""
    keys = mix64(np.arange(len(table), dtype=np.uint64))
    split = (np.arange(len(table)) >= training).astype(np.int8)
    staged = table.append_column(KEY_HIGH, pa.array(keys)).append_column(SPLIT, pa.array(split))
    staged = staged.take(pa.array(np.argsort(keys)))
    results, files = [], []
    for bucket in range(1 << bucket_bits):
        mine = (
            staged[KEY_HIGH].to_numpy() >> np.uint64(64 - bucket_bits) == bucket
            if bucket_bits
            else [True] * len(staged)
        )
        rows = staged.filter(pa.array(mine))
        file = str(folder / f"{bucket_bits}-{bucket}.arrow")
        rows = rows.filter(pc.equal(rows[SPLIT], 0))
        if write_staged(file, [rows]):
            files.append(file)
        tallied = tally(rows, table.column_names, features, bucket_bits)
        results.append(pa.RecordBatch.from_pydict(tallied))
    numbers = [field.name for field in table.schema if is_number(field.type)]
    trained = Staged(NO_SPARK, tuple(files), min(training, len(table)), bucket_bits)
    return Learner(features, total(pa.Table.from_batches(results), table.column_names, numbers, trained), trained)
