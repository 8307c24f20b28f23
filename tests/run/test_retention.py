"""Retention removes what is old and unused, and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lakefit.config import load_pipeline
from lakefit.run.retention import remove_old
from shop import write_shop

NOW = 1_000_000_000.0
DAY = 86_400


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven nights: dataset i, run i of it and artifact i, i days old; number 4 is in use."""
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path, rows=5)
    root = tmp_path / "lake/shop"
    for i in range(7):
        for kind in ("datasets", "runs", "artifacts"):
            (root / kind / f"{kind[0]}{i}").mkdir(parents=True)
        (root / f"runs/r{i}/run.json").write_text(json.dumps({"dataset": f"d{i}"}))
        for kind in ("datasets", "runs", "artifacts"):
            date_back(root / kind / f"{kind[0]}{i}", i)
    (root / "current.json").write_text(json.dumps({"dataset": "d4", "run": "r4", "artifact": "a4"}))
    return root


def date_back(path: Path, days: int) -> None:
    age = NOW - days * DAY - 60
    os.utime(path, (age, age))


def versions(root: Path) -> list[Path]:
    return list(root.glob("*/[!.]*/"))


def names(root: Path, kind: str) -> list[str]:
    return sorted(path.name for path in (root / kind).iterdir())


def remove(*settings: str) -> list[str]:
    pipeline, _ = load_pipeline("shop.yaml", settings)
    return [path.name for path in remove_old(pipeline, NOW)]


def test_nothing_is_removed_unless_asked_for(root: Path) -> None:
    assert remove() == []
    assert len(names(root, "datasets")) == 7


def test_the_newest_and_what_is_in_use_stay(root: Path) -> None:
    removed = remove("output.keep=2")
    assert sorted(removed) == sorted(f"{kind}{i}" for kind in "rad" for i in (2, 3, 5, 6))
    assert names(root, "datasets") == ["d0", "d1", "d4"]
    assert names(root, "runs") == ["r0", "r1", "r4"]
    assert names(root, "artifacts") == ["a0", "a1", "a4"]


def test_a_dataset_that_a_run_names_stays(root: Path) -> None:
    (root / "runs/r0/run.json").write_text(json.dumps({"dataset": "d6"}))
    remove("output.keep=2")
    assert names(root, "datasets") == ["d0", "d1", "d4", "d6"]


def test_what_is_young_stays(root: Path) -> None:
    remove("output.keep=1", "output.grace='3 days'")
    assert names(root, "datasets") == ["d0", "d1", "d2", "d4"]


def test_frozen_statistics_keep_their_dataset(root: Path) -> None:
    (root / "datasets/d6").rename(root / "datasets/0123456789abcdef")
    remove("output.keep=1", "features.statistics.from='0123456789abcdef'")
    assert names(root, "datasets") == ["0123456789abcdef", "d0", "d4"]


def test_what_rollback_goes_back_to_stays(root: Path) -> None:
    (root / "datasets/d6/manifest.json").write_text("{}")
    (root / "runs/r6/metrics.json").write_text("{}")
    (root / "artifacts/a6/artifact.json").write_text("{}")
    before = {"dataset": "d6", "run": "r6", "artifact": "a6"}
    (root / "history").mkdir()
    record = {"began": "2001-01-01T00:00:00+00:00", "command": "run", "in_use": before}
    (root / "history/1.json").write_text(json.dumps(record))
    # Otherwise the run would keep its dataset.
    (root / "runs/r6/run.json").unlink()
    for kind in ("datasets", "runs", "artifacts"):
        date_back(root / kind / f"{kind[0]}6", 6)
    remove("output.keep=2")
    assert names(root, "datasets") == ["d0", "d1", "d4", "d6"]
    assert names(root, "runs") == ["r0", "r1", "r4", "r6"]
    assert names(root, "artifacts") == ["a0", "a1", "a4", "a6"]


def test_old_studies_go_but_for_the_one_whose_values_are_used(root: Path) -> None:
    for i in range(7):
        (root / f"studies/s{i}/study").mkdir(parents=True)
        (root / f"studies/s{i}/study/journal.log").touch()
        date_back(root / f"studies/s{i}", i)
    (root / "studies/lr-range.png").touch()
    (root / "studies/.staging-removed-s9").mkdir()
    (root / "tuned.json").write_text(json.dumps({"study": "s5"}))
    assert {name for name in remove("output.keep=2") if name.startswith("s")} == {"s2", "s3", "s4", "s6"}
    assert names(root, "studies") == ["lr-range.png", "s0", "s1", "s5"]


def test_a_killed_removal_leaves_nothing_half(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in versions(root):
        (path / "first").touch()
        (path / "second").touch()
        date_back(path, int(path.name[1:]))

    def killed(folder: Path, **_: object) -> None:
        (folder / "first").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove("output.keep=2")
    left = versions(root)
    assert len(left) == 3 * 7 - 1
    assert all((path / "first").exists() for path in left)
    (grave,) = root.glob("*/.staging-*")
    assert (grave / "second").exists()
    # A run; trained again and old again, it is removed once more.
    assert grave.parent.name == "runs"
    again = grave.with_name(grave.name.removeprefix(".staging-removed-"))
    again.mkdir()
    date_back(again, 6)
    remove("output.keep=2")
    assert names(root, "runs") == ["r0", "r1", "r4"]


def test_what_a_killed_removal_left_is_no_version(root: Path) -> None:
    grave = root / "datasets/.staging-removed-d9"
    grave.mkdir()
    date_back(grave, 9)
    remove("output.keep=2")
    assert grave.is_dir(), "the next preparation removes it with other staging folders"
    assert "d2" not in names(root, "datasets")
