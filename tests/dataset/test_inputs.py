"""The raw files of a path, folder or glob; none is an error."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.dataset.inputs import csv_header, file_columns, list_inputs, local_path
from lakefit.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def names(*paths: str) -> list[str]:
    return [file.name for file in list_inputs(paths, "table 't'")]


def test_a_glob_names_its_files_in_order_relative_to_its_root() -> None:
    write("raw/b.csv", "raw/a.csv", "raw/c.txt", "raw/more/d.csv")
    assert names("raw/*.csv") == ["a.csv", "b.csv"]
    assert names("raw/**/*.csv") == ["a.csv", "b.csv", "more/d.csv"]
    assert names("r*w/a.csv") == ["raw/a.csv"]


def test_a_folder_names_all_that_is_below_it() -> None:
    write("raw/a.csv", "raw/year=2013/b.csv")
    assert names("raw") == names("raw/") == ["a.csv", "year=2013/b.csv"]


def test_a_file_is_named_by_itself_with_size_and_time(folder: Path) -> None:
    write("raw/a.csv")
    (file,) = list_inputs(["raw/a.csv"], "t")
    status = (folder / "raw/a.csv").stat()
    assert (file.name, file.path) == ("a.csv", str(folder / "raw/a.csv"))
    assert (file.size, file.modified_ns) == (len("raw/a.csv"), status.st_mtime_ns)
    assert names(f"file://{folder}/raw/a.csv") == ["a.csv"]


def test_hidden_files_and_folders_are_left_out() -> None:
    write("raw/a.csv", "raw/.b.csv", "raw/_SUCCESS", "raw/_temporary/c.csv", "raw/.git/d.csv")
    assert names("raw") == ["a.csv"]
    assert names("raw/*") == ["a.csv"]


def test_a_hidden_folder_above_the_root_does_not_hide() -> None:
    write("_data/.cache/a.csv")
    assert names("_data/.cache") == ["a.csv"]
    assert names("_data/.cache/*.csv") == ["a.csv"]


def test_a_file_that_two_paths_name_counts_once() -> None:
    write("raw/a.csv", "raw/b.csv")
    assert names("raw/*.csv", "raw/a.csv") == ["a.csv", "b.csv"]


@pytest.mark.parametrize("name", ["raw/with space.csv", "raw/a[1].csv", "raw/{x}.csv", "raw/a*b.csv", "raw/ü%20.csv"])
def test_odd_names_are_names(name: str) -> None:
    write(name, "raw/a1.csv", "raw/x.csv", "raw/aXb.csv")
    assert names(name) == [name.removeprefix("raw/")]
    assert name.removeprefix("raw/") in names("raw")


def test_a_folder_of_odd_name_is_a_root() -> None:
    write("raw [2013]/a.csv")
    assert names("raw [2013]") == ["a.csv"]
    assert names("raw [2013]/a.csv") == ["a.csv"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere.csv", "no such file, or an empty folder: 'nowhere.csv'"),
        ("*.csv", "no file matches '*.csv'"),
        ("empty", "empty folder"),
    ],
)
def test_a_path_without_a_file_is_refused(folder: Path, path: str, says: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        names(path)
    assert str(refused.value).startswith("table 't': ")
    assert says in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_store_that_is_not_mounted_is_refused() -> None:
    with pytest.raises(InputError, match="only local paths are read so far"):
        names("s3://bucket/a.csv")


def test_sparks_uris_are_paths_again() -> None:
    assert local_path("file:///raw/with%20space%5B1%5D.csv") == "/raw/with space[1].csv"
    assert local_path("/raw/a%20b.csv") == "/raw/a%20b.csv"


def test_the_header_of_a_csv_file_is_read_without_its_byte_order_mark(folder: Path) -> None:
    (folder / "a.csv").write_bytes(b'\xef\xbb\xbfid,"a, b"\r\n1,2\r\n')
    assert csv_header("a.csv") == ('id,"a, b"', ["id", "a, b"])
    assert csv_header("a.csv", separator=";")[1] == ['id,"a, b"']


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"\xff\xfe\x00", "not UTF-8"), (None, "can't be read")]
)
def test_a_csv_file_without_a_header_is_refused(folder: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (folder / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=says):
        csv_header("a.csv")


def test_the_columns_of_a_parquet_file_have_sparks_types(folder: Path) -> None:
    schema = pa.schema(
        [
            ("i", pa.int32()),
            ("s", pa.dictionary(pa.int8(), pa.string())),
            ("t", pa.timestamp("us")),
            ("d", pa.decimal128(9, 2)),
            ("l", pa.list_(pa.int8())),
        ]
    )
    pq.write_table(schema.empty_table(), folder / "a.parquet")
    types = ["INT", "STRING", "TIMESTAMP", "DECIMAL(9, 2)", "ARRAY<TINYINT>"]
    assert file_columns("a.parquet", "parquet") == dict(zip("istdl", types, strict=True))
    (folder / "b.parquet").write_text("no")
    with pytest.raises(InputError, match="not a readable parquet file"):
        file_columns("b.parquet", "parquet")
