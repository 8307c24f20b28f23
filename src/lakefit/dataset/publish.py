"""Writing so that nothing half-written is ever seen: a temporary name, flushed to disk, then one rename."""

import contextlib
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakefit.dataset.layout import SCORE
from lakefit.errors import InputError

STAGING_PREFIX = ".staging-"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content: a reader sees the old or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a JSON file, or None where there is no such file or no whole JSON in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place in one rename when the block ends without an error.

    What stood at `target` is removed; a crash leaves only the staging folder, which `remove_staging` takes away.
    """
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


def ensure_ours(output: Path) -> None:
    """Raise InputError where a scoring output holds anything that an earlier `score` did not write."""
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / SCORE).is_file())):
        raise InputError(
            f"{output}: exists and was not written by `lakefit score`; it would be replaced. Name another output, or "
            "remove it."
        )


def remove_staging(folder: Path, name: str = "") -> None:
    """Remove what killed runs left in a folder (of one target, where it is named); the caller holds the lock."""
    for left in folder.glob(f"{STAGING_PREFIX}{glob.escape(name)}*"):
        shutil.rmtree(left, ignore_errors=True)


def ensure_writable(folder: Path) -> None:
    """Raise InputError unless files can be made in the folder (which is created)."""
    probe = folder / f".write-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: can't be written: {error.strerror or error}. Name a folder that this user may write "
            "(output.path, or score --output), or change its permissions."
        ) from error


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is; not every file system lets a folder be synced.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
