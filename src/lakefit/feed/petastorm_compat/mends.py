"""Mistakes of Petastorm 0.13.1 itself, mended right after the module that has them is executed."""

from collections.abc import Callable
from types import ModuleType
from typing import Any


def mend(module: ModuleType) -> None:
    """Apply the mend that is registered for this module, if there is one."""
    if module.__name__ in _MENDS:
        _MENDS[module.__name__](module)


def _thread_pool(module: Any) -> None:
    """Keep ThreadPool from ending a read while row groups are still on their way.

    `get_results` asks first whether all ventilated items are done and then whether the ventilator has completed. An
    item that is ventilated between the two questions, the last one, is lost with its rows. The second question gets
    no yes any more unless it had one before the first was asked.
    """
    all_items_done: Callable[[Any], bool] = module.ThreadPool.all_workers_done

    def all_workers_done(self: Any) -> bool:
        ventilator = self._ventilator
        nothing_to_come = ventilator is None or bool(ventilator.completed())
        return nothing_to_come and all_items_done(self)

    module.ThreadPool.all_workers_done = all_workers_done


_MENDS: dict[str, Callable[[ModuleType], None]] = {
    "petastorm.workers_pool.thread_pool": _thread_pool,
}
