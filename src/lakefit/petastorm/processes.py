"""The layer in the processes that Petastorm and Spark start: it is there before Petastorm is imported in them."""

import os
import subprocess
import sys
from importlib import import_module
from tempfile import mkstemp
from types import FunctionType, ModuleType
from typing import Any

# Finds its packages where the parent does.
_CHILD = """
import sys
runnable, *sys.path = sys.argv[1:]
import lakefit.petastorm
sys.argv[1:] = [runnable]
import runpy
runpy.run_module("petastorm.workers_pool.exec_in_new_process_entrypoint", run_name="__main__")
"""


def exec_in_new_process(module: Any) -> None:
    """Mend petastorm.workers_pool.exec_in_new_process, with which the process pool starts its workers."""

    def exec_in_new_process(func: Any, *args: Any, **kargs: Any) -> "subprocess.Popen[bytes]":
        """Call a function in a new process, not a fork; return the process."""
        handle, path = mkstemp(suffix="runnable")
        with os.fdopen(handle, "wb") as file:
            module.dill.dump((func, args, kargs), file)
        return subprocess.Popen([sys.executable, "-c", _CHILD, path, *sys.path])

    module.exec_in_new_process = exec_in_new_process


def cloudpickle(module: Any) -> None:
    """Let Spark's pickler name what is Petastorm's by `fetch`, which brings the layer to whoever unpickles it."""
    reducer_override = module.Pickler.reducer_override

    def with_layer(self: Any, obj: Any) -> Any:
        if isinstance(obj, ModuleType) and _is_petastorm(obj.__name__):
            return fetch, (obj.__name__, "")
        if isinstance(obj, (type, FunctionType)) and _is_petastorm(obj.__module__):
            name = obj.__qualname__
            if "<locals>" not in name and _found(sys.modules.get(obj.__module__), name) is obj:
                return fetch, (obj.__module__, name)
        return reducer_override(self, obj)

    module.Pickler.reducer_override = with_layer


def fetch(module: str, name: str) -> Any:
    """Return a module of Petastorm's, or what it has of this (dotted) name."""
    # Importing this very module has loaded the layer.
    return _found(import_module(module), name) if name else import_module(module)


def _is_petastorm(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == "petastorm"


def _found(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module
