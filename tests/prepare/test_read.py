"""What can be read, in which spelling, and that each row of it arrives once: real files through Spark."""

import bz2
import gzip
import io
import json
import logging
import os
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import orc
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger

from lakefit.config.source import Table
from lakefit.dataset.inputs import InputFile, check_unchanged, list_inputs
from lakefit.errors import InputError
from lakefit.prepare.read import read_rows, read_side_table
from lakefit.prepare.records import Dialect, records
from lakefit.prepare.rows import SPARK_ERRORS

Read = Callable[..., list[dict[str, Any]]]
CSV: dict[str, Any] = {"format": "csv", "options": {"header": True}, "schema": "a INT, b STRING"}


@pytest.fixture
def read(session: Any, tmp_path: Path) -> Read:
    """Read files below the test's folder; return values and, for what did not parse, `record`."""

    def rows(pattern: str, **fields: Any) -> list[dict[str, Any]]:
        table = Table.model_validate({"path": str(tmp_path / pattern), **fields}, strict=False)
        files = list_inputs(table.paths, "table 't'")
        found = []
        for row in read_rows(session, "t", table, files).collect():
            values = {name: value for name, value in row.asDict().items() if name != "_row"}
            if not row["_row"]["header"]:
                broken = row["_row"]["record"]
                found.append({"record": broken} if broken is not None else values)
        return sorted(found, key=str)

    return rows


