"""`inspect`, `diff`, `render` and `schema`: by the command, on prepared datasets."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from lakefit.cli import main
from lakefit.dataset.manifest import FORMAT_VERSION
from shop import ROOT, events, write_shop

CHANGED = (
    (
        "clean:\n",
        'clean:\n  - {column: amount, derive: amount * 10}\n  - {column: day, derive: "CAST(day AS STRING)"}\n',
    ),
    ("expect: {result: [rows >= 1000, min(weight) >= 0.5]}", "expect: {result: [rows >= 100, min(weight) >= 0.5]}"),
    ("label: {expression: late > 0}", "label: {expression: late > 0 OR id % 3 = 0}"),
)


@pytest.fixture(scope="module")
def shop(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of the shop: in the second amounts are ten times as large, days are text and more is late."""
    folder = tmp_path_factory.mktemp("shop")
    path = write_shop(folder, rows=3_000)
    tags = (
        "  - {column: tags, derive: 'array(city)'}\nexpect: {result: [rows >= 1000, min(weight) >= 0.5]}\ndeduplicate:"
    )
    path.write_text(path.read_text(encoding="utf-8").replace("deduplicate:", tags), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "shop.yaml", "--json"]) == 0
        (folder / "first").symlink_to(next((folder / "lake/shop/datasets").iterdir()))
        text = (folder / "shop.yaml").read_text(encoding="utf-8")
        for old, new in CHANGED:
            assert old in text
            text = text.replace(old, new)
        (folder / "changed.yaml").write_text(text, encoding="utf-8")
        assert main(["prepare", "changed.yaml", "--json"]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return events(capsys.readouterr().out)[-1]


def test_inspect_shows_the_dataset_in_use_or_any(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, in_use = said(capsys, "inspect", str(shop / "first")), said(capsys, "inspect", str(shop / "lake/shop"))
    assert first["fingerprint"] != in_use["fingerprint"]
    assert first["ledger"]["rows_in"] == 3_082
    assert first["statistics"]["city"]["most_frequent"][0][1] > 100
    capsys.readouterr()
    assert main(["inspect", str(shop / "first" / "manifest.json")]) == 0
    text = capsys.readouterr().out
    for part in ("rows in", "3,082", "rejected: refunded", "Columns of the training split", "amount"):
        assert part in text


def test_diff_shows_columns_rows_and_drift(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "diff", str(shop / "first"), str(shop / "lake/shop"))
    assert found["columns"] == [{"column": "day", "from": "int", "to": "string"}]
    assert found["drift"]["amount"] > 0.25
    assert found["drift"]["weight"] == pytest.approx(0, abs=0.05)
    assert "day" not in found["drift"]
    assert found["rows"]["rows in"] == {"from": 3_082, "to": 3_082}
    assert main(["diff", str(shop / "first"), str(shop / "lake/shop")]) == 0
    assert "drifted" in capsys.readouterr().out


def test_diff_shows_what_was_set_expected_and_found_otherwise(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "diff", str(shop / "first"), str(shop / "lake/shop"))
    settings = {change["key"]: (change["from"], change["to"]) for change in found["settings"]}
    assert set(settings) == {"clean", "expect.result", "label.expression"}
    assert settings["label.expression"] == ("late > 0", "late > 0 OR id % 3 = 0")
    assert settings["expect.result"] == (["rows >= 1000"], ["rows >= 100"])
    assert [[step["column"] for step in side] for side in settings["clean"]] == [[], ["amount", "day"]]
    contracts = {change["contract"]: (change["from"], change["to"]) for change in found["contracts"]}
    kept = f"{sum(found['rows'][split]['to'] for split in ('train', 'validation', 'test')):,}"
    assert contracts == {"result: rows >= 1000": (kept, None), "result: rows >= 100": (None, kept)}
    assert found["classes"]["1"]["to"] > found["classes"]["1"]["from"]
    assert main(["diff", str(shop / "first"), str(shop / "lake/shop")]) == 0
    text = capsys.readouterr().out
    for part in ("Settings", "label.expression", '"late > 0 OR id % 3 = 0"', "Contracts", "Classes of the training"):
        assert part in text
    (tags,) = [line.split() for line in text.splitlines() if line.strip().startswith("tags")]
    assert tags[1:] == ["-", "array<string>", "is", "not", "compared", "0.00%", "0.00%"]
    assert main(["diff", str(shop / "first"), str(shop / "first")]) == 0
    same = capsys.readouterr().out
    assert "Rows" in same
    assert "Settings" not in same


@pytest.mark.parametrize("path", ["lake", "lake/shop", "lake/shop/current.json", "changed.yaml"])
def test_the_dataset_in_use_is_found_from_wherever_its_pipeline_is_named(
    shop: Path, path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    current = json.loads((shop / "lake/shop/current.json").read_text())["dataset"]
    assert said(capsys, "inspect", path)["fingerprint"] == current


def test_what_is_no_dataset_is_refused_with_what_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "neither a dataset" in capsys.readouterr().err
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "current.json").write_text("{}")
    assert main(["inspect", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"several pipelines have their output there; name one of: {tmp_path / 'one'}, {tmp_path / 'two'}." in told
    assert main(["inspect", str(tmp_path / "one")]) == 2
    assert "names no dataset in use" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "why"), [("{", "Invalid JSON: EOF"), ('{"name": 1}', "format_version: Field")])
def test_a_damaged_manifest_is_refused_with_its_reason(
    tmp_path: Path, content: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert main(["inspect", str(tmp_path)]) == 2
    assert f"(format {FORMAT_VERSION}): {why}" in capsys.readouterr().err


def test_render_writes_every_default_and_loads_as_the_same(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["render", str(shop / "shop.yaml"), "--set", "split.seed=4"]) == 0
    text = capsys.readouterr().out
    (shop / "again.yaml").write_text(text, encoding="utf-8")
    assert main(["render", str(shop / "again.yaml")]) == 0
    assert capsys.readouterr().out == text
    assert "seed: 4" in text
    assert "null_key: reject" in text


def test_the_schema_takes_the_pipeline_files_and_refuses_a_misspelling(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    flights = YAML(typ="safe", pure=True).load((ROOT / "conf/flights.yaml").read_text(encoding="utf-8"))
    assert list(validator.iter_errors(flights)) == []
    flights["featurs"] = flights.pop("features")
    assert {error.validator for error in validator.iter_errors(flights)} == {"additionalProperties", "required"}


@pytest.mark.parametrize("command", [("inspect", "nothing"), ("diff", "nothing", "neither")])
def test_what_is_no_dataset_is_to_be_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"Once that is mended: lakefit {' '.join(command)}"
