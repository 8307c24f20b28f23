"""Petastorm's pools: no item is lost, and results come in the order in which items were ventilated.

All three ask whether all items are done and then whether the ventilator has completed: an item that is ventilated
between the two questions, the last one, is lost with its rows (the thread pool: 39 of 100 reads of 16 row groups; no
issue of Petastorm's names it). Here the second question is asked first.

The thread pool passes over a worker that has nothing to do at the moment, and workers of the process pool deliver as
they like, so the order of rows depended on timing and on the number of workers, with a seed as well. Here item n + 1
waits for item n. What waits is limited by the ventilator, which is told of an item when it is delivered.

TensorFlow keeps each generator that it was ever given, and so each reader that went through `make_petastorm_dataset`,
with the row groups that were read and not asked for: memory that grows by some row groups a reader, an epoch where each
has its own (uber/petastorm #500 and #652 tell of memory that grows). Here a pool lets go of them when it is joined.
"""

import os
import pickle
import threading
import time
from functools import partial
from typing import Any

_POLL_S = 0.1


def thread_pool(module: Any) -> None:
    """Mend petastorm.workers_pool.thread_pool."""

    def get_results(self: Any, timeout_s: float | None = None) -> Any:
        """Return the next result; EmptyResultError after the last.

        Raises TimeoutWaitingForResultError if none comes for `timeout_s`, RuntimeError if the pool is stopped.
        """
        _refuse_a_fork(self)
        # Several threads may read one pool.
        with self.__dict__.setdefault("_lakefit_lock", threading.Lock()):
            return next_result(self, timeout_s)

    def next_result(self: Any, timeout_s: float | None) -> Any:
        deadline = _deadline(timeout_s)
        while True:
            complete = self._ventilator is None or self._ventilator.completed()
            delivered = sum(self._ventilated_items_processed_by_worker)
            if complete and delivered == self._ventilated_items and not self._stop_event.is_set():
                raise module.EmptyResultError
            # Items go to the workers in turn.
            worker = delivered % self.workers_count
            try:
                result = self._results_queues[worker].get(timeout=_POLL_S)
            except module.queue.Empty:
                if self._stop_event.is_set():
                    raise RuntimeError("the pool was stopped while its results were being read") from None
                _raise_error_of_ventilator(self)
                if not self._workers[worker].is_alive():
                    # By what is no Exception, or because this process is a fork, which has no threads.
                    raise RuntimeError(f"worker {worker} of the pool is not there any more") from None
                _check(deadline, timeout_s)
                continue
            if isinstance(result, module.VentilatedItemProcessedMessage):
                self._ventilated_items_processed_by_worker[worker] += 1
                if self._ventilator is not None:
                    self._ventilator.processed_item()
                continue
            if isinstance(result, Exception):
                self.stop()
                self.join()
                raise result
            return result

    join = module.ThreadPool.join

    def join_and_let_go(self: Any) -> None:
        join(self)
        for queue in self._results_queues:
            queue.queue.clear()

    module.ThreadPool.get_results = get_results
    module.ThreadPool.join = join_and_let_go


def dummy_pool(module: Any) -> None:
    """Mend petastorm.workers_pool.dummy_pool, which could also wait for ever for an item after the last."""

    def get_results(self: Any, timeout_s: float | None = None) -> Any:
        while not self._results_queue:
            complete = self._ventilator is None or self._ventilator.completed()
            if self._ventilator_queue:
                arguments, options = self._ventilator_queue.pop(0)
                self._worker.process(*arguments, **options)
                if self._ventilator is not None:
                    self._ventilator.processed_item()
            elif complete:
                raise module.EmptyResultError
            else:
                _raise_error_of_ventilator(self)
                time.sleep(0.001)
        return self._results_queue.pop(0)

    def join(self: Any) -> None:
        self._results_queue.clear()

    module.DummyPool.get_results = get_results
    module.DummyPool.join = join


