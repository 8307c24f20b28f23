"""Sources that are not quite right: damaged files, files that change, sources without a version."""

import gzip
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.cli import main
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.errors import InputError
from lakefit.prepare import stage
from lakefit.run.validate import validate
from shop import run_prepare

PIPELINE = """
name: lake
source:
  tables:
    t: {SOURCE}
  rows: t
split: {train: 0.4, validation: 0.3, test: 0.3}
features: {numeric: {columns: [x]}}
label: {expression: y}
output: {path: out}
train:
  model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}
  fit: {epochs: 1, batch_size: 64}
"""
Prepare = Callable[[str], Manifest]


@pytest.fixture
def prepare(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    monkeypatch.chdir(tmp_path)

    def run(source: str) -> Manifest:
        (tmp_path / "lake.yaml").write_text(textwrap.dedent(PIPELINE.replace("{SOURCE}", "{" + source + "}")))
        return read_manifest(run_prepare(validate("lake.yaml")).dataset_dir)

    return run


def write_parquet(folder: Path, files: int = 3, rows: int = 400) -> None:
    for i in range(files):
        values = [float(i * rows + k) for k in range(rows)]
        pq.write_table(pa.table({"x": values, "y": [k % 2 == 0 for k in range(rows)]}), folder / f"{i}.parquet")


PARQUET = "path: '*.parquet', format: parquet"


def test_a_damaged_footer_is_named_or_excluded(prepare: Prepare, tmp_path: Path) -> None:
    write_parquet(tmp_path)
    damaged = tmp_path / "1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"1\.parquet: not a readable parquet file"):
        prepare(PARQUET)
    manifest = prepare(f"{PARQUET}, on_corrupt_file: exclude")
    (excluded,) = manifest.excluded
    assert (excluded.name, excluded.bytes) == ("1.parquet", damaged.stat().st_size)
    assert manifest.ledger.rows_in == 800
    assert [file.name for file in manifest.inputs] == ["0.parquet", "2.parquet"]


def test_a_damaged_page_is_found_while_reading(prepare: Prepare, tmp_path: Path) -> None:
    write_parquet(tmp_path)
    damaged = tmp_path / "2.parquet"
    content = bytearray(damaged.read_bytes())
    content[4:400] = b"\xff" * 396
    damaged.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"2\.parquet: damaged: .*on_corrupt_file: exclude"):
        prepare(PARQUET)
    manifest = prepare(f"{PARQUET}, on_corrupt_file: exclude")
    assert [file.name for file in manifest.excluded] == ["2.parquet"]
    assert manifest.ledger.rows_in == 800
    assert not list((tmp_path / "out/lake/datasets").glob(".staging-*"))


@pytest.mark.parametrize("options", ["", "options: {multiLine: true}, "])
def test_a_truncated_gzip_is_named_or_excluded(prepare: Prepare, tmp_path: Path, options: str) -> None:
    lines = "".join(f"{i * 7919 % 100_003},{i % 2}\n" for i in range(20_000)).encode()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "b b.csv.gz").write_bytes(gzip.compress(lines)[:-2000])
    source = f'path: "*.csv.gz", format: csv, {options}schema: "x DOUBLE, y INT"'
    with pytest.raises(InputError, match=r"b b\.csv\.gz: damaged: (Trunc|Unexp)"):
        prepare(source)
    manifest = prepare(f"{source}, on_corrupt_file: exclude")
    assert manifest.ledger.rows_in == 20_000
    assert [file.name for file in manifest.excluded] == ["b b.csv.gz"]


def test_where_no_file_or_no_row_is_left_the_message_says_so(prepare: Prepare, tmp_path: Path) -> None:
    lines = "".join(f"{i * 7919 % 100_003},{i % 2}\n" for i in range(20_000)).encode()
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(lines)[:-2000])
    with pytest.raises(InputError, match=r"every file is damaged, the last one: .*b\.csv\.gz"):
        prepare('path: "*.csv.gz", format: csv, schema: "x DOUBLE, y INT", on_corrupt_file: exclude')
    (tmp_path / "t.csv").write_text("x,y\n")
    with pytest.raises(InputError, match="The table 't' has no rows"):
        prepare('path: t.csv, format: csv, options: {header: true}, schema: "x DOUBLE, y INT"')


