"""What `lakefit init` makes of values; that its file runs is proven in tests/end_to_end/test_init.py."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
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
    assert options == {"header": True, "sep": ";", "encoding": "windows-1252", "multiLine": True, "escape": '"'}
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


def test_json_and_parquet_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    records = [
        {"id": i, "x": i / 7 if i % 5 else None, "tags": ["a", "b"][: i % 3], "in": {"a": i}, "ok": i % 3 == 0}
        for i in range(ROWS)
    ]
    path.write_text("\n".join(json.dumps(record) for record in records))
    loaded = pipeline(path, "ok")
    assert table(loaded)["schema"] == "id INT, x DOUBLE, tags ARRAY<STRING>, in STRING, ok BOOLEAN"
    assert loaded["features"]["multi_valued"] == [{"columns": ["tags"], "max_values": 2}]
    parquet = tmp_path / "data.parquet"
    columns = {
        "x": [i / 7 for i in range(ROWS)],
        "n": [{"a": 1}] * ROWS,
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


@pytest.mark.parametrize(
    ("content", "label", "message"),
    [
        ("", None, "are empty"),
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


def test_a_pipeline_file_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a,b\n" + "".join(f"{i * 31 % 17},{i % 2}\n" for i in range(50)))
    (tmp_path / "data.yaml").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        init("data.csv", None, None)
    assert (tmp_path / "data.yaml").read_text() == "mine"


def test_the_sample_is_bounded_and_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_ROWS", 1000)
    monkeypatch.setattr(sampling, "MAX_BYTES", 20_000)
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(200_000)))
    sample = sampling.read_sample(str(path))
    values = [int(value) for value in sample.columns[0].values]
    assert sample.rows == len(values) <= 1000
    assert not sample.whole
    assert min(values) == 0
    assert max(values) > 140_000


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
