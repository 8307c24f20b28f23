"""Orders that depend on the seed, the epoch and the row group alone, in Petastorm's ventilator and workers.

As published, row groups are permuted once a reader, not once an epoch; all workers share one seed, so that equal row
groups get equal orders, and which worker reads which row group decides the rest; seed 0 is taken as none; and columns
that are read in two goes (those of a predicate, and the others) are each permuted by themselves, which mixes rows.
"""

import copy
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import dill
import numpy as np
import pandas as pd

_PARTITION = "shuffle_row_drop_partition"


class _Partition(tuple[int, int]):
    """What a worker is told of the part of a row group that it reads: as Petastorm has it, and the seed and epoch."""

    seed: int
    epoch: int


def ventilator(module: Any) -> None:
    """Mend petastorm.workers_pool.ventilator."""

    def _ventilate(self: Any) -> None:
        # Without a seed each reader has an order of its own.
        seed = secrets.randbits(63) if self._random_seed is None else self._random_seed
        # Where a reader is reset, its epochs go on.
        epoch = self.__dict__.setdefault("_epoch", 0)
        while not self.completed():
            items = self._items_to_ventilate
            order = np.random.default_rng([seed, epoch]).permutation(len(items)) if self._randomize_item_order else None
            for place in range(len(items)) if order is None else order:
                while self._ventilated_items_count - self._processed_items_count >= self._max_ventilation_queue_size:
                    if self._stop_requested:
                        return
                    module.sleep(self._ventilation_interval)
                if self._stop_requested:
                    return
                self._ventilate_fn(**_at(items[place], seed, epoch))
                self._ventilated_items_count += 1
            epoch = self._epoch = epoch + 1
            if self._iterations_remaining is not None:
                self._iterations_remaining -= 1

    def ventilate_or_say_why_not(self: Any) -> None:
        # In a thread of its own, whose error nobody would see: the pool asks for it.
        try:
            _ventilate(self)
        except Exception as error:
            self.error = error

    module.ConcurrentVentilator._ventilate = ventilate_or_say_why_not


def _at(item: Mapping[str, Any], seed: int, epoch: int) -> Mapping[str, Any]:
    if _PARTITION not in item:
        return item
    partition = _Partition(item[_PARTITION])
    partition.seed, partition.epoch = seed, epoch
    return {**item, _PARTITION: partition}


class _RowOrder:
    """Stands where Petastorm has a random generator: each call gives the same order, that of a row group and epoch."""

    def __init__(self, *key: int) -> None:
        self._key = np.random.SeedSequence(key)

    def permutation(self, rows: int) -> Any:
        return np.random.default_rng(self._key).permutation(rows)

    @property
    def number(self) -> int:
        return int(self._key.generate_state(1)[0])


def arrow_reader_worker(module: Any) -> None:
    """Mend petastorm.arrow_reader_worker."""
    worker = module.ArrowReaderWorker
    init, process, read = worker.__init__, worker.process, worker._read_with_shuffle_row_drop
    load = _in_file_order_for(module.LocalDiskCache, worker._load_rows)

    def with_own_cache(self: Any, *arguments: Any) -> None:
        init(self, *arguments)
        self._local_cache = _own_cache(self)

    def ordered(self: Any, piece_index: int, worker_predicate: Any, shuffle_row_drop_partition: Any) -> None:
        # Petastorm uses its generator where the seed is neither None nor 0, and numpy's global one otherwise.
        self._random_seed = 1
        self._rng = _row_order(piece_index, shuffle_row_drop_partition)
        process(self, piece_index, worker_predicate, shuffle_row_drop_partition)

    def load_some(self: Any, *arguments: Any) -> Any:
        rows = load(self, *arguments)
        values = next(iter(rows.values()), ()) if isinstance(rows, dict) else rows
        return rows if len(values) else []

    def read_some(self: Any, piece: Any, pq_file: Any, names: Any, partition: Any) -> Any:
        try:
            return read(self, piece, pq_file, names, partition)
        except ZeroDivisionError:
            # Of no rows; it divides by their number.
            return read(self, piece, pq_file, names, (0, 1))

    worker.__init__, worker.process, worker._load_rows = with_own_cache, ordered, load_some
    worker._read_with_shuffle_row_drop = read_some


