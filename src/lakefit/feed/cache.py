"""Pieces of files of an object store, kept on this machine: bounded, checked, and there after a restart."""

import contextlib
import hashlib
import os
import struct
import time
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from lakefit.errors import InputError

_HEAD = struct.Struct("<8sQL")
_MAGIC = b"lakefit1"
# What is removed to make room for more is this share more than needed: looking through the folder takes its time.
_SPARE = 0.1
# So long a write may take before what it has left is taken for a dead process's.
_ABANDONED_S = 3600.0


class Cache:
    """A folder of pieces by key, of `max_bytes` at most; those that were not used for longest go first.

    A key says all that a piece depends on, so no piece is ever stale. A piece that is damaged or cut short is found, by
    length and checksum, and fetched again. Several processes may use a folder; then it may hold a piece more for each.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        """Raises ValueError unless max_bytes is a number of bytes, InputError if the folder can't be made."""
        if not isinstance(max_bytes, int) or max_bytes <= 0:
            raise ValueError(f"A cache is of so many bytes, a whole number of 1 or more, not {max_bytes!r}.")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: can't be the folder of a cache: {error.strerror}.") from None
        self._lock = Lock()
        self._bytes = sum(size for _, size, _ in self._pieces())
        # Pieces whose checksum was right once, as the file was then.
        self._checked: set[tuple[str, int, int, int]] = set()

    def get(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the piece of this key, from the folder, or else from `fetch`, whose errors go through."""
        path = self.folder / hashlib.sha256(key.encode()).hexdigest()
        content = self._read(path)
        if content is None:
            content = fetch()
            # Where there is no room, or no right to write, the store still has it.
            with contextlib.suppress(OSError):
                self._write(path, content)
        return content

    def _read(self, path: Path) -> bytes | None:
        try:
            with open(path, "rb") as file:
                state = os.fstat(file.fileno())
                head, content = file.read(_HEAD.size), file.read()
        except OSError:
            return None
        if len(head) < _HEAD.size:
            return None
        magic, length, checksum = _HEAD.unpack(head)
        if magic != _MAGIC or length != len(content):
            return None
        # Not the time of the last change: `utime` below sets it.
        known = (path.name, state.st_ino, state.st_size, checksum)
        if known not in self._checked:
            if zlib.crc32(content) != checksum:
                return None
            self._checked.add(known)
        # Used last: by this, the oldest are found.
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def _write(self, path: Path, content: bytes) -> None:
        size = _HEAD.size + len(content)
        if size > self.max_bytes:
            return
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        # One at a time: what is being written is not seen by who makes room.
        with self._lock:
            if self._bytes + size > self.max_bytes:
                self._evict(size)
            try:
                with open(temporary, "wb") as file:
                    file.write(_HEAD.pack(_MAGIC, len(content), zlib.crc32(content)))
                    file.write(content)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            self._bytes += size

    def _evict(self, needed: int) -> None:
        """Remove the pieces that were not used for longest, until there is room; count anew what is there."""
        pieces = sorted(self._pieces())
        held = sum(size for _, size, _ in pieces)
        for _, size, path in pieces:
            if held + needed <= self.max_bytes * (1 - _SPARE) or not held:
                break
            path.unlink(missing_ok=True)
            held -= size
        self._bytes = held

    def _pieces(self) -> list[tuple[float, int, Path]]:
        """Return when each piece was used last, its size and its path; what dead processes have left is removed."""
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                state = entry.stat()
                if not entry.name.startswith("."):
                    found.append((state.st_mtime, state.st_size, Path(entry.path)))
                elif state.st_mtime < time.time() - _ABANDONED_S:
                    os.unlink(entry.path)
        return found
