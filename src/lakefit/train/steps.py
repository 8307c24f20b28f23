"""What is called at each step: Keras's callbacks, where they want to be, and the model's function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_OF_BATCHES = tuple(f"on_{mode}batch_{edge}" for mode in ("", "train_", "test_") for edge in ("begin", "end"))


class Steps:
    """Stands for a model's train function: counts the steps of an epoch, and leaves out those that were done before.

    Each call runs `steps_per_execution` steps on what an iterator has, and all epochs come in one iteration: where the
    steps of an epoch are no multiple of that, the last call would run into the next epoch, so it runs fewer.

    done: steps of this epoch. logs: of the last call. skipped: it did nothing, since its steps were done before.
    last: how many the last call did. training: an epoch's steps are not all done. inside: a call is running. total:
    steps of all calls. iterations: the optimizer's before a call of several.
    """

    def __init__(self, model: keras.Model, steps: int) -> None:
        """steps: of an epoch."""
        self.steps = steps
        self.done = 0
        self.logs: Any = {}
        self.skipped = False
        self.training = self.inside = False
        self.last = self.total = 0
        self.iterations = 0
        self.at_once = int(model.steps_per_execution)
        self._model = model
        self._skip = 0
        functions = []
        for _ in ("whole", "rest"):
            model.make_train_function(force=True)
            functions.append(model.train_function)
        self._whole, self._rest = functions
        model.train_function = self

    def begin_epoch(self, skip: int = 0, logs: Any = None) -> None:
        """skip: steps that were done before the training was stopped, after which its logs were these."""
        self.done, self._skip, self.logs = 0, skip, logs or {}
        self.training = True

    @property
    def skips_next(self) -> bool:
        """True before a call that will do nothing: Keras counts an epoch's steps from the first."""
        return self.done < self._skip

    def __call__(self, iterator: Any) -> Any:
        left = self.steps - self.done
        self.last = min(left, self.at_once)
        self.skipped = self.skips_next
        if self.skipped:
            self.done += self.last
            return self.logs
        self.iterations = raw_iterations(self._model) if self.at_once > 1 else 0
        self.inside = True
        if left >= self.at_once:
            self.logs = self._whole(iterator)
            self.done += self.at_once
        else:
            # Keras asks for the number when it traces the function.
            self._model.steps_per_execution = left
            try:
                self.logs = self._rest(iterator)
            finally:
                self._model.steps_per_execution = self.at_once
            self.done = self.steps
        self.total += self.last
        self.inside, self.training = False, self.done < self.steps
        return self.logs


class Callbacks(keras.callbacks.CallbackList):
    """Keras's list of callbacks, which is called at a batch only where one of them wants to be.

    Keras's own hands the logs of each batch to a thread even then, and turns them into numbers there.
    """

    def __init__(
        self,
        callbacks: list[keras.callbacks.Callback],
        model: keras.Model,
        steps: Steps,
        *,
        epochs: int,
        after_steps: Callable[[], None],
        before_validation: Callable[[], None],
        after_validation_steps: Callable[[], None],
    ) -> None:
        """after_steps, after_validation_steps: called after every call of the model, and what callbacks do then.
        before_validation: called before they learn of it."""
        super().__init__(callbacks, add_history=True, model=model, epochs=epochs, steps=steps.steps)
        self._steps = steps
        self.after_steps, self._after_validation_steps = after_steps, after_validation_steps
        self._before_validation = before_validation
        self._called_at_batches = any(map(_wants_batches, self.callbacks))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches and not self._steps.skips_next:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._steps.skipped:
            return
        if self._called_at_batches:
            super().on_train_batch_end(batch, logs)
        self.after_steps()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._before_validation()
        super().on_test_begin(logs)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches:
            super().on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches:
            super().on_test_batch_end(batch, logs)
        self._after_validation_steps()


def raw_iterations(model: keras.Model) -> int:
    """Return the steps that the optimizer has seen, those included that only gathered gradients."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return int(np.asarray(getattr(optimizer, "_iterations", optimizer.iterations)))


def _wants_batches(callback: keras.callbacks.Callback) -> bool:
    # LambdaCallback sets them on itself.
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(keras.callbacks.Callback, name)
        for name in _OF_BATCHES
    )


@contextmanager
def profiled(callbacks: Callbacks, steps: Steps, of: tuple[int, int] | None, folder: Path) -> Iterator[None]:
    """Within the block, profile steps for TensorBoard: from `of[0]` to `of[1]`, counted from 1, of the first epoch that
    is run."""
    if of is None:
        yield
        return
    first, last = of
    began, function = False, callbacks.after_steps

    def begin() -> None:
        nonlocal began
        began = True
        tf.profiler.experimental.start(str(folder))

    def after() -> None:
        if not began and steps.done >= first - 1:
            begin()
        elif began and (steps.done >= last or not steps.training):
            end()
        function()

    def end() -> None:
        callbacks.after_steps = function
        tf.profiler.experimental.stop()

    callbacks.after_steps = after
    if first == 1:
        begin()
    try:
        yield
    finally:
        if began and callbacks.after_steps is after:
            end()
