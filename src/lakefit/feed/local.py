"""Row groups of files on this machine."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.dataset.footer import parse_footer, read_footer
from lakefit.errors import FeedError
from lakefit.feed.reader import FileState, KnownFiles, RowGroup


class LocalFiles:
    """The files of one reading; several threads may ask."""

    def __init__(self, folder: Path, names: Collection[str], known: KnownFiles) -> None:
        self._folder, self._known = folder, known
        self._states = {name: _state(folder / name) for name in names}

    def place(self, name: str) -> str:
        """Return where a file is, for people."""
        return str(self._folder / name)

    @contextmanager
    def row_group(self, group: RowGroup, columns: Collection[str]) -> Iterator[tuple[pq.ParquetFile, FileState | None]]:
        """Open a row group's file, without reading its footer again for each of them; its state tells its content.

        Raises FeedError if the file is another one than when the reading began, or not as large as is known; OSError.
        """
        path, state = self._folder / group.file, self._states[group.file]
        if state is not None and _state(path) != state:
            raise FeedError("The file was replaced, changed or removed while the feed was reading")
        if state is not None:
            ensure_size(group, state[1])
        checked = (group.file, state, group.index) in self._known.checked
        # Not memory-mapped: it was no faster here, and a file that shrinks under a map kills the process.
        with pa.OSFile(str(path)) as file:
            footer = self._known.footer(group.file, state) or checked_footer(file, group)
            self._known.remember(group.file, state, footer)
            with open_parquet(file, footer, check_pages=not checked) as parquet:
                yield parquet, state


def ensure_size(group: RowGroup, size: int) -> None:
    """Raise FeedError if a row group's file is not as large as is known."""
    if group.file_bytes not in (None, size):
        raise FeedError(f"The file has {size:,} bytes where the manifest has {group.file_bytes:,}")


def checked_footer(file: pa.NativeFile, group: RowGroup) -> pq.FileMetaData:
    """Return the footer of a row group's file. Raises FeedError if it is not the one that is known, OSError."""
    content = read_footer(file, file.size())
    if group.footer_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise FeedError("The file has changed since it was indexed: its footer is another one")
    return parse_footer(content)


def open_parquet(file: Any, footer: pq.FileMetaData, *, check_pages: bool) -> pq.ParquetFile:
    """Open a file whose footer is known. INT96, which has no unit, is read in one in which all of it has a number."""
    return pq.ParquetFile(
        file, metadata=footer, page_checksum_verification=check_pages, coerce_int96_timestamp_unit="us"
    )


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
