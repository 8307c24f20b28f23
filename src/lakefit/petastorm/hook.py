"""The import hook: each module of Petastorm is executed with builtins of its own, whose `__import__` gives facades."""

import builtins
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from lakefit.errors import InputError, LakefitError
from lakefit.petastorm import facades, mends

PACKAGE = "petastorm"
VERSION = "0.13.1"
_ADVICE = f"pip install {PACKAGE}=={VERSION}"

_lock = threading.Lock()


def install() -> None:
    """Make `import petastorm` work on today's stack. Call it before Petastorm is imported; more than once is harmless.

    Raises InputError if Petastorm is missing or is not 0.13.1, LakefitError if it was imported (or its import was
    tried and failed) without the layer: modules that ran already have kept the names that they found.
    """
    with _lock:
        _refuse_modules_loaded_without_us()
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            _refuse_other_versions()
            sys.meta_path.insert(0, _Finder())
            for name in mends.OUTSIDE & sys.modules.keys():
                mends.mend(sys.modules[name])


def _refuse_other_versions() -> None:
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"Petastorm is not installed, and the feed needs it: {_ADVICE}") from None
    if version != VERSION:
        raise InputError(
            f"Petastorm {version} is installed; Lakefit's compatibility layer is written for {VERSION} and would "
            f"patch the wrong places of another release: {_ADVICE}"
        )


def _refuse_modules_loaded_without_us() -> None:
    loaded = [(name, module) for name, module in list(sys.modules.items()) if _is_petastorm(name)]
    strangers = sorted(name for name, module in loaded if not _was_wrapped(module))
    if strangers:
        raise LakefitError(
            "Petastorm was imported, wholly or until it failed, before Lakefit's compatibility layer was there "
            f"(loaded: {', '.join(strangers)}). Its modules keep the names they found, so the layer cannot come "
            "after them: `import lakefit.petastorm` before the first import of petastorm, in a new process."
        )


def _is_petastorm(module_name: str) -> bool:
    return module_name == PACKAGE or module_name.startswith(PACKAGE + ".")


def _was_wrapped(module: ModuleType) -> bool:
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _Loader)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find Petastorm's modules and wraps the loader that they come with."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        ours = _is_petastorm(fullname)
        if not ours and fullname not in mends.OUTSIDE:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(fullname, path, target)
            if spec is not None:
                # A folder without __init__.py has no loader and runs no code.
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, with_facades=ours)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Another loader, but for what a module sees while it is executed and for what is mended after."""

    def __init__(self, loader: importlib.abc.Loader, *, with_facades: bool) -> None:
        self._loader = loader
        self._with_facades = with_facades

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._with_facades:
            # Functions take their builtins from their module, so imports inside functions come to us as well.
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        self._loader.exec_module(module)
        mends.mend(module)

    def __getattr__(self, name: str) -> Any:
        # get_source, is_package, get_resource_reader: inspect, runpy and importlib.resources ask for them. A copy that
        # is being made has no loader yet.
        if name == "_loader" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)


def _import(
    name: str,
    globals: Mapping[str, object] | None = None,
    locals: Mapping[str, object] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` with facades: `import a.b` gives `a`, `from a.b import c` gives `a.b`, as the language wants it."""
    if level == 0 and facades.is_invented(name):
        return facades.facade(name if fromlist else name.partition(".")[0])
    module = builtins.__import__(name, globals, locals, fromlist or (), level)
    seen = name if fromlist else name.partition(".")[0]
    return facades.facade(seen) if level == 0 and facades.has_facade(seen) else module
