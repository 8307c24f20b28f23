"""Every kind of store that Petastorm can be pointed at: folders of keys, filters, summary files, file systems."""

import os
import pickle
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from lakefit.errors import InputError
from lakefit.petastorm import legacy_parquet


def rows_of(petastorm: Any, url: Any, **options: Any) -> list[tuple[Any, ...]]:
    """The rows as tuples in the order of the reader's fields, sorted."""
    options = {"reader_pool_type": "thread", "workers_count": 2, **options}
    rows: list[tuple[Any, ...]] = []
    with petastorm.make_batch_reader(url, **options) as reader:
        for batch in reader:
            rows += zip(*(np.asarray(column).tolist() for column in batch), strict=True)
    return sorted(rows)


@pytest.fixture
def by_day(tmp_path: Path) -> Path:
    """Two levels of folders, the inner ones with names that a URL must escape; the outer ones are integers."""
    days = ["a b", "c/d=%25", "ä"]
    table = pa.table({"id": range(12), "year": [2023, 2024] * 6, "day": [days[i % 3] for i in range(12)]})
    pq.write_to_dataset(table, tmp_path, partition_cols=["year", "day"])
    (tmp_path / "_temporary" / "0").mkdir(parents=True)
    (tmp_path / "_temporary" / "0" / "part-0.parquet").write_bytes(b"half written")
    return tmp_path


def expected(keep: Any = lambda row: True) -> list[tuple[Any, ...]]:
    days = ["a b", "c/d=%25", "ä"]
    rows = [(2023 + i % 2, days[i % 3], i) for i in range(12)]
    return sorted(row for row in rows if keep(row))


@pytest.mark.parametrize("pool", ["thread", "dummy"])
def test_nested_and_escaped_folders_are_columns(petastorm: Any, by_day: Path, pool: str) -> None:
    assert rows_of(petastorm, by_day.as_uri(), reader_pool_type=pool) == expected()


def test_a_column_of_folders_can_be_asked_for_alone_or_left_out(petastorm: Any, by_day: Path) -> None:
    assert rows_of(petastorm, by_day.as_uri(), schema_fields=["id"]) == [(i,) for i in range(12)]
    assert rows_of(petastorm, by_day.as_uri(), schema_fields=["year", "id"]) == sorted(
        (2023 + i % 2, i) for i in range(12)
    )


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ([("year", "=", 2024)], lambda row: row[0] == 2024),
        ([("day", "in", ["ä", "a b"])], lambda row: row[1] in ("ä", "a b")),
        ([("year", "=", 2024), ("id", "<", 6)], lambda row: row[0] == 2024 and row[2] < 6),
        (
            [[("year", "=", 2023), ("id", ">", 5)], [("day", "=", "ä")]],
            lambda row: (row[0] == 2023 and row[2] > 5) or row[1] == "ä",
        ),
        ([("id", "<", 1)], lambda row: row[2] < 1),
    ],
)  # fmt: skip
def test_filters_keep_the_rows_that_they_name_and_no_others(
    petastorm: Any, by_day: Path, filters: Any, keep: Any
) -> None:
    assert rows_of(petastorm, by_day.as_uri(), filters=filters) == expected(keep)


@pytest.mark.parametrize("year", ["2024", 2024.0, np.int64(2024)])
def test_a_filters_value_takes_the_type_of_the_folders(petastorm: Any, by_day: Path, year: Any) -> None:
    assert rows_of(petastorm, by_day.as_uri(), filters=[("year", "=", year)]) == expected(lambda row: row[0] == 2024)


def test_no_filters_are_none(petastorm: Any, by_day: Path) -> None:
    assert rows_of(petastorm, by_day.as_uri(), filters=[]) == expected()


def test_filters_on_folders_open_no_other_file(petastorm: Any, by_day: Path) -> None:
    for file in by_day.glob("year=2023/*/*.parquet"):
        file.write_bytes(b"not Parquet")

    assert rows_of(petastorm, by_day.as_uri(), filters=[("year", "=", 2024)]) == expected(lambda row: row[0] == 2024)


