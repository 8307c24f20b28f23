"""Writing so that nothing half-written is ever seen: on this machine a temporary name, flushed to disk, then one
rename; in an object store, where nothing can be renamed, one write an object, and of a folder the file last that says
that it is whole.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakefit.dataset.layout import CURRENT, SCORE, SCORE_LOCK
from lakefit.dataset.object_path import STORE_ERRORS, AnyPath, ObjectPath
from lakefit.errors import InputError

STAGING_PREFIX = ".staging-"


def write_atomically(path: AnyPath, content: str | bytes) -> None:
    """Replace a file's content: a reader sees the old or the new, whole."""
    data = content.encode() if isinstance(content, str) else content
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: AnyPath, value: Any) -> None:
    """Write plain data as JSON, atomically."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> str:
    """Return plain data as the text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def read_json(path: AnyPath) -> dict[str, Any] | None:
    """Return the mapping in a JSON file, or None where there is no such file or no whole JSON in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def check_current(path: AnyPath, pipeline_file: str) -> None:
    """Raise InputError where `current.json` is there and holds no mapping: nobody knows then what is in use."""
    if path.is_file() and read_json(path) is None:
        raise InputError(
            f"{path}: is damaged, so it is not known what is in use; it is written whole, or not at all, so something "
            f"else has changed it. `lakefit rollback {pipeline_file} --to RUN` writes it anew, with one of `lakefit "
            f"history {pipeline_file}`; without it, everything is taken for new."
        )


@contextmanager
def new_file(path: AnyPath) -> Iterator[Path]:
    """Yield the name of a file of this machine to be written, which appears at `path`, whole, when the block ends
    without an error; nothing does where it was not written."""
    if isinstance(path, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="lakefit-", dir=scratch()) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            if temporary.exists():
                path.upload(temporary)
        return
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        if temporary.exists():
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def local_file(path: AnyPath) -> Iterator[Path]:
    """Yield a file of this machine with what `path` holds, for a library that opens no others.

    Raises FileNotFoundError.
    """
    if not isinstance(path, ObjectPath):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lakefit-", dir=scratch()) as folder:
        download(path, Path(folder) / path.name)
        yield Path(folder) / path.name


def download(source: ObjectPath, target: Path) -> None:
    """Copy an object to a file of this machine; memory is bounded."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open_input() as file, open(target, "wb") as sink:
        shutil.copyfileobj(file, sink, 1 << 24)


def scratch() -> str:
    """Return the folder of this machine for what is large and of no use later: where Spark spills, too."""
    return os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")[0]


