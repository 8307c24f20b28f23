"""NULL, NaN and -0.0 in keys, and what a predicate that is NULL means: on Spark, against counts known beforehand."""

import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.console import Console
from lakefit.dataset.ledger import Ledger
from lakefit.dataset.manifest import read_manifest
from lakefit.run.stages import run_stages
from lakefit.run.validate import validate

PIPELINE = """
name: t
source: {tables: {t: {path: t.parquet, format: parquet}}, rows: t}
RULES
split: {train: 0.4, validation: 0.3, test: 0.3}
features: {numeric: {columns: [x]}}
label: {expression: y}
output: {path: lake}
train:
  model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}
  fit: {epochs: 1, batch_size: 64}
"""
KEYS = (None, float("nan"), -0.0, 0.0, 1.0)
"""Each 40 times; NaN is NULL in the cleaned row, and -0.0 is 0.0."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    rows = 600
    columns = {
        "key": [KEYS[i % 5] if i < 200 else float(i) for i in range(rows)],
        "other": [None if i % 2 else "a" for i in range(rows)],
        "x": [None if i % 3 == 0 else float(i % 7) for i in range(rows)],
        "y": [i % 4 < 2 for i in range(rows)],
    }
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder


def ledger(folder: Path, rules: str) -> Ledger:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "t.yaml").write_text(textwrap.dedent(PIPELINE.replace("RULES", rules)))
        return read_manifest(run_stages(validate("t.yaml"), Console("json"), "prepare").dataset_dir).ledger


@pytest.mark.parametrize(
    ("rules", "kept", "duplicates", "rejected"),
    [
        # 400 keys of their own, 0.0 and 1.0; NULL and NaN are no key.
        ("deduplicate: {key: [key]}", 402, 118, 80),
        ("deduplicate: {key: [key], null_key: keep}", 482, 118, 0),
        # Of two columns the whole key must be NULL: (NULL, 'a'), ((0.0 | 1.0), (NULL | 'a')), 400 of their own.
        ("deduplicate: {key: [key, other]}", 405, 155, 40),
        # x is 0 in 86 rows but for those in which it is NULL.
        ("reject: [{when: x < 1, because: small}]", 543, 0, 57),
        ("reject: [{when: x < 1, because: small, null: reject}]", 343, 0, 257),
        ("require: [{that: x >= 1, because: small}]", 343, 0, 257),
        ("require: [{that: x >= 1, because: small, null: keep}]", 543, 0, 57),
        # NaN in a predicate is NULL, as it is everywhere after clean.
        ("reject: [{when: key > 5, because: large, null: reject}]", 120, 0, 480),
    ],
)
def test_null_nan_and_negative_zero(
    spark: Any, folder: Path, rules: str, kept: int, duplicates: int, rejected: int
) -> None:
    found = ledger(folder, rules)
    assert (sum(found.kept.values()), found.duplicates, sum(found.rejected.values())) == (kept, duplicates, rejected)
    assert found.rows_in == 600
    assert found.not_finite == 40
