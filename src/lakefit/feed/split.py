"""One split of a dataset as batches, in an order that depends on seed and epoch alone, with a receipt an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakefit.dataset.manifest import Manifest
from lakefit.errors import FeedError
from lakefit.feed.order import epoch_groups, row_order
from lakefit.feed.reader import Block, Columns, RowGroup, read_row_groups
from lakefit.feed.receipt import Receipt

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as the model takes them: numeric (n, k) float32, categorical (n, m) int32, label (n, 1) float32.

    weight: (n,) float32, or (0,) where rows are not weighed. position: (n,) int64, `_position` of each row.
    """

    numeric: NDArray[np.float32]
    categorical: NDArray[np.int32]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    position: NDArray[np.int64]


class SplitFeed:
    """Batches of one split of a dataset.

    `epoch` says which epoch the next iteration reads; with `shuffle=False` the rows come in the order of the files.
    The last batch of an epoch holds what remains.
    """

    def __init__(
        self, dataset_dir: Path, manifest: Manifest, split: str, *, batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        self.epoch = 0
        self.error: BaseException | None = None
        self.split = split
        self.groups = row_groups(manifest, split)
        self.rows = manifest.splits[split].rows
        self.batch_size = batch_size
        self._dataset_dir = dataset_dir
        self._seed, self._shuffle = seed, shuffle
        features = manifest.features
        self._weighted = manifest.label.weighted
        # The weight travels as the last of the numbers.
        weight = ("weight",) if self._weighted else ()
        self._columns = Columns((*features.numeric_columns, *weight), features.categorical_columns, "label")
        self._checked_epoch: int | None = None
        self._arrivals: _Arrivals | None = None

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Read one epoch. Raises FeedError, in place of its last batch, unless it is exactly the manifest's rows."""
        epoch = self.epoch
        self._checked_epoch = None
        receipt = Receipt(self.groups)
        order = epoch_groups(self.groups, self._seed, epoch) if self._shuffle else list(self.groups)
        last: Batch | None = None
        with read_row_groups(self._dataset_dir, order, self._columns) as blocks:
            parts = (_as_batch(block, self._weighted) for block in blocks)
            for batch in _cut(parts, self.batch_size, (self._seed, epoch) if self._shuffle else None):
                if last is not None:
                    yield last
                # What is handed out is noted from the batch itself, after all that could lose or double a row.
                receipt.add(batch.position)
                last = batch
        # Before the last batch leaves: nobody need ask for one more, and a wrong epoch never ends well.
        receipt.check(f"Epoch {epoch} of the {self.split} split")
        self._checked_epoch = epoch
        if last is not None:
            yield last

    def check(self) -> None:
        """Raise what went wrong in the feed, or RuntimeError where the epoch was not read to its end.

        To be called at the end of each epoch that was read through `to_tf`: what TensorFlow loses is found here.
        """
        if self.error is not None:
            raise self.error
        if self._checked_epoch != self.epoch:
            raise RuntimeError(f"epoch {self.epoch} of the {self.split} split was not read to its end")
        if self._arrivals is not None:
            self._arrivals.check(f"Epoch {self.epoch} of the {self.split} split")

    def to_tf(self) -> "tf.data.Dataset":
        """Return a tf.data.Dataset of (inputs, label) or (inputs, label, weight); each iteration reads `epoch`.

        The receipt is taken where batches enter TensorFlow, and what comes out of the dataset's last step is compared
        with that by `check`.
        """
        import tensorflow as tf

        inputs: dict[str, Any] = {}
        numbers = len(self._columns.numeric) - self._weighted
        if numbers:
            inputs["numeric"] = tf.TensorSpec((None, numbers), tf.float32)
        if self._columns.categorical:
            inputs["categorical"] = tf.TensorSpec((None, len(self._columns.categorical)), tf.int32)
        arrivals = self._arrivals = _Arrivals(self.groups, self.batches)

        def generate() -> Iterator[Any]:
            iteration = arrivals.begin()
            try:
                for number, batch in enumerate(self):
                    positions = ~batch.position  # Below zero, so that the row at position 0 counts in a sum too.
                    arrivals.leaves(iteration, positions)
                    features = {name: getattr(batch, name) for name in inputs}
                    row = (features, batch.label, batch.weight) if self._weighted else (features, batch.label)
                    yield row, positions, arrivals.place(iteration, number)
            except Exception as error:
                # TensorFlow would turn it into text; `check` raises it as it was.
                self.error = error
                raise

        def received(row: Any, positions: Any, place: Any) -> Any:
            with tf.control_dependencies([arrivals.arrives(positions, place)]):
                return tf.nest.map_structure(tf.identity, row)

        row: tuple[Any, ...] = (inputs, tf.TensorSpec((None, 1), tf.float32))
        if self._weighted:
            row = (*row, tf.TensorSpec((None,), tf.float32))
        signature = (row, tf.TensorSpec((None,), tf.int64), tf.TensorSpec((1, 2), tf.int64))
        dataset = tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2).map(received)
        return dataset.apply(tf.data.experimental.assert_cardinality(self.batches))


