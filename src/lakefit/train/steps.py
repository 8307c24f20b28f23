"""What is called at each step: Keras's callbacks, where they want to be, and the model's function."""

from typing import Any

import keras

_OF_BATCHES = tuple(f"on_{mode}batch_{edge}" for mode in ("", "train_", "test_") for edge in ("begin", "end"))


class Callbacks(keras.callbacks.CallbackList):
    """Keras's list of callbacks, which is called at a batch only where one of them wants to be.

    Keras's own hands the logs of each batch to a thread even then, and turns them into numbers there: with small
    models up to a tenth of the time.
    """

    def __init__(
        self, callbacks: list[keras.callbacks.Callback], model: keras.Model, *, epochs: int, steps: int
    ) -> None:
        super().__init__(callbacks, add_history=True, model=model, epochs=epochs, steps=steps)
        self._called_at_batches = any(map(_wants_batches, self.callbacks))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches:
            super().on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches:
            super().on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._called_at_batches:
            super().on_test_batch_end(batch, logs)


def _wants_batches(callback: keras.callbacks.Callback) -> bool:
    # LambdaCallback sets them on itself.
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(keras.callbacks.Callback, name)
        for name in _OF_BATCHES
    )


class Steps:
    """Stands for a model's train function, so that its last call in an epoch ends with the epoch.

    Each call runs `steps_per_execution` steps on what an iterator has, and all epochs come in one iteration: where the
    steps of an epoch are no multiple of that, the last call would run into the next epoch.
    """

    def __init__(self, model: keras.Model, steps: int) -> None:
        """steps: of an epoch."""
        self._model = model
        self._steps = steps
        self._at_once = model.steps_per_execution
        self._done = 0
        functions = []
        for _ in ("whole", "rest"):
            model.make_train_function(force=True)
            functions.append(model.train_function)
        self._whole, self._rest = functions
        model.train_function = self

    def begin_epoch(self) -> None:
        self._done = 0

    def __call__(self, iterator: Any) -> Any:
        left = self._steps - self._done
        if left >= self._at_once:
            self._done += self._at_once
            return self._whole(iterator)
        self._done = self._steps
        # Keras asks for the number when it traces the function.
        self._model.steps_per_execution = left
        try:
            return self._rest(iterator)
        finally:
            self._model.steps_per_execution = self._at_once
