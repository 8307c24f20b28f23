"""Facades: modules as Petastorm 0.13 expects them, in front of the real ones, which stay as they are.

To teach the layer an old name, add it to the function of its module below; a module that is gone altogether is a
function here and a name in `_INVENTED`.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any


class Facade(ModuleType):
    """A module with some names of its own; all others are looked up in `real` at each use (None: there are none)."""

    def __init__(self, name: str, real: ModuleType | None, names: Mapping[str, object]) -> None:
        super().__init__(name, getattr(real, "__doc__", None))
        self.__dict__["_real"] = real
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        real = self.__dict__["_real"]
        if real is None:
            raise AttributeError(f"{self.__name__!r}, as Lakefit provides it to Petastorm, has no {name!r}")
        return getattr(real, name)

    def __reduce__(self) -> tuple[Callable[[str], "Facade"], tuple[str]]:
        # Functions that Petastorm ships to other processes refer to modules: by name, as modules are.
        return facade, (self.__name__,)


def is_invented(name: str) -> bool:
    """True for a module that Petastorm imports and that no longer exists."""
    return name in _INVENTED


def has_facade(name: str) -> bool:
    """True for a module of which Petastorm shall see a facade; it sees all others as they are."""
    return name in _NAMES


@cache
def facade(name: str) -> Facade:
    """The module `name` as Petastorm shall see it; `name` has a facade."""
    real = None if is_invented(name) else importlib.import_module(name)
    return Facade(name, real, _NAMES[name]())


def _numpy() -> dict[str, object]:
    import numpy as np

    def in1d(values: Any, among: Any, **options: Any) -> Any:
        return np.isin(np.ravel(values), among, **options)

    return {
        "unicode_": np.str_,
        "string_": np.bytes_,
        "float": float,
        "int": int,
        "object": object,
        "in1d": in1d,
    }


def _pandas() -> dict[str, object]:
    import pandas as pd

    def merge(*frames: Any, copy: bool = True, **options: Any) -> Any:
        # Since pandas 3, which warns of `copy`, nothing is copied before it is changed.
        return pd.merge(*frames, **options)

    return {"merge": merge}


def _pyarrow() -> dict[str, object]:
    from lakefit.petastorm.file_systems import LocalFileSystem

    submodules = ("parquet", "lib", "filesystem", "hdfs")
    return {"localfs": LocalFileSystem(), "LocalFileSystem": LocalFileSystem} | {
        submodule: facade(f"pyarrow.{submodule}") for submodule in submodules
    }


def _pyarrow_parquet() -> dict[str, object]:
    from lakefit.petastorm import legacy_parquet

    return {name: getattr(legacy_parquet, name) for name in _LEGACY_PARQUET}


def _pyarrow_lib() -> dict[str, object]:
    return {"ArrowIOError": OSError}


def _pyarrow_filesystem() -> dict[str, object]:
    from lakefit.petastorm.file_systems import LocalFileSystem

    return {"LocalFileSystem": LocalFileSystem}


def _pyarrow_hdfs() -> dict[str, object]:
    from lakefit.petastorm.file_systems import HadoopFileSystem, connect

    return {"HadoopFileSystem": HadoopFileSystem, "connect": connect}


def _distutils_version() -> dict[str, object]:
    from packaging.version import Version

    # Petastorm only compares release numbers, and Python 3.12 has no distutils.
    return {"LooseVersion": Version}


_LEGACY_PARQUET = ("ParquetDataset", "ParquetDatasetPiece", "ParquetFile", "ParquetPartitions", "PartitionSet")
_INVENTED = frozenset({"pyarrow.filesystem", "pyarrow.hdfs", "distutils.version"})

_NAMES: dict[str, Callable[[], dict[str, object]]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "pyarrow": _pyarrow,
    "pyarrow.parquet": _pyarrow_parquet,
    "pyarrow.lib": _pyarrow_lib,
    "pyarrow.filesystem": _pyarrow_filesystem,
    "pyarrow.hdfs": _pyarrow_hdfs,
    "distutils.version": _distutils_version,
}