ROWS = [{"a": 1, "b": "é"}, {"a": 2, "b": "x"}]
TEXT = "a,b\n1,é\n2,x\n"


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("plain.csv", TEXT.encode(), {}),
        ("mark.csv", b"\xef\xbb\xbf" + TEXT.encode(), {}),
        ("windows.csv", TEXT.replace("\n", "\r\n").encode(), {}),
        ("zipped.csv.gz", gzip.compress(TEXT.encode(), mtime=0), {}),
        ("zipped.csv.bz2", bz2.compress(TEXT.encode()), {}),
        ("latin.csv", TEXT.encode("latin-1"), {"encoding": "ISO-8859-1"}),
        ("wide.csv", TEXT.encode("utf-16"), {"encoding": "UTF-16"}),
        ("latin.csv.gz", gzip.compress(TEXT.encode("cp1252"), mtime=0), {"encoding": "windows-1252"}),
        ("multi.csv", TEXT.replace("\n", "\r\n").encode(), {"multiLine": True}),
        ("other.csv", TEXT.replace(",", ";").encode(), {"sep": ";"}),
        ("tab.csv", TEXT.replace(",", "\t").encode(), {"sep": "\\t"}),
        ("two.csv", TEXT.replace(",", "||").encode(), {"sep": "||"}),
        ("bare.csv", TEXT.encode(), {"quote": ""}),
        ("little.csv", ("\ufeff" + TEXT).encode("utf-16-le"), {"encoding": "UTF-16LE"}),
        ("upper.csv.GZ", gzip.compress(TEXT.encode(), mtime=0), {}),
        ("upper.csv.GZ", gzip.compress(TEXT.encode(), mtime=0), {"multiLine": True}),
    ],
)
def test_csv_in_any_encoding_compression_and_line_end(
    read: Read, tmp_path: Path, name: str, content: bytes, options: dict[str, Any]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(name, **{**CSV, "options": {"header": True, **options}}) == ROWS


def test_newlines_inside_quotes_stay_inside_values(read: Read, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\r\n1,"two\r\nlines"\r\n2,"a ""quoted"" word"\r\n3,5" disk\r\n', newline="")
    found = read("t.csv", **{**CSV, "options": {"header": True, "multiLine": True, "escape": '"'}})
    assert [row.get("b") for row in found] == ["two\r\nlines", 'a "quoted" word', '5" disk']


def test_what_does_not_parse_keeps_its_text(read: Read, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,x\none,y\n2\n\xff\xfe,z\n3,x,extra\n")
    found = read("t.csv", **CSV)
    assert [row.get("record") for row in found if "record" in row] == ["2", "3,x,extra", "one,y", "\ufffd\ufffd,z"]


@pytest.mark.parametrize("options", [{}, {"multiLine": True}])
def test_quotes_are_doubled_inside_quotes_and_closed(read: Read, tmp_path: Path, options: dict[str, Any]) -> None:
    lines = ['1,"a ""q"", w"', '2,"C:\\dir\\"', '3,5" disk', '4,"x"y', "5,a\\b", "6,"]
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join([*lines, '7,"open']) + "\n", encoding="utf-8")
    found = read("t.csv", **{**CSV, "options": {"header": True, **options}})
    values = ['a "q", w', "C:\\dir\\", '5" disk', '"x"y', "a\\b", None]
    assert [row for row in found if "record" not in row] == [{"a": i + 1, "b": b} for i, b in enumerate(values)]
    assert [row["record"] for row in found if "record" in row] == ['7,"open']


@pytest.mark.parametrize("options", [{}, {"multiLine": True}, {"encoding": "Shift_JIS"}])
def test_bytes_that_are_no_text_are_rejected_and_a_replacement_character_is_text(
    read: Read, tmp_path: Path, options: dict[str, Any]
) -> None:
    legitimate = b"" if "encoding" in options else "1,\ufffd\n".encode()
    (tmp_path / "t.csv").write_bytes(b"a,b\n" + legitimate + b"2,\xff\n3,x\n")
    found = read("t.csv", **{**CSV, "options": {"header": True, **options}})
    wanted: list[dict[str, Any]] = [{"a": 3, "b": "x"}, {"record": "2,\ufffd"}]
    assert found == ([{"a": 1, "b": "\ufffd"}] if legitimate else []) + wanted


def test_a_time_without_a_date_is_not_given_todays(read: Read, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("2020-01-02 10:00,1\n10:00,2\nT09:30:00,3\n,4\n")
    found = read("t.csv", format="csv", schema="t TIMESTAMP, a INT")
    (tmp_path / "t.json").write_text('{"t": "2020-01-02 10:00", "a": 1}\n{"t": "10:00"}\n{"t": 1}\n')
    found += read("t.json", format="json", schema="t TIMESTAMP, a INT")
    assert [row["record"] for row in found if "record" in row] == ["10:00,2", "T09:30:00,3", '{"t": "10:00"}']
    assert [row["t"] for row in found if row.get("a") == 1] == [datetime(2020, 1, 2, 10)] * 2


def test_json_lines(read: Read, tmp_path: Path) -> None:
    lines = [
        '{"a": 1, "b": "x", "c": {"d": [1, 2]}}',
        '{"b": "ü"}',
        '{"a": "text"}',
        '{"a": 1} trailing',
        '{"a": 1}{"a": 2}',
        '{"a": 1, "a": 2}',
        "[1]",
        '{"a": 1',
        "",
    ]
    (tmp_path / "t.jsonl").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    found = read("t.jsonl", format="json", schema="a INT, b STRING, c STRUCT<d: ARRAY<INT>>")
    assert [row["record"] for row in found if "record" in row] == sorted(
        lines[2:8], key=lambda line: str({"record": line})
    )
    values = [(row["a"], row["b"]) for row in found if "record" not in row]
    assert sorted(values, key=str) == [(1, "x"), (None, "ü")]


def test_a_key_that_the_schema_lacks_is_refused_or_left_out(read: Read, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1, "z": 2}\n')
    with pytest.raises(PySparkException, match="record with the key z, which its schema does not declare"):
        read("t.jsonl", format="json", schema="a INT")
    assert read("t.jsonl", format="json", schema="a INT", schema_drift="allow") == [{"a": 1}]
    (tmp_path / "t.jsonl").write_text('{"a": {"b": {"c": 1, "z": 2}}}\n')
    with pytest.raises(PySparkException, match="record with the key z"):
        read("t.jsonl", format="json", schema="a STRUCT<b: STRUCT<c: INT>>")
    (tmp_path / "t.jsonl").write_text('{"A": 1}\n')
    with pytest.raises(PySparkException, match="key A, which its schema spells in another case"):
        read("t.jsonl", format="json", schema="a INT", schema_drift="allow")


def test_json_that_can_be_read_in_two_ways_is_rejected(read: Read, tmp_path: Path) -> None:
    wrong = ['{"a": {"d": 1, "d": 2}}', '{"b": "\\ud83d"}', '{"b": "\\ude00 \\ud83d"}']
    right = ['{"b": "\\ud83d\\ude00"}', '{"b": "\\\\ud83d"}', '{"a": {"d": 3}}']
    (tmp_path / "t.jsonl").write_text("\n".join([*wrong, *right]))
    found = read("t.jsonl", format="json", schema="a STRUCT<d: INT>, b STRING")
    assert [row["record"] for row in found if "record" in row] == sorted(wrong)
    values = [(row["a"] and row["a"]["d"], row["b"]) for row in found if "record" not in row]
    assert sorted(values, key=str) == sorted([(None, "\U0001f600"), (None, "\\ud83d"), (3, None)], key=str)


@pytest.mark.parametrize("kind", ["parquet", "orc"])
def test_files_whose_columns_differ_are_read_with_nulls_and_the_widest_type(
    read: Read, tmp_path: Path, kind: str
) -> None:
    tables = [
        pa.table({"a": pa.array([1, None], pa.int32()), "b": ["x", "y"]}),
        pa.table({"b": ["z"], "a": pa.array([2**40], pa.int64()), "c": [0.5]}),
    ]
    for i, table in enumerate(tables):
        (pq if kind == "parquet" else orc).write_table(table, str(tmp_path / f"{i}.{kind}"))
    found = read(f"*.{kind}", format=kind, schema_drift="allow")
    assert found == sorted(
        [{"a": 1, "b": "x", "c": None}, {"a": None, "b": "y", "c": None}, {"a": 2**40, "b": "z", "c": 0.5}], key=str
    )


@pytest.mark.parametrize("kind", ["parquet", "orc"])
def test_columns_in_another_case_all_null_or_of_wider_decimals_are_merged(
    read: Read, tmp_path: Path, kind: str
) -> None:
    pair = pa.array([{"d": 1}], pa.struct([("d", pa.int32())]))
    tables = [
        {"a": pa.array([Decimal("1.50")], pa.decimal128(9, 2)), "b": ["x"], "s": pair},
        {
            "B": pa.array([None], pa.null() if kind == "parquet" else pa.string()),
            "A": pa.array([Decimal("12345678.125")]),
        },
    ]
    for i, table in enumerate(tables):
        (pq if kind == "parquet" else orc).write_table(pa.table(table), str(tmp_path / f"{i}.{kind}"))
    found = read(f"*.{kind}", format=kind, schema_drift="allow")
    assert [(row["a"], row["b"], row["s"] and row["s"]["d"]) for row in found] == [
        (Decimal("1.500"), "x", 1),
        (Decimal("12345678.125"), None, None),
    ]


@pytest.mark.parametrize("kind", ["parquet", "orc"])
def test_a_declared_type_may_be_wider_than_the_files(read: Read, tmp_path: Path, kind: str) -> None:
    table = pa.table(
        {"i": pa.array([7], pa.int32()), "j": pa.array([-7], pa.int8()), "f": pa.array([0.5], pa.float32())}
    )
    (pq if kind == "parquet" else orc).write_table(table, str(tmp_path / f"t.{kind}"))
    assert read(f"t.{kind}", format=kind, schema="i BIGINT, j DOUBLE, f DOUBLE") == [{"i": 7, "j": -7.0, "f": 0.5}]


def test_times_of_old_and_new_parquet_writers_are_the_same(read: Read, tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([datetime(1969, 12, 31, 23, 59, 59, 5)], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "old.parquet", use_deprecated_int96_timestamps=True)
    pq.write_table(table, tmp_path / "new.parquet")
    assert (
        read("*.parquet", format="parquet", schema="t TIMESTAMP") == [{"t": datetime(1969, 12, 31, 23, 59, 59, 5)}] * 2
    )


def test_csv_files_whose_headers_differ_are_read_by_name(read: Read, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "2 +%41.csv").write_text("new,b,a\nn,y,2\n")
    (tmp_path / "3.csv").write_text("a\n3\n")
    found = read("*.csv", **CSV, schema_drift="allow")
    assert found == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": None}]


def test_folders_give_columns(read: Read, tmp_path: Path) -> None:
    for folder, value in (("day=2020-01-02/k=a%2Fb+c", 1), ("day=__HIVE_DEFAULT_PARTITION__/k=ü", 2)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "f.csv").write_text(f"a,b\n{value},x\nbroken,,,\n")
    found = read("in", **CSV, partitions="day DATE, k STRING")
    assert [row for row in found if "record" not in row] == [
        {"a": 1, "b": "x", "day": date(2020, 1, 2), "k": "a/b+c"},
        {"a": 2, "b": "x", "day": None, "k": "ü"},
    ]
    assert len(found) == 4


def test_partition_folders_are_those_below_the_root_as_they_are_spelt(read: Read, tmp_path: Path) -> None:
    for folder, value in (("K=50%25off/a%20b=1", 1), ("k=50%off/a b=2", 2)):
        (tmp_path / "k=outer/in" / folder).mkdir(parents=True)
        (tmp_path / "k=outer/in" / folder / "f.csv").write_text(f"a,b\n{value},x\n")
    found = read("k=outer/in", **CSV, partitions="k STRING, `a b` INT")
    assert [(row["a"], row["k"], row["a b"]) for row in found] == [(1, "50%off", 1), (2, "50%off", 2)]
    for partitions in ("k INT", "k DATE"):
        with pytest.raises(PySparkException, match=r"f\.csv says k=50%off, which is no (INT|DATE)"):
            read("k=outer/in", **CSV, partitions=partitions)


def test_a_catalog_table_and_another_format(session: Any, tmp_path: Path) -> None:
    session.sql("CREATE DATABASE IF NOT EXISTS lakefit_read")
    try:
        session.createDataFrame([(1, "x")], "a INT, b STRING").write.saveAsTable("lakefit_read.t", mode="overwrite")
        (row,) = read_rows(session, "t", Table(table="lakefit_read.t", version="1"), ()).collect()
        assert (row["a"], row["b"], row["_row"]["file"]) == (1, "x", "table:lakefit_read.t")
    finally:
        session.sql("DROP DATABASE lakefit_read CASCADE")
    (tmp_path / "t.txt").write_text("hello\n")
    table = Table(path=str(tmp_path / "t.txt"), format="text", columns=None)
    (row,) = read_rows(session, "t", table, list_inputs(table.paths, "t")).collect()
    assert row["value"] == "hello"
    rate = Table(format="rate-micro-batch", options={}, columns=None, version="1")
    assert rate.unversioned is False


def test_where_spark_parses_records_one_that_does_not_parse_ends_the_run(session: Any, tmp_path: Path) -> None:
    (tmp_path / "t.xml").write_text("<t><row><a>1</a></row><row><a>one</a></row></t>")
    (tmp_path / "t.csv").write_text("1\none\n")
    xml = Table.model_validate({"path": str(tmp_path / "t.xml"), "format": "XML", "options": {"rowTag": "row"},
                                "schema": "a INT"})  # fmt: skip
    with pytest.raises(SPARK_ERRORS, match="MALFORMED_RECORD"):
        read_rows(session, "t", xml, list_inputs(xml.paths, "t")).collect()
    session.sql(f"CREATE TABLE lakefit_text (a INT) USING csv LOCATION '{tmp_path}/t.csv'")
    try:
        with pytest.raises(SPARK_ERRORS, match="MALFORMED_RECORD"):
            read_rows(session, "t", Table(table="lakefit_text", version="1"), ()).collect()
    finally:
        session.sql("DROP TABLE lakefit_text")


def test_a_side_table_with_a_broken_line_ends_the_run(session: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\none,x\n")
    table = Table.model_validate({"path": str(tmp_path), **CSV}, strict=False)
    with pytest.raises(PySparkException, match="LAKEFIT: the table 'side' has a line that does not fit"):
        read_side_table(session, "side", table, list_inputs(table.paths, "t")).collect()


def test_an_error_of_spark_is_not_printed_with_its_stack_as_well(session: Any) -> None:
    printed = logging.StreamHandler(io.StringIO())
    logger = PySparkLogger.getLogger("SQLQueryContextLogger")
    logger.addHandler(printed)
    try:
        with pytest.raises(PySparkException, match="CAST_INVALID_INPUT"):
            session.sql("SELECT CAST('x' AS INT)").collect()
    finally:
        logger.removeHandler(printed)
    assert printed.stream.getvalue() == ""


def test_the_same_rows_have_the_same_identity_in_any_text_file(session: Any, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text(TEXT, encoding="utf-8")
    (tmp_path / "wide.csv").write_text(TEXT, encoding="utf-16")
    identities = []
    for name, options in (("plain.csv", {}), ("wide.csv", {"encoding": "UTF-16"})):
        table = Table.model_validate({**CSV, "path": str(tmp_path / name), "options": {"header": True, **options}})
        rows = read_rows(session, "t", table, list_inputs(table.paths, "t")).where("NOT _row.header").collect()
        identities.append({(row["_row"]["hi"], row["_row"]["lo"]) for row in rows})
    assert identities[0] == identities[1]
    assert len(identities[0]) == 2


field = st.text(st.sampled_from('ab",;\\ \nü'), max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(field, min_size=1, max_size=4), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_records_are_those_that_were_written(rows: list[list[str]], end: str) -> None:
    """Every field quoted, quotes doubled: what Python's csv writes is cut at the same places."""
    written = [",".join('"' + value.replace('"', '""') + '"' for value in row) for row in rows]
    text = "".join(record + end for record in written)
    lines = text.splitlines(keepends=True) if "\x0b" not in text else [text]
    found = list(records(lines, Dialect("utf-8", True, ",", '"', '"')))
    assert found == written


def test_a_stray_quote_costs_its_own_line_alone() -> None:
    lines = ['1,"open\n', *[f"{i},x\n" for i in range(2, 300_000)]]
    found = list(records(lines, Dialect("utf-8", True, ",", '"', "\\")))
    assert len(found) == len(lines)
    assert found[0] == '1,"open'


def test_a_file_that_changes_grows_or_goes_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n")
    (file,) = list_inputs((str(path),), "t")
    check_unchanged({"t": (file,)})
    path.write_text("a\nb\n")
    with pytest.raises(InputError, match="has changed: 2 bytes when the run began, 4 now"):
        check_unchanged({"t": (file,)})
    # Other content of equal size and time, in its place or under its name.
    other = tmp_path / "other.csv"
    for rewritten in (path, other):
        rewritten.write_text("b\n")
        os.utime(rewritten, ns=(file.modified_ns, file.modified_ns))
        os.replace(rewritten, path)
        with pytest.raises(InputError, match="has changed"):
            check_unchanged({"t": (file,)})
    os.remove(path)
    with pytest.raises(InputError, match="can't be read any more"):
        check_unchanged({"t": (file,)})
    assert isinstance(file, InputFile)


def test_secrets_in_options_are_read_late_and_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    table = Table.model_validate({"format": "jdbc", "options": {"password": "${DB_PASSWORD}"}})
    assert "s3cret" not in json.dumps(table.model_dump(mode="json"))
    assert table.unversioned
