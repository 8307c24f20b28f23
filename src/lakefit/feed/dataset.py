"""A dataset for people's own code: its splits as TensorFlow, numpy, Arrow or PyTorch batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Required, TypedDict, Unpack

import pyarrow as pa

from lakefit.dataset.describe import find_dataset
from lakefit.dataset.index import Index, parse_index, read_index
from lakefit.dataset.layout import CURRENT
from lakefit.dataset.manifest import MANIFEST, POSITION, Manifest, is_index, parse_manifest, read_manifest
from lakefit.dataset.object_path import AnyPath, is_address
from lakefit.dataset.packed import CATEGORICAL, NUMERIC
from lakefit.dataset.store import Store
from lakefit.errors import InputError
from lakefit.feed.cache import Cache
from lakefit.feed.reader import Field
from lakefit.feed.split import SplitFeed, State, field_of

if TYPE_CHECKING:
    import tensorflow as tf
    import torch.utils.data

    from lakefit.feed.to_torch import Tensors

Columns = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Columns of Parquet files, each an array of its own name; or names of arrays, each of a column, or of columns of one
type side by side: `{"x": ["width", "height"], "y": "kind"}`."""


class Options(TypedDict, total=False):
    """How a split is read, whatever the batches are handed out as.

    batch_size: rows of a batch of all workers together; the last one of an epoch has what remains. seed, epoch (0): on
    which the order depends, beside batch size and lanes. shuffle (True): False gives rows as they stand in the files.
    lanes (8): row groups that a batch mixes; docs/feed.md. remainder ("keep"): "drop" leaves a last batch out that is
    smaller. worker, workers (0 of 1): the share of each batch that is read here; all workers get as many batches.
    columns (all): of Parquet files with an index; a prepared dataset has arrays of its own.
    """

    batch_size: Required[int]
    seed: int
    epoch: int
    shuffle: bool
    lanes: int
    remainder: Literal["keep", "drop"]
    worker: int
    workers: int
    columns: Columns


def open_dataset(path: str | AnyPath, cache: Cache | None = None) -> "Dataset":
    """Return a dataset, given by its folder, or by a pipeline's output or file, whose dataset in use it is; or a folder
    of Parquet files that `lakefit index` has looked at.

    path: also the address of such a folder in an object store ("s3://bucket/flights"). cache: on this machine, of what
    is read there.

    Raises:
        InputError: there is none, it is not one that this version reads, or the store does not answer.
    """
    if not is_address(path):
        if cache is not None:
            raise ValueError(f"{path} is on this machine: a cache is of datasets in object stores.")
        folder = find_dataset(Path(str(path)))
        return Dataset(Store(folder), read_index(folder) or read_manifest(folder))
    store = Store(path)
    try:
        if not store.has(MANIFEST) and store.has(CURRENT):
            store = Store(find_dataset(store.path))
        text = store.read(MANIFEST).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{store.place(MANIFEST)}: there is none: name a dataset's folder, or index it.") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{store.place(MANIFEST)}: can't be read: {error}") from None
    manifest = parse_index(text, store) if is_index(text) else parse_manifest(text, store.place(MANIFEST))
    return Dataset(store, manifest, cache)


