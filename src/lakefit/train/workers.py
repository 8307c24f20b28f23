"""Several processes that train one model: what they add up, tell each other and agree on; all of them, in one order."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lakefit.console import Console, repeated
from lakefit.errors import LakefitError
from lakefit.feed.split import SplitFeed
from lakefit.launch.place import Place

_MOST_TOLD = 256
_BESIDE_STEPS_S = 120.0


class LostError(LakefitError):
    """Another worker is gone, without which this one can't go on. Exit code 3."""


GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
"""What TensorFlow raises in those that are left."""


_MAY_BE = (tf.errors.InternalError, tf.errors.UnknownError, tf.errors.DeadlineExceededError)


def is_lost(error: Exception) -> bool:
    """Say whether an error of TensorFlow's is that another worker is gone, and not one of this worker's own."""
    said = re.search(r"collective|heartbeat|coordination|connection|peer|socket", str(error), re.IGNORECASE)
    return isinstance(error, GONE) or (isinstance(error, _MAY_BE) and said is not None)


def lost_of(error: str, at: Place) -> str:
    """Return which worker is gone, where TensorFlow says so: the first one that it names beside this one."""
    named = [int(number) for number in re.findall(r"/job:worker/(?:replica:\d+/)?task:(\d+)", error)]
    others = [number for number in named if number != at.worker and number < at.workers]
    return f"worker {others[0]} at {at.addresses[others[0]]}" if others else "the others"


class Watch:
    """Ends this process where its training comes no further: it waits for others, for ever, or they for it.

    beats: counted up with each step. at_steps: steps are being done; before and after that a model is built, traced,
    and written, which may take longer.
    """

    def __init__(self, timeout_s: float) -> None:
        self.beats = 0
        self.at_steps = False
        self.timeout_s = timeout_s

    @contextmanager
    def watching(self, console: Console) -> Iterator[None]:
        """Watch, within the block; the exit code is 3."""
        seen, since = -1, time.monotonic()

        def look() -> None:
            nonlocal seen, since
            now = time.monotonic()
            if self.beats != seen:
                seen, since = self.beats, now
            elif now - since > (self.timeout_s if self.at_steps else max(self.timeout_s, _BESIDE_STEPS_S)):
                text = f"has come no further for {now - since:,.0f} s, and is ended (train.step_timeout)"
                console.event("stalled", f"this worker {text}", why=text)
                # The main thread may be anywhere, and hears of nothing there.
                os._exit(LakefitError.exit_code)

        with repeated(look, min(1.0, self.timeout_s / 4)):
            yield