def test_a_filtered_column_need_not_be_read(petastorm: Any, dataset: Path) -> None:
    rows = rows_of(petastorm, dataset.as_uri(), schema_fields=["name"], filters=[("id", "<", 2)])

    assert rows == [("row 0",), ("row 1",)]


def test_filters_on_a_column_that_is_not_there_are_refused(petastorm: Any, dataset: Path) -> None:
    with pytest.raises(InputError, match=r"filters=.*'idd', which is neither in .*part-\d\.parquet .*id, name, share"):
        rows_of(petastorm, dataset.as_uri(), filters=[("idd", "<", 2)])


def test_filters_that_leave_no_file_are_refused(petastorm: Any, by_day: Path) -> None:
    with pytest.raises(InputError, match=r"year.*1999.*leave none of its 6 Parquet files"):
        rows_of(petastorm, by_day.as_uri(), filters=[("year", "=", 1999)])


def test_a_folder_of_rows_without_the_key_is_null(tmp_path: Path) -> None:
    pq.write_to_dataset(pa.table({"id": [1, 2], "day": ["mon", None]}), tmp_path, partition_cols=["day"])

    dataset = legacy_parquet.ParquetDataset(str(tmp_path))
    tables = [piece.read(partitions=dataset.partitions) for piece in dataset.pieces]

    assert sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["id"]) == [
        {"id": 1, "day": "mon"},
        {"id": 2, "day": None},
    ]


def test_folders_of_different_keys_are_refused(petastorm: Any, by_day: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), by_day / "part-0.parquet")

    with pytest.raises(InputError, match="different keys: none, and year, day"):
        rows_of(petastorm, by_day.as_uri())


def test_keys_have_the_same_numbers_in_every_process(by_day: Path) -> None:
    first, second = (legacy_parquet.ParquetDataset(str(by_day)) for _ in range(2))
    second.fs = None

    travelled = pickle.loads(pickle.dumps(first.partitions))
    assert [level.keys for level in travelled.levels] == [sorted(level.keys) for level in first.partitions.levels]
    assert [piece.partition_keys for piece in first.pieces] == [piece.partition_keys for piece in second.pieces]


def test_a_folder_that_comes_while_a_reader_is_open_changes_no_value(petastorm: Any, tmp_path: Path) -> None:
    pq.write_to_dataset(pa.table({"id": range(6), "day": [2, 3] * 3}), tmp_path, partition_cols=["day"])

    with petastorm.make_batch_reader(tmp_path.as_uri(), reader_pool_type="dummy") as reader:
        pq.write_to_dataset(pa.table({"id": [9], "day": [1]}), tmp_path, partition_cols=["day"])
        rows = [row for batch in reader for row in zip(batch.day.tolist(), batch.id.tolist(), strict=True)]

    assert sorted(rows) == [(2, 0), (2, 2), (2, 4), (3, 1), (3, 3), (3, 5)]


def test_links_are_followed_and_hidden_folders_are_not(petastorm: Any, tmp_path: Path) -> None:
    pq.write_to_dataset(pa.table({"id": range(6), "day": [2, 3] * 3}), tmp_path / "there", partition_cols=["day"])
    here = tmp_path / "here"
    here.mkdir()
    (here / "day=2").symlink_to(tmp_path / "there" / "day=2")
    (here / "day=3").symlink_to("../there/day=3")
    (here / "day=3" / "up").symlink_to(here)
    (here / ".x=1").mkdir()
    (here / ".x=1" / "part-0.parquet").write_bytes(b"not Parquet")

    assert rows_of(petastorm, here.as_uri()) == [(2, 0), (2, 2), (2, 4), (3, 1), (3, 3), (3, 5)]


def test_a_file_that_lacks_a_column_is_named(petastorm: Any, dataset: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "name": ["row 1"]}), tmp_path / "part-0.parquet")
    pq.write_table(pa.table({"id": [2]}), tmp_path / "part-1.parquet")

    with pytest.raises(InputError, match=r"part-1\.parquet has no column 'name', which other files .*it has id"):
        rows_of(petastorm, tmp_path.as_uri())