@contextmanager
def staged_folder(target: AnyPath, marker: str) -> Iterator[AnyPath]:
    """Yield a folder to write into, from any machine, whose files are at `target` when the block ends without an error.

    marker: the file that says that a folder is whole; the block writes it last. On this machine the folder has a name
    of its own and takes the place of `target` in one rename. A crash leaves only what `remove_unfinished` takes away.
    """
    if isinstance(target, ObjectPath):
        # Without it there is no such version, whatever else lies there. What a failure leaves stays: a run that has
        # lost its lock must not remove what another one writes.
        (target / marker).unlink(missing_ok=True)
        yield target
        return
    staging = target.parent / f"{STAGING_PREFIX}{target.name}-{uuid.uuid4().hex[:8]}"
    staging.mkdir(parents=True)
    try:
        yield staging
        if target.exists():
            old = target.parent / f"{STAGING_PREFIX}old-{uuid.uuid4().hex[:8]}"
            os.replace(target, old)
            os.replace(staging, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(staging, target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def built_folder(target: AnyPath, marker: str) -> Iterator[Path]:
    """Yield a new folder of this machine, whose files are at `target`, as `staged_folder` says, when the block ends."""
    if not isinstance(target, ObjectPath):
        with staged_folder(target, marker) as folder:
            assert isinstance(folder, Path)
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lakefit-", dir=scratch()) as folder:
        built = Path(folder)
        yield built
        with staged_folder(target, marker):
            files = {str(path.relative_to(built)): path for path in built.rglob("*") if path.is_file()}
            for name, path in sorted(files.items()):
                if name != marker:
                    (target / name).upload(path)
            for there, _ in list(target.files()):
                if there.relative_to(target) not in files:
                    there.unlink(missing_ok=True)
            (target / marker).upload(built / marker)


def ensure_ours(output: AnyPath) -> None:
    """Raise InputError where a scoring output holds anything that an earlier `score` did not write."""
    if (output / SCORE).is_file() or not output.exists():
        return
    if isinstance(output, ObjectPath) and not output.is_file() and not _strange(output):
        # A score that was killed, or one that failed, left them.
        return
    if not output.is_dir() or any(output.iterdir()):
        raise InputError(
            f"{output}: exists and was not written by `lakefit score`; it would be replaced. Name another output, or "
            "remove it."
        )


def has_others(output: AnyPath) -> bool:
    """Say whether there are scored rows in an object store that `_score.json` does not name: of a run that was killed
    before it could remove them."""
    if not isinstance(output, ObjectPath):
        return False
    listed = (read_json(output / SCORE) or {}).get("files", {})
    names = {path.relative_to(output) for path, _ in output.files()}
    return bool(names - {SCORE, SCORE_LOCK, *listed})


def _strange(output: ObjectPath) -> bool:
    names = (path.relative_to(output) for path, _ in output.files())
    return any(re.fullmatch(rf"{SCORE_LOCK}|(_\w+/)?part-\d+-[0-9a-f]{{8}}\.parquet", name) is None for name in names)


def remove_staging(folder: Path, name: str = "") -> None:
    """Remove what killed runs left in a folder (of one target, where it is named); the caller holds the lock."""
    for left in folder.glob(f"{STAGING_PREFIX}{glob.escape(name)}*"):
        shutil.rmtree(left, ignore_errors=True)


def remove_unfinished(versions: AnyPath, marker: str) -> None:
    """Remove what killed runs left in a folder of versions, which are whole where they have their `marker`; the caller
    holds the lock."""
    if not isinstance(versions, ObjectPath):
        remove_staging(versions)
        return
    # One that is just made again, of a run that is in use, is that run's to finish.
    in_use = set((read_json(versions.parent / CURRENT) or {}).values())
    for left in list(versions.iterdir()) if versions.is_dir() else ():
        if left.name not in in_use and not (left / marker).is_file():
            left.remove_tree()


def remove_version(folder: AnyPath, marker: str) -> None:
    """Remove a folder so that nobody sees half of it as a whole one. marker: the file that says that it is whole."""
    if isinstance(folder, ObjectPath):
        (folder / marker).unlink(missing_ok=True)
        folder.remove_tree()
        return
    grave = folder.with_name(f"{STAGING_PREFIX}removed-{folder.name}")
    folder.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def move_aside(path: AnyPath, name: str) -> None:
    """Give a file of a folder another name in it, for people to look at."""
    if isinstance(path, ObjectPath):
        path.with_name(name).write_bytes(path.read_bytes())
        path.unlink()
    else:
        path.rename(path.with_name(name))


def remove_tree(path: AnyPath) -> None:
    """Remove a folder and what lies in it, if it is there."""
    if isinstance(path, ObjectPath):
        path.remove_tree()
    else:
        shutil.rmtree(path, ignore_errors=True)


def files_below(folder: AnyPath) -> Iterator[tuple[AnyPath, str]]:
    """Yield all files of a folder and what they are called below it."""
    if isinstance(folder, ObjectPath):
        yield from ((path, path.relative_to(folder)) for path, _ in folder.files())
    else:
        yield from ((path, str(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file())


def ensure_writable(folder: AnyPath) -> None:
    """Raise InputError unless files can be made in the folder (which is created)."""
    probe = folder / f".write-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(probe, ObjectPath):
            probe.write_bytes(b"")
        else:
            probe.touch()
        probe.unlink()
    except STORE_ERRORS as error:
        raise InputError(
            f"{folder}: can't be written: {getattr(error, 'strerror', None) or error}. Name a folder that this user "
            "may write (output.path, or score --output), or change its permissions."
        ) from error


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is; not every file system lets a folder be synced.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
