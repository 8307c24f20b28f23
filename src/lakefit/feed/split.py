"""One split of a dataset as batches, in an order that depends on seed and epoch alone, with a receipt an epoch."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakefit.dataset.manifest import Manifest
from lakefit.feed.order import epoch_groups, row_order
from lakefit.feed.reader import Block, Columns, RowGroup, read_row_groups
from lakefit.feed.receipt import Receipt

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as the model takes them: numeric (n, k) float32, categorical (n, m) int32, label (n, 1) float32.

    weight: (n,) float32, or (0,) where rows are not weighed. position: (n,) int64, the number of each row in its split.
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
        """Raise what went wrong in the feed, or RuntimeError where the epoch was not read to its end."""
        if self.error is not None:
            raise self.error
        if self._checked_epoch != self.epoch:
            raise RuntimeError(f"epoch {self.epoch} of the {self.split} split was not read to its end")

    def to_tf(self) -> "tf.data.Dataset":
        """Return a tf.data.Dataset of (inputs, label) or (inputs, label, weight); each iteration reads `epoch`."""
        import tensorflow as tf

        inputs: dict[str, Any] = {}
        numbers = len(self._columns.numeric) - self._weighted
        if numbers:
            inputs["numeric"] = tf.TensorSpec((None, numbers), tf.float32)
        if self._columns.categorical:
            inputs["categorical"] = tf.TensorSpec((None, len(self._columns.categorical)), tf.int32)

        def generate() -> Iterator[Any]:
            try:
                for batch in self:
                    features = {name: getattr(batch, name) for name in inputs}
                    yield (features, batch.label, batch.weight) if self._weighted else (features, batch.label)
            except Exception as error:
                # TensorFlow would turn it into text; `check` raises it as it was.
                self.error = error
                raise

        signature: tuple[Any, ...] = (inputs, tf.TensorSpec((None, 1), tf.float32))
        if self._weighted:
            signature = (*signature, tf.TensorSpec((None,), tf.float32))
        dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(self.batches))
        return dataset.prefetch(2)


def row_groups(manifest: Manifest, split: str) -> tuple[RowGroup, ...]:
    """Return the row groups of a split in the order of its files, rows numbered through."""
    groups: list[RowGroup] = []
    position = 0
    for file in manifest.splits[split].files:
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