def process_pool(module: Any) -> None:
    """Mend petastorm.workers_pool.process_pool; a worker process that dies ends the read, which waited for ever."""
    start, ventilate, join = module.ProcessPool.start, module.ProcessPool.ventilate, module.ProcessPool.join

    def numbered_start(self: Any, worker_class: Any, worker_setup_args: Any = None, ventilator: Any = None) -> None:
        self._arrived = {}
        _refuse_a_fork(self)
        start(self, partial(_NumberedWorker, worker_class), worker_setup_args, ventilator)

    def numbered_ventilate(self: Any, *arguments: Any, **options: Any) -> None:
        ventilate(self, self._ventilated_items, arguments, options)

    def send(socket: Any, serializer: Any, numbered: tuple[int, Any]) -> None:
        number, result = numbered
        end = result is _END
        socket.send_multipart([b"" if end else serializer.serialize(result), pickle.dumps((number, end))])

    def get_results(self: Any, timeout_s: float | None = None) -> Any:
        _refuse_a_fork(self)
        deadline = _deadline(timeout_s)
        while True:
            arrived = self._arrived.setdefault(self._ventilated_items_processed, [])
            if arrived:
                result = arrived.pop(0)
                if result is not _END:
                    return result
                del self._arrived[self._ventilated_items_processed]
                self._ventilated_items_processed += 1
                if self._ventilator is not None:
                    self._ventilator.processed_item()
                continue
            complete = self._ventilator is None or self._ventilator.completed()
            if complete and self._ventilated_items == self._ventilated_items_processed:
                raise module.EmptyResultError
            if not self._results_receiver_poller.poll(_POLL_S * 1e3):
                _raise_error_of_ventilator(self)
                _check(deadline, timeout_s)
                dead = [worker for worker in self._workers if worker.poll() is not None]
                # What it had sent may still be on its way.
                if dead and not self._results_receiver_poller.poll(_POLL_S * 1e3):
                    self.stop()
                    self.join()
                    raise RuntimeError(f"a worker process (pid {dead[0].pid}) ended with code {dead[0].returncode}")
                continue
            payload, control = self._results_receiver.recv_multipart(copy=self._zmq_copy_buffers)
            message = pickle.loads(control)
            if isinstance(message, Exception):
                self.stop()
                self.join()
                raise message
            if isinstance(message, tuple):
                number, end = message
                body = payload if self._zmq_copy_buffers else payload.buffer
                result = _END if end else self._serializer.deserialize(body)
                self._arrived.setdefault(number, []).append(result)

    def join_and_let_go(self: Any) -> None:
        join(self)
        self._arrived.clear()

    module.ProcessPool.join = join_and_let_go
    module.ProcessPool.start = numbered_start
    module.ProcessPool.ventilate = numbered_ventilate
    module.ProcessPool.get_results = get_results
    module._serialize_result_and_send = send


def reader(module: Any) -> None:
    """Mend petastorm.reader: a reader that is joined lets go of the rows that it has unpacked."""
    join = module.Reader.join

    def join_and_let_go(self: Any) -> None:
        join(self)
        if hasattr(self._results_queue_reader, "_result_buffer"):
            self._results_queue_reader._result_buffer = []

    module.Reader.join = join_and_let_go


_END = "_lakefit_end_of_item"
"""In the place of a result: the item has no more."""


class _NumberedWorker:
    """A worker of the process pool that says of each result which item it belongs to, and when there are no more."""

    def __init__(self, worker_class: Any, worker_id: int, publish_func: Any, args: Any) -> None:
        self._number = 0
        self._publish = publish_func
        self._worker = worker_class(worker_id, self._publish_numbered, args)

    def _publish_numbered(self, result: Any) -> None:
        self._publish((self._number, result))

    def process(self, number: int, arguments: Any, options: Any) -> None:
        self._number = number
        self._worker.process(*arguments, **options)
        self._publish_numbered(_END)

    def shutdown(self) -> None:
        self._worker.shutdown()


def _refuse_a_fork(pool: Any) -> None:
    """Raise RuntimeError unless this process is the one that asked first."""
    process = pool.__dict__.setdefault("_lakefit_process", os.getpid())
    if process != os.getpid():
        raise RuntimeError(f"the pool belongs to process {process}; open a reader in this fork of it")


def _raise_error_of_ventilator(pool: Any) -> None:
    error = getattr(pool._ventilator, "error", None)
    if error is not None:
        pool.stop()
        pool.join()
        raise RuntimeError(f"row groups could not be handed out: {type(error).__name__}: {error}") from error


def _deadline(timeout_s: float | None) -> float:
    return time.monotonic() + timeout_s if timeout_s is not None else float("inf")


def _check(deadline: float, timeout_s: float | None) -> None:
    if time.monotonic() > deadline:
        from petastorm.workers_pool import TimeoutWaitingForResultError

        raise TimeoutWaitingForResultError(f"no result came for {timeout_s:g} s")
