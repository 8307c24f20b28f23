"""What `lakefit init` makes of values; that its file runs is proven in tests/end_to_end/test_init.py."""

import csv
import gzip
import json
import random
import re
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from ruamel.yaml import YAML

from lakefit.errors import InputError
from lakefit.init import sample as sampling
from lakefit.init.pipeline import flow, init
from lakefit.run.validate import validate

ROWS = 400


def pipeline(path: Path, label: str | None = None) -> dict[str, Any]:
    """Return the file that `init` writes for `path`; `validate` finds nothing wrong with it."""
    target = path.parent / f"{path.stem}.yaml"
    target.unlink(missing_ok=True)
    written, _, _ = init(str(path), label, str(target))
    validate(written)
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(written.read_text())
    return loaded


def column(tmp_path: Path, values: list[str], name: str = "x") -> dict[str, Any]:
    """Return the file for a CSV file of this column and a label."""
    path = tmp_path / "data.csv"
    with open(path, "w", newline="") as file:
        rows = ([value, str(i * 37 % 101), str(i // 7 % 2)] for i, value in enumerate(values))
        csv.writer(file).writerows([[name, "z", "y"], *rows])
    return pipeline(path, "y")


def table(loaded: dict[str, Any]) -> dict[str, Any]:
    (found,) = loaded["source"]["tables"].values()
    return dict(found)


def cycle(*values: str) -> list[str]:
    return [values[i % len(values)] for i in range(ROWS)]


@pytest.mark.parametrize(
    ("values", "sql_type", "steps"),
    [
        (cycle("1", "22", "-3"), "INT", []),
        (cycle("1", "22", "123456789012"), "BIGINT", []),
        (cycle("1", "2.5", "1e-3"), "DOUBLE", []),
        (cycle("2024-01-31", "2024-02-01"), "DATE", []),
        (cycle("2024-01-31 10:00:00", "2024-02-01T11:30:00.5Z"), "TIMESTAMP", []),
        (cycle("1949-01", "1949-12"), "STRING", [{"parse": {"as": "date", "formats": ["yyyy-MM"]}}]),
        (
            cycle("31.12.2024", "2024-01-31", "1.2.2024", "Jan 5, 2024"),
            "STRING",
            [{"parse": {"as": "date", "formats": ["d.M.yyyy", "yyyy-M-d", "MMM d, yyyy"]}}],
        ),
        (
            cycle("12/31/2024", "2024-01-31T10:00:00", "1/2/2024"),
            "STRING",
            [{"parse": {"as": "timestamp", "formats": ["M/d/yyyy", "yyyy-M-d'T'H:mm:ss"]}}],
        ),
        (cycle("9223372036854775808", "12345678901234567890"), "STRING", []),
        (cycle("9223372036854775807", "1"), "BIGINT", []),
        (cycle(" 1", " ?", " 3", " ?", " -"), "STRING", [{"null_if": [" ?", " -"]}, {"parse": {"as": "integer"}}]),
        (cycle("true", "False"), "BOOLEAN", []),
        (cycle("007", "012", "123"), "STRING", []),
        (cycle("31.12.2024", "1.2.2024"), "STRING", [{"parse": {"as": "date", "formats": ["d.M.yyyy"]}}]),
        (cycle("12/31/2024", "1/2/2024"), "STRING", [{"parse": {"as": "date", "formats": ["M/d/yyyy"]}}]),
        (
            cycle("3/4/2024 5:06 PM", "12/30/2024 1:00 AM"),
            "STRING",
            [{"parse": {"as": "timestamp", "formats": ["M/d/yyyy h:mm a"]}}],
        ),
        (
            cycle("1.234,50 €", "7,00 €"),
            "STRING",
            [{"parse": {"as": "number", "decimal": ",", "thousands": ".", "currency": ["€"]}}],
        ),
        (cycle("1,234", "12,345,678.5"), "STRING", [{"parse": {"as": "number", "thousands": ","}}]),
        (cycle("12 %", "3.5%"), "STRING", [{"parse": {"as": "number", "percent": True}}]),
        (cycle("Yes", "no"), "STRING", [{"parse": {"as": "boolean", "true_words": ["yes"], "false_words": ["no"]}}]),
        (cycle("a|b", "b|c", "a", "b|c|a"), "STRING", [{"parse": {"as": "list", "separator": "|"}}]),
        (cycle("Berlin", "berlin ", "Bonn"), "STRING", [{"text": ["trim", "lower"]}]),
        ([*(str(i % 90) for i in range(ROWS - 20)), *["999"] * 20], "INT", [{"null_if": [999]}]),
        (
            ["1", "-", *cycle("2", "3")[:-30], *["?"] * 28],
            "STRING",
            [{"null_if": ["-", "?"]}, {"parse": {"as": "integer"}}],
        ),
        ([*cycle("1", "2")[:-2], "oops", "3"], "STRING", [{"parse": {"as": "integer"}}]),
    ],
)  # fmt: skip
def test_values_tell_how_they_are_read(
    tmp_path: Path, values: list[str], sql_type: str, steps: list[dict[str, Any]]
) -> None:
    loaded = column(tmp_path, values)
    null_word = table(loaded)["options"].get("nullValue")
    found = [{key: value for key, value in step.items() if key != "column"} for step in loaded.get("clean", [])]
    if null_word is not None:
        # One of the words is that of the whole file; the others stay.
        steps = [{"null_if": [word for word in steps[0]["null_if"] if word != null_word]}, *steps[1:]]
    assert (table(loaded)["schema"].split(",")[0], found) == (f"x {sql_type}", steps)


def test_blanks_round_a_word_for_null_hide_it_from_nobody(tmp_path: Path) -> None:
    loaded = column(tmp_path, cycle(" a", " ?", " b", " ?", "- ", "-"))
    assert table(loaded)["options"]["nullValue"] == " ?"
    assert loaded["clean"] == [{"column": "x", "text": ["trim"]}, {"column": "x", "null_if": ["-"]}]


def test_a_word_for_null_among_numbers_is_one_among_words_too(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"

    def words(x: str) -> list[str]:
        rows = (f"{x if i % 9 == 0 else i},{['oil', 'gas', 'none', '-'][i % 4]},{i // 7 % 2}" for i in range(ROWS))
        path.write_text("\n".join(["x,word,y", *rows]))
        loaded = pipeline(path, "y")
        found = [step["null_if"] for step in loaded.get("clean", []) if "word" in step["column"] and "null_if" in step]
        return [*(word for each in found for word in each), table(loaded)["options"].get("nullValue", "")]

    assert "none" in words("none")
    assert "none" not in words("5")


def test_days_before_months_is_said_to_be_a_guess(tmp_path: Path) -> None:
    for values, doubt in (
        (cycle("05/06/2024", "01/02/2024"), True),
        (cycle("05-06-2024 10:30", "01-02-2024 11:00"), True),
        (cycle("05/06/2024", "2024-01-31"), True),
        (cycle("05/06/2024", "31/02/2024", "31/01/2024"), False),
        (cycle("05.06.2024", "01.02.2024"), False),
    ):
        column(tmp_path, values)
        assert ("days before months is a guess" in (tmp_path / "data.yaml").read_text()) == doubt


@pytest.mark.parametrize(("days", "suggested"), [(400, True), (30, True), (2, False), (1, False)])
def test_a_split_by_time_is_suggested_where_it_leaves_rows_in_each_split(
    tmp_path: Path, days: int, suggested: bool
) -> None:
    start = datetime(2024, 1, 1)
    path = tmp_path / "data.csv"
    rows = (
        f"{start + timedelta(days=i * days / ROWS)},{start + timedelta(days=i)},{i * 37 % 101},{i // 7 % 2}"
        for i in range(ROWS)
    )
    path.write_text("\n".join(["at,loaded_at,x,y", *rows]))
    pipeline(path, "y")
    assert ("# split: {time: {column: at," in path.with_suffix(".yaml").read_text()) == suggested


COMMA = {"parse": {"as": "number", "decimal": ","}}
THOUSANDS = {"parse": {"as": "number", "thousands": ","}}


@pytest.mark.parametrize(
    ("lines", "step", "check"),
    [
        # A group that begins with 0 is no thousands.
        (('"4,498",1', '"0,034",2'), COMMA, False),
        (('"4,498",1',) * 120 + ('"4,49",2',), COMMA, False),
        (('"4,498",1', '"1,034,500",2'), THOUSANDS, False),
        # Ambiguous in itself: another column, then the separator speaks.
        (('"4,498","1,5"', '"7,034","2,25"'), COMMA, True),
        (("4,498;1", "7,034;2"), COMMA, True),
        (('"4,498",1', '"7,034",2'), THOUSANDS, True),
        (("4,498;1.5", "7,034;2.25"), THOUSANDS, True),
        (("4.498;1,5", "7.034;2,25"), {"parse": {"as": "number", "decimal": ",", "thousands": "."}}, True),
        (("4.498;1", "7.034;2"), None, False),
    ],
)
def test_decimal_commas_are_told_from_thousands_by_the_rest_of_the_file(
    tmp_path: Path, lines: tuple[str, ...], step: dict[str, Any] | None, check: bool
) -> None:
    path = tmp_path / "data.csv"
    mark = ";" if ";" in lines[0] else ","
    rows = (f"{lines[i % len(lines)]}{mark}{i // 7 % 2}" for i in range(ROWS))
    path.write_text("\n".join([f"x{mark}z{mark}y", *rows]))
    loaded = pipeline(path, "y")
    steps = [each for each in loaded.get("clean", []) if "x" in each["column"]]
    assert [{"parse": each["parse"]} for each in steps] == ([step] if step else [])
    assert ("CHECK: thousands or decimals?" in path.with_suffix(".yaml").read_text()) == check


def test_the_word_for_null_of_a_whole_file_is_an_option_and_namibia_stays(tmp_path: Path) -> None:
    assert table(column(tmp_path, cycle("1", "NA", "3")))["options"]["nullValue"] == "NA"
    loaded = column(tmp_path, cycle("DE", "NA", "ZA"))
    assert "nullValue" not in table(loaded)["options"]
    assert "clean" not in loaded


def test_keys_groups_and_what_tells_the_label_are_found(tmp_path: Path) -> None:
    rows: list[list[Any]] = []
    for i in range(2000):
        y = i * 7919 % 3 == 0
        rows.append(
            [i, f"u{i % 300}", i * 31 % 97, "late" if y else "on time", f"note {i} is as long as this", 1, int(y)]
        )
    rows += rows[:40]
    path = tmp_path / "data.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["id", "user_id", "x", "status", "note", "one", "y"], *rows])
    loaded = pipeline(path)
    assert loaded["deduplicate"] == {"key": ["id"]}
    assert loaded["split"] == {"by": ["user_id"]}
    assert loaded["label"]["expression"] == "y"
    assert loaded["features"] == {"numeric": [{"columns": ["x"], "fill": "median"}]}
    text = (tmp_path / "data.yaml").read_text()
    assert "nobody said what to predict" in text
    assert "40 of 2,040 rows are copies of others" in text
    for reason in ("status: CHECK: it tells the label", "note: free text", "one: always 1", "id: the key"):
        assert f"# left out: {reason}" in text


@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("salary", [30_000 + i * 7919 % 61_001 for i in range(ROWS)], False),
        ("salary", [*(i * 7919 for i in range(ROWS - 30)), *range(0, 30 * 7919, 7919)], False),
        (
            "name",
            [f"Mr. {'abcdefghij'[i % 10]} {'klmnopqrst'[i // 10 % 10]}{'uvwx'[i // 100]}" for i in range(ROWS)],
            False,
        ),
        ("year", list(range(1600, 1600 + ROWS)), False),
        ("", list(range(ROWS)), True),
        ("row", [f"A{i:04d}" for i in range(ROWS)], True),
        ("client_id", [i * 7919 for i in range(ROWS)], True),
        # So many rows of equal keys would go, and nothing says which of them is right.
        ("client_id", [*range(ROWS - 20), *range(20)], False),
    ],
)
def test_the_first_column_is_no_key_for_being_the_first(
    tmp_path: Path, name: str, values: list[Any], key: bool
) -> None:
    path = tmp_path / "data.csv"
    with open(path, "w", newline="") as file:
        rows = ([value, i * 37 % 101, i // 7 % 2] for i, value in enumerate(values))
        csv.writer(file).writerows([[name, "z", "y"], *rows])
    assert pipeline(path, "y")["deduplicate"] == ({"key": [name or "c0"]} if key else {})


def test_a_key_is_learned_from_where_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("n,y\n" + "".join(f"{i},{i // 7 % 2}\n" for i in range(ROWS)))
    loaded = pipeline(path, "y")
    assert loaded["deduplicate"] == {}
    assert loaded["features"]["numeric"][0]["columns"] == ["n"]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("phone", "left_out"),
        ("Telefon", "left_out"),
        ("Kundennr", "left_out"),
        ("account", "left_out"),
        ("zip", "left_out"),
        ("amount", "numeric"),
        ("calls", "numeric"),
    ],
)
def test_numbers_that_name_something_are_no_measures(tmp_path: Path, name: str, group: str) -> None:
    path = tmp_path / "data.csv"
    many = (f"{i * 37 % 101},{30_000 + i * 7919 % 333},{10_000 + i % 17},{i // 7 % 2}" for i in range(ROWS))
    path.write_text("\n".join([f"x,{name},{name}_2,y".replace("_2", " zip"), *many]))
    features = pipeline(path, "y")["features"]
    assert (name in features["numeric"][0]["columns"]) == (group == "numeric")
    assert features["categorical"] == [{"columns": [f"{name}_zip"]}]
    assert ("by its name no measure" in path.with_suffix(".yaml").read_text()) == (group == "left_out")


def test_codes_that_pandas_made_floats_are_categories_again(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    columns: dict[str, list[Any]] = {
        "zip": [None if i % 10 == 0 else 10_000.0 + i % 17 for i in range(ROWS)],
        "x": [i * 37 % 101 for i in range(ROWS)],
        "y": [i // 7 % 2 for i in range(ROWS)],
    }
    pq.write_table(pa.table(columns), path)
    loaded = pipeline(path, "y")
    assert loaded["clean"] == [{"column": "zip", "derive": "CAST(zip AS BIGINT)"}]
    assert loaded["features"]["categorical"] == [{"columns": ["zip"]}]


def test_when_a_row_was_written_is_no_feature(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    day = [f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}" for i in range(ROWS)]
    rows = (f"{i % 390},{i * 37 % 101},{day[i]},{day[i]},{day[-i]},{i * i % 11 % 2}" for i in range(ROWS))
    path.write_text("\n".join(["id,x,created_at,updated_at,download_date,y", *rows]))
    loaded = pipeline(path, "y")
    assert loaded["deduplicate"]["keep"] == "last by updated_at"
    assert [*loaded["features"]["dates"][0]["columns"]] == ["created_at", "download_date"]
    text = path.with_suffix(".yaml").read_text()
    assert "# left out: updated_at: says when the row was written" in text
    path.write_text(path.read_text().replace("updated_at", "day"))
    loaded = pipeline(path, "y")
    assert loaded["deduplicate"]["keep"] == "last by created_at"
    assert [*loaded["features"]["dates"][0]["columns"]] == ["day", "download_date"]


def test_names_that_sql_does_not_take_get_others(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    header = ["", "a b", "a.b", "order", "Größe", "_c", "label"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([i, i % 7, i % 9, i % 11, i % 13, i % 17, i % 2] for i in range(ROWS))])
    loaded = pipeline(path, "label")
    assert "`a b` AS a_b, `a.b` AS a_b_2" in loaded["source"]["query"]
    assert [*loaded["features"]["numeric"][0]["columns"]] == ["a_b", "a_b_2", "order", "Gr_e", "c"]


def test_the_spelling_of_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    lines = ["name;n;y", *(f'"Köln ""{i}"";\nline two";{i};{i % 2}' for i in range(ROWS))]
    path.write_bytes("\r\n".join(lines).encode("cp1252"))
    options = table(pipeline(path, "y"))["options"]
    assert options == {"header": True, "sep": ";", "encoding": "windows-1252", "multiLine": True}
    path.write_text("\n".join(f"{i}\t{i * 37 % 101}\t{i % 2}" for i in range(ROWS)))
    found = table(pipeline(path, "c3"))
    assert (found["options"], found["schema"]) == ({"sep": "\t"}, "c1 INT, c2 INT, c3 INT")


def test_a_folder_of_several_tables_gives_the_largest(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(3):
        extra = ",z" if number == 2 else ""
        lines = [
            f"id,x,y{extra}",
            *(f"{number * 1000 + i},{i * 37 % 101},{i % 2}{extra and ',1'}" for i in range(ROWS)),
        ]
        (folder / f"part-{number}.csv").write_text("\n".join(lines))
    (folder / "other.csv").write_text("k,v\n1,2\n")
    (folder / "README.md").write_text("hello")
    found = table(pipeline(folder, "y"))
    assert [Path(path).name for path in found["path"]] == ["part-0.csv", "part-1.csv", "part-2.csv"]
    assert found["schema_drift"] == "allow"
    (folder / "other.csv").unlink()
    (folder / "part-2.csv").unlink()
    assert table(pipeline(folder, "y"))["path"] == str(folder / "*.csv")


@pytest.mark.parametrize(
    ("first", "row", "header"),
    [
        ("country,2013,2014,label", "{word}{i},{x}.5,{x}.25,{y}", True),
        ("country,2013,2014,2015", "{word}{i},{x}.5,{x}.25,{x}.75", True),
        ("na,x,label", "{x},{x}.5,{y}", True),
        ("id,0,1,2,y", "{i},{x}.5,{x}.25,{x}.75,{y}", True),
        ("city,kind,note", "{word},{word},{word}", True),
        ("39, State,77516,<=50K", "{x}, {word},{i},<=50K", False),
        ("unknown,7,5", "{x},{x},{y}", False),
        ("2013,2014,0", "{year},{year},{y}", False),
        ("red,high,big", "red,high,{word}", False),
    ],
)
def test_names_are_told_from_values_by_what_stands_below(tmp_path: Path, first: str, row: str, header: bool) -> None:
    path = tmp_path / "data.csv"
    rows = (
        row.format(i=i, x=i * 37 % 101, y=i // 7 % 2, word="abc"[i * i % 7 % 3], year=2010 + i % 7) for i in range(ROWS)
    )
    path.write_text("\n".join([first, *rows]))
    sample = sampling.read_sample(str(path))
    assert sample.table["options"].get("header", False) == header
    assert [column.name for column in sample.columns] == (
        first.split(",") if header else [f"c{place + 1}" for place in range(first.count(",") + 1)]
    )


def test_the_files_of_a_folder_that_agree_are_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(2):
        lines = ["id,x,y", *(f"{number * 1000 + i},{i * 37 % 101},{i % 2}" for i in range(ROWS))]
        (folder / f"part-{number}.csv").write_text("\n".join(lines))
    (folder / "part-2.csv").write_text("id,x,y\n")
    (folder / "codes.csv").write_text("1,2,3\n4,5,6\n7,8,9\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    (folder / "cities.csv").write_text("id;x;y\n1;2;3\n")
    (folder / "junk.csv").write_bytes(bytes(range(256)) * 8)
    loaded = table(pipeline(folder, "y"))
    assert [Path(path).name for path in loaded["path"]] == ["part-0.csv", "part-1.csv", "part-2.csv"]
    assert loaded["options"] == {"header": True}
    assert loaded["schema"] == "id INT, x INT, y INT"
    written = (tmp_path / "raw.yaml").read_text()
    assert all(name in written for name in ("cities.csv", "codes.csv", "junk.csv", "twice.csv"))


def test_json_and_parquet_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    records = [
        {
            "id": i,
            "x": i / 7 if i % 5 else None,
            "tags": ["a", "b"][: i % 3],
            "in": {"a": i},
            "of": [{"a": [i]}],
            "ok": i % 3 == 0,
        }
        for i in range(ROWS)
    ]
    path.write_text("\n".join(json.dumps(record) for record in records))
    loaded = pipeline(path, "ok")
    assert table(loaded)["schema"] == "id INT, x DOUBLE, tags ARRAY<STRING>, in STRING, of STRING, ok BOOLEAN"
    assert loaded["features"]["multi_valued"] == [{"columns": ["tags"], "max_values": 2}]
    parquet = tmp_path / "data.parquet"
    columns = {
        "x": [i / 7 for i in range(ROWS)],
        "n": [{"a": 1}] * ROWS,
        "m": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        "l": [[{"a": 1}]] * ROWS,
        "d": pa.array([1] * ROWS, pa.duration("s")),
        "when": ["31.12.2024"] * ROWS,
        "y": [i % 2 for i in range(ROWS)],
    }
    pq.write_table(pa.table(columns), parquet)
    loaded = pipeline(parquet, "y")
    assert table(loaded)["schema"] == "x DOUBLE, when STRING, y BIGINT"
    assert loaded["clean"][0]["parse"]["as"] == "date"


@pytest.mark.parametrize(
    ("label", "expression", "kind"),
    [
        ("flag", "flag = 'yes it is'", "binary"),
        ("few", "few", "classes"),
        ("many", "many", "regression"),
        ("many > 50 AND few = 'a'", "many > 50 AND few = 'a'", "binary"),
    ],
)
def test_a_label_is_learned_as_what_it_is(tmp_path: Path, label: str, expression: str, kind: str) -> None:
    path = tmp_path / "data.csv"
    random_numbers = random.Random(1)
    lines = ["x,flag,few,many"]
    for i in range(ROWS):
        flag = "yes it is" if i % 3 == 0 else "not at all"
        lines.append(f"{random_numbers.random()},{flag},{'abc'[i * i % 7 % 3]},{random_numbers.gauss(50, 20)}")
    path.write_text("\n".join(lines))
    found = pipeline(path, label)["label"]
    assert (found["expression"], found["type"]) == (expression, kind)


def test_rows_that_the_sample_shows_to_be_rejected_break_no_contract(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    lines = [f"{i * 37 % 101 if i % 50 else 'oops'},{'' if i % 3 == 0 else i % 2}" for i in range(ROWS)]
    path.write_text("\n".join(["x,y", *lines, *["1,1,1"] * 20]))
    # 134 without label, 8 unparsable, 20 of another width, of 420: twice that and 0.1.
    assert pipeline(path, "y")["expect"]["result"][0] == "rejected_share < 0.87"
    path.write_text("\n".join(["x,y", *(f"{i * 37 % 101},{i % 2}" for i in range(ROWS))]))
    assert pipeline(path, "y")["expect"]["result"][0] == "rejected_share < 0.2"


def labelled(path: Path, counts: dict[str, int]) -> None:
    """Write so many rows of each class, mixed."""
    classes = [value for value, rows in counts.items() for _ in range(rows)]
    random.Random(1).shuffle(classes)
    path.write_text("\n".join(["x,y", *(f"{i * 37 % 101},{value}" for i, value in enumerate(classes))]))


@pytest.mark.parametrize("label", [None, "y"])
@pytest.mark.parametrize("counts", [{"a": 400, "b": 19}, {"a": 19, "b": 19, "c": 19, "d": 300}, {"a": 10, "b": 9}])
def test_classes_too_small_for_three_splits_are_refused(
    tmp_path: Path, counts: dict[str, int], label: str | None
) -> None:
    labelled(tmp_path / "data.csv", counts)
    with pytest.raises(InputError, match=r"20 or more"):
        pipeline(tmp_path / "data.csv", label)


@pytest.mark.parametrize(
    ("counts", "train"), [({"a": 400, "b": 99}, 0.6), ({"a": 400, "b": 100}, 0.7), ({"a": 400, "b": 30, "c": 200}, 0.6)]
)
def test_small_classes_get_larger_splits_to_be_tested_in(tmp_path: Path, counts: dict[str, int], train: float) -> None:
    labelled(tmp_path / "data.csv", counts)
    assert pipeline(tmp_path / "data.csv", "y")["split"]["train"] == train


def test_classes_are_those_of_the_sample_where_it_is_not_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    labelled(path, {"a": 4000, "b": 2000, "c": 1000, "d": 3})
    assert pipeline(path, "y")["require"][1]["that"] == "y NOT IN ('d')"
    monkeypatch.setattr(sampling, "MAX_ROWS", 700)
    found = pipeline(path, "y")
    assert sorted(found["require"][1]["that"]) == sorted("y IN ('a', 'b', 'c')")
    # A class of which the sample holds a tenth has ten times its rows.
    assert found["split"]["train"] == 0.7
    assert sampling.read_sample(str(path)).total == pytest.approx(7003, rel=0.02)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_what_folders_say_is_a_column_like_others(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "raw"
    for number in range(6):
        inside = folder / f"day=2024-01-0{number % 3 + 1}" / f"shop={'Köln%3A1' if number // 3 else '007'}"
        inside.mkdir(parents=True)
        columns = {"id": [number * 100 + i for i in range(100)], "x": [i * 37 % 101 for i in range(100)]}
        columns["y"] = [i // 7 % 2 for i in range(100)]
        rows = list(zip(*columns.values(), strict=True))
        if ending == "parquet":
            pq.write_table(pa.table(columns), inside / "part.parquet")
        elif ending == "csv":
            (inside / "part.csv").write_text("\n".join(["id,x,y", *(",".join(map(str, row)) for row in rows)]))
        else:
            lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
            (inside / "part.jsonl").write_text("\n".join(lines))
    loaded = pipeline(folder, "y")
    assert table(loaded)["partitions"] == "day DATE, shop STRING"
    assert "shop" not in table(loaded).get("schema", "")
    assert loaded["features"]["categorical"] == [{"columns": ["shop"]}]
    assert loaded["features"]["dates"][0]["columns"] == ["day"]
    text = (tmp_path / "raw.yaml").read_text()
    assert re.search(r"# shop +STRING +2 distinct: from the folders", text)
    assert "'Köln:1' 50%" in text


@pytest.mark.parametrize(
    ("content", "label", "message"),
    [
        ("", None, "are empty"),
        ("a\n" + "1\n2\n" * 50, None, "has one column, 'a'"),
        ("a,a\n1,2\n", None, "names the column 'a' twice"),
        ("a,b\n" + "1,2\n" * 50, None, "no column could be a label"),
        ("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(50)), "c", "no column 'c'"),
        ("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(50)), "b = ", "not valid SQL"),
        ("a,b\n" + "".join(f"{i},2024-01-0{i % 2 + 1}\n" for i in range(50)), "b", "holds dates or times"),
        ("a,b\n" + "".join(f"1,{i % 2}\n" for i in range(50)), "b", "no column is left to learn"),
    ],
)
def test_what_can_not_be_learned_is_refused(tmp_path: Path, content: str, label: str | None, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        pipeline(path, label)
    assert not list(tmp_path.glob("*.yaml"))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(random.Random(3).randbytes(5000))
    with pytest.raises(InputError, match=r"data\.csv: [\d,]+ of the first 5,000 bytes are control characters: no text"):
        pipeline(path)


def test_a_pipeline_file_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a,b\n" + "".join(f"{i * 31 % 17},{i % 2}\n" for i in range(50)))
    (tmp_path / "data.yaml").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        init("data.csv", None, None)
    assert (tmp_path / "data.yaml").read_text() == "mine"


def test_the_pipeline_is_called_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["id,x,y", *(f"{i},{i * 37 % 101},{i % 2}" for i in range(50))]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    for output, name in ((None, "data"), ("later-1.yaml", "later_1"), ("2024.yaml", "t_2024")):
        target, _, _ = init("data.csv", "y", output)
        loaded = YAML(typ="safe", pure=True).load(target.read_text())
        assert loaded["name"] == name
        assert "unique(id)" in loaded["expect"]["result"]


@pytest.mark.parametrize("output", ["data.csv/a.yaml", "/proc/a.yaml"])
def test_a_place_that_can_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a,b\n" + "".join(f"{i * 31 % 17},{i % 2}\n" for i in range(50)))
    with pytest.raises(InputError, match=rf"{output} can't be written: .*--output FILE"):
        init("data.csv", None, output)


def write_numbers(path: Path, rows: int) -> None:
    """Write the numbers from 0 on and their parity, in the format that the name says, in one row group or stripe."""
    numbers = {"a": list(range(rows)), "b": [i % 2 for i in range(rows)]}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(numbers), path)
    elif path.suffix == ".orc":
        orc.write_table(pa.table(numbers), str(path))
    elif path.suffix == ".jsonl":
        path.write_text("".join(f'{{"a": {i}, "b": {i % 2}}}\n' for i in range(rows)))
    else:
        path.write_text("a,b\n" + "\n".join(f"{i},{i % 2}" for i in range(rows)))


@pytest.mark.parametrize(
    ("name", "budget"),
    [("x.csv", 1 << 25), ("x.csv", 20_000), ("x.jsonl", 1 << 25), ("x.parquet", 1 << 25), ("x.orc", 1 << 25)],
)
def test_the_sample_is_bounded_and_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, budget: int
) -> None:
    monkeypatch.setattr(sampling, "MAX_ROWS", 1000)
    monkeypatch.setattr(sampling, "MAX_BYTES", budget)
    write_numbers(tmp_path / name, 100_000)
    sample = sampling.read_sample(str(tmp_path / name))
    values, parity = ([int(value) for value in column.values] for column in sample.columns)
    assert sample.rows == len(values) <= 1000
    assert not sample.whole
    assert "spread over the file" in sample.described
    assert (values[0], values[-1]) == (0, 99_999)
    assert all(low < 20_000 * (part + 1) for part, low in enumerate(values[:: len(values) // 5][:5]))
    assert sum(parity) == pytest.approx(len(values) / 2, rel=0.1)
    # Neighbours stay together: rows of one group are found to be of one.
    assert sum(two - one == 1 for one, two in pairwise(values)) > 0.6 * len(values)


def test_pieces_that_begin_inside_of_quotes_are_read_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_BYTES", 40_000)
    path = tmp_path / "data.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["a", "text", "b"], *([i, f"one, {i}\n\ntwo, {i}", i % 2] for i in range(20_000))])
    sample = sampling.read_sample(str(path))
    assert sample.misfits == 0
    assert {str(value).split(",")[0] for value in sample.columns[1].values} == {"one"}
    assert int(sample.columns[0].values[-1]) > 19_000


def test_dates_of_months_have_no_weekday(tmp_path: Path) -> None:
    found = column(tmp_path, cycle("1949-01", "1949-12", "1950-07"))["features"]["dates"]
    assert found == [{"columns": ["x"], "parts": ["month"], "cyclical": True}]


def test_of_a_compressed_file_it_is_the_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_BYTES", 10_000)
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i % 2) for i in range(20_000))))
    assert "the first of the file" in sampling.read_sample(str(path)).described


def test_integers_of_which_not_all_were_seen_may_be_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,x,b\n" + "".join(f"{i},{i * 37 % 101},{i % 2}\n" for i in range(1000)))
    assert table(pipeline(path, "b"))["schema"] == "id INT, x INT, b INT"
    monkeypatch.setattr(sampling, "MAX_ROWS", 500)
    assert table(pipeline(path, "b"))["schema"] == "id BIGINT, x BIGINT, b BIGINT"


@pytest.mark.parametrize(
    "value",
    [
        "yes",
        "no",
        "~",
        "a: b",
        "# c",
        "1",
        "1.5",
        "",
        " x",
        "é",
        "[a]",
        "a, b",
        "null",
        "*a",
        "=",
        "a\nb",
        '"',
        "-",
        ".5",
        ".inf",
    ],
)
def test_text_comes_back_from_yaml_as_it_was(value: str) -> None:
    assert YAML(typ="safe", pure=True).load(f"[{flow(value)}]") == [value]


def test_a_rule_for_rare_classes_has_its_null_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with open(path, "w", newline="") as file:
        rows = ([i * 37 % 11, i % 7 / 2, "abc"[i % 3] if i > 5 else "rare"] for i in range(ROWS))
        csv.writer(file).writerows([["x", "z", "grade"], *rows])
    loaded = pipeline(path, "grade")
    (rule,) = [rule for rule in loaded["require"] if rule["because"] == "rare class"]
    assert rule["null"] == "keep"


def test_a_backslash_before_a_quote_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    lines = [f'{i * 37 % 101},"say \\"{i % 5}\\" again",{i // 7 % 2}' for i in range(ROWS)]
    path.write_text("\n".join(["x,said,y", *lines]) + "\n")
    assert table(pipeline(path, "y"))["options"] == {"header": True, "escape": "\\"}
