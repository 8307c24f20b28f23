"""A split's batches as a tf.data.Dataset: many at a time go in, one at a time comes out and is compared."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.data.ops.dataset_ops import UnaryUnchangedStructureDataset
from tensorflow.python.data.ops.map_op import _MapDataset
from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled

from lakefit.dataset.manifest import POSITION
from lakefit.errors import FeedError
from lakefit.feed.images import decode_batch
from lakefit.feed.reader import Field, RowGroup
from lakefit.feed.receipt import unmix

if TYPE_CHECKING:
    from lakefit.feed.split import Received, SplitFeed


@dataclass(frozen=True, slots=True)
class Shape:
    """What is handed out of a batch.

    names: in order. apart: arrays of which each column is handed out by itself, and the columns' names. targets: the
    labels, which are no inputs, and the weights of each or None; without a label there are inputs alone.
    """

    names: Sequence[str]
    apart: Mapping[str, Sequence[str]]
    targets: Mapping[str, str | None]

    def of(self, arrays: Mapping[str, Any]) -> Any:
        """Return inputs, (inputs, label) or (inputs, label, weight); dicts of several labels, and weights of each."""
        values = dict(arrays)
        for name, columns in self.apart.items():
            values |= zip(columns, tf.unstack(values[name], len(columns), axis=1), strict=True)
        inputs = {name: values[name] for name in self.names if name not in {*self.targets, *self.targets.values()}}
        if not self.targets:
            return inputs
        labels = {name: values[name] for name in self.targets}
        weights = {name: values[weight] for name, weight in self.targets.items() if weight is not None}
        if len(labels) == 1:
            return (inputs, *labels.values(), *weights.values())
        if not weights:
            return inputs, labels
        # Keras wants weights for all labels or none.
        return inputs, labels, {n: weights.get(n, tf.ones_like(label[:, 0])) for n, label in labels.items()}


def dataset(
    feed: "SplitFeed", arrivals: "Arrivals", shape: Shape, *, next_epochs: bool, epochs: int | None
) -> tf.data.Dataset:
    """Return the batches of the feed's epoch, or, with each further iteration, of the next, or of so many epochs.

    Batches enter TensorFlow many at a time, in arrays that it takes as they are, and are cut there: a Python call for
    each batch, or a copy, would cost more than reading it.
    """
    specs = {name: spec for field in feed.fields for name, spec in _specs(field).items()}
    lists = [field.name for field in feed.fields if _is_list(field)]
    images = {field.name: field.image for field in feed.fields if field.image is not None}
    checks_itself = next_epochs or epochs is not None

    def generate() -> Iterator[dict[str, Any]]:
        if checks_itself and arrivals.begun:
            feed.epoch += 1
        iteration = arrivals.begin(feed.epoch)
        try:
            for received in feed.received(one_by_one=False):
                arrivals.leave(iteration, received)
                (rows,) = received.parts
                if len(rows[POSITION]):
                    yield {name: array for field in feed.fields for name, array in _arrays(field, rows).items()}
        except Exception as error:
            # TensorFlow would turn it into text; `check` raises it as it was.
            feed.error = error
            raise

    def received(number: Any, values: Any) -> Any:
        with tf.control_dependencies([arrivals.arrive(number, values[POSITION])]):
            return shape.of({name: tf.identity(value) for name, value in values.items()})

    def end() -> Iterator[Any]:
        try:
            arrivals.check(feed.epoch)
        except FeedError as error:
            feed.error = error
            raise
        yield from ()

    many = tf.data.Dataset.from_generator(generate, output_signature=specs).prefetch(2)
    if lists:
        batches = many.flat_map(lambda rows: _cut(rows, lists, feed.rows_of_a_batch))
    else:
        batches = many.rebatch(feed.rows_of_a_batch)
    if images:
        # Each batch by one thread, several batches at once.
        batches = batches.map(
            lambda values: {**values, **{name: decode_batch(values[name], image) for name, image in images.items()}},
            num_parallel_calls=len(os.sched_getaffinity(0)),
        )
    # On the thread that asks: handing the few small operations to other threads takes longer than they do.
    batches = _MapDataset(batches.enumerate(), received, use_inter_op_parallelism=False)
    if not feed.rows_of_the_last_batch:
        # All workers get as many batches; rebatch makes none of no rows.
        batches = batches.concatenate(tf.data.Dataset.from_tensors(shape.of(_no_rows(feed.fields))))
    if checks_itself:
        # Nothing more, once the last batch has come out, but an error where one has not.
        batches = batches.concatenate(tf.data.Dataset.from_generator(end, output_signature=batches.element_spec))
    options = tf.data.Options()
    # Autotuning has nothing to tune here, and its thread, which sleeps ever longer, is waited for when an epoch ends:
    # up to a second. The operations are small, and waking other threads for them takes longer than they do.
    options.autotune.enabled = False
    options.threading.max_intra_op_parallelism = 1
    batches = batches.with_options(options)
    if epochs is not None:
        batches = batches.repeat(epochs)
    elif not feed.first_batch:
        batches = batches.apply(tf.data.experimental.assert_cardinality(feed.batches))
    return ReadAhead(batches)


class ReadAhead(UnaryUnchangedStructureDataset):
    """The same elements, of which `prefetch` makes some ready in advance under op determinism, too.

    There tf.data takes all prefetching away (its make_deterministic) from a pipeline that calls Python or notes what
    has come by: what such a thing touches might be touched by the model as well. Nothing of the feed's is, and its
    order is one thread's, so its iterators are made as if determinism were not asked for; it took a tenth of the
    training's time to wait for each batch. To be the last step: of a pipeline that goes on, the last step decides.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        super().__init__(dataset, dataset._variant_tensor)

    def __iter__(self) -> Any:
        if not is_op_determinism_enabled():
            return super().__iter__()
        disable_op_determinism()
        try:
            return super().__iter__()
        finally:
            tf.config.experimental.enable_op_determinism()


