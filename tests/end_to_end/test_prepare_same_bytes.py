"""Same rows in, any file cut, order, number of buckets: the same bytes out."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from lakefit.dataset.manifest import Manifest
from lakefit.prepare.stage import Job, prepare
from lakefit.run.validate import validate
from shop import parquet_bytes, write_shop

ROWS = 12_000


def prepared(spark: Any, folder: Path, bucket_bytes: int, **shop: Any) -> Manifest:
    folder.mkdir()
    pipeline = write_shop(folder, ROWS, **shop)
    with contextlib.chdir(folder):
        valid = validate(pipeline, ("output.rows_per_file=150", "output.rows_per_group=40"))
        job = Job(valid.pipeline, valid.source, valid.inputs, "fixed", folder / "dataset", bucket_bytes=bucket_bytes)
        return prepare(spark, job)


@pytest.fixture(scope="module")
def a(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The shop's rows prepared in one bucket: the dataset's folder and its manifest."""
    folder = tmp_path_factory.mktemp("shop") / "a"
    return folder / "dataset", prepared(spark, folder, 64 << 20)


def test_any_cut_order_and_partitioning_of_the_raw_rows_gives_the_same_bytes(
    spark: Any, a: tuple[Path, Manifest], tmp_path: Path
) -> None:
    dataset, first = a
    other = prepared(spark, tmp_path / "b", 20_000, files=7, order=lambda i: (i * 7919) % 12_289)
    ours, theirs = parquet_bytes(dataset), parquet_bytes(tmp_path / "b" / "dataset")
    assert len([name for name in ours if name.startswith("train/")]) >= 64
    assert ours == theirs
    assert first.splits == other.splits
    assert first.features == other.features
    # Not vacuous: other rows give other bytes.
    assert len({bytes(content) for content in ours.values()}) == len(ours)
    assert first.ledger.files.keys() != other.ledger.files.keys()


def test_every_row_is_kept_rejected_or_a_duplicate_and_stands_where_the_ledger_says(
    a: tuple[Path, Manifest],
) -> None:
    import pyarrow.parquet as pq

    dataset, manifest = a
    ledger = manifest.ledger
    assert ledger.rows_in == ROWS + 82
    assert ledger.duplicates == 70
    assert ledger.rejected == {"refunded": 10, "the line does not fit the schema": 2}
    assert sum(ledger.kept.values()) == ROWS
    rejects = pq.read_table(dataset / "rejects").to_pylist()
    assert sorted(row["_record"] for row in rejects if row["_record"] is not None) == ["\0\0\0\0", "1,2,three"]
    assert {row["_reason"] for row in rejects if row["_record"] is None} == {"refunded"}
    kept: set[bytes] = set()
    for split in ("train", "validation", "test"):
        table = pq.read_table(dataset / split)
        kept |= set(table["_row"].to_pylist())
    duplicates = pq.read_table(dataset / "duplicates")
    assert set(duplicates["_kept_row"].to_pylist()) <= kept
    assert duplicates["stamp"].to_pylist().count(0) == 50
