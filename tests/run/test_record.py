"""What is known of earlier runs: what was in use before, and what has changed since."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from feeds import manifest_of
from lakefit.config import Pipeline, load_pipeline
from lakefit.dataset.features import Features
from lakefit.dataset.inputs import InputFile
from lakefit.dataset.layout import Layout
from lakefit.dataset.manifest import InputRecord
from lakefit.run.record import used_before, what_changed
from shop import write_shop


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.chdir(tmp_path)
    return load_pipeline(write_shop(tmp_path, rows=5))[0]


@pytest.fixture
def layout(pipeline: Pipeline) -> Layout:
    return Layout.of(pipeline)


def use(number: int) -> dict[str, str]:
    return {"dataset": f"d{number}", "run": f"r{number}", "artifact": f"a{number}"}


def made(layout: Layout, number: int, *files: str, **run: Any) -> None:
    """Put down what a run leaves: dataset, run and artifact of its number."""
    inputs = [InputRecord(table="orders", name=name, bytes=1, modified_ns=1) for name in files]
    manifest = manifest_of([], Features()).model_copy(update={"inputs": tuple(inputs)})
    for folder, name, text in (
        (layout.dataset(f"d{number}"), "manifest.json", manifest.model_dump_json(by_alias=True)),
        (layout.run(f"r{number}"), "metrics.json", "{}"),
        (layout.run(f"r{number}"), "run.json", json.dumps(run)),
        (layout.artifact(f"a{number}"), "artifact.json", "{}"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def recorded(layout: Layout, name: str, **fields: Any) -> None:
    layout.history.mkdir(parents=True, exist_ok=True)
    (layout.history / f"{name}.json").write_text(json.dumps({"began": name, "command": "run", **fields}))


def test_what_was_in_use_before_is_the_last_that_is_whole_and_was_not_rolled_back(layout: Layout) -> None:
    for number in (1, 2, 3):
        made(layout, number, **({"rolled_back": "then"} if number == 3 else {}))
        recorded(layout, f"{number}", in_use=use(number))
    recorded(layout, "4", command="rollback", in_use=use(2))
    layout.current.write_text(json.dumps(use(2)))
    assert used_before(layout) == use(1), "3 was rolled back"
    # Retention has removed the one that was rolled back, and its mark with it.
    shutil.rmtree(layout.run("r3"))
    assert used_before(layout) == use(1)
    shutil.rmtree(layout.artifact("a1"))
    assert used_before(layout) is None


def test_what_a_killed_run_took_into_use_is_known_from_what_the_next_one_found(layout: Layout) -> None:
    for number in (4, 5, 6):
        made(layout, number)
    recorded(layout, "4", in_use_before=None, in_use=use(4))
    recorded(layout, "5", in_use_before=use(4), state="running")
    recorded(layout, "6", in_use_before=use(5), in_use=use(6))
    layout.current.write_text(json.dumps(use(6)))
    assert used_before(layout) == use(5)


def inputs(*names: str) -> dict[str, tuple[InputFile, ...]]:
    return {"orders": tuple(InputFile(name, name, 2 if name == "b" else 1, 1) for name in names)}


def test_what_changed_is_told_from_the_last_dataset_that_was_made(pipeline: Pipeline, layout: Layout) -> None:
    settings = pipeline.dump()
    assert what_changed(layout, pipeline, inputs("a"), "d1") == [], "nothing was before"
    made(layout, 1, "a", "b", "gone")
    recorded(layout, "1", dataset="d1", settings=settings)
    # A night whose data were refused made no dataset.
    recorded(layout, "2", dataset="d2", settings={**settings, "name": "other"}, versions={"lakefit": "0.0.9"})
    made(layout, 3, "c")
    recorded(layout, "3", command="rollback", dataset="d3", settings=settings)
    found = what_changed(layout, pipeline, inputs("a", "b", "c", "d"), "d4")
    assert found[:4] == [
        "orders: 2 new: c, d",
        "orders: 1 changed: b",
        "orders: 1 gone: gone",
        'name: "other" -> "shop"',
    ]
    assert found[4].startswith("lakefit 0.0.9 -> ")
    assert what_changed(layout, pipeline, inputs("x"), "d1")[0].startswith("name:"), "the dataset is the same"
