"""The file systems that Petastorm names as pyarrow once had them, with the methods of fsspec's, which it calls."""

from typing import Any

import pyarrow as pa
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem as _Local


class LocalFileSystem:
    """fsspec's local file system behind a plain class: Spark pickles subclasses by value, and fsspec's hold locks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_Local(), name)


class HadoopFileSystem:
    """What Petastorm's HAHdfsClient derives from, which passes each public method on to one name node or another."""

    @staticmethod
    def _strip_protocol(path: str) -> str:
        return path


def _passed_on(name: str) -> Any:
    def method(self: object, *_: object) -> None:
        raise NotImplementedError(name)

    method.__name__ = name
    return method


for _name in (
    *("cat", "chmod", "chown", "delete", "df", "disk_usage", "download", "exists", "find", "get_capacity"),
    *("get_space_used", "info", "invalidate_cache", "isdir", "ls", "mkdir", "open", "rename", "rm", "upload"),
):
    setattr(HadoopFileSystem, _name, _passed_on(_name))


def connect(host: str, port: int, user: str | None = None) -> Any:
    """Connect to HDFS, by pyarrow.fs and so by libhdfs."""
    return ArrowFSWrapper(pyarrow.fs.HadoopFileSystem(host, port, user=user))


def file_system(given: Any) -> Any:
    """Return a file system of Petastorm's user with the methods that Petastorm calls; None is the local one."""
    if given is None or isinstance(given, pa.fs.LocalFileSystem):
        return _Local()
    return ArrowFSWrapper(given) if isinstance(given, pa.fs.FileSystem) else given


def is_local(open_file_func: Any) -> bool:
    """Return whether a file system's `open` is that of the local one, whose files can be opened natively."""
    return isinstance(getattr(open_file_func, "__self__", None), _Local)
