"""What is known of a source's files before Spark starts: refused with what is wrong, where, and what to do."""

import json
import lzma
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from lakefit.errors import InputError
from lakefit.run.validate import Validated, validate

PIPELINE = """
name: lake
source:
  tables:
    t: {SOURCE}
  rows: t
split: {train: 0.4, validation: 0.3, test: 0.3}
features: {numeric: {columns: [id]}}
label: {expression: y > 0}
output: {path: out}
train:
  model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}
  fit: {epochs: 1, batch_size: 64}
"""
Content = bytes | str | dict[str, Any]
INTS = pa.array([1, 2], pa.int32())
COLUMNS: dict[str, Any] = {"id": INTS, "b": ["x", "y"], "y": INTS}
CSV = {"format": "csv", "schema": "id INT, b STRING, y INT"}
HEADER = {**CSV, "options": {"header": True}}
TEXT = "id,b,y\n1,x,0\n"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Validated]:
    """Write files below `in` (columns as Parquet or ORC by the name) and validate a pipeline over them."""
    monkeypatch.chdir(tmp_path)

    def run(files: dict[str, Content], more: str = "", **source: Any) -> Validated:
        for name, content in files.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, dict):
                (orc if name.endswith("orc") else pq).write_table(pa.table(content), str(path))
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        source = {"path": "in", **source}
        text = textwrap.dedent(PIPELINE.replace("{SOURCE}", json.dumps(source))) + more
        (tmp_path / "lake.yaml").write_text(text, encoding="utf-8")
        return validate("lake.yaml")

    return run


def changed(**columns: Any) -> dict[str, Any]:
    return {**COLUMNS, **columns}


def struct(**values: Any) -> pa.Array:
    return pa.array([values, values], pa.struct([(name, value.type) for name, value in values.items()]))


ONE, WIDE = pa.scalar(1, pa.int32()), pa.scalar(1, pa.int64())
BIG = pa.array([2**40, 2], pa.int64())
ORDER = {name: COLUMNS[name] for name in ("y", "id", "b")}


