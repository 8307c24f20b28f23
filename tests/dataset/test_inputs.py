"""The raw files of a path, folder or glob; none is an error."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakefit.dataset.inputs import csv_header, file_columns, file_uri, list_inputs, local_path, spark_path
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


def test_files_that_spark_passes_over_are_left_out_or_named() -> None:
    write("raw/a.csv", "raw/b.csv._COPYING_", "raw/_k=1/c.csv")
    assert names("raw") == ["_k=1/c.csv", "a.csv"]
    for path in ("raw/b.csv._COPYING_", "raw/_h.csv", "raw/.h.csv"):
        write(path)
        with pytest.raises(InputError, match="is hidden by its name"):
            names("raw/a.csv", path)


def test_names_of_several_paths_are_told_apart() -> None:
    write("in/a/p.csv", "in/z/p.csv")
    assert names("in/a", "in/z") == names("in/a/*.csv", "in/z/p.csv") == ["a/p.csv", "z/p.csv"]


def test_links_to_files_and_folders_are_followed_once_around(folder: Path) -> None:
    write("raw/a.csv", "real/deep/r.csv")
    (folder / "raw/d").symlink_to(folder / "real")
    (folder / "raw/f.csv").symlink_to(folder / "raw/a.csv")
    (folder / "real/up").symlink_to(folder / "raw")
    assert names("raw") == names("raw/*") == ["a.csv", "d/deep/r.csv", "f.csv"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("10:30.csv", "reads no file with ':' in its name"), ("\udce9.csv", "the name is not UTF-8; rename the file")],
)
def test_a_name_that_can_not_be_read_is_refused(name: str, says: str) -> None:
    Path("raw").mkdir()
    Path("raw", name).write_text("")
    with pytest.raises(InputError, match=says):
        names("raw")


def test_a_link_to_nothing_is_refused(folder: Path) -> None:
    write("raw/a.csv")
    (folder / "raw/gone.csv").symlink_to("/nowhere/x.csv")
    for path in ("raw", "raw/*.csv"):
        with pytest.raises(InputError, match=r"raw/gone\.csv: a link to a file that is not there"):
            names(path)


def test_a_working_directory_of_odd_name_is_no_glob(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a [x]/raw/a.csv")
    monkeypatch.chdir(folder / "a [x]")
    assert names("raw/*.csv") == ["a.csv"]
    assert names("*/a.csv") == ["raw/a.csv"]


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


def test_a_store_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="no address of a store that can be read"):
        names("hdfs://host/a.csv")


def test_the_addresses_of_spark_and_of_arrow_name_one_object() -> None:
    assert local_path("s3a://bucket/a%20b/part%5B1%5D.csv") == "s3://bucket/a b/part[1].csv"
    assert spark_path("s3://bucket/a b.csv") == "s3a://bucket/a b.csv"
    assert spark_path("gs://bucket/a.csv") == "gs://bucket/a.csv"
    assert spark_path("/raw/s3://a.csv") == "/raw/s3://a.csv"
    assert local_path(file_uri("s3://bucket/a b+c.csv")) == "s3://bucket/a b+c.csv"


def test_sparks_uris_are_paths_again() -> None:
    assert local_path("file:///raw/with%20space%5B1%5D.csv") == "/raw/with space[1].csv"
    assert local_path("/raw/a%20b.csv") == "/raw/a%20b.csv"


def test_the_header_of_a_csv_file_is_read_without_its_byte_order_mark(folder: Path) -> None:
    (folder / "a.csv").write_bytes(b'\xef\xbb\xbfid,"a, b"\r\n1,2\r\n')
    assert csv_header("a.csv") == ('id,"a, b"', ["id", "a, b"])
    assert csv_header("a.csv", separator=";")[1] == ['id,"a, b"']
    (folder / "b.csv").write_bytes('\ufeffid||"a||b"\n'.encode("utf-16-le"))
    assert csv_header("b.csv", "||", '"', "UTF-16LE")[1] == ["id", "a||b"]
    assert csv_header("a.csv", quote="")[1] == ["id", '"a', ' b"']


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
