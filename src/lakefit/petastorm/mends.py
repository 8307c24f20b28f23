"""Which mend belongs to which module; each is applied right after the module is executed."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

# Module -> (ours, function of it that mends the module that it is given).
_MENDS = {
    "petastorm.workers_pool.thread_pool": ("pools", "thread_pool"),
    "petastorm.workers_pool.process_pool": ("pools", "process_pool"),
    "petastorm.workers_pool.dummy_pool": ("pools", "dummy_pool"),
    "petastorm.reader": ("pools", "reader"),
    "petastorm.workers_pool.ventilator": ("order", "ventilator"),
    "petastorm.unischema": ("order", "unischema"),
    "petastorm.arrow_reader_worker": ("order", "arrow_reader_worker"),
    "petastorm.py_dict_reader_worker": ("order", "py_dict_reader_worker"),
    "petastorm.workers_pool.exec_in_new_process": ("processes", "exec_in_new_process"),
    "petastorm.etl.dataset_metadata": ("schema", "dataset_metadata"),
    "petastorm.etl.legacy": ("schema", "legacy"),
    "pyspark.cloudpickle.cloudpickle": ("processes", "cloudpickle"),
}
OUTSIDE = frozenset(name for name in _MENDS if not name.startswith("petastorm."))
"""Modules of others that must know how Petastorm's own functions and classes travel; nothing else changes in them."""


def mend(module: ModuleType) -> None:
    """Apply the mend that is registered for this module, if there is one."""
    if module.__name__ in _MENDS:
        ours, name = _MENDS[module.__name__]
        function: Callable[[ModuleType], None] = getattr(import_module(f"{__package__}.{ours}"), name)
        function(module)