def test_a_damaged_summary_is_named(petastorm: Any, dataset: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "part-0.parquet")
    (tmp_path / "_common_metadata").write_bytes(b"PAR1")

    with pytest.raises(Exception, match="_common_metadata: "):
        rows_of(petastorm, tmp_path.as_uri())


def test_a_predicate_on_the_only_key_is_decided_by_the_folders(petastorm: Any, tmp_path: Path) -> None:
    from petastorm.predicates import in_lambda

    pq.write_to_dataset(pa.table({"id": range(6), "day": [1, 2, 3] * 2}), tmp_path, partition_cols=["day"])

    rows = rows_of(petastorm, tmp_path.as_uri(), predicate=in_lambda(["day"], lambda day: day > 1))

    assert rows == [(2, 1), (2, 4), (3, 2), (3, 5)]


def test_a_damaged_file_is_named_with_its_row_group(petastorm: Any, dataset: Path, tmp_path: Path) -> None:
    whole = (dataset / "part-1.parquet").read_bytes()
    (tmp_path / "part-1.parquet").write_bytes(whole[:4] + b"\xff" * 300 + whole[304:])

    with pytest.raises(Exception, match=r"part-1\.parquet row group 0: "):
        rows_of(petastorm, tmp_path.as_uri())

    (tmp_path / "part-1.parquet").write_bytes(whole[:200])
    with pytest.raises(Exception, match=r"part-1\.parquet: "):
        rows_of(petastorm, tmp_path.as_uri())


def test_row_groups_come_from_the_summary_where_there_is_one(petastorm: Any, tmp_path: Path) -> None:
    collected: list[Any] = []
    pq.write_to_dataset(
        pa.table({"id": range(10), "day": [1, 2] * 5}), tmp_path, partition_cols=["day"], metadata_collector=collected,
        row_group_size=2,
    )  # fmt: skip
    pq.write_metadata(pa.schema([("id", pa.int64())]), tmp_path / "_metadata", metadata_collector=collected)
    # Not in the summary: so it has no row groups.
    pq.write_table(pa.table({"id": [99]}), tmp_path / "day=1" / "later.parquet")

    assert rows_of(petastorm, tmp_path.as_uri()) == sorted((1 + i % 2, i) for i in range(10))


def test_a_list_of_files_and_a_single_file(petastorm: Any, dataset: Path) -> None:
    files = [(dataset / f"part-{number}.parquet").as_uri() for number in (2, 0)]

    assert [row[0] for row in rows_of(petastorm, files)] == [*range(100), *range(200, 300)]
    assert [row[0] for row in rows_of(petastorm, files[0])] == list(range(200, 300))


@pytest.mark.parametrize(
    "filesystem",
    [
        pa.fs.LocalFileSystem(),
        fsspec.filesystem("file"),
        pa.fs.PyFileSystem(pa.fs.FSSpecHandler(fsspec.filesystem("file"))),
    ],
)
def test_file_systems_of_pyarrow_and_fsspec(petastorm: Any, by_day: Path, filesystem: Any) -> None:
    assert rows_of(petastorm, by_day.as_uri(), filesystem=filesystem) == expected()


def test_a_sub_tree_of_a_file_system(petastorm: Any, by_day: Path) -> None:
    tree = pa.fs.SubTreeFileSystem(str(by_day.parent), pa.fs.LocalFileSystem())

    assert rows_of(petastorm, f"file:///{by_day.name}", filesystem=tree) == expected()


def test_a_remote_store_that_fsspec_knows_by_its_url(petastorm: Any, by_day: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(by_day), "/bucket/days", recursive=True)
    try:
        assert rows_of(petastorm, "memory://bucket/days") == expected()
    finally:
        memory.rm("/bucket", recursive=True)


def test_local_files_are_mapped_not_copied(dataset: Path) -> None:
    (piece, *_) = legacy_parquet.ParquetDataset(str(dataset)).pieces

    with piece._opened():
        assert piece.path in Path(f"/proc/{os.getpid()}/maps").read_text()


def test_a_folder_without_parquet_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        legacy_parquet.ParquetDataset(str(tmp_path))
