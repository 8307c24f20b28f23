"""No pool of Petastorm's loses an item, and all hand results over in the order in which items were ventilated."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakefit.petastorm.pools import _NumberedWorker

ITEMS = 40


class Echo:
    """A worker that publishes its item; some items take longer, some give two results, some none."""

    worker_id = 0

    def __init__(self, worker_id: int, publish: Any, _: object) -> None:
        self.worker_id, self.publish_func = worker_id, publish

    def process(self, item: int) -> None:
        time.sleep((item * 7 % 5) / 500)
        for _ in range(item % 3):
            self.publish_func(item)

    def shutdown(self) -> None: ...


EXPECTED = [item for item in range(ITEMS) for _ in range(item % 3)]


def pool_of(kind: str, workers: int) -> Any:
    from petastorm.workers_pool.dummy_pool import DummyPool
    from petastorm.workers_pool.process_pool import ProcessPool
    from petastorm.workers_pool.thread_pool import ThreadPool

    return {"thread": ThreadPool, "process": ProcessPool, "dummy": DummyPool}[kind](workers)


def results_of(pool: Any) -> Iterator[Any]:
    from petastorm.workers_pool import EmptyResultError

    while True:
        try:
            yield pool.get_results()
        except EmptyResultError:
            return


@pytest.mark.parametrize(
    ("kind", "workers"), [("dummy", 1), ("thread", 1), ("thread", 2), ("thread", 7), ("process", 1), ("process", 2)]
)
def test_results_come_in_the_order_of_ventilation(petastorm: Any, kind: str, workers: int) -> None:
    from petastorm.workers_pool.ventilator import ConcurrentVentilator

    pool = pool_of(kind, workers)
    items = [{"item": item} for item in range(ITEMS)]
    pool.start(Echo, ventilator=ConcurrentVentilator(pool.ventilate, items, max_ventilation_queue_size=workers * 4))
    try:
        assert list(results_of(pool)) == EXPECTED
    finally:
        pool.stop()
        pool.join()


class LastItemAtTheWorstMoment:
    """Ventilates its only item between the pool's two questions, as the ventilator's thread may."""

    pool: Any
    ventilated = False

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def processed_item(self) -> None: ...

    def completed(self) -> bool:
        if not self.ventilated:
            self.ventilated = True
            self.pool.ventilate(1)
        return True


@pytest.mark.parametrize("kind", ["dummy", "thread", "process"])
def test_an_item_ventilated_while_the_pool_asks_whether_all_is_done_is_not_lost(petastorm: Any, kind: str) -> None:
    pool = pool_of(kind, 1)
    ventilator = LastItemAtTheWorstMoment()
    ventilator.pool = pool
    pool.start(Echo, ventilator=ventilator)
    try:
        assert list(results_of(pool)) == [1]
    finally:
        pool.stop()
        pool.join()


def test_the_dummy_pool_does_not_wait_for_an_item_after_the_last(petastorm: Any) -> None:
    class CompletesAfterTheLastItem(LastItemAtTheWorstMoment):
        asked = 0

        def completed(self) -> bool:
            super().completed()
            self.asked += 1
            return self.asked > 2

    pool = pool_of("dummy", 1)
    ventilator = CompletesAfterTheLastItem()
    ventilator.pool = pool
    pool.start(Echo, ventilator=ventilator)
    results: list[Any] = []
    reading = threading.Thread(target=lambda: results.extend(results_of(pool)), daemon=True)
    reading.start()
    reading.join(10)

    assert not reading.is_alive()
    assert results == [1]


def test_the_thread_pool_loses_no_rows_where_it_lost_them_in_4_runs_of_10(petastorm: Any, dataset: Path) -> None:
    began, reads = time.monotonic(), 0
    while time.monotonic() - began < 10:
        workers = (1, 4, 10)[reads % 3]
        options = {"reader_pool_type": "thread", "workers_count": workers, "seed": 7, "schema_fields": ["id"]}
        with petastorm.make_batch_reader(dataset.as_uri(), **options) as reader:
            assert sum(len(batch.id) for batch in reader) == 400, f"read {reads}, {workers} workers"
        reads += 1
    assert reads > 20


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_result_that_does_not_come_ends_the_wait(petastorm: Any, kind: str) -> None:
    from petastorm.workers_pool import TimeoutWaitingForResultError

    pool = pool_of(kind, 1)
    pool.start(Slow)
    pool.ventilate(1.5)
    try:
        with pytest.raises(TimeoutWaitingForResultError, match=r"no result came for 0\.3 s"):
            pool.get_results(timeout_s=0.3)
    finally:
        pool.stop()
        pool.join()


class Slow(Echo):
    def process(self, seconds: float) -> None:  # type: ignore[override]
        time.sleep(seconds)


def test_a_worker_process_that_is_killed_ends_the_read(petastorm: Any) -> None:
    pool = pool_of("process", 2)
    pool.start(Slow)
    pool.ventilate(30)
    # Either may be seen first.
    os.kill(pool._workers[0].pid, signal.SIGKILL)
    pool._workers[1].terminate()

    with pytest.raises(RuntimeError, match=r"a worker process \(pid \d+\) ended with code -(9|15)"):
        list(results_of(pool))


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_an_exception_of_a_worker_comes_in_its_turn(petastorm: Any, kind: str, capfd: Any) -> None:
    pool = pool_of(kind, 2)
    pool.start(Failing)
    for item in (1, 2, 4, 0):
        pool.ventilate(item)

    with pytest.raises(ZeroDivisionError):
        list(results_of(pool))


class Failing(Echo):
    def process(self, item: int) -> None:
        self.publish_func(1 // item)


def test_reading_a_pool_that_was_stopped_is_an_error_not_the_end(petastorm: Any) -> None:
    pool = pool_of("thread", 1)
    pool.start(Slow)
    pool.ventilate(0.01)
    pool.stop()
    pool.join()

    with pytest.raises(RuntimeError, match="was stopped"):
        pool.get_results()


@pytest.mark.parametrize("kind", ["thread", "process", "dummy"])
def test_row_groups_that_cannot_be_handed_out_end_the_read(petastorm: Any, kind: str) -> None:
    from petastorm.workers_pool.ventilator import ConcurrentVentilator

    def refuses(**_: object) -> None:
        raise TypeError("no such thing")

    pool = pool_of(kind, 1)
    pool.start(Echo, ventilator=ConcurrentVentilator(refuses, [{"item": 1}]))

    with pytest.raises(RuntimeError, match="could not be handed out: TypeError: no such thing"):
        list(results_of(pool))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_thread_that_ends_by_no_exception_ends_the_read(petastorm: Any) -> None:
    pool = pool_of("thread", 2)
    pool.start(Leaving)
    pool.ventilate(1)
    try:
        with pytest.raises(RuntimeError, match="worker 0 of the pool is not there any more"):
            list(results_of(pool))
    finally:
        pool.stop()
        pool.join()


class Leaving(Echo):
    def process(self, item: int) -> None:
        raise SystemExit


def test_several_threads_may_read_one_reader(petastorm: Any, dataset: Path) -> None:
    ids: list[int] = []
    with petastorm.make_batch_reader(dataset.as_uri(), workers_count=3, num_epochs=3) as reader:
        readers = [threading.Thread(target=lambda: [ids.extend(batch.id) for batch in reader]) for _ in range(4)]
        for thread in readers:
            thread.start()
        for thread in readers:
            thread.join(30)

    assert sorted(ids) == sorted(list(range(400)) * 3)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_fork_does_not_wait_for_the_reader_of_its_parent(petastorm: Any, dataset: Path, kind: str) -> None:
    with petastorm.make_batch_reader(dataset.as_uri(), reader_pool_type=kind, workers_count=1) as reader:
        next(reader)
        child = os.fork()
        if not child:
            try:
                next(reader)
            except RuntimeError as error:
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sum(len(batch.id) for batch in reader) > 0


def test_a_numbered_worker_ends_each_item() -> None:
    published: list[Any] = []
    worker = _NumberedWorker(Echo, 3, published.append, None)

    worker.process(5, (2,), {})
    worker.process(6, (0,), {})

    assert [number for number, _ in published] == [5, 5, 5, 6]
    assert [result for _, result in published[:2]] == [2, 2]


def test_tables_pass_through_processes(petastorm: Any, dataset: Path) -> None:
    options = {"reader_pool_type": "process", "workers_count": 2, "shuffle_row_groups": False}

    with petastorm.make_batch_reader(dataset.as_uri(), **options) as reader:
        ids = np.concatenate([batch.id for batch in reader])

    assert ids.tolist() == list(range(400))


@pytest.mark.parametrize("kind", ["thread", "dummy"])
@pytest.mark.parametrize("make", ["make_reader", "make_batch_reader"])
@pytest.mark.filterwarnings("ignore:Currently make_reader supports reading only Petastorm datasets")
def test_a_closed_reader_that_somebody_keeps_holds_no_rows(petastorm: Any, dataset: Path, kind: str, make: str) -> None:
    def stopped_early() -> Any:
        with getattr(petastorm, make)(dataset.as_uri(), reader_pool_type=kind, workers_count=2) as reader:
            next(reader)
            # Until row groups wait to be asked for.
            time.sleep(0.1)
        return reader

    gc.collect()
    before = pa.total_allocated_bytes()
    kept = [stopped_early() for _ in range(3)]

    def held(reader: Any) -> int:
        pool = reader._workers_pool
        queues = [queue.qsize() for queue in getattr(pool, "_results_queues", ())]
        return (
            sum(queues)
            + len(getattr(pool, "_results_queue", ()))
            + len(getattr(reader._results_queue_reader, "_result_buffer", ()))
        )

    assert [held(reader) for reader in kept] == [0, 0, 0]
    gc.collect()
    assert pa.total_allocated_bytes() <= before
