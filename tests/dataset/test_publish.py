"""Nothing half-written is ever seen under its own name."""

import os
from pathlib import Path

import pytest

from lakefit.dataset.publish import (
    ensure_writable,
    read_json,
    remove_staging,
    staged_folder,
    write_atomically,
    write_json,
)
from lakefit.errors import InputError


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_appears_whole_in_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "output"
    for text in ("old", "new"):
        with staged_folder(target, "manifest.json") as staging:
            (staging / "sub").mkdir()
            (staging / "sub" / text).write_text(text)
            assert not target.exists() or tree(target) == {"sub/old": "old"}
    assert tree(tmp_path) == {"output/sub/new": "new"}


class FailureError(Exception):
    pass


@pytest.mark.parametrize("exception", [FailureError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path, exception: type[BaseException]) -> None:
    target = tmp_path / "output"
    target.mkdir()
    (target / "old").write_text("old")

    def fail_half_way() -> None:
        with staged_folder(target, "manifest.json") as staging:
            (staging / "new").write_text("new")
            raise exception

    with pytest.raises(exception):
        fail_half_way()
    assert tree(tmp_path) == {"output/old": "old"}
    assert os.listdir(tmp_path) == ["output"]


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "dataset"
    kept.mkdir()
    staging = staged_folder(tmp_path / "dataset", "manifest.json")
    left = staging.__enter__()
    (left / "half").write_text("half")
    remove_staging(tmp_path)
    assert os.listdir(tmp_path) == ["dataset"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new folder" / "state.json"
    write_json(path, {"text": "é", "b": 1, "a": 2})
    assert read_json(path) == {"text": "é", "b": 1, "a": 2}
    assert path.read_text(encoding="utf-8").endswith("}\n")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "half")
    assert read_json(path) == {"text": "é", "b": 1, "a": 2}
    assert os.listdir(path.parent) == ["state.json"]


def test_what_gets_its_name_is_on_the_disk_before_and_the_name_right_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[tuple[str, Path | str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        happened.append(("synced", path.read_text() if path.is_file() else path))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        happened.append(("renamed", target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_atomically(tmp_path / "state.json", "all of it")
    assert happened == [("synced", "all of it"), ("renamed", tmp_path / "state.json"), ("synced", tmp_path)]
    happened.clear()
    with staged_folder(tmp_path / "dataset", "manifest.json"):
        pass
    assert happened == [("renamed", tmp_path / "dataset"), ("synced", tmp_path)]


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "\udcff"])
def test_what_is_no_whole_mapping_reads_as_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "state.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_json(path) is None
    assert read_json(path / "below a file") is None


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    ensure_writable(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new" / "folder") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"can't be written: .*Name a folder .*output\.path"):
        ensure_writable(tmp_path / "file" / "below")
