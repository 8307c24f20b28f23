"""A dataset in an object store: the same rows, through failures of the store, and through a cache."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakefit
from lakefit.cli import main
from lakefit.dataset import object_path
from lakefit.dataset.index import index_folder
from lakefit.errors import FeedError, InputError
from object_store import ObjectStore, store_of_this_process

pytestmark = pytest.mark.slow
pytest.importorskip("moto.server", reason="make test-all installs requirements-suite.lock")

ROWS, GROUP = 4_000, 250


def write(folder: Path, shift: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        at = np.arange(number * ROWS // 2, (number + 1) * ROWS // 2)
        table = pa.table({"at": at, "x": (at + shift).astype(np.float32), "name": [f"row {i + shift}" for i in at]})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=GROUP, write_page_checksum=True)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with store_of_this_process() as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def bucket(store: ObjectStore, folder: Path, request: pytest.FixtureRequest) -> str:
    """The address of the files in a bucket, with their index."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    store.upload(folder, name)
    index_folder(store.address(name))
    index_folder(folder)
    return store.address(name)


def rows(path: Any, **options: Any) -> list[tuple[int, float, str]]:
    feed = lakefit.open_dataset(path, **options).to_numpy("all", batch_size=128, seed=3)
    return [
        row
        for batch in feed
        for row in zip(batch["at"].tolist(), batch["x"].tolist(), batch["name"].tolist(), strict=True)
    ]


def test_the_same_rows_in_the_same_order_as_from_a_folder(bucket: str, folder: Path) -> None:
    assert rows(bucket) == rows(folder)
    assert lakefit.open_dataset(bucket).manifest == lakefit.open_dataset(folder).manifest

    columns = [
        batch["at"].tolist() for batch in lakefit.open_dataset(bucket).to_numpy("all", batch_size=500, columns=["at"])
    ]
    assert sorted(row for batch in columns for row in batch) == list(range(ROWS))


@pytest.mark.parametrize("kind", ["500", "503", "reset", "cut"])
def test_reads_that_fail_are_tried_again(
    store: ObjectStore, bucket: str, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows(folder)
    try:
        ensure_tried_again(store, bucket, kind, expected, monkeypatch)
    finally:
        store.fail(kind, 0)


def ensure_tried_again(
    store: ObjectStore, bucket: str, kind: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.fail(kind, 12)
    assert rows(bucket) == expected

    # More than pyarrow's own tries.
    monkeypatch.setattr(object_path, "_WAITS_S", (0.1, 0.2, 0.4, 0.8))
    before = store.reads()
    store.fail(kind, 60)
    assert rows(bucket) == expected
    assert store.reads() - before > 60


def test_a_store_that_stays_broken_is_said_to_be(
    store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_path, "_WAITS_S", ())
    feed = lakefit.open_dataset(bucket).to_numpy("all", batch_size=128)
    store.fail("503", 10**6)
    try:
        with pytest.raises(FeedError, match=r"Row group \d of s3://bucket-\d+/\d\.parquet can't be read.*AWS Error"):
            list(feed)
    finally:
        store.fail("503", 0)


def test_a_cache_spares_the_store_and_survives_a_restart(
    store: ObjectStore, bucket: str, folder: Path, tmp_path: Path
) -> None:
    expected = rows(folder)
    before = store.reads()
    assert rows(bucket, cache=tmp_path / "cache") == expected
    first = store.reads() - before
    assert first >= 16

    before = store.reads()
    assert rows(bucket, cache=tmp_path / "cache") == expected
    assert store.reads() - before == 3, "the manifest and two footers"

    for piece in (tmp_path / "cache").iterdir():
        piece.write_bytes(piece.read_bytes()[:-1])
    before = store.reads()
    assert rows(bucket, cache=tmp_path / "cache") == expected
    assert store.reads() - before == first

    # A bound that holds a few pieces: slower, and right.
    assert rows(bucket, cache=tmp_path / "small", cache_bytes=20_000) == expected
    assert sum(os.path.getsize(piece) for piece in (tmp_path / "small").iterdir()) <= 20_000


def test_a_file_that_was_replaced_is_never_served_from_the_cache(
    store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    from pyarrow import fs

    rows(bucket, cache=tmp_path / "cache")
    write(tmp_path / "new", shift=1)
    files, base = fs.FileSystem.from_uri(bucket)
    fs.copy_files(str(tmp_path / "new"), base, destination_filesystem=files)
    index_folder(bucket)

    assert {(x - at, name == f"row {at + 1}") for at, x, name in rows(bucket, cache=tmp_path / "cache")} == {(1, True)}


def test_what_is_not_there_or_not_the_same_is_said(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    from pyarrow import fs

    files, base = fs.FileSystem.from_uri(bucket)
    with pytest.raises(InputError, match=r"s3://nowhere/manifest\.json: "):
        lakefit.open_dataset(store.address("nowhere"))
    with pytest.raises(InputError, match="credentials") as refused:
        lakefit.open_dataset("s3://me:secret@bucket/lake")
    assert "secret" not in str(refused.value)
    assert main(["index", store.address("nowhere")]) == 2

    files.delete_file(f"{base}/1.parquet")
    with pytest.raises(FeedError, match=r"Row group \d of s3://bucket-\d+/1\.parquet can't be read"):
        rows(bucket)
    with files.open_output_stream(f"{base}/1.parquet") as file:
        file.write(b"something else")
    with pytest.raises(FeedError, match=r"1\.parquet can't be read\. The file has 14 bytes where the manifest has"):
        rows(bucket)
