"""SIGTERM and Ctrl-C: at once, or when whoever works can stop well."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lakefit.errors import StoppedError


class _Terminated(BaseException):
    """Raised by the signal, past every `except Exception` of the libraries that it interrupts."""


class Stop:
    """Whether the process was asked to stop.

    asked: it was, while `deferred`: whoever set that looks here and stops where he can. A second signal, or one while
    it is not set, stops at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._deferred = False
        self._terminated = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block the first signal only sets `asked`. Spark may have taken Ctrl-C over: it is taken back."""
        self._deferred = True
        try:
            with self._handling():
                yield
        finally:
            self._deferred = False

    @contextmanager
    def _handling(self) -> Iterator[None]:
        """Within the block `on_signal` is called; in other threads than the main one, whoever owns the process decides
        on signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._deferred and not self.asked:
            self.asked = True
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self._terminated = True
            raise _Terminated

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block SIGTERM becomes StoppedError, so that a stopped run lets go of everything and says how to go
        on."""
        try:
            with self._handling():
                yield
        except BaseException as error:
            # Also where other code has caught the signal's exception, and failed of what it interrupted.
            if self._terminated:
                raise StoppedError("Stopped by SIGTERM; what is finished is kept.") from error
            raise
