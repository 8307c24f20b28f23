"""The folder of a dataset: on this machine, or in an object store that pyarrow knows (s3://, gs://, abfss://)."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from lakefit.dataset.publish import write_atomically
from lakefit.errors import InputError

Result = TypeVar("Result")

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
        address = urlsplit(str(path))
        self.root = f"{address.scheme}://{address.netloc}{address.path.rstrip('/')}"
        if ("@" in address.netloc and address.scheme == "s3") or re.search(r"(key|token|secret)=", address.query):
            raise InputError(
                f"{address.scheme}://{address.netloc.split('@')[-1]}{address.path}: an address with credentials ends "
                "up in logs. Give them as the store's own tools take them: AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or the machine's role."
            )
        try:
            self._file_system, self._base = fs.FileSystem.from_uri(str(path))
        except (pa.ArrowException, OSError, ValueError) as error:
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
        """Write a file, whole or not at all."""
        if self.local is not None:
            write_atomically(self.local / name, content)
            return
        with self._file_system.open_output_stream(f"{self._base}/{name}") as file:
            file.write(content.encode())

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading anywhere in it. Raises FileNotFoundError, OSError."""
        return self._file_system.open_input_file(f"{self._base}/{name}")

    def files(self) -> list[StoredFile]:
        """Return the files of the folder and those in it, by name, without hidden ones ("_SUCCESS", ".crc").

        Raises:
            InputError: there is no such folder.
        """
        try:
            found = self._file_system.get_file_info(fs.FileSelector(self._base, recursive=True))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self}: there is no such folder.") from None
        except OSError as error:
            raise InputError(f"{self}: can't be listed: {error}") from None
        start = len(self._base.rstrip("/")) + 1
        files = [StoredFile(file.path[start:], file.size) for file in found if file.type == fs.FileType.File]
        return sorted(
            (file for file in files if not any(part[0] in "._" for part in file.name.split("/"))),
            key=lambda file: file.name,
        )


def is_address(path: str | Path) -> bool:
    """Say whether a path is the address of an object store, and not one of this machine."""
    return isinstance(path, str) and re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


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
