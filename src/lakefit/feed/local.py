"""Row groups of files on this machine."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

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
        if state is not None and group.file_bytes not in (None, state[1]):
            raise FeedError(f"The file has {state[1]:,} bytes where the manifest has {group.file_bytes:,}")
        checked = (group.file, state, group.index) in self._known.checked
        # Not memory-mapped: it was no faster here, and a file that shrinks under a map kills the process.
        footer = self._known.footer(group.file, state)
        with pq.ParquetFile(path, metadata=footer, page_checksum_verification=not checked) as parquet:
            self._known.remember(group.file, state, parquet.metadata)
            yield parquet, state


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
