"""A split's batches as a tf.data.Dataset: many at a time go in, one at a time comes out and is compared."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.data.ops.map_op import _MapDataset

from lakefit.dataset.manifest import POSITION
from lakefit.errors import FeedError
from lakefit.feed.reader import Field, RowGroup
from lakefit.feed.receipt import unmix

if TYPE_CHECKING:
    from lakefit.feed.split import Received, SplitFeed


def dataset(
    feed: "SplitFeed", arrivals: "Arrivals", *, label: str | None, weight: str | None, next_epochs: bool
) -> tf.data.Dataset:
    """Return (inputs, label) or (inputs, label, weight) by batch; each iteration reads the feed's epoch, or the next.

    Batches enter TensorFlow many at a time, in arrays that it takes as they are, and are cut there: a Python call for
    each batch, or a copy, would cost more than reading it. Lists of any length can't be cut there, so where there are
    some, or text, it is batch by batch.
    """
    specs = {field.name: _spec(field) for field in feed.fields}
    variable = {field.name: field for field in feed.fields if field.variable is not None}
    inputs = [name for name in specs if name not in (label, weight, POSITION)]

    def row(values: Mapping[str, Any]) -> Any:
        of_batch = {name: values[name] for name in inputs}
        if label is None:
            return of_batch
        return (of_batch, values[label], *([values[weight]] if weight is not None and weight in values else []))

    def generate() -> Iterator[dict[str, Any]]:
        iteration = arrivals.begin()
        if next_epochs and iteration > 1:
            feed.epoch += 1
        try:
            for received in feed.received(one_by_one=bool(variable)):
                arrivals.leave(iteration, received)
                for part in received.parts:
                    if len(part[POSITION]):
                        yield part | {name: _tensor(part[name], field) for name, field in variable.items()}
        except Exception as error:
            # TensorFlow would turn it into text; `check` raises it as it was.
            feed.error = error
            raise

    def received(number: Any, values: Any) -> Any:
        with tf.control_dependencies([arrivals.arrive(number, values[POSITION])]):
            return row({name: tf.identity(value) for name, value in values.items() if name != POSITION})

    def end() -> Iterator[Any]:
        try:
            arrivals.check(f"Epoch {feed.epoch} of the {feed.split} split")
        except FeedError as error:
            feed.error = error
            raise
        yield from ()

    many = tf.data.Dataset.from_generator(generate, output_signature=specs).prefetch(2)
    batches = many if variable else many.rebatch(feed.rows_of_a_batch)
    # On the thread that asks: handing the few small operations to other threads takes longer than they do.
    batches = _MapDataset(batches.enumerate(), received, use_inter_op_parallelism=False)
    if not feed.rows_of_the_last_batch:
        # All workers get as many batches; rebatch makes none of no rows.
        batches = batches.concatenate(tf.data.Dataset.from_tensors(row(_no_rows(feed.fields))))
    if next_epochs:
        # Nothing more, once the last batch has come out, but an error where one has not.
        batches = batches.concatenate(tf.data.Dataset.from_generator(end, output_signature=row(specs)))
    options = tf.data.Options()
    # Autotuning has nothing to tune here, and its thread, which sleeps ever longer, is waited for when an epoch ends:
    # up to a second. The operations are small, and waking other threads for them takes longer than they do.
    options.autotune.enabled = False
    options.threading.max_intra_op_parallelism = 1
    batches = batches.with_options(options)
    return batches if feed.first_batch else batches.apply(tf.data.experimental.assert_cardinality(feed.batches))


def _spec(field: Field) -> Any:
    if field.dtype in ("str", "bytes"):
        return tf.TensorSpec((None,), tf.string)
    if field.variable is not None:
        return tf.RaggedTensorSpec((None, None), field.dtype, ragged_rank=1)
    return tf.TensorSpec((None, *field.row_shape), field.dtype)


def _tensor(array: Any, field: Field) -> Any:
    """Return text or bytes as an array of bytes, lists as a ragged tensor."""
    from lakefit.feed.variable import parts, to_bytes

    if field.dtype in ("str", "bytes"):
        return to_bytes(array)
    values, offsets = parts(array)
    return tf.RaggedTensor.from_row_splits(values, offsets, validate=False)


def _no_rows(fields: Sequence[Field]) -> dict[str, Any]:
    nothing: dict[str, Any] = {}
    for field in fields:
        if field.variable is None:
            nothing[field.name] = tf.zeros((0, *field.row_shape), field.dtype)
        elif field.dtype in ("str", "bytes"):
            nothing[field.name] = tf.zeros((0,), tf.string)
        else:
            nothing[field.name] = tf.RaggedTensor.from_row_splits(tf.zeros((0,), field.dtype), np.zeros(1, np.int64))
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

    def __init__(self, groups: Sequence[RowGroup], batches: int) -> None:
        self._groups = groups
        self._iteration = 0
        self._sent: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        with tf.device("CPU:0"):
            self._received = tf.Variable(tf.zeros((self.SLOTS, batches), tf.int64), trainable=False)

    def begin(self) -> int:
        """Return the number of a new iteration."""
        self._iteration += 1
        slot = self._iteration % self.SLOTS
        self._sent[slot] = []
        self._received[slot].assign(tf.zeros_like(self._received[slot]))
        return self._iteration

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
        return self._received.scatter_nd_add(place, tf.reduce_sum(tf.bitwise.invert(position), keepdims=True))

    def check(self, what: str) -> None:
        """Raise FeedError, naming row groups, unless all batches of the last iteration have come out once."""
        slot = self._iteration % self.SLOTS
        sent, firsts = np.concatenate([np.zeros((2, 0), np.int64), *self._sent[slot]], axis=1)
        received = self._received[slot].numpy()
        wrong = np.flatnonzero(received[: len(sent)] != sent)
        if not len(wrong):
            return
        starts = [group.first_position for group in self._groups]
        places = np.searchsorted(starts, unmix(firsts[wrong[:10]]), side="right") - 1
        named = [self._groups[place] for place in places]
        of_each = "; ".join(
            f"batch {number}, from {group.file} row group {group.index} on"
            for number, group in zip(wrong, named, strict=False)
        )
        raise FeedError(
            f"{what}: TensorFlow's pipeline did not hand out once what it was given: {of_each}"
            f"{f' and {len(wrong) - 10} batches more' if len(wrong) > 10 else ''}. Nothing of this epoch can be "
            "trusted: run again."
        )
