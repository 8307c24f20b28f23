"""The folder of a dataset: on this machine, or in an object store that pyarrow knows (s3://, gs://, abfss://)."""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from lakefit.dataset.publish import write_atomically
from lakefit.errors import InputError, without_credentials

Result = TypeVar("Result")

_STORE_ERRORS = (OSError, ValueError, pa.ArrowException)

# Waits after reads that failed. pyarrow has then tried each some thirty times, within some seconds.
_WAITS_S = (1.0, 4.0, 15.0, 45.0)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """name: below the folder. bytes: its size."""

    name: str
    bytes: int


class Store:
    """A folder. What it is made of is named with "/" between, below it: "train/part-00003.parquet"."""

    def __init__(self, path: str | Path) -> None:
        """path: of a folder of this machine, or its address: "s3://bucket/flights", with ?endpoint_override=host:port
        and what else pyarrow takes there.

        Raises:
            InputError: the address is wrong, or holds credentials.
        """
        self.local: Path | None = None if is_address(path) else Path(path)
        if self.local is not None:
            self.root = str(self.local)
            self._file_system: fs.FileSystem = fs.LocalFileSystem()
            self._base = self.root
            return
        self.root = without_credentials(str(path)).split("?")[0].rstrip("/")
        if without_credentials(str(path)) != str(path):
            raise InputError(
                f"{self.root}: an address with credentials ends up in logs. Give them as the store's own tools take "
                "them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role."
            )
        if not re.match(r"(s3|gs|gcs|abfs|abfss)://[^/]", str(path)):
            raise InputError(
                f"{path!s}: no address of a store that can be read: expected s3://bucket/folder, gs://bucket/folder or "
                "abfss://container@account/folder, as text."
            )
        address = str(path)
        if address.startswith("g") and "retry_limit_seconds" not in address:
            # It is a quarter of an hour otherwise.
            address += f"{'&' if '?' in address else '?'}retry_limit_seconds=60"
        try:
            self._file_system, self._base = fs.FileSystem.from_uri(address)
        except _STORE_ERRORS as error:
            raise InputError(f"{self.root}: no store that can be read: {error}") from None

    def __str__(self) -> str:
        return self.root

    def place(self, name: str) -> str:
        """Return where a file is, for people."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """Return what a file holds. Raises FileNotFoundError, OSError."""
        with again(lambda: self.open(name)) as file:
            # Not `read`, which asks in pieces.
            return bytes(again(lambda: file.read_at(file.size(), 0)))

    def write(self, name: str, content: str) -> None:
        """Write a file, whole or not at all. Raises InputError where it can't be written."""
        try:
            if self.local is not None:
                write_atomically(self.local / name, content)
                return
            with self._file_system.open_output_stream(f"{self._base}/{name}") as file:
                file.write(content.encode())
        except _STORE_ERRORS as error:
            said = getattr(error, "strerror", None) or error
            raise InputError(f"{self.place(name)}: can't be written: {said}. Make {self} writable.") from None

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading anywhere in it. Raises FileNotFoundError, OSError."""
        return self._file_system.open_input_file(f"{self._base}/{name}")

    def files(self) -> list[StoredFile]:
        """Return the files of the folder and those in it, by name.

        Left out are those that Spark leaves out, too: names, also of folders, that begin with "." or, but for
        partitions ("_k=1"), with "_". A folder that is there twice, by a link, is read once.

        Raises:
            InputError: there is no such folder.
        """
        try:
            info = self._file_system.get_file_info(self._base)
            if info.type == fs.FileType.File:
                raise InputError(f"{self}: is a file: name its folder.")
            files = list(self._listed_here(self.local)) if self.local is not None else self._listed_there()
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self}: there is no such folder.") from None
        except _STORE_ERRORS as error:
            raise InputError(f"{self}: can't be listed: {error}") from None
        return sorted((file for file in files if not _is_hidden(file.name)), key=lambda file: file.name)

    def has(self, name: str) -> bool:
        """Say whether there is a file or folder of this name."""
        info = self._file_system.get_file_info(f"{self._base}/{name}")
        return bool(info.type != fs.FileType.NotFound)

    def _listed_there(self) -> list[StoredFile]:
        found = self._file_system.get_file_info(fs.FileSelector(self._base, recursive=True))
        start = len(self._base.rstrip("/")) + 1
        return [StoredFile(file.path[start:], file.size) for file in found if file.type == fs.FileType.File]

    def _listed_here(self, root: Path) -> Iterator[StoredFile]:
        if not root.is_dir():
            raise FileNotFoundError(root)
        seen = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            for name in names:
                path = os.path.join(folder, name)
                # A link to nothing has no size: who opens it says so.
                size = os.stat(path).st_size if os.path.exists(path) else 0
                yield StoredFile(os.path.relpath(path, root).replace(os.sep, "/"), size)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in name.split("/"))


def is_address(path: str | Path) -> bool:
    """Say whether a path is the address of an object store, and not one of this machine."""
    return re.match(r"(?i)([a-z][a-z0-9+.-]+://|(s3[an]?|gc?s|abfss?|hdfs):/)", str(path)) is not None


def again(read: Callable[[], Result]) -> Result:
    """Return what `read` returns, which is called again, some waits apart, where it raises OSError.

    A file that is not there, or may not be read, is not asked for again.
    """
    for wait_s in _WAITS_S:
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if "ACCESS_DENIED" in str(error):
                raise
            time.sleep(wait_s)
    return read()