class Workers:
    """The worker processes, or the one that there is. Whatever waits for the others is called in all of them alike, by
    their main threads.

    worker: which one this is; 0, the chief, writes what comes of it. count: of all.
    """

    def __init__(self, strategy: tf.distribute.Strategy, worker: int = 0, count: int = 1) -> None:
        self.worker, self.count = worker, count
        self._strategy = strategy
        self._gathering: Callable[[], Any] | None = None
        self.replicas = int(strategy.num_replicas_in_sync)
        self.replicas_here = self.replicas // count
        if count > 1:
            self._add = self._adding()

    @property
    def is_chief(self) -> bool:
        return self.worker == 0

    def added(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sums of the arrays, element by element, that all workers have called it with."""
        return values if self.count == 1 else np.asarray(self._add(tf.constant(values)))

    def sums(self, *values: float) -> list[float]:
        """Return the sums of the numbers that all workers have called it with."""
        return [float(value) for value in self.added(np.array(values, np.float64))]

    def any(self, flag: bool) -> bool:
        """Return whether it is true in any of the workers; nobody goes on before all have come here."""
        return self.sums(flag)[0] > 0

    def told(self, text: str) -> str:
        """Return what the chief has said, in at most 256 bytes."""
        if self.count == 1:
            return text
        said = text.encode().ljust(_MOST_TOLD, b"\0") if self.is_chief else bytes(_MOST_TOLD)
        return bytes(int(value) for value in self.sums(*said)).rstrip(b"\0").decode()

    def gathered(self, variables: Sequence[keras.Variable]) -> list[list[NDArray[Any]]]:
        """Return what each device of all workers holds of each variable, in the order of the devices."""
        if self.count == 1:
            parts = (self._strategy.experimental_local_results(variable.value) for variable in variables)
            return [[np.array(part) for part in of_one] for of_one in parts]
        if self._gathering is None:
            # Of a training they are always the same; to trace it again would cost half a second.
            self._gathering = self._gather(list(variables))
        return [list(np.asarray(values)) for values in self._gathering()]

    def _adding(self) -> Callable[[Any], Any]:
        @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def added(values: Any) -> Any:
            def of_one() -> Any:
                context = tf.distribute.get_replica_context()
                first = tf.equal(context.replica_id_in_sync_group % self.replicas_here, 0)
                return context.all_reduce("SUM", tf.where(first, values, tf.zeros_like(values)))

            return self._strategy.experimental_local_results(self._strategy.run(of_one))[0]

        return added  # type: ignore[no-any-return]

    def _gather(self, variables: Sequence[keras.Variable]) -> Callable[[], Any]:
        @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def gathered() -> Any:
            def of_one() -> Any:
                context = tf.distribute.get_replica_context()
                values = [tf.convert_to_tensor(variable.value)[None] for variable in variables]
                return [context.all_gather(value, axis=0) for value in values]

            return [self._strategy.experimental_local_results(one)[0] for one in self._strategy.run(of_one)]

        return gathered  # type: ignore[no-any-return]


def distributed(data: tf.data.Dataset, strategy: tf.distribute.Strategy, workers: Workers) -> Any:
    """Return this worker's shares of batches, as `shares` makes them, as its devices are given them."""
    if workers.count == 1:
        return data
    # Else all workers would ask each other before each step whether there is one more: `fit` is told how many.
    strategy.extended.experimental_enable_get_next_as_optional = False
    return strategy.distribute_datasets_from_function(lambda _: data)


def shares(data: tf.data.Dataset, feed: SplitFeed, workers: Workers) -> tf.data.Dataset:
    """Return the pieces of this worker's share of each batch, one for each of its devices, with which every row counts
    the same on whichever device it is.

    Keras takes the mean of the devices' means: rows of a small piece would count more. So each row of a piece of k rows
    of a batch of n weighs k x devices / n, and the fourth thing is n / devices, as in `devices.weighted_by_rows`.
    """
    first, batches = feed.first_batch, feed.batches
    last = feed.last_batch_of_all

    def weighted(number: Any, batch: Any) -> Any:
        of_all = tf.where((first + number) % batches == batches - 1, last, feed.batch_size)
        rows = tf.shape(tf.nest.flatten(batch[1])[0])[0]
        size = (rows + workers.replicas_here - 1) // workers.replicas_here

        def piece(place: Any) -> tuple[Any, Any, Any, Any]:
            begin = tf.minimum(place * size, rows)
            end = tf.minimum(begin + size, rows)
            inputs, label, *weight = tf.nest.map_structure(lambda values: values[begin:end], batch)
            weighs = tf.cast((end - begin) * workers.replicas, tf.float32) / tf.cast(of_all, tf.float32)
            even = tf.fill([end - begin], tf.cast(of_all, tf.float32) / workers.replicas)
            if not weight:
                each = tf.fill([end - begin], weighs)
                return inputs, label, tf.nest.map_structure(lambda _: each, label), even
            return inputs, label, tf.nest.map_structure(lambda of_label: weighs * of_label, weight[0]), even

        if workers.replicas_here == 1:
            return tf.data.Dataset.from_tensors(piece(0))
        return tf.data.Dataset.range(workers.replicas_here, output_type=tf.int32).map(piece)

    return data.enumerate().flat_map(weighted)


def write_elsewhere(callbacks: Sequence[keras.callbacks.Callback], folder: Path) -> None:
    """Let callbacks that write files do so below a folder which is of no use: the chief's are what is wanted."""
    for number, callback in enumerate(callbacks):
        for name in ("filepath", "filename", "log_dir"):
            if isinstance(path := getattr(callback, name, None), str | Path):
                setattr(callback, name, type(path)(folder / str(number) / Path(path).name))
                (folder / str(number)).mkdir(exist_ok=True)