@pytest.mark.parametrize("kind", ["parquet", "orc"])
@pytest.mark.parametrize(
    ("first", "second", "source", "says"),
    [
        (COLUMNS, changed(id=BIG), {"schema": CSV["schema"], "schema_drift": "allow"},
         "z.{} has the column 'id' as BIGINT, which the schema's INT can't hold; declare id BIGINT"),
        (changed(id=[1.5, 2]), changed(id=[1.5, 2]), {"schema": CSV["schema"]}, "'id' as DOUBLE, which the schema's"),
        (changed(id=["1", "oops"]), changed(id=["1", "oops"]), {"schema": CSV["schema"]}, "'id' as STRING"),
        (COLUMNS, ORDER, {}, "z.{} has its columns in another order than a.{}: y, id, b; read them with schema_drift"),
        (changed(s=struct(d=ONE)), changed(s=struct(d=WIDE)), {},
         "z.{} has other columns or types than a.{}: s STRUCT<d: BIGINT>, s STRUCT<d: INT>; no type holds both"),
        (changed(s=struct(d=ONE)), changed(s=struct(f=ONE)), {"on_corrupt_file": "exclude"}, "s STRUCT<f: INT>"),
        (changed(s=struct(d=ONE)), changed(s=struct(d=ONE, e=ONE)), {"schema_drift": "allow"},
         "'s' is STRUCT<d: INT> in some files and STRUCT<d: INT, e: INT> in others: no type holds both"),
        (COLUMNS, changed(ID=INTS), {"schema_drift": "allow"}, "two columns have the name 'id', case apart"),
    ],
)  # fmt: skip
def test_footers_that_differ_from_the_schema_or_one_another_are_refused(
    check: Callable[..., Validated], kind: str, first: Content, second: Content, source: dict[str, str], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        check({f"a.{kind}": first, f"z.{kind}": second}, format=kind, **source)
    assert says.replace("{}", kind) in str(refused.value)


@pytest.mark.parametrize(
    ("files", "source", "says"),
    [
        ({"k=1/k=2/a.csv": TEXT}, {**HEADER, "partitions": "k INT"}, "a.csv lies in two folders k=…"),
        ({"a.csv": "id,id,b,y\n1,5,x,0\n"}, {**HEADER, "schema_drift": "allow"}, "a.csv has the column 'id' twice"),
        ({"a.csv": TEXT, "b.csv": "id,y,b\n"}, HEADER, "(schema_drift: allow reads the columns of each file by name)"),
        ({"a.csv": "é" * 140_000}, HEADER, "the first line is no header: field larger than field limit"),
        ({"a.csv": TEXT.encode("utf-16-le")}, {**CSV, "options": {"encoding": "UTF-16"}}, "encoding: UTF-16LE}"),
        ({"a.csv": TEXT, "z.csv": TEXT.encode("utf-16")}, {**HEADER, "on_corrupt_file": "exclude"},
         "z.csv: the first line is not UTF-8 text; give its encoding"),
        ({"a.csv.xz": lzma.compress(TEXT.encode())}, CSV, "text compressed as .xz is not read; decompress it"),
        ({"a.csv.lz4": b"\0\0\0\x10\0\0\0\x12hadoop"}, CSV, "no LZ4 frames (Hadoop's own LZ4 has none)"),
        ({"a.csv.gz": b""}, CSV, "a.csv.gz: damaged: empty, and a compressed file never is"),
        ({"a.csv.gz": b"not gzip"}, {**CSV, "on_corrupt_file": "exclude"}, "every file is damaged"),
        ({"a.csv.zst": b"x"}, {**CSV, "options": {"lineSep": "|"}}, "lineSep is not for .zst and .lz4"),
        ({"10:30.csv": TEXT}, {**HEADER, "on_corrupt_file": "exclude"}, "reads no file with ':' in its name; rename"),
    ],
)  # fmt: skip
def test_files_that_can_not_be_read_right_are_refused(
    check: Callable[..., Validated], files: dict[str, Content], source: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        check(files, **source)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            {"format": "org.apache.spark.sql.execution.datasources.csv.CSVFileFormat"},
            "write csv, which is read with all",
        ),
        (
            {"format": "parquet", "options": {"ignoreCorruptFiles": True}},
            "on_corrupt_file: exclude leaves damaged files",
        ),
        ({"format": "text", "options": {"pathGlobFilter": "a*"}}, "'pathGlobFilter' would leave out rows unseen"),
        ({"format": "orc", "options": {"mergeSchema": True}}, "schema_drift: allow reads files whose columns differ"),
        ({"format": "parquet", "options": {"header": True}}, "parquet has no option 'header' here"),
        ({"format": "xml", "options": {"mode": "DropMalformed"}}, "would lose records that do not parse"),
        ({**CSV, "options": {"quote": "''"}}, "quote is one character or empty; found \"''\""),
        ({**CSV, "options": {"sep": ""}}, "sep is empty"),
        ({**CSV, "options": {"lineSep": "\n"}}, "leave lineSep out"),
        (
            {**CSV, "options": {"lineSep": "|", "multiLine": True}},
            "lineSep is for UTF-8 files without header and multi",
        ),
    ],
)
def test_settings_that_would_lose_or_garble_rows_are_refused(
    check: Callable[..., Validated], source: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        check({"a.csv": TEXT}, **source)
    assert says in str(refused.value)


def test_a_format_is_known_in_any_case(check: Callable[..., Validated]) -> None:
    for source in ({**HEADER, "format": "CSV"}, {**HEADER, "format": "csv"}):
        (table,) = check({"a.csv": TEXT}, **source).pipeline.source.tables.values()
        assert (table.format, table.header) == ("csv", True)


def test_a_wider_declared_type_is_valid(check: Callable[..., Validated]) -> None:
    columns = {"id": INTS, "y": pa.array([0.5, 1], pa.float32()), "d": pa.array([1, 2], pa.decimal128(9, 2))}
    columns |= {"t": pa.array([0, 1], pa.timestamp("us")), "s": struct(d=ONE), "raw": [b"x", b"y"]}
    schema = "id DOUBLE, y DOUBLE, d DECIMAL(12, 3), t TIMESTAMP, s STRUCT<d: INT>, raw STRING"
    check({"a.parquet": columns}, format="parquet", schema=schema)


def test_files_to_score_are_checked_as_those_of_the_table(check: Callable[..., Validated]) -> None:
    score = "score: {input: new, output: scores}\n"
    Path("new").mkdir()
    pq.write_table(pa.table(changed(id=[1.5, 2])), "new/n.parquet")
    with pytest.raises(InputError, match=r"score\.input: n\.parquet has the column 'id' as DOUBLE"):
        check({"a.parquet": COLUMNS}, score, format="parquet", schema=CSV["schema"])