def py_dict_reader_worker(module: Any) -> None:
    """Mend petastorm.py_dict_reader_worker, which also failed at a part file without rows (uber/petastorm #507)."""
    worker = module.PyDictReaderWorker
    init, process, read = worker.__init__, worker.process, worker._read_with_shuffle_row_drop

    def with_shuffled_cache(self: Any, *arguments: Any) -> None:
        init(self, *arguments)
        self._local_cache = _own_cache(self)
        if self._shuffle_rows and not isinstance(self._local_cache, module.NullCache):
            self._local_cache = _ShuffledCache(self)

    def ordered(self: Any, piece_index: int, worker_predicate: Any, shuffle_row_drop_partition: Any) -> None:
        self._shuffle_seed = _row_order(piece_index, shuffle_row_drop_partition).number
        process(self, piece_index, worker_predicate, shuffle_row_drop_partition)

    def read_some(self: Any, piece: Any, pq_file: Any, names: Any, partition: Any) -> Any:
        try:
            return read(self, piece, pq_file, names, partition)
        except ZeroDivisionError:
            # Of no rows; it divides by their number.
            return []

    worker.__init__, worker.process = with_shuffled_cache, ordered
    worker._load_rows = _in_file_order_for(_ShuffledCache, worker._load_rows)
    worker._read_with_shuffle_row_drop = read_some


def _in_file_order_for(cache: type, load: Any) -> Any:
    """Return a worker's `_load_rows` that does not shuffle what goes into such a cache: it is shuffled afterwards."""

    def load_rows(self: Any, *arguments: Any) -> Any:
        shuffle = self._shuffle_rows
        self._shuffle_rows = shuffle and not isinstance(self._local_cache, cache)
        try:
            return load(self, *arguments)
        finally:
            self._shuffle_rows = shuffle

    return load_rows


def _own_cache(worker: Any) -> Any:
    """Return the worker's cache; one on disk under keys of this reader's fields, filters and transformation.

    Petastorm's keys name the row group alone: what one reader left out, the next one would lack.
    """
    from petastorm.local_disk_cache import LocalDiskCache

    if not isinstance(worker._local_cache, LocalDiskCache):
        return worker._local_cache
    fields = [(field.name, str(field.numpy_dtype), field.shape) for field in worker._schema.fields.values()]
    own = dill.dumps((fields, worker._arrow_filters, worker._transform_spec))
    cache = copy.copy(worker._local_cache)
    get, suffix = cache.get, hashlib.sha256(own).hexdigest()
    cache.get = lambda key, fill: get(f"{key}:{suffix}", fill)
    return cache


class _ShuffledCache:
    """A cache that holds rows in the order of the file and hands them out in that of the epoch."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._cache = worker._local_cache

    def get(self, key: str, fill: Any) -> list[Any]:
        rows = self._cache.get(key, fill)
        # As the worker orders the rows of a frame.
        order = pd.Series(range(len(rows))).sample(frac=1, random_state=self._worker._shuffle_seed)
        return [rows[place] for place in order]


def unischema(module: Any) -> None:
    """Mend petastorm.unischema: fields that match a pattern came in the order of a set, another in every process."""
    match = module.match_unischema_fields

    def in_the_order_of_the_schema(schema: Any, field_regex: Any) -> list[Any]:
        matching = {field.name for field in match(schema, field_regex)}
        return [field for field in schema.fields.values() if field.name in matching]

    module.match_unischema_fields = in_the_order_of_the_schema


def _row_order(piece_index: int, partition: Any) -> _RowOrder:
    # A ventilator that is not Petastorm's tells no epoch.
    return _RowOrder(getattr(partition, "seed", 0), getattr(partition, "epoch", 0), piece_index)
