"""The rows of a partition after the shuffle: in memory, past a bound on local disk, a file a bucket, mapped back in."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakefit.dataset.publish import scratch
from lakefit.prepare.blocks import KEY_HIGH, bucket_of, cut_by, one_table

HELD_BYTES = 512 << 20
"""So much of a partition is held in memory."""
_SLICE_BYTES = 128 << 20


class Rows:
    """A bucket's rows, in pieces that may lie in a mapped file; what is taken of them is in memory."""

    def __init__(self, pieces: Sequence[pa.Table]) -> None:
        self._pieces = pieces
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(piece) for piece in pieces])])
        self._nbytes = sum(piece.nbytes for piece in pieces)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def names(self) -> list[str]:
        return list(self._pieces[0].column_names)

    def select(self, names: Sequence[str]) -> pa.Table:
        """Return some columns of all rows, as one chunk each."""
        return one_table([piece.select(list(names)) for piece in self._pieces])

    def take(self, places: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Return some columns of the rows at some places, in their order."""
        if len(self._pieces) == 1:
            return self._pieces[0].select(list(names)).take(pa.array(places))
        piece = np.searchsorted(self._starts, places, side="right") - 1
        by_piece = np.argsort(piece, kind="stable")
        edges = np.searchsorted(piece[by_piece], np.arange(len(self._pieces) + 1))
        # Arrow would join all pieces before it takes from them.
        parts = [
            self._pieces[i]
            .select(list(names))
            .take(pa.array(places[by_piece[edges[i] : edges[i + 1]]] - self._starts[i]))
            for i in np.flatnonzero(np.diff(edges)).tolist()
        ]
        back = np.empty(len(places), np.int64)
        back[by_piece] = np.arange(len(places))
        return one_table(parts or [self._pieces[0].select(list(names)).slice(0, 0)]).take(pa.array(back))

    def slices(self, places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut places into runs of bounded memory, at least one, which may be empty."""
        step = max(1, _SLICE_BYTES * len(self) // max(1, self._nbytes))
        for start in range(0, max(1, len(places)), step):
            yield places[start : start + step]


class Partition:
    """Collects the rows of a partition and gives them back a bucket at a time; a context that removes its files."""

    def __init__(self, bucket_bits: int) -> None:
        self._bits = bucket_bits
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._open = ExitStack()
        self._folder: Path | None = None
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def __enter__(self) -> "Partition":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, rows: pa.Table) -> None:
        """Add the rows of a block."""
        self._held.append(rows)
        self._held_bytes += rows.nbytes
        if self._held_bytes > HELD_BYTES:
            self._spill()

    def buckets(self) -> Iterator[tuple[int, Rows]]:
        """Yield the buckets that have rows, ascending."""
        if not self._writers:
            for bucket, rows in _by_bucket(self._held, self._bits):
                yield bucket, Rows([rows])
            return
        self._spill()
        assert self._folder is not None
        for bucket, writer in sorted(self._writers.items()):
            writer.close()
            with pa.memory_map(str(self._folder / str(bucket))) as mapped:
                yield bucket, Rows(_tables(mapped))
            (self._folder / str(bucket)).unlink()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="lakefit-", dir=scratch())))
        for bucket, rows in _by_bucket(self._held, self._bits):
            if bucket not in self._writers:
                file = self._open.enter_context(pa.OSFile(str(self._folder / str(bucket)), "wb"))
                self._writers[bucket] = pa.ipc.new_stream(file, rows.schema)
            self._writers[bucket].write_table(rows)
        self._held, self._held_bytes = [], 0


def _by_bucket(tables: Sequence[pa.Table], bits: int) -> Iterator[tuple[int, pa.Table]]:
    if not tables:
        return
    table = one_table(tables)
    buckets = bucket_of(table[KEY_HIGH].to_numpy(), bits)
    if buckets.min() == buckets.max():
        yield int(buckets[0]), table
    else:
        yield from cut_by(table, buckets)


def _tables(stream: pa.NativeFile) -> list[pa.Table]:
    return [pa.Table.from_batches([batch]) for batch in pa.ipc.open_stream(stream)]
