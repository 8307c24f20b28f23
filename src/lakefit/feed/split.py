"""One split of a dataset as batches, in an order that depends on seed and epoch alone, with a receipt an epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from lakefit.dataset.index import Index, IndexedColumn, IndexedFile
from lakefit.dataset.manifest import POSITION, Manifest
from lakefit.dataset.object_path import AnyPath
from lakefit.dataset.packed import CATEGORICAL, NUMERIC
from lakefit.dataset.store import Store
from lakefit.feed.buffers import Buffers
from lakefit.feed.gather import Batches, read_batches
from lakefit.feed.order import LANES, EpochOrder, epoch_groups, row_order
from lakefit.feed.reader import DECODERS, Arena, Field, KnownFiles, RowGroup
from lakefit.feed.receipt import Part, Receipt, unmix

if TYPE_CHECKING:
    import tensorflow as tf

    from lakefit.feed.cache import Cache
    from lakefit.feed.tf_data import Arrivals

Batch = dict[str, NDArray[Any]]
"""Rows as the model takes them, arrays by name. Of a prepared split: numeric (n, k) float32, categorical (n, m) int32,
the bytes of image files as objects, (n,), label (n, 1) float32 (or each label by its name; (n, classes) where a row may
have several), weight (n,) float32 where rows are weighed; of other Parquet files: the columns that were asked for,
text, bytes and lists as objects, (n,). And _position (n,) int64, which tells the row."""
Rows = dict[str, Any]
"""The same, with Arrow arrays for text, bytes and lists."""


class State(TypedDict):
    """Where a feed stands: enough to go on with the next batch, on any machine that has the dataset.

    dataset: its fingerprint. batch: the number of the next batch in the epoch. lanes: 0 where rows are not shuffled.
    drop_remainder: 0 or 1.
    """

    dataset: str
    split: str
    epoch: int
    batch: int
    seed: int
    batch_size: int
    lanes: int
    drop_remainder: int
    worker: int
    workers: int


@dataclass(frozen=True, slots=True)
class Received:
    """Batches that are in the receipt.

    parts: one by one, or all in one piece. position: of all of them, mixed: one array, on whose memory the parts' are.
    sizes: (batches,) the rows of each. sums: (batches,) of the mixed positions of each, modulo 2^64.
    """

    parts: list[Rows]
    position: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sums: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Opened:
    """An epoch that is being read: its batches, and what ends the reading."""

    epoch: int
    order: EpochOrder
    row_order: Callable[[RowGroup], NDArray[np.int64]] | None
    batches: Iterator[Batches]
    stack: ExitStack


class SplitFeed:
    """Batches of one split of a dataset.

    `epoch` says which epoch the next iteration reads, and `first_batch` with which batch it begins, once: the one after
    it begins with the first. With `shuffle=False` the rows come in the order of the files.
    """

    def __init__(
        self,
        dataset: AnyPath | Store,
        manifest: Manifest | Index,
        split: str,
        *,
        batch_size: int,
        fields: Sequence[Field] | None = None,
        cache: "Cache | None" = None,
        seed: int = 0,
        shuffle: bool = True,
        lanes: int = LANES,
        remainder: Literal["keep", "drop"] = "keep",
        worker: int = 0,
        workers: int = 1,
        in_memory_bytes: int = 0,
    ) -> None:
        """batch_size: rows of a batch of all workers together. fields: the arrays of a batch; those of a prepared
        dataset where None. cache: of the files of a store. lanes: row groups that a batch mixes. remainder: what
        becomes of the rows that fill no batch at an epoch's end; they are others in each epoch. worker, workers: the
        share of each batch that is read here. in_memory_bytes: a split whose row groups take no more, decoded, is read
        once and kept."""
        numbers = {"batch_size": batch_size, "seed": seed, "lanes": lanes, "worker": worker, "workers": workers}
        for name, value in numbers.items():
            if not isinstance(value, int | np.integer) or isinstance(value, bool):
                raise ValueError(f"{name} is a whole number, not {value!r}.")
        if batch_size < 1 or lanes < 1:
            raise ValueError(f"batch_size and lanes are 1 or more, not {batch_size} and {lanes}.")
        if not 1 <= workers <= batch_size:
            raise ValueError(f"A batch of {batch_size} rows can't be shared by {workers} workers.")
        if not 0 <= worker < workers:
            raise ValueError(f"{workers} workers are numbered 0 to {workers - 1}: there is no worker {worker}.")
        if remainder not in ("keep", "drop"):
            raise ValueError(f"remainder is 'keep' or 'drop', not {remainder!r}.")
        self.epoch = 0
        self.first_batch = 0
        self.error: BaseException | None = None
        self.split = split
        self.groups = row_groups(manifest, split)
        self.rows = manifest.splits[split].rows
        self.batch_size = batch_size
        self.fields = (*fields, POSITIONS) if fields is not None else fields_of(manifest)
        labels = manifest.labels if isinstance(manifest, Manifest) else ()
        self._targets = {label.name: label.weight for label in labels}
        self._fingerprint = manifest.fingerprint
        self._dataset, self._cache = dataset, cache
        self._seed, self._shuffle, self._drop = seed, shuffle, remainder == "drop"
        self._share = (lanes if shuffle else 1, worker, workers)
        self._buffers, self._known = Buffers(), KnownFiles()
        self._in_memory = self._kept_in(in_memory_bytes)
        self._epoch_read: int | None = None
        self._proven: set[int] = set()
        self._receipts: dict[int, Receipt] = {}
        self._delivered = 0
        self._arrivals: Arrivals | None = None
        self._epochs_ahead = 0
        self._opened: _Opened | None = None

    def _kept_in(self, most: int) -> Arena | None:
        """Return where the row groups of the split are kept, or None where they would take more than `most` bytes."""
        rows = max((group.rows for group in self.groups), default=0)
        size = len(self.groups) * rows * sum(field.row_bytes for field in self.fields)
        if not 0 < size <= most or any(field.variable is not None for field in self.fields):
            return None
        # Two threads may decode a row group that two lanes share, each in a place of its own.
        return Arena(self.fields, len(self.groups) + DECODERS, rows, self._buffers, keeps=True)

    def close(self) -> None:
        """End what was begun ahead: see `to_tf`."""
        self._epochs_ahead = 0
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.stack.close()

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return self.rows // self.batch_size if self._drop else -(-self.rows // self.batch_size)

    @property
    def rows_of_a_batch(self) -> int:
        """This worker's share of a full batch."""
        return self._share_of(self.batch_size)

    @property
    def rows_of_the_last_batch(self) -> int:
        """This worker's share of an epoch's last batch: 0 where other workers have all of its rows."""
        return self._share_of(self.last_batch_of_all)

    @property
    def last_batch_of_all(self) -> int:
        """The rows of an epoch's last batch, of all workers together."""
        return self.batch_size if self._drop else self.rows - (self.batches - 1) * self.batch_size

    def _share_of(self, rows: int) -> int:
        _, worker, workers = self._share
        return (worker + 1) * rows // workers - worker * rows // workers

    def order(self, epoch: int) -> EpochOrder:
        """Return the order of an epoch's rows."""
        groups = epoch_groups(self.groups, self._seed, epoch) if self._shuffle else list(self.groups)
        return EpochOrder(tuple(groups), self.batch_size, *self._share)

    def groups_of(self, epoch: int, first_batch: int, end: int) -> list[str]:
        """Return the row groups that the batches first_batch..end-1 of an epoch are from, as people name them."""
        order = self.order(epoch)
        found = [order.groups[place] for place in np.unique(order.runs(first_batch, end).group)]
        return [f"{group.file} row group {group.index}" for group in sorted(found, key=lambda g: g.first_position)]

    def __iter__(self) -> Iterator[Batch]:
        """Read one epoch. Raises FeedError, in place of its last batches, unless it is exactly the manifest's rows."""
        variable = [field.name for field in self.fields if field.variable is not None]
        for part in self.rows_by_batch():
            if variable:
                from lakefit.feed.variable import to_numpy

                part |= {name: to_numpy(part[name]) for name in variable}
            yield part

    def rows_by_batch(self) -> Iterator[Rows]:
        """Read one epoch as iteration does; text, bytes and lists are left as Arrow has them."""
        for received in self.received(one_by_one=True):
            for part in received.parts:
                unmix(part[POSITION], part[POSITION])
                self._delivered += 1
                yield part

    def received(self, *, one_by_one: bool) -> Iterator["Received"]:
        """Read one epoch, many batches at a time: each by itself, or all in one piece; positions are `receipt.mix`ed.

        Raises FeedError in place of the last ones, unless what is handed out is exactly the manifest's rows.
        """
        epoch, first_batch = self.epoch, self.first_batch
        self._epoch_read, self._delivered = epoch, first_batch
        self._proven.discard(epoch)
        self.first_batch = 0
        opened = self._opened if self._opened is not None and not first_batch else None
        if opened is None or opened.epoch != epoch:
            opened = self._open(epoch, first_batch)
        else:
            self._opened = None
        receipt, due = Receipt(self.groups), None
        if first_batch or opened.order.workers > 1:
            due = Part(self.groups, opened.order.groups, opened.row_order or (lambda group: np.arange(group.rows)))
        last: Received | None = None
        with opened.stack:
            for batches in opened.batches:
                sizes = batches.runs.sizes
                kept = sizes[: max(0, self.batches - batches.first)]
                dropped = sizes[len(kept) :]
                parts = cut(batches.rows, sizes if one_by_one else np.array([kept.sum(), *dropped]))
                # What is handed out is noted from the parts themselves, after all that could lose or double a row, and
                # what is dropped like the rest.
                runs = batches.runs.stop - batches.runs.start
                up_to = receipt.add([part[POSITION] for part in parts], runs)
                if due is not None:
                    due.add(batches.runs)
                if len(kept):
                    if last is not None:
                        yield last
                    # Where a batch ends, a run does.
                    ended = up_to[np.searchsorted(np.cumsum(runs), np.cumsum(kept), side="right")]
                    last = Received(
                        parts[: len(parts) - len(dropped)],
                        batches.rows[POSITION][: kept.sum()],
                        kept,
                        np.diff(ended, prepend=up_to[:1]),
                    )
        # Before the last batches leave: nobody need ask for more, and a wrong epoch never ends well.
        receipt.check(f"Epoch {epoch} of the {self.split} split", due)
        self._proven.add(epoch)
        if opened.order.workers > 1 and not first_batch:
            # Of the one before, which may not have been looked at yet, too.
            self._receipts = {epoch: receipt, **{e: r for e, r in self._receipts.items() if e == epoch - 1}}
        if epoch + 1 < self._epochs_ahead and self._opened is None:
            self._opened = self._open(epoch + 1, 0)
        if last is not None:
            yield last

    def _open(self, epoch: int, first_batch: int) -> "_Opened":
        order = self.order(epoch)
        ordered = (lambda group: row_order(group, self._seed, epoch, self._buffers)) if self._shuffle else None
        stack = ExitStack()
        batches = stack.enter_context(
            read_batches(
                self._dataset,
                order,
                self.fields,
                row_order=ordered,
                first_batch=first_batch,
                buffers=self._buffers,
                known=self._known,
                keeping=self._in_memory,
                cache=self._cache,
            )
        )
        return _Opened(epoch, order, ordered, batches, stack)

    @property
    def arrived(self) -> int:
        """The number of batches that have come out of `to_tf`'s dataset, of all epochs, some of which wait there."""
        return self._arrivals.count if self._arrivals is not None else 0

    def check_all(self, epoch: int, added: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        """Raise FeedError unless all workers together have received each row of an epoch once. All of them call it.

        added: adds up arrays over the workers. Of an epoch that was gone on with in its middle, each worker's share is
        proven by itself alone.
        """
        receipt = self._receipts.get(epoch)
        if receipt is not None:
            receipt.check_all(f"Epoch {epoch} of the {self.split} split", added(receipt.counted()))

    def check(self, epoch: int | None = None) -> None:
        """Raise what went wrong in the feed, or RuntimeError where the epoch was not read to its end.

        To be called at the end of each epoch that was read through `to_tf`: what TensorFlow loses is found here.
        epoch: `epoch` where None; another one where the next is being read already.
        """
        epoch = self.epoch if epoch is None else epoch
        if self.error is not None:
            raise self.error
        if epoch not in self._proven or (self._arrivals is None and self._delivered != self.batches):
            raise RuntimeError(f"epoch {epoch} of the {self.split} split was not read to its end")
        if self._arrivals is not None:
            self._arrivals.check(epoch)

    def state(self) -> State:
        """Return where the iteration over this feed stands: after the last batch that it has handed out."""
        lanes, worker, workers = self._share
        epoch, batch = self.epoch, self._delivered if self._epoch_read == self.epoch else self.first_batch
        if batch >= self.batches:
            epoch, batch = epoch + 1, 0
        return State(
            dataset=self._fingerprint,
            split=self.split,
            epoch=epoch,
            batch=batch,
            seed=self._seed,
            batch_size=self.batch_size,
            lanes=lanes if self._shuffle else 0,
            drop_remainder=int(self._drop),
            worker=worker,
            workers=workers,
        )

    def to_tf(
        self,
        *,
        names: Sequence[str] | None = None,
        apart: Mapping[str, Sequence[str]] | None = None,
        targets: Mapping[str, str | None] | None = None,
        next_epochs: bool = False,
        epochs: int | None = None,
    ) -> "tf.data.Dataset":
        """Return a tf.data.Dataset of (inputs, label) or (inputs, label, weight); each iteration reads `epoch`.

        names: of what is handed out, in order; all arrays of a batch but the positions where None. apart: arrays of
        which each column is handed out by itself, and its columns' names. targets: the labels, and the weights of each
        or None; those of a prepared dataset where None. Without a label it is inputs alone, with several it is dicts of
        labels and of weights.
        next_epochs: each iteration leaves `epoch` at the next one. epochs: one iteration reads so many, from `epoch`
        on; each is begun while the last batches of the one before are still being used, and `close` must follow.
        The receipt is taken where batches enter TensorFlow, and what comes out of the dataset's last step is compared
        with that, when one more is asked for and by `check`.
        """
        from lakefit.feed.tf_data import Arrivals, Shape, dataset

        self._arrivals = Arrivals(f"of the {self.split} split", self.groups, self.batches)
        if epochs is not None:
            self._epochs_ahead = self.epoch + epochs
        names = [field.name for field in self.fields if field.name != POSITION] if names is None else names
        shape = Shape(names, apart or {}, self._targets if targets is None else targets)
        return dataset(self, self._arrivals, shape, next_epochs=next_epochs, epochs=epochs)


POSITIONS = Field(POSITION, (), "int64", flat=True, mixed=True)
"""The numbers of rows in files that don't have them."""


def fields_of(manifest: Manifest | Index) -> tuple[Field, ...]:
    """Return the arrays of a batch: of a prepared split, but for those of no columns, or of all columns of files."""
    if isinstance(manifest, Index):
        return (*(field_of(column) for column in manifest.columns), POSITIONS)
    features = manifest.features
    labels = tuple(Field(label.name, label.columns, "float32") for label in manifest.labels)
    weights = tuple(Field(w, (w,), "float32", flat=True) for label in manifest.labels if (w := label.weight))
    packed = manifest.layout == "packed"

    def side_by_side(name: str, columns: tuple[str, ...], dtype: str) -> Field:
        return Field(name, (name,), dtype, shape=(len(columns),)) if packed and columns else Field(name, columns, dtype)

    fields = (
        side_by_side(NUMERIC, features.numeric_columns, "float32"),
        side_by_side(CATEGORICAL, features.categorical_columns, "int32"),
        *(Field(tensor.name, (tensor.name,), "float32", shape=tensor.shape) for tensor in features.tensors),
        *(Field(i.name, (i.name,), "bytes", variable=_bytes_a_row(manifest), image=i) for i in features.images),
        *labels,
        *weights,
        Field(POSITION, (POSITION,), "int64", flat=True, mixed=True),
    )
    return tuple(field for field in fields if field.columns)


def _bytes_a_row(manifest: Manifest) -> float:
    """Return what a row takes in the files, more or less all of it of its images."""
    splits = manifest.splits.values()
    return sum(file.bytes for split in splits for file in split.files) / max(1, sum(split.rows for split in splits))


def field_of(column: IndexedColumn) -> Field:
    """Return one column of Parquet files as an array of its own."""
    nulls = column.dtype.startswith("float")
    if column.variable:
        return Field(column.name, (column.name,), column.dtype, variable=column.row_bytes)
    return Field(
        column.name, (column.name,), column.dtype, flat=not column.shape, shape=column.shape or None, nulls=nulls
    )


def row_groups(manifest: Manifest | Index, split: str) -> tuple[RowGroup, ...]:
    """Return the row groups of a split in the order of its files; those of no rows are left out."""
    groups: list[RowGroup] = []
    for file in manifest.splits[split].files:
        assert file.first_position is not None, f"{file.path} is no file of a split"
        position = file.first_position
        footer = file.footer_sha256 if isinstance(file, IndexedFile) else None
        for index, rows in enumerate(file.row_groups):
            if rows:
                groups.append(RowGroup(file.path, index, rows, position, file.bytes or None, footer))
            position += rows
    return tuple(groups)


def cut(rows: Rows, sizes: NDArray[np.int64]) -> list[Rows]:
    """Return rows in parts of these sizes, on the same memory."""
    parts, start = [], 0
    for size in sizes.tolist():
        parts.append({name: values[start : start + size] for name, values in rows.items()})
        start += size
    return parts
