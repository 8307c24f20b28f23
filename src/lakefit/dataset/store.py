"""The folder of a dataset: on this machine, or in an object store that pyarrow knows (s3://, gs://, abfss://)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lakefit.dataset.object_path import STORE_ERRORS, AnyPath, ObjectPath, again, any_path, open_input
from lakefit.dataset.publish import write_atomically
from lakefit.errors import InputError


@dataclass(frozen=True, slots=True)
class StoredFile:
    """name: below the folder. bytes: its size."""

    name: str
    bytes: int


class Store:
    """A folder. What it is made of is named with "/" between, below it: "train/part-00003.parquet"."""

    def __init__(self, path: str | AnyPath) -> None:
        """path: of a folder of this machine, or its address: "s3://bucket/flights", with ?endpoint_override=host:port
        and what else pyarrow takes there.

        Raises:
            InputError: the address is wrong, or holds credentials.
        """
        self.path = any_path(path)
        self.local: Path | None = self.path if isinstance(self.path, Path) else None
        self.root = str(self.path)
        if isinstance(self.path, ObjectPath):
            # A wrong option of an address is found at once.
            self.path.check()

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
            write_atomically(self.path / name, content)
        except STORE_ERRORS as error:
            said = getattr(error, "strerror", None) or error
            raise InputError(f"{self.place(name)}: can't be written: {said}. Make {self} writable.") from None

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading anywhere in it. Raises FileNotFoundError, OSError."""
        return open_input(self.path / name)

    def files(self) -> list[StoredFile]:
        """Return the files of the folder and those in it, by name.

        Left out are those that Spark leaves out, too: names, also of folders, that begin with "." or, but for
        partitions ("_k=1"), with "_". A folder that is there twice, by a link, is read once.

        Raises:
            InputError: there is no such folder.
        """
        try:
            if self.path.is_file():
                raise InputError(f"{self}: is a file: name its folder.")
            files = list(self._listed())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self}: there is no such folder.") from None
        except STORE_ERRORS as error:
            raise InputError(f"{self}: can't be listed: {error}") from None
        return sorted((file for file in files if not _is_hidden(file.name)), key=lambda file: file.name)

    def has(self, name: str) -> bool:
        """Say whether there is a file or folder of this name."""
        return (self.path / name).exists()

    def _listed(self) -> Iterator[StoredFile]:
        if isinstance(self.path, Path):
            yield from self._listed_here(self.path)
        elif not self.path.is_dir():
            raise FileNotFoundError(self.root)
        else:
            for path, status in self.path.files():
                yield StoredFile(path.relative_to(self.path), status.st_size)

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
