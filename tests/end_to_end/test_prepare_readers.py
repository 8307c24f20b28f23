"""Whoever reads the rows, Arrow or Spark: the same dataset, byte for byte."""

import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.config import validate_pipeline
from lakefit.config.file import PipelineSource
from lakefit.dataset.manifest import Manifest
from lakefit.prepare.reader import why_spark
from lakefit.prepare.stage import Job, prepare
from lakefit.run.validate import Validated, check_inputs

SCHEMA = "id INT, day DATE, city STRING, amount DOUBLE, paid BOOLEAN, code BIGINT, spare STRING"


def valid(table: dict[str, Any], **sections: Any) -> Validated:
    data = {
        "name": "t",
        "source": {"tables": {"t": table}, "rows": "t"},
        "clean": [{"drop": ["spare"]}],
        "deduplicate": {"key": ["id"], "keep": "last by code"},
        "reject": [{"when": "amount < 0 OR city = 'Oslo'", "because": "refunded"}],
        "require": [{"that": "code IS NOT NULL AND NOT (code > 900)", "because": "no code"}],
        "features": {
            "numeric": {"columns": ["amount", "code"], "indicator": True},
            "categorical": {"columns": ["city"]},
            "dates": {"columns": ["day"], "parts": ["month"]},
        },
        "label": {"expression": "paid"},
        "output": {"path": "lake", "rows_per_file": 400, "rows_per_group": 100},
        "train": {"model": {"sequential": ["Dense"]}, "fit": {"epochs": 1, "batch_size": 1}},
        **sections,
    }
    source = PipelineSource("test", data, {}, "")
    return check_inputs(validate_pipeline(source), source)


def rows(count: int) -> list[list[Any]]:
    dice = random.Random(5)

    def maybe(value: Any) -> Any:
        return None if dice.random() < 0.1 else value

    return [
        [
            maybe(dice.randrange(count)),
            maybe(f"2020-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}"),
            maybe(dice.choice(["Oslo", "Rome", "K\u00f6ln", " a b "])),
            maybe(dice.choice([dice.lognormvariate(2, 2), -1.0, -0.0, 0.0])),
            dice.random() < 0.4,
            maybe(dice.randrange(1000)),
            "x",
        ]
        for _ in range(count)
    ]


def text(values: list[Any]) -> str:
    shown = ["" if v is None else {True: "true", False: "FALSE"}[v] if isinstance(v, bool) else repr(v) for v in values]
    return ",".join(value.strip("'") for value in shown)


def write_csv(folder: Path, extra: list[str]) -> dict[str, Any]:
    lines = [text(values) for values in rows(1500)]
    lines[3:3] = extra
    header = "id,day,city,amount,paid,code,spare"
    (folder / "a.csv").write_text("\n".join([header, *lines[:700]]) + "\n", encoding="utf-8")
    (folder / "b.csv").write_bytes("\r\n".join([header, *lines[700:]]).encode("utf-8-sig"))
    return {"path": str(folder / "*.csv"), "format": "csv", "options": {"header": True}, "schema": SCHEMA}


BROKEN = ["1,2", "x,2020-01-01,a,1,true,1,s", "7,2020-13-01,a,1,true,1,s", "8,2020-01-01,a,1e400,true,1,s", "",
          '9,2020-01-01,"a,b",NaN,true,9,"s"', "+10,2020-01-01,, 5,true,1d,s",
          "id,day,city,amount,paid,code,spare"]  # fmt: skip


def made(spark: Any, found: Validated, folder: Path, why: str | None) -> Manifest:
    job = Job(found.pipeline, found.source, found.inputs, "f" * 16, folder / "d" / "one", why_spark=why)
    return prepare(spark, job)


def content(folder: Path) -> dict[str, bytes]:
    dataset = folder / "d" / "one"
    return {str(path.relative_to(dataset)): path.read_bytes() for path in sorted(dataset.rglob("*.parquet"))}


def compare(spark: Any, found: Validated, folder: Path) -> Manifest:
    assert why_spark(found.pipeline, found.inputs) is None
    arrow, other = made(spark, found, folder / "arrow", None), made(spark, found, folder / "spark", "asked for")
    assert (arrow.reader, other.reader) == ("Arrow", "Spark: asked for")
    provenance = {"created", "reader", "rejects"}
    assert arrow.model_dump(exclude=provenance) == other.model_dump(exclude=provenance)
    one, two = content(folder / "arrow"), content(folder / "spark")
    kept = [path for path in one if not path.startswith("rejects")]
    assert len(kept) > 4
    assert {path: one[path] for path in kept} == {path: two[path] for path in kept}
    tables = [pq.read_table(folder / name / "d/one/rejects").to_pylist() for name in ("arrow", "spark")]
    assert sorted(map(repr, tables[0])) == sorted(map(repr, tables[1]))
    return arrow


def test_csv(spark: Any, tmp_path: Path) -> None:
    manifest = compare(spark, valid(write_csv(tmp_path, BROKEN)), tmp_path)
    assert manifest.ledger.rejected["the line does not fit the schema"] == 4
    assert manifest.ledger.rejected["a header line inside the file"] == 1
    assert manifest.ledger.not_finite == 2
    assert manifest.ledger.rows_in == 1500 + len(BROKEN) - 1


def test_without_a_key_and_with_classes(spark: Any, tmp_path: Path) -> None:
    label = {"expression": "city", "type": "classes"}
    features = {"numeric": {"columns": ["amount"]}}
    keep = [{"that": "city IS NOT NULL", "because": "no city"}]
    found = valid(write_csv(tmp_path, []), deduplicate={}, reject=[], require=keep, label=label, features=features)
    assert compare(spark, found, tmp_path).ledger.duplicates == 0


def test_parquet(spark: Any, tmp_path: Path) -> None:
    columns = list(zip(*rows(1500), strict=True))
    kinds = [pa.int32(), pa.string(), pa.string(), pa.float64(), pa.bool_(), pa.int64(), pa.string()]
    names = ["id", "day", "city", "amount", "paid", "code", "spare"]
    table = pa.table({name: pa.array(column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)})
    table = table.set_column(1, "day", table["day"].cast(pa.date32()))
    strange = [math.nan, math.inf, -0.0, None] * 375
    table = table.set_column(3, "amount", pa.chunked_array([pa.array(strange[:700]), pa.array([2.5] * 800)]))
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=300)
    found = valid({"path": str(tmp_path / "t.parquet"), "format": "parquet"})
    assert compare(spark, found, tmp_path).ledger.not_finite == 350


def test_bytes_that_only_spark_reads_go_to_spark(spark: Any, tmp_path: Path) -> None:
    found = valid(write_csv(tmp_path, ['5,2020-01-01,"a ""q"" b",1,true,1,s']))
    arrow, other = made(spark, found, tmp_path / "arrow", None), made(spark, found, tmp_path / "spark", "asked for")
    assert arrow.reader.endswith("a.csv: a quote inside a value")
    assert arrow.ledger == other.ledger
    assert content(tmp_path / "arrow") == content(tmp_path / "spark")


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"label": {"expression": "id + 1 > 5"}}, "'id + 1 > 5' is SQL that Spark evaluates"),
        ({"clean": [{"column": "city", "text": ["trim"]}]}, "clean: text is done by Spark"),
        ({"reject": [{"when": "upper(city) = 'A'", "because": "a"}]}, "is SQL that Spark evaluates"),
    ],
)
def test_what_needs_spark_is_told(tmp_path: Path, sections: dict[str, Any], why: str) -> None:
    found = valid(write_csv(tmp_path, []), **sections)
    assert why in str(why_spark(found.pipeline, found.inputs))
