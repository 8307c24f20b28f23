"""The footer of a Parquet file, wherever the file is."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.dataset.object_path import again

# Read at once from a file's end: nearly every footer is smaller.
_TAIL = 1 << 16


def read_footer(file: pa.NativeFile, size: int) -> bytes:
    """Return the bytes of a Parquet file's footer, mostly in one read. Raises OSError."""
    tail: bytes = again(lambda: file.read_at(min(_TAIL, size), max(0, size - _TAIL)))
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] == b"PAR1" and len(tail) < length <= size:
        tail = again(lambda: file.read_at(length, size - length))
    return tail[-length:]


def parse_footer(content: bytes) -> pq.FileMetaData:
    """Return a footer of these bytes. Raises OSError or pyarrow.ArrowException."""
    # Behind the mark that a file begins with.
    return pq.read_metadata(pa.BufferReader(b"PAR1" + content))


def column_of(path: str, names: Collection[str]) -> str:
    """Return the column to which what lies at a path belongs: of a list `x` there is "x.list.element" alone."""
    while path not in names:
        path = path.rpartition(".")[0]
    return path