def test_rejects_name_their_file_by_its_path(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "a+b c%41.csv").write_text("".join(f"{i},{i % 2}\n" for i in range(900)) + "one,1\n")
    manifest = prepare('path: "*.csv", format: csv, schema: "x DOUBLE, y INT"')
    (rejects,) = (tmp_path / "out/lake/datasets").glob("*/rejects")
    assert pq.read_table(rejects)["_file"].to_pylist() == [str(tmp_path / "a+b c%41.csv")]
    assert manifest.ledger.files["a+b c%41.csv"].rejected == 1


READERS = {"read_blocks": None, "cleaned_rows": "asked for"}
"""What of `stage` reads the rows: Arrow, or Spark with the reason why."""


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_grows_while_it_is_read_is_refused(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    (tmp_path / "t.csv").write_text("".join(f"{i},{i % 2}\n" for i in range(900)))
    read = getattr(stage, reader)

    def then_grow(*arguments: Any, **options: Any) -> Any:
        rows = read(*arguments, **options)
        with (tmp_path / "t.csv").open("a") as file:
            file.write("1,1\n")
        return rows

    monkeypatch.setattr(stage, "why_spark", lambda *_: READERS[reader])
    monkeypatch.setattr(stage, reader, then_grow)
    with pytest.raises(InputError, match="has changed"):
        prepare('path: t.csv, format: csv, schema: "x DOUBLE, y INT"')
    assert not list((tmp_path / "out/lake/datasets").iterdir())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("change", "says"),
    [(Path.unlink, "1.parquet can't be read any more"), (Path.write_text, "1.parquet has changed: ")],
)
def test_a_file_that_changes_before_it_is_read_is_refused(
    prepare: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[..., Any],
    says: str,
    reader: str,
) -> None:
    write_parquet(tmp_path, files=2)
    read = getattr(stage, reader)

    def change_first(*arguments: Any, **options: Any) -> Any:
        change(tmp_path / "1.parquet", *([""] if change is Path.write_text else []))
        return read(*arguments, **options)

    monkeypatch.setattr(stage, "why_spark", lambda *_: READERS[reader])
    monkeypatch.setattr(stage, reader, change_first)
    with pytest.raises(InputError, match=says):
        prepare(PARQUET)


def test_files_whose_columns_differ_are_refused_by_name(prepare: Prepare, tmp_path: Path) -> None:
    write_parquet(tmp_path, files=2)
    pq.write_table(pa.table({"x": [1.0], "y": [True], "new": [1]}), tmp_path / "2.parquet")
    with pytest.raises(InputError, match=r"2\.parquet has other columns or types than 0\.parquet: new BIGINT"):
        prepare(PARQUET)
    assert prepare(f"{PARQUET}, schema_drift: allow").ledger.rows_in == 801


def test_folders_must_be_declared(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "in/day=1").mkdir(parents=True)
    write_parquet(tmp_path / "in/day=1", files=1)
    with pytest.raises(InputError, match='say what they hold: partitions: "day STRING"'):
        prepare("path: in, format: parquet")


def test_a_source_without_a_version_is_read_in_every_run(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    spark.sql("CREATE DATABASE IF NOT EXISTS lakefit_sources")
    try:
        rows = [(float(i), i % 2 == 0) for i in range(600)]
        spark.createDataFrame(rows, "x DOUBLE, y BOOLEAN").write.saveAsTable("lakefit_sources.t", mode="overwrite")
        for version, found in (("", [0, 0]), (", version: '7'", [0, 10])):
            source = f"{{table: lakefit_sources.t{version}}}"
            (tmp_path / "lake.yaml").write_text(textwrap.dedent(PIPELINE.replace("{SOURCE}", source)))
            codes = [main(["prepare", "lake.yaml", "--json", "--exit-code"]) for _ in range(2)]
            assert codes == found, capsys.readouterr().out
        assert len(list((tmp_path / "out/lake/datasets").iterdir())) == 3
    finally:
        spark.sql("DROP DATABASE lakefit_sources CASCADE")
