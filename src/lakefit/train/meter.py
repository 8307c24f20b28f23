"""Where the time goes: a thread looks twenty times a second at what the training waits for, which costs it nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from lakefit.console import repeated
from lakefit.feed.split import SplitFeed
from lakefit.train.steps import Steps, raw_iterations

_SECONDS = 0.05
ENOUGH = 20
"""Looks of which shares can be told."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How the time of steps was spent, as shares of it.

    input: waiting for the feed. computing: in TensorFlow. synchronizing: part of that, what the devices' gradients take
    to be added up. python: callbacks, and Keras between steps. steps: done. seconds: in which.
    """

    input: float
    computing: float
    synchronizing: float
    python: float
    steps: int
    seconds: float

    def blame(self) -> str:
        """Return the shares in words, and the knob to turn."""
        parts = [f"input {self.input:.0%}", f"computing {self.computing:.0%}"]
        if self.synchronizing:
            parts.append(f"synchronizing {self.synchronizing:.0%}")
        parts.append(f"Python {self.python:.0%}")
        return f"{', '.join(parts)}: {self.knob()}"

    def knob(self) -> str:
        """Return what would make it faster, by what most of the time beside computing goes to."""
        if self.input >= 0.1:
            return "the feed is the limit: more train.feed.in_memory_mb, output.layout packed, or more cores"
        if self.python >= 0.2:
            return "steps are short: raise compile.steps_per_execution or fit.batch_size"
        if self.synchronizing >= 0.3:
            return "the devices wait for each other: raise fit.batch_size, or use fewer of train.devices"
        return "the model is the limit: more train.devices, a larger fit.batch_size, or dtype_policy mixed_bfloat16"


@dataclass(slots=True)
class _Counts:
    looks: int = 0
    input: int = 0
    python: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Meter:
    """Counts, at moments that have nothing to do with the steps, what the training is doing.

    sync_seconds: what adding up the gradients takes a step, 0 on one device.
    """

    model: keras.Model
    feed: SplitFeed
    steps: Steps
    sync_seconds: float = 0.0
    _counts: _Counts = field(default_factory=_Counts)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look, within the block."""
        last, before = time.monotonic(), 0

        def look() -> None:
            nonlocal last, before
            now, at = time.monotonic(), self.steps.total
            with self._lock:
                counts = self._counts
                # The validation is no part of it.
                if self.steps.training:
                    counts.looks += 1
                    counts.seconds += now - last
                    counts.steps += at - before
                    if not self.steps.inside:
                        counts.python += 1
                    elif self.feed.arrived <= self._taken(at):
                        # The model has taken all that has come, and is not computing with it any more.
                        counts.input += 1
            last, before = now, at

        with repeated(look, _SECONDS):
            yield

    def take(self) -> Shares | None:
        """Return the shares since they were last taken, or None where too little has been seen: it counts on."""
        with self._lock:
            shares = self._shares(self._counts)
            if shares is not None:
                self._counts = _Counts()
        return shares

    def now(self) -> Shares | None:
        """Return the shares since `take`."""
        with self._lock:
            return self._shares(self._counts)

    def _shares(self, counts: _Counts) -> Shares | None:
        if counts.looks < ENOUGH:
            return None
        waiting, python = counts.input / counts.looks, counts.python / counts.looks
        computing = 1 - waiting - python
        synchronizing = min(computing, self.sync_seconds * counts.steps / counts.seconds) if counts.seconds else 0.0
        return Shares(waiting, computing, synchronizing, python, counts.steps, counts.seconds)

    def _taken(self, total: int) -> int:
        """Return the batches that the model is done with, those of the running call included."""
        if self.steps.at_once == 1:
            return total
        return total + raw_iterations(self.model) - self.steps.iterations


def seconds_to_synchronize(model: keras.Model) -> float:
    """Return what it takes to add up gradients of the model's size over its devices: the fastest of three times."""
    strategy = model.distribute_strategy
    # An embedding's gradient is of the rows that a batch has, not of the whole table.
    variables = [v for v in model.trainable_variables if not v.path.endswith("/embeddings")]
    shapes = [(tuple(v.shape), v.dtype) for v in variables]

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def added() -> Any:
        def of_one() -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce("SUM", [tf.zeros(shape, dtype) for shape, dtype in shapes])

        return strategy.run(of_one)

    added()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        added()
        times.append(time.perf_counter() - began)
    return min(times)
