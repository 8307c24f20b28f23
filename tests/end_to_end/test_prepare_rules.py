"""NULL, NaN and -0.0 in keys, and what a predicate that is NULL means: on Spark, against counts known beforehand."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.dataset.ledger import Ledger
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.errors import ContractError, InputError
from lakefit.run.validate import validate
from shop import run_prepare

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
        "list": [["a"]] * rows,
        "text": [str(i) for i in range(rows)],
    }
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder


def prepared(folder: Path, rules: str) -> Manifest:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "t.yaml").write_text(textwrap.dedent(PIPELINE.replace("RULES", rules)))
        return read_manifest(run_prepare(validate("t.yaml")).dataset_dir)


def ledger(folder: Path, rules: str) -> Ledger:
    return prepared(folder, rules).ledger


def in_use(folder: Path) -> str:
    return str(json.loads((folder / "lake/t/current.json").read_text())["dataset"])


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            'reject: [{when: "coalesce(text, x)", because: a}]',
            "t.yaml:4:11: reject.0.when: 'coalesce(text, x)' is of type double; expected a condition",
        ),
        (
            'clean: [{column: z, derive: "1 / (x - x)"}]',
            "t.yaml:4:21: clean.0.derive: a row made Spark say: [DIVIDE_BY_ZERO]",
        ),
        (
            "clean: [{column: z, derive: make_interval(1)}]",
            "t.yaml:4:1: clean: the column 'z' is of type interval; CAST or drop it",
        ),
        (
            "deduplicate: {key: [key], keep: last by list}",
            "the column 'list' holds lists; expected numbers, booleans, text, dates or times",
        ),
        (
            "expect: {result: [unique(list)]}",
            "t.yaml:4:19: expect.result.0: the column 'list' holds lists",
        ),
    ],
)  # fmt: skip
def test_what_spark_or_a_row_refuses_is_told_at_its_place(spark: Any, folder: Path, rules: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        prepared(folder, rules)


def test_a_key_that_does_not_parse_is_no_missing_key(spark: Any, folder: Path) -> None:
    steps = """clean:
      - {column: text, derive: "if(x = 1, 'one', text)"}
      - {column: text, parse: {as: integer}}
    """
    found = ledger(folder, f"{steps}\ndeduplicate: {{key: [text]}}").rejected
    assert found == {"text does not parse as integer": sum(i % 7 == 1 and i % 3 > 0 for i in range(600))}


def test_a_contract_says_more_of_an_empty_split_than_the_split(spark: Any, folder: Path) -> None:
    rules = "require: [{that: x > 100, because: small}]\nexpect: {result: [rows > 5, drift(x) < 0.1]}"
    with pytest.raises(ContractError, match="BROKEN  result  rows > 5 "):
        prepared(folder, rules)


def test_values_are_compared_as_the_column_holds_them(spark: Any, folder: Path) -> None:
    contracts = ["values(x) in [0, 1.0, 2.00, 3, 4, 5, 6]", "values(y) in [True, false]", "values(key) in [1, 2]"]
    with pytest.raises(ContractError) as error:
        prepared(folder, f"expect: {{result: {json.dumps(contracts)}}}")
    assert [line.split()[0] for line in str(error.value).splitlines()[1:]] == ["ok", "ok", "BROKEN"]


def test_earlier_settings_are_in_use_again_unless_they_drifted(spark: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").symlink_to(folder / "t.parquet")
    folder = tmp_path
    drift = 'expect: {result: ["drift(x) < 0.1"]}'
    one = prepared(folder, drift).fingerprint
    two = prepared(folder, "clean: [{column: x, derive: x * 100}]").fingerprint
    assert one != two == in_use(folder)
    with pytest.raises(ContractError, match=r"drift.x. < 0.1 does not hold between the dataset in use"):
        prepared(folder, drift)
    assert in_use(folder) == two
    plain = prepared(folder, "").fingerprint
    assert prepared(folder, "clean: [{column: x, derive: x * 100}]").fingerprint == two == in_use(folder)
    assert prepared(folder, "").fingerprint == plain == in_use(folder)


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