class Dataset:
    """A dataset that is open for reading; nothing is read before batches are asked for.

    Every way to read a split gives the same rows in the same order, and fails in place of the last batches with a
    FeedError, which names row groups, unless exactly the rows of the split came. A batch of a prepared dataset holds
    `numeric` (n, k) float32, `categorical` (n, m) int32, each tensor by its name (n, *shape) float32, each label by its
    name, such as `label` (n, 1) float32, and, where rows are weighed, `weight` (n,) float32; what is not in the dataset
    is not in the batch. A batch of Parquet files with an index holds the columns that were asked for.
    """

    def __init__(self, store: Store, manifest: Manifest | Index, cache: Cache | None = None) -> None:
        self.manifest = manifest
        self._store, self._cache = store, cache

    @property
    def path(self) -> Path | str:
        """The folder, or its address in an object store."""
        return self._store.local or self._store.root

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.manifest.splits)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The columns of `numeric`, in order."""
        return () if isinstance(self.manifest, Index) else self.manifest.features.numeric_columns

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """The columns of `categorical`, in order."""
        return () if isinstance(self.manifest, Index) else self.manifest.features.categorical_columns

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of Parquet files with an index; of a prepared dataset, those of `numeric` and `categorical`."""
        if isinstance(self.manifest, Index):
            return tuple(column.name for column in self.manifest.columns)
        return self.numeric_columns + self.categorical_columns

    def to_numpy(self, split: str, **options: Unpack[Options]) -> SplitFeed:
        """Return the batches of an epoch, to be iterated over: dicts of arrays, `_position` (n,) int64 among them.

        Batches that are kept stay as they are; memory is used again once nothing refers to it. Text comes as str, and a
        list as an array, in object arrays. Raises InputError if there is no such split or column, ValueError for
        options that can't be meant.
        """
        if split not in self.manifest.splits:
            raise InputError(f"{self.path}: there is no split {split!r}; it has {', '.join(self.splits)}.")
        epoch, columns = options.pop("epoch", 0), options.pop("columns", None)
        if not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch is a whole number from 0 on, not {epoch!r}.")
        fields = self._fields(columns)
        feed = SplitFeed(self._store, self.manifest, split, fields=fields, cache=self._cache, **options)  # type: ignore[misc]  # mypy: pop leaves the rest
        feed.epoch = epoch
        return feed

    def to_tf(
        self, split: str, *, label: str | None = None, weight: str | None = None, **options: Unpack[Options]
    ) -> "tf.data.Dataset":
        """Return a tf.data.Dataset of (inputs, label) or (inputs, label, weight), ready for `keras.Model.fit`.

        label, weight: arrays of Parquet files with an index; without a label, it is a dataset of inputs alone. A
        prepared dataset has its own. Its first iteration reads `epoch`, and each further one the next: `fit(data,
        epochs=3)` reads three epochs. What comes out of TensorFlow is compared with what went in. Lists come as ragged
        tensors.
        """
        feed = self.to_numpy(split, **options)
        if not isinstance(self.manifest, Index):
            if label is not None or weight is not None:
                raise ValueError("A prepared dataset has its own label and weights.")
            return feed.to_tf(next_epochs=True)
        arrays = [field.name for field in feed.fields if field.columns]
        for name in (label, weight):
            if name is not None and name not in arrays:
                raise InputError(f"{self.path}: {self._unknown(name, arrays)}")
        if weight is not None and label in (None, weight):
            raise ValueError("Weights without a label of its own mean nothing to Keras: name the label, too.")
        if not set(arrays) - {label, weight}:
            raise ValueError("No input is left: name more columns than the label.")
        feed.fields, apart = _side_by_side(feed.fields)
        targets = {label: weight} if label is not None else {}
        return feed.to_tf(names=arrays, apart=apart, targets=targets, next_epochs=True)

    def to_arrow(self, split: str, **options: Unpack[Options]) -> "Iterator[pa.RecordBatch]":
        """Return the batches of an epoch as Arrow's, a column a feature in either layout, and `_position`."""
        from lakefit.feed.to_arrow import record_batches

        feed = self.to_numpy(split, **options)
        if isinstance(self.manifest, Index):
            return record_batches(feed, {})
        apart = {NUMERIC: self.numeric_columns, CATEGORICAL: self.categorical_columns}
        apart |= {label.name: label.columns for label in self.manifest.labels}
        return record_batches(feed, apart)

    def to_torch(self, split: str, **options: Unpack[Options]) -> "torch.utils.data.IterableDataset[Tensors]":
        """Return a PyTorch dataset of whole batches, dicts of tensors, for a DataLoader of `batch_size=None`.

        Each iteration reads the next epoch. Needs PyTorch, the extra `torch`. Raises InputError for columns of text.
        """
        from lakefit.feed.to_torch import TorchBatches

        return TorchBatches(self.to_numpy(split, **options))

    def from_state(self, state: State, columns: Columns | None = None) -> SplitFeed:
        """Return the feed that `SplitFeed.state` described, to go on with its next batch. columns: as in Options.

        Raises:
            InputError: the state is of another dataset, or is none.
        """
        mine, others = self.manifest.fingerprint, state.get("dataset")
        if others != mine:
            raise InputError(f"The state is one of dataset {others}, and {self.path} is dataset {mine}.")
        try:
            options = Options(
                batch_size=state["batch_size"],
                seed=state["seed"],
                epoch=state["epoch"],
                shuffle=state["lanes"] > 0,
                lanes=max(1, state["lanes"]),
                remainder="drop" if state["drop_remainder"] else "keep",
                worker=state["worker"],
                workers=state["workers"],
            )
            split, batch = state["split"], state["batch"]
        except KeyError as error:
            raise InputError(f"The state of a feed lacks {error}; it has {', '.join(state)}.") from None
        if columns is not None:
            options["columns"] = columns
        feed = self.to_numpy(split, **options)
        if not 0 <= batch < max(feed.batches, 1):
            raise InputError(f"The state's batch is {batch}; the epoch has {feed.batches}, numbered from 0.")
        feed.first_batch = batch
        return feed

    def _fields(self, columns: Columns | None) -> tuple[Field, ...] | None:
        """Return the arrays that were asked for; None for those of a prepared dataset."""
        if not isinstance(self.manifest, Index):
            if columns is not None:
                raise ValueError("The columns of a prepared dataset are laid side by side: take what you need of them.")
            return None
        known = {column.name: column for column in self.manifest.columns}
        if isinstance(columns, str):
            raise ValueError(f"columns is a list, or names of arrays and their columns: [{columns!r}].")
        columns = tuple(known) if columns is None else columns
        named = columns if isinstance(columns, Mapping) else {name: name for name in columns}
        if not named:
            raise ValueError("No column is asked for: name at least one.")
        fields = []
        for array, wanted in named.items():
            if array == POSITION:
                raise ValueError(f"{POSITION} tells the row: choose another name for the array.")
            if not wanted:
                raise ValueError(f"No column is asked for as {array!r}: name at least one.")
            names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
            for name in names:
                if name not in known:
                    raise InputError(f"{self.path}: {self._unknown(name, list(known))}")
                column = known[name]
                if column.nulls and not column.variable and not column.dtype.startswith("float"):
                    raise InputError(
                        f"{self.path}: column {name!r} has {column.nulls:,} nulls, for which {column.dtype} has no "
                        "value: name other columns, or write it as a float."
                    )
            if isinstance(wanted, str):
                fields.append(replace(field_of(known[wanted]), name=array))
                continue
            types = {known[name].dtype: name for name in names}
            if len(types) != 1 or any(known[name].shape != () or known[name].variable for name in names):
                found = ", ".join(f"{name} ({known[name].type})" for name in names) or "none"
                raise InputError(
                    f"{self.path}: {array!r} lays columns side by side, which must be numbers of one type: {found}."
                )
            (dtype,) = types
            fields.append(Field(array, names, dtype, nulls=dtype.startswith("float")))
        return tuple(fields)

    def _unknown(self, name: str, known: Sequence[str]) -> str:
        if isinstance(self.manifest, Index):
            for column in self.manifest.left_out:
                if column.name == name:
                    return f"column {name!r} can't be read: {column.reason}."
        nearest = get_close_matches(name, known, 1) or known[:1]
        return f"there is no column {name!r}; the nearest of {len(known)} is {nearest[0]!r}."


def _side_by_side(fields: Sequence[Field]) -> tuple[tuple[Field, ...], dict[str, tuple[str, ...]]]:
    """Return fields with columns of one type as one array, and the names of each such array's columns.

    Gathering, and TensorFlow's pipeline, take their time for each array, and next to nothing for its columns.
    """
    alike: dict[str, list[Field]] = {}
    for field in fields:
        if field.flat and field.columns:
            alike.setdefault(field.dtype, []).append(field)
    apart = {f"{dtype}\0columns": tuple(field.name for field in some) for dtype, some in alike.items()}
    together = [
        Field(
            f"{dtype}\0columns", tuple(column for field in some for column in field.columns), dtype, nulls=some[0].nulls
        )
        for dtype, some in alike.items()
    ]
    others = [field for field in fields if not (field.flat and field.columns)]
    return (*together, *others), apart
