"""`lakefit index`: what is known of Parquet files that Lakefit has not written, and what is refused."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.cli import main
from lakefit.dataset.index import Indexed, index_folder, read_index
from lakefit.dataset.manifest import read_manifest
from lakefit.errors import InputError


def write(path: Path, rows: int = 10, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"x": np.arange(rows, dtype=np.float32)}), path, row_group_size=4)
    return path


def test_files_are_numbered_by_name_and_hidden_ones_are_no_data(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", 10)
    write(tmp_path / "a" / "part 1.parquet", 5)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    for hidden in ("_SUCCESS", ".part.crc", "_temporary/0/c.parquet", "notes.txt"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_text("no data")

    found = index_folder(tmp_path)
    index = found.index

    assert not found.current
    assert index == read_index(tmp_path)
    assert list(index.splits) == ["all"]
    assert found.warnings == ("Files that are not named like Parquet are passed over: notes.txt",)
    assert [(file.path, file.row_groups, file.first_position) for file in index.splits["all"].files] == [
        ("a/part 1.parquet", (4, 1), 0),
        ("b.parquet", (4, 4, 2), 5),
    ]
    assert index.splits["all"].rows == 15


def test_folders_named_like_splits_are_splits(tmp_path: Path) -> None:
    for split in ("test", "train", "validation"):
        write(tmp_path / split / "0.parquet")
    assert list(index_folder(tmp_path).index.splits) == ["train", "validation", "test"]

    write(tmp_path / "more.PARQUET")
    found = index_folder(tmp_path)
    assert list(found.index.splits) == ["all"]
    assert "Folders named like splits (test, train, validation) lie beside other files" in found.warnings[0]


def test_columns_that_are_fed_alike_are_the_same(tmp_path: Path) -> None:
    for number, kind in enumerate((pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()))):
        values = {"name": pa.array(["a", "b"], pa.string()).cast(kind), "x": [[1], [2]]}
        write(tmp_path / "_day=1" / f"{number}.parquet", **values)
    assert index_folder(tmp_path).index.splits["all"].rows == 6


@pytest.mark.parametrize(("mark", "kind"), [("_delta_log/0.json", "Delta"), ("metadata/version-hint.text", "Iceberg")])
def test_a_table_whose_files_alone_say_nothing_is_refused(tmp_path: Path, mark: str, kind: str) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("1")
    with pytest.raises(InputError, match=f"is a table of {kind}"):
        index_folder(tmp_path)


def test_a_second_run_changes_nothing_and_another_file_changes_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    first = index_folder(tmp_path).index
    before = (tmp_path / "manifest.json").stat().st_mtime_ns

    assert index_folder(tmp_path) == Indexed(first, True, ())
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before

    write(tmp_path / "a.parquet", x=np.arange(1, 11, dtype=np.float32))
    found = index_folder(tmp_path)
    assert not found.current
    assert found.index.fingerprint != first.fingerprint


def test_every_type_is_fed_or_left_out_with_the_reason(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "i": pa.array([1, None], pa.int16()),
        "s": ["a", None],
        "category": pa.array(["a", "b"]).dictionary_encode(),
        "raw": [b"a", b"b"],
        "day": pa.array([1, 2], pa.date32()),
        "at": pa.array([1, 2], pa.timestamp("us", "UTC")),
        "yes": [True, False],
        "list": pa.array([[1.0], [2.0, 3.0]], pa.list_(pa.float32())),
        "four": pa.array([[1, 2, 3, 4]] * 2, pa.list_(pa.int64(), 4)),
        "image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3, 5), np.uint8)),
        "with.dot": [1.0, 2.0],
        "price": [Decimal("1.5")] * 2,
        "record": [{"a": 1}] * 2,
        "lists of text": [["a"]] * 2,
        "days": pa.array([[1], [2]], pa.list_(pa.date32())),
        "_position": [7, 8],
    }
    write(tmp_path / "a.parquet", **columns)

    index = index_folder(tmp_path).index

    assert {column.name: (column.dtype, column.shape, column.nulls) for column in index.columns} == {
        "i": ("int16", (), 1),
        "s": ("str", (), 1),
        "category": ("str", (), 0),
        "raw": ("bytes", (), 0),
        "day": ("int32", (), 0),
        "at": ("int64", (), 0),
        "yes": ("bool", (), 0),
        "list": ("float32", None, None),
        "four": ("int64", (4,), None),
        "image": ("uint8", (3, 5), None),
        "with.dot": ("float64", (), 0),
    }
    left_out = {column.name: column.reason for column in index.left_out}
    assert list(left_out) == ["price", "record", "lists of text", "days", "_position"]
    assert "decimal128(2, 1)" in left_out["price"]


def test_columns_that_stand_in_the_names_of_folders_are_said_to_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "day=2026-01-01" / "kind=a" / "0.parquet")
    write(tmp_path / "day=2026-01-02" / "kind=a" / "0.parquet", x=np.zeros(3, np.float32))

    index = index_folder(tmp_path).index

    assert [column.name for column in index.left_out] == ["day", "kind"]
    assert index.splits["all"].rows == 13


def test_what_can_not_be_indexed_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder"):
        index_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is no Parquet file"):
        index_folder(tmp_path)
    with pytest.raises(InputError, match=r"names no folder"):
        index_folder("")
    for address in ("S3://bucket/lake", "s3:/bucket", "ftp://bucket/lake", "hdfs://host/lake", Path("s3://bucket")):
        with pytest.raises(InputError, match=r"expected s3://bucket/folder"):
            index_folder(address)
    for address in ("s3://key:very@bucket/lake", "s3://bucket/lake?access_key=key&secret_key=very"):
        with pytest.raises(InputError, match=r"address with credentials") as refused:
            index_folder(address)
        assert "very" not in str(refused.value)

    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.parquet: no Parquet file that can be read"):
        index_folder(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(1000) + b"PAR1")
    with pytest.raises(InputError, match=r"a\.parquet: no Parquet file that can be read"):
        index_folder(tmp_path)

    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", x=np.arange(3))
    with pytest.raises(InputError, match=r"b\.parquet has 'x' as int64, .*a\.parquet as float"):
        index_folder(tmp_path)
    write(tmp_path / "b.parquet", x=np.arange(3, dtype=np.float32), y=[1, 2, 3])
    with pytest.raises(InputError, match=r"b\.parquet has 'y' as int64, .*a\.parquet as no column"):
        index_folder(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_a_manifest_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "manifest.json").write_text('{"layout": "wide"}')

    with pytest.raises(InputError, match=r"manifest\.json: is no index"):
        index_folder(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == '{"layout": "wide"}'


def test_an_index_is_not_taken_for_a_dataset_and_one_of_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    index_folder(tmp_path)
    with pytest.raises(InputError, match=r"is the index of Parquet files"):
        read_manifest(tmp_path)

    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(InputError, match=r"no index of this version .*colour.* lakefit index "):
        read_index(tmp_path)
    assert index_folder(tmp_path).current is False


def test_the_command_shows_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet", x=[1.0, None], price=[Decimal("1.5")] * 2)

    assert main(["index", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "price" in printed
    assert "left out" in printed

    assert main(["index", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["current"], result["splits"]["all"]["rows"]) == (True, 2)

    assert main(["inspect", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["fingerprint"] == result["fingerprint"]

    assert main(["index", str(tmp_path / "nowhere")]) == 2
    assert main(["index", str(tmp_path / "a.parquet")]) == 2
    assert "a.parquet: is a file: name its folder" in capsys.readouterr().err
    for address in ("s3://key:very@bucket/lake", "s3://bucket/lake?access_key=key&secret_key=very"):
        assert main(["index", address]) == 2
        assert "very" not in capsys.readouterr().err
