"""Row groups of files in an object store: what is needed of one comes in as few reads as can be, each tried again."""

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.dataset.footer import column_of
from lakefit.dataset.object_path import again
from lakefit.dataset.store import Store
from lakefit.errors import FeedError
from lakefit.feed.cache import Cache
from lakefit.feed.local import checked_footer, ensure_size, open_parquet
from lakefit.feed.reader import FileState, KnownFiles, RowGroup

# Bytes between two columns that are read along: as much as comes in the time in which a store answers.
_GAP = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a store that is open. state: what tells its content from any other's."""

    name: str
    file: pa.NativeFile
    size: int
    state: str
    footer: pq.FileMetaData


class RemoteFiles:
    """The files of one reading, each opened, and its footer read, once; several threads may ask."""

    def __init__(self, store: Store, known: KnownFiles, cache: Cache | None) -> None:
        self._store, self._known, self._cache = store, known, cache
        self._lock = Lock()
        self._locks: dict[str, Lock] = {}
        self._open: dict[str, RemoteFile] = {}

    def get(self, group: RowGroup) -> RemoteFile:
        """Open a row group's file, or return the one that is open.

        Raises OSError, and FeedError if it is not the one that is known.
        """
        name = group.file
        with self._lock:
            lock = self._locks.setdefault(name, Lock())
        with lock:
            if name not in self._open:
                self._open[name] = self._opened(group)
            return self._open[name]

    def _opened(self, group: RowGroup) -> RemoteFile:
        name = group.file
        file = again(lambda: self._store.open(name))
        size = file.size()
        ensure_size(group, size)
        told = {key.lower(): value for key, value in (file.metadata() or {}).items()}
        etag = told.get("etag") or told.get("last-modified") or b""
        state = f"{size} {etag.decode(errors='replace')}"
        footer = self._known.footer(name, state)
        if footer is None:
            footer = checked_footer(file, group)
            self._known.remember(name, state, footer)
        return RemoteFile(name, file, size, state, footer)

    def place(self, name: str) -> str:
        """Return where a file is, for people."""
        return self._store.place(name)

    @contextmanager
    def row_group(self, group: RowGroup, columns: Collection[str]) -> Iterator[tuple[pq.ParquetFile, FileState | None]]:
        """Fetch of a row group what these columns need, and open it; the file's state tells its content.

        Raises FeedError if the file is not as large as is known, OSError.
        """
        remote = self.get(group)
        footer = remote.footer
        # A row group that is not there has no pieces: who decodes it says so.
        spans = spans_of(footer, group.index, columns) if group.index < footer.num_row_groups else []
        pieces = _Spans(remote.size, [(start, self._bytes(remote, start, stop)) for start, stop in spans])
        checked = (group.file, remote.state, group.index) in self._known.checked
        with open_parquet(pa.PythonFile(pieces), footer, check_pages=not checked) as parquet:
            yield parquet, remote.state

    def _bytes(self, remote: RemoteFile, start: int, stop: int) -> bytes:
        def fetch() -> bytes:
            content: bytes = again(lambda: remote.file.read_at(stop - start, start))
            if len(content) != stop - start:
                raise FeedError(f"{len(content):,} bytes came where {stop - start:,} were asked for")
            return content

        if self._cache is None:
            return fetch()
        return self._cache.get(f"{self._store}/{remote.name} {remote.state} {start} {stop}", fetch)


def spans_of(footer: pq.FileMetaData, index: int, columns: Collection[str]) -> list[tuple[int, int]]:
    """Return from where to where a row group's columns stand in the file, those that are near one another as one."""
    group, names = footer.row_group(index), frozenset(footer.schema.to_arrow_schema().names)
    places = []
    for leaf in range(group.num_columns):
        chunk = group.column(leaf)
        if column_of(chunk.path_in_schema, names) in columns:
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                start = min(start, chunk.dictionary_page_offset)
            places.append((start, start + chunk.total_compressed_size))
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(places):
        if spans and start - spans[-1][1] <= _GAP:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((start, stop))
    return spans


class _Spans(io.RawIOBase):
    """A file of which some pieces are there."""

    def __init__(self, size: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        self._size, self._pieces, self._at = size, pieces, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        start = self._at
        for first, piece in self._pieces:
            if first <= start < first + len(piece) or size == 0:
                content = piece[start - first : start - first + size]
                self._at += len(content)
                return content
        raise OSError(f"bytes {start:,} and on of the file are not those of the columns that were asked for")