class _Arrivals:
    """Compares what enters a tf.data.Dataset with what comes out of its last step.

    The receipt has proven what enters, row by row; TensorFlow then moves batches as they are. So one number for each
    batch is enough, the sum of its positions, which takes two operations: some microseconds. There is a place for
    several iterations, since an old one may still be reading ahead when the next begins.
    """

    SLOTS = 4

    def __init__(self, groups: Sequence[RowGroup], batches: int) -> None:
        import tensorflow as tf

        self._tf = tf
        self._groups = groups
        self._iteration = 0
        self._sent: dict[int, list[tuple[int, int]]] = {}
        with tf.device("CPU:0"):
            self._received = tf.Variable(tf.zeros((self.SLOTS, batches), tf.int64), trainable=False)

    def begin(self) -> int:
        """Return the number of a new iteration."""
        self._iteration += 1
        slot = self._iteration % self.SLOTS
        self._sent[slot] = []
        self._received[slot].assign(self._tf.zeros_like(self._received[slot]))
        return self._iteration

    def place(self, iteration: int, number: int) -> NDArray[np.int64]:
        """Return where the sum of a batch goes: (1, 2), as TensorFlow's scatter wants it."""
        return np.array([[iteration % self.SLOTS, number]])

    def leaves(self, iteration: int, positions: NDArray[np.int64]) -> None:
        """Note a batch on its way in. positions: (rows,) int64, the complements (`~`) of its rows' positions."""
        self._sent[iteration % self.SLOTS].append((int(positions.sum()), int(~positions[0])))

    def arrives(self, positions: Any, place: Any) -> Any:
        """Return the operation that notes a batch that has come out; both as they went in."""
        return self._received.scatter_nd_add(place, self._tf.reduce_sum(positions, keepdims=True))

    def check(self, what: str) -> None:
        """Raise FeedError, naming row groups, unless all batches of the last iteration have come out once."""
        slot = self._iteration % self.SLOTS
        sent = np.array([number for number, _ in self._sent[slot]], np.int64)
        wrong = np.flatnonzero(self._received[slot].numpy() != sent)
        if not len(wrong):
            return
        starts = [group.first_position for group in self._groups]
        firsts = [self._sent[slot][number][1] for number in wrong[:10]]
        named = [self._groups[place - 1] for place in np.searchsorted(starts, firsts, side="right")]
        places = "; ".join(
            f"batch {number}, from {group.file} row group {group.index} on"
            for number, group in zip(wrong, named, strict=False)
        )
        raise FeedError(
            f"{what}: TensorFlow's pipeline did not hand out once what it was given: {places}"
            f"{f' and {len(wrong) - 10} batches more' if len(wrong) > 10 else ''}. Nothing of this epoch can be "
            "trusted: run again."
        )


def row_groups(manifest: Manifest, split: str) -> tuple[RowGroup, ...]:
    """Return the row groups of a split in the order of its files."""
    groups: list[RowGroup] = []
    for file in manifest.splits[split].files:
        assert file.first_position is not None, f"{file.path} is no file of a split"
        position = file.first_position
        for index, rows in enumerate(file.row_groups):
            groups.append(RowGroup(file.path, index, rows, position))
            position += rows
    return tuple(groups)


def _cut(
    parts: Iterator[tuple[RowGroup, Batch]], batch_size: int, shuffled_by: tuple[int, int] | None
) -> Iterator[Batch]:
    """Cut row groups, each permuted, into batches of exactly `batch_size` rows; the last one may be smaller."""
    rest: list[Batch] = []
    held = 0
    for group, whole in parts:
        if shuffled_by is not None:
            whole = _rows(whole, row_order(group, *shuffled_by))
        start = 0
        while held + len(whole.position) - start >= batch_size:
            end = start + batch_size - held
            yield _join([*rest, _rows(whole, slice(start, end))])
            rest, held, start = [], 0, end
        if start < len(whole.position):
            rest.append(_rows(whole, slice(start, None)))
            held += len(whole.position) - start
    if rest:
        yield _join(rest)


def _as_batch(block: Block, weighted: bool) -> tuple[RowGroup, Batch]:
    numeric, weight = block.numeric, np.zeros(0, np.float32)
    if weighted:
        numeric, weight = numeric[:, :-1], numeric[:, -1]
    return block.group, Batch(numeric, block.categorical, block.label[:, None], weight, block.position)


def _rows(batch: Batch, rows: slice | NDArray[np.int64]) -> Batch:
    weight = batch.weight[rows] if len(batch.weight) else batch.weight
    return Batch(batch.numeric[rows], batch.categorical[rows], batch.label[rows], weight, batch.position[rows])


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Batch)))
