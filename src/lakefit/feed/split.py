"""One split of a dataset as batches, in an order that depends on seed and epoch alone, with a receipt an epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
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

    position: (n,) int64, the number of each row in its split.
    """

    numeric: NDArray[np.float32]
    categorical: NDArray[np.int32]
    label: NDArray[np.float32]
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
        self._columns = Columns(features.numeric_columns, features.categorical_columns, "label")
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
            for batch in _cut(blocks, self.batch_size, (self._seed, epoch) if self._shuffle else None):
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
        """Return a tf.data.Dataset of (inputs, label); each iteration of it reads the epoch that `epoch` then names."""
        import tensorflow as tf

        inputs: dict[str, Any] = {}
        if self._columns.numeric:
            inputs["numeric"] = tf.TensorSpec((None, len(self._columns.numeric)), tf.float32)
        if self._columns.categorical:
            inputs["categorical"] = tf.TensorSpec((None, len(self._columns.categorical)), tf.int32)

        def generate() -> Iterator[Any]:
            try:
                for batch in self:
                    yield {name: getattr(batch, name) for name in inputs}, batch.label
            except Exception as error:
                # TensorFlow would turn it into text; `check` raises it as it was.
                self.error = error
                raise

        signature = (inputs, tf.TensorSpec((None, 1), tf.float32))
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


def _cut(blocks: Iterator[Block], batch_size: int, shuffled_by: tuple[int, int] | None) -> Iterator[Batch]:
    """Cut blocks, each permuted, into batches of exactly `batch_size` rows; the last one may be smaller."""
    rest: list[Batch] = []
    held = 0
    for block in blocks:
        whole = _as_batch(block)
        if shuffled_by is not None:
            whole = _take(whole, row_order(block.group, *shuffled_by))
        start = 0
        while held + len(whole.position) - start >= batch_size:
            end = start + batch_size - held
            yield _join([*rest, _slice(whole, start, end)])
            rest, held, start = [], 0, end
        if start < len(whole.position):
            rest.append(_slice(whole, start, len(whole.position)))
            held += len(whole.position) - start
    if rest:
        yield _join(rest)


def _as_batch(block: Block) -> Batch:
    return Batch(block.numeric, block.categorical, block.label[:, None], block.position)


def _take(batch: Batch, order: NDArray[np.int64]) -> Batch:
    return Batch(batch.numeric[order], batch.categorical[order], batch.label[order], batch.position[order])


def _slice(batch: Batch, start: int, end: int) -> Batch:
    rows = slice(start, end)
    return Batch(batch.numeric[rows], batch.categorical[rows], batch.label[rows], batch.position[rows])


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(
        np.concatenate([part.numeric for part in parts]),
        np.concatenate([part.categorical for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.position for part in parts]),
    )
