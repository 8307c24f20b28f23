"""A store on S3, real but for its provider: Petastorm reads it through pyarrow.fs and through fsspec."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow
moto_server = pytest.importorskip("moto.server", reason="make test-all installs requirements-suite.lock")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def store(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> pa.fs.S3FileSystem:
    files = pa.fs.S3FileSystem(
        access_key="a", secret_key="b", endpoint_override=endpoint, region="us-east-1", allow_bucket_creation=True
    )
    files.create_dir("lake")
    table = pa.table({"id": range(100), "day": ["a b", "c"] * 50})
    pq.write_to_dataset(table, "lake/rows", partition_cols=["day"], filesystem=files, row_group_size=10)
    return files


def ids(reader: Any) -> list[tuple[str, int]]:
    with reader:
        return sorted((day, number) for batch in reader for day, number in zip(batch.day, batch.id, strict=True))


EXPECTED = sorted(("a b" if i % 2 == 0 else "c", i) for i in range(100))


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_through_pyarrow(petastorm: Any, store: pa.fs.S3FileSystem, pool: str) -> None:
    reader = petastorm.make_batch_reader("s3://lake/rows", filesystem=store, reader_pool_type=pool, workers_count=2)

    assert ids(reader) == EXPECTED


def test_through_a_sub_tree(petastorm: Any, store: pa.fs.S3FileSystem) -> None:
    tree = pa.fs.SubTreeFileSystem("lake", store)

    assert ids(petastorm.make_batch_reader("s3://rows", filesystem=tree, workers_count=2)) == EXPECTED


def test_through_s3fs(petastorm: Any, store: pa.fs.S3FileSystem, endpoint: str) -> None:
    options = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": endpoint}}

    reader = petastorm.make_batch_reader("s3://lake/rows", storage_options=options, workers_count=2)

    assert ids(reader) == EXPECTED


def test_filters_and_a_missing_folder(petastorm: Any, store: pa.fs.S3FileSystem, tmp_path: Path) -> None:
    reader = petastorm.make_batch_reader("s3://lake/rows", filesystem=store, filters=[("day", "=", "c")])
    assert ids(reader) == [row for row in EXPECTED if row[0] == "c"]

    with pytest.raises(FileNotFoundError, match="lake/nothing"):
        petastorm.make_batch_reader("s3://lake/nothing", filesystem=store)
