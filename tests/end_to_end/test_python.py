"""Lakefit from Python: what docs/pipeline-file.md shows is run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from lakefit.config import Expect, Label
from lakefit.dataset.manifest import read_manifest
from lakefit.errors import ContractError, InputError
from lakefit.run.lock import run_lock
from lakefit.run.plan import fingerprints
from lakefit.run.validate import validate
from shop import ROOT


def examples() -> list[str]:
    """Return the Python blocks of the reference's chapter on Python."""
    text = (ROOT / "docs/pipeline-file.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text[: text.index("\n## name")], re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


@pytest.fixture(scope="module")
def names(spark: Any, folder: Path) -> dict[str, Any]:
    """What the first example leaves behind."""
    found: dict[str, Any] = {"print": lambda *said: found.setdefault("said", []).extend(map(str, said))}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(examples()[0], found)
    return found


def test_the_example_of_the_reference_runs_and_says_what_it_says(folder: Path, names: dict[str, Any]) -> None:
    assert names["said"] == re.findall(r"print\(.*  # (.*)", examples()[0])
    manifest = read_manifest(folder / names["dataset"])
    assert manifest.ledger.rows_in == 600
    assert sum(manifest.ledger.kept.values()) == 588
    assert manifest.pipeline["name"] == "orders"


def test_the_file_that_it_writes_goes_on_from_its_dataset(
    folder: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert fingerprints(validate("orders.yaml")).dataset == names["dataset"].name
    assert names["prepare"]("orders.yaml") == names["dataset"]


def test_the_second_example_cleans_a_frame(spark: Any, names: dict[str, Any]) -> None:
    found = {**names, "frame": spark.createDataFrame([(" Oslo ",)], "city STRING")}
    exec(examples()[1], found)
    assert [row.city for row in found["frame"].collect()] == ["Oslo"]
    assert found["frame"].columns == ["city", "_marks"]


def test_prepare_keeps_the_lock_the_contracts_and_the_checks_of_the_command(
    folder: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    prepare, pipeline = names["prepare"], names["pipeline"]
    other = pipeline.model_copy(update={"label": (Label(expression="late > 1 OR day IS NULL"),)})
    with run_lock(folder / "lake/orders/lock"), pytest.raises(InputError, match="another run is writing"):
        prepare(other)
    with pytest.raises(ContractError, match="BROKEN  input   rows >= 601  found 600"):
        prepare(pipeline.model_copy(update={"expect": Expect(input=["rows >= 601"])}))
    with pytest.raises(InputError, match=r"pipeline 'orders': label\.0\.expression: unknown column 'lait'"):
        prepare(pipeline.model_copy(update={"label": (Label(expression="lait > 0"),)}))
    assert [path.name for path in (folder / "lake/orders/datasets").iterdir()] == [names["dataset"].name]