def _is_list(field: Field) -> bool:
    return field.variable is not None and field.dtype not in ("str", "bytes")


def _ends(name: str) -> str:
    """Return the name under which it travels where the lists of a column begin and end."""
    return f"{name}\0ends"


def _specs(field: Field) -> dict[str, tf.TensorSpec]:
    """Return what a field is on its way into TensorFlow: lists are their values and where each begins."""
    if _is_list(field):
        return {field.name: tf.TensorSpec((None,), field.dtype), _ends(field.name): tf.TensorSpec((None,), tf.int64)}
    if field.variable is not None:
        return {field.name: tf.TensorSpec((None,), tf.string)}
    return {field.name: tf.TensorSpec((None, *field.row_shape), field.dtype)}


def _arrays(field: Field, rows: Mapping[str, Any]) -> dict[str, Any]:
    if field.variable is None:
        return {field.name: rows[field.name]}
    from lakefit.feed.variable import parts, to_bytes

    if not _is_list(field):
        return {field.name: to_bytes(rows[field.name])}
    return dict(zip((field.name, _ends(field.name)), parts(rows[field.name]), strict=True))


def _cut(rows: Mapping[str, Any], lists: Sequence[str], size: int) -> tf.data.Dataset:
    """Return rows in batches, where `rebatch` can't: it knows nothing of lists."""
    count = tf.shape(rows[POSITION], tf.int64)[0]
    of_lists = {*lists, *map(_ends, lists)}

    def batch(number: Any) -> dict[str, Any]:
        start, stop = number * size, tf.minimum((number + 1) * size, count)
        cut = {name: values[start:stop] for name, values in rows.items() if name not in of_lists}
        for name in lists:
            ends = rows[_ends(name)][start : stop + 1]
            values = rows[name][ends[0] : ends[-1]]
            cut[name] = tf.RaggedTensor.from_row_splits(values, ends - ends[0], validate=False)
        return cut

    return _MapDataset(tf.data.Dataset.range((count + size - 1) // size), batch, use_inter_op_parallelism=False)


def _no_rows(fields: Sequence[Field]) -> dict[str, Any]:
    nothing: dict[str, Any] = {}
    for field in fields:
        specs = _specs(field)
        nothing[field.name] = tf.zeros((0, *specs[field.name].shape[1:]), specs[field.name].dtype)
        if _is_list(field):
            nothing[field.name] = tf.RaggedTensor.from_row_splits(nothing[field.name], np.zeros(1, np.int64))
        if field.image is not None:
            nothing[field.name] = tf.zeros((0, *field.image.shape))
    return nothing


class Arrivals:
    """Compares what enters a tf.data.Dataset with what comes out of its last step.

    The receipt has proven what enters, row by row; TensorFlow then moves batches as they are. So one number for each
    batch is enough, the sum of its mixed positions, which takes a few operations: some microseconds. There is a place
    for several iterations, since an old one may still be reading ahead when the next begins; the first position of a
    batch says which in its upper four bits.
    """

    SLOTS = 4
    _SLOT_BIT = 60

    def __init__(self, of: str, groups: Sequence[RowGroup], batches: int) -> None:
        self._of, self._groups = of, groups
        self.begun = 0
        self._iterations: dict[int, int] = {}
        self._right = 0
        self._sent: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        with tf.device("CPU:0"):
            self._received = tf.Variable(tf.zeros((self.SLOTS, max(batches, 1)), tf.int64), trainable=False)
            self._count = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def count(self) -> int:
        """The number of batches that have come out, in all."""
        return int(self._count.numpy())

    def begin(self, epoch: int) -> int:
        """Return the number of a new iteration, over an epoch."""
        self.begun += 1
        self._iterations[epoch] = self.begun
        slot = self.begun % self.SLOTS
        self._sent[slot] = []
        self._received[slot].assign(tf.zeros_like(self._received[slot]))
        return self.begun

    def leave(self, iteration: int, received: "Received") -> None:
        """Note batches on their way in; the first position of each is made to say which iteration it is of."""
        slot = iteration % self.SLOTS
        position, sizes = received.position, received.sizes
        sums = received.sums.view(np.int64)
        firsts = np.zeros(len(sizes), np.int64)
        # Only the last batch may have no rows: where other workers have them all.
        starts = (np.cumsum(sizes) - sizes)[: np.count_nonzero(sizes)]
        some = slice(len(starts))
        firsts[some] = position[starts]
        position[starts] = firsts[some] & ((1 << self._SLOT_BIT) - 1) | slot << self._SLOT_BIT
        sums[some] += position[starts] - firsts[some]
        # Of the complements, -1 - position, so that the row at position 0 counts in a sum, too.
        self._sent[slot].append((-sums - sizes, firsts))

    def arrive(self, number: Any, position: Any) -> Any:
        """Return the operation that notes a batch that has come out."""
        place = tf.stack([tf.bitwise.right_shift(position[0], self._SLOT_BIT), number])[None]
        self._count.assign_add(1, read_value=False)
        return self._received.scatter_nd_add(place, tf.reduce_sum(tf.bitwise.invert(position), keepdims=True))

    def check(self, epoch: int) -> None:
        """Raise FeedError, naming row groups, unless all batches of an epoch's last iteration have come out once."""
        iteration = self._iterations.get(epoch, self.begun)
        if iteration <= self._right:
            return  # its place may have been given to another since
        slot = iteration % self.SLOTS
        sent, firsts = np.concatenate([np.zeros((2, 0), np.int64), *self._sent[slot]], axis=1)
        received = self._received[slot].numpy()
        wrong = np.flatnonzero(received[: len(sent)] != sent)
        if not len(wrong):
            self._right = iteration
            return
        starts = [group.first_position for group in self._groups]
        places = np.searchsorted(starts, unmix(firsts[wrong[:10]]), side="right") - 1
        named = [self._groups[place] for place in places]
        of_each = "; ".join(
            f"batch {number}, from {group.file} row group {group.index} on"
            for number, group in zip(wrong, named, strict=False)
        )
        raise FeedError(
            f"Epoch {epoch} {self._of}: TensorFlow's pipeline did not hand out once what it was given: {of_each}"
            f"{f' and {len(wrong) - 10} batches more' if len(wrong) > 10 else ''}. Nothing of this epoch can be "
            "trusted: run again."
        )
