"""A prepared dataset for people's own code: its splits as TensorFlow, numpy, Arrow or PyTorch batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Required, TypedDict, Unpack

from lakefit.dataset.describe import find_dataset
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.errors import InputError
from lakefit.feed.split import SplitFeed, State

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf
    import torch.utils.data

    from lakefit.feed.to_torch import Tensors


class Options(TypedDict, total=False):
    """How a split is read, whatever the batches are handed out as.

    batch_size: rows of a batch of all workers together; the last one of an epoch has what remains. seed, epoch (0): on
    which the order depends, beside batch size and lanes. shuffle (True): False gives rows as they stand in the files.
    lanes (8): row groups that a batch mixes; docs/feed.md. remainder ("keep"): "drop" leaves a last batch out that is
    smaller. worker, workers (0 of 1): the share of each batch that is read here; all workers get as many batches.
    """

    batch_size: Required[int]
    seed: int
    epoch: int
    shuffle: bool
    lanes: int
    remainder: Literal["keep", "drop"]
    worker: int
    workers: int


def open_dataset(path: str | Path) -> "Dataset":
    """Return a dataset, given by its folder, or by a pipeline's output or file, whose dataset in use it is.

    Raises:
        InputError: there is none, or it is not one that this version reads.
    """
    folder = find_dataset(Path(path))
    return Dataset(folder, read_manifest(folder))


class Dataset:
    """A dataset that is open for reading; nothing is read before batches are asked for.

    Every way to read a split gives the same rows in the same order, and fails in place of the last batches with a
    FeedError, which names row groups, unless exactly the rows of the split came. A batch holds `numeric` (n, k)
    float32, `categorical` (n, m) int32, `label` (n, 1) float32 and, where rows are weighed, `weight` (n,) float32; what
    is not in the dataset is not in the batch.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.manifest.splits)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The columns of `numeric`, in order."""
        return self.manifest.features.numeric_columns

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """The columns of `categorical`, in order."""
        return self.manifest.features.categorical_columns

    def to_numpy(self, split: str, **options: Unpack[Options]) -> SplitFeed:
        """Return the batches of an epoch, to be iterated over: dicts of arrays, `position` (n,) int64 among them.

        Batches that are kept stay as they are; memory is used again once nothing refers to it. Raises InputError if
        there is no such split, ValueError for options that can't be meant.
        """
        if split not in self.manifest.splits:
            raise InputError(f"{self.path}: there is no split {split!r}; it has {', '.join(self.splits)}.")
        epoch = options.pop("epoch", 0)
        feed = SplitFeed(self.path, self.manifest, split, **options)  # type: ignore[misc]  # mypy: pop leaves the rest
        feed.epoch = epoch
        return feed

    def to_tf(self, split: str, **options: Unpack[Options]) -> "tf.data.Dataset":
        """Return a tf.data.Dataset of (inputs, label) or (inputs, label, weight), ready for `keras.Model.fit`.

        Its first iteration reads `epoch`, and each further one the next: `fit(data, epochs=3)` reads three epochs. What
        comes out of TensorFlow is compared with what went in.
        """
        return self.to_numpy(split, **options).to_tf(next_epochs=True)

    def to_arrow(self, split: str, **options: Unpack[Options]) -> "Iterator[pa.RecordBatch]":
        """Return the batches of an epoch as Arrow's, a column a feature in either layout, and `_position`."""
        from lakefit.feed.to_arrow import record_batches

        return record_batches(self.to_numpy(split, **options), self.numeric_columns, self.categorical_columns)

    def to_torch(self, split: str, **options: Unpack[Options]) -> "torch.utils.data.IterableDataset[Tensors]":
        """Return a PyTorch dataset of whole batches, dicts of tensors, for a DataLoader of `batch_size=None`.

        Each iteration reads the next epoch. Needs PyTorch, the extra `torch`.
        """
        from lakefit.feed.to_torch import TorchBatches

        return TorchBatches(self.to_numpy(split, **options))

    def from_state(self, state: State) -> SplitFeed:
        """Return the feed that `SplitFeed.state` described, to go on with its next batch.

        Raises:
            InputError: the state is of another dataset, or is none.
        """
        mine, others = self.manifest.fingerprint, state.get("dataset")
        if others != mine:
            raise InputError(f"The state is one of dataset {others}, and {self.path} is dataset {mine}.")
        try:
            feed = self.to_numpy(
                state["split"],
                batch_size=state["batch_size"],
                seed=state["seed"],
                epoch=state["epoch"],
                shuffle=state["lanes"] > 0,
                lanes=max(1, state["lanes"]),
                remainder="drop" if state["drop_remainder"] else "keep",
                worker=state["worker"],
                workers=state["workers"],
            )
        except KeyError as error:
            raise InputError(f"The state of a feed lacks {error}; it has {', '.join(state)}.") from None
        feed.first_batch = state["batch"]
        return feed
