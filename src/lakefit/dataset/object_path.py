"""Paths in an object store, with pathlib's names for what is done with them; a path of this machine stays a Path."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from lakefit.errors import CREDENTIALS_ADVICE, InputError, without_credentials

Result = TypeVar("Result")

STORE_ERRORS = (OSError, ValueError, pa.ArrowException)

# Waits after reads that failed. pyarrow has then tried each some thirty times, within some seconds.
_WAITS_S = (1.0, 4.0, 15.0, 45.0)
AT_ONCE = 32
"""Requests to a store at a time."""
# Of what a person waits for: a store that is not there is soon said to be so.
_FEW_WAITS_S = (1.0,)
# What is the same a minute later.
_FOR_GOOD = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|EXPIRED|UNRECOGNIZED_CLIENT|"
    r"Could not resolve host|HTTP status 40[0134]"
)
# s3a and s3n are Hadoop's names, which Spark wants.
_ADDRESS = re.compile(
    r"(?:s3[an]?|gs|gcs|abfss?)://(?P<bucket>[^/?:]+)(?P<key>/.*?)?(?P<query>\?[a-zA-Z][\w-]*=.*)?", re.DOTALL
)
SCHEMES = {"s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss"}
"""What the stores are called here, by what they are called."""


@dataclass(frozen=True, slots=True)
class Stat:
    """As os.stat_result: size in bytes, modification time in seconds and nanoseconds since 1970."""

    st_size: int
    st_mtime_ns: int

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9


class ObjectPath:
    """A file or folder of an object store that pyarrow knows: s3://, gs://, abfss://.

    Each write is of one object, whole: readers see the old or the new. There are no folders, only names that begin
    alike; nothing can be renamed. As text it has no query (`?endpoint_override=host:port` and what else pyarrow takes),
    which `address` has.
    """

    def __init__(self, address: str) -> None:
        """Raises InputError: the address is wrong, or holds credentials."""
        shown = without_credentials(address)
        if shown != address:
            raise InputError(f"{shown.split('?')[0]}: {CREDENTIALS_ADVICE}")
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise InputError(
                f"{address}: no address of a store that can be read: expected s3://bucket/folder, gs://bucket/folder "
                "or abfss://container@account/folder, as text."
            )
        scheme = address.partition("://")[0]
        self._root = f"{SCHEMES[scheme]}://{found['bucket']}"
        self._parts = tuple(part for part in (found["key"] or "").split("/") if part)
        if {".", ".."} & {*self._parts, found["bucket"]}:
            # Some clients would take it for a step up, also into another bucket, others for a name.
            raise InputError(f"{address}: . and .. are no folders in an object store: name the place itself.")
        self._query = found["query"] or ""

    def __str__(self) -> str:
        return "/".join((self._root, *self._parts))

    def __repr__(self) -> str:
        return f"ObjectPath({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and self.address == other.address

    def __lt__(self, other: "ObjectPath") -> bool:
        return self.address < other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __truediv__(self, name: "str | Path") -> "ObjectPath":
        return self._with(*self._parts, *str(name).split("/"))

    def _with(self, *parts: str) -> "ObjectPath":
        # Not from its text: a name may hold what means something there.
        path = object.__new__(ObjectPath)
        path._root, path._query = self._root, self._query
        path._parts = tuple(part for part in parts if part)
        return path

    @property
    def address(self) -> str:
        """The address with its query, of which this path can be made again."""
        return f"{self}{self._query}"

    @property
    def bucket(self) -> str:
        return self._root.partition("://")[2]

    @property
    def key(self) -> str:
        return "/".join(self._parts)

    @property
    def options(self) -> dict[str, str]:
        """What the query says."""
        return dict(pair.partition("=")[::2] for pair in self._query.removeprefix("?").split("&") if pair)

    @property
    def name(self) -> str:
        return self._parts[-1] if self._parts else ""

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> "ObjectPath":
        return self._with(*self._parts[:-1])

    def with_name(self, name: str) -> "ObjectPath":
        return self.parent / name

    def relative_to(self, other: "ObjectPath") -> str:
        return "/".join(self._parts[len(other._parts) :])

    def absolute(self) -> "ObjectPath":
        return self

    def check(self) -> None:
        """Raise InputError where no store has such an address."""
        self._store()

    def exists(self) -> bool:
        return bool(self._info().type != fs.FileType.NotFound)

    def has_bucket(self) -> bool:
        return self._with().exists()

    def is_file(self) -> bool:
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        return any(self._listed(recursive=False))

    def stat(self) -> Stat:
        """Return size and time of a file; of a folder the time of the newest file right in it.

        Raises FileNotFoundError.
        """
        info = self._info()
        if info.type == fs.FileType.File:
            return Stat(info.size, info.mtime_ns)
        times = [info.mtime_ns for info in self._listed(recursive=False) if info.type == fs.FileType.File]
        if not times:
            raise FileNotFoundError(f"{self}: there is no such file")
        return Stat(0, max(times))

    def iterdir(self) -> "Iterator[ObjectPath]":
        """Yield what lies right in a folder, by name. Raises FileNotFoundError where nothing does."""
        names = sorted(info.base_name for info in self._listed(recursive=False))
        if not names:
            raise FileNotFoundError(f"{self}: there is no such folder")
        return (self / name for name in names)

    def glob(self, pattern: str) -> "Iterator[ObjectPath]":
        """Yield what matches a pattern of names, by name."""
        first, _, rest = pattern.partition("/")
        if any(mark in first for mark in "*?["):
            found = [self / info.base_name for info in self._listed(recursive=False)]
            matching = sorted(path for path in found if fnmatchcase(path.name, first))
        else:
            matching = [self / first]
        for path in matching:
            if rest:
                yield from path.glob(rest)
            elif path.exists():
                yield path

    def files(self) -> "Iterator[tuple[ObjectPath, Stat]]":
        """Yield all files below a folder, by name, with their sizes and times."""
        start = len(self._store()[1]) + 1
        for info in sorted(self._listed(recursive=True), key=lambda info: str(info.path)):
            if info.type == fs.FileType.File:
                yield self / info.path[start:], Stat(info.size, info.mtime_ns)

    def open_input(self) -> pa.NativeFile:
        """Open for reading anywhere in it. Raises FileNotFoundError, OSError."""
        files, path = self._store()
        return files.open_input_file(path)

    def read_bytes(self, *, patient: bool = False) -> bytes:
        """Return what the object holds. patient: as `again` has it. Raises FileNotFoundError, OSError."""
        with again(self.open_input, patient=patient) as file:
            # Not `read`, which asks in pieces.
            return bytes(again(lambda: file.read_at(file.size(), 0)))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content: bytes) -> None:
        """Replace what the object holds."""
        files, path = self._store()

        def write() -> None:
            with files.open_output_stream(path) as file:
                file.write(content)

        again(write)

    def open_output(self) -> pa.NativeFile:
        """Open for writing; the object is there once the stream is closed."""
        files, path = self._store()
        return files.open_output_stream(path)

    def upload(self, source: Path) -> None:
        """Replace what the object holds by a file of this machine; memory is bounded."""
        files, path = self._store()
        again(
            lambda: fs.copy_files(
                str(source), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=files
            )
        )

    def unlink(self, missing_ok: bool = False) -> None:
        files, path = self._store()
        try:
            files.delete_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove all that lies below, if anything does."""
        files, path = self._store()
        if self.is_dir():
            files.delete_dir(path)

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: there are no folders."""

    def _info(self) -> Any:
        files, path = self._store()
        return again(lambda: files.get_file_info(path), patient=False)

    def _listed(self, *, recursive: bool) -> Any:
        files, path = self._store()
        selector = fs.FileSelector(path, recursive=recursive, allow_not_found=True)
        return again(lambda: files.get_file_info(selector), patient=False)

    def _store(self) -> tuple[fs.FileSystem, str]:
        """Return the store, and what this path is called there."""
        files, base = _file_system(f"{self._root}{self._query}", os.getpid())
        return files, "/".join((base, *self._parts))


AnyPath = Path | ObjectPath


def any_path(path: str | AnyPath) -> AnyPath:
    """Return a path of this machine, or of an object store where it is an address. Raises InputError: a wrong one."""
    if isinstance(path, ObjectPath):
        return path
    text = str(path)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return ObjectPath(text) if is_address(text) else Path(path)


def is_address(path: str | AnyPath) -> bool:
    """Say whether a path is the address of an object store, and not one of this machine."""
    return re.match(r"(?i)([a-z][a-z0-9+.-]+://|(s3[an]?|gc?s|abfss?|hdfs):/)", str(path)) is not None


def of_the_store(error: Exception) -> bool:
    """Say whether an error is one of an object store, and not of what a file holds."""
    return isinstance(error, OSError) and _OF_A_STORE.search(str(error)) is not None


REFUSED = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch"
    r"|NO_SUCH_BUCKET|NoSuchBucket|Unable to locate credentials|HTTP status 40[13]"
)
"""What a store says where it has understood what is wanted, and will say so again."""
_OF_A_STORE = re.compile(r"AWS Error|curlCode|HTTP status|google::cloud|Azure")


def matching(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """Return what matches a pattern below a folder, by name."""
    found: list[AnyPath] = list(folder.glob(pattern))
    return sorted(found, key=str)


def open_input(path: AnyPath) -> pa.NativeFile:
    """Open a file for reading anywhere in it. Raises FileNotFoundError, OSError."""
    return path.open_input() if isinstance(path, ObjectPath) else fs.LocalFileSystem().open_input_file(str(path))


def stats(addresses: Sequence[str]) -> list[Stat | None]:
    """Return size and time of many objects, None for one that is not there; a store is asked for many at once."""

    def stat(address: str) -> Stat | None:
        info = ObjectPath(address)._info()
        return Stat(info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(stat, addresses))


def address_of(path: AnyPath) -> str:
    """Return a path as text of which `any_path` makes it again, here or on another machine."""
    return path.address if isinstance(path, ObjectPath) else str(path.absolute())


@lru_cache
def _file_system(address: str, _process: int) -> tuple[fs.FileSystem, str]:
    """Return the store of a bucket's address, and the bucket's path in it; a process that was forked has its own."""
    options = []
    if address.startswith("g") and "retry_limit_seconds" not in address:
        # It is a quarter of an hour otherwise.
        options.append("retry_limit_seconds=60")
    if address.startswith("s3"):
        # A small object takes one request then, not three.
        options.append("allow_delayed_open=true")
    given = f"{address}{'&' if '?' in address else '?'}{'&'.join(options)}" if options else address
    try:
        files, base = fs.FileSystem.from_uri(given)
    except STORE_ERRORS as error:
        raise InputError(f"{address.split('?')[0]}: no store that can be read: {error}") from None
    return files, base.rstrip("/")


def again(read: Callable[[], Result], *, patient: bool = True) -> Result:
    """Return what `read` returns, which is called again, some waits apart, where it raises OSError.

    A file that is not there, or may not be read, is not asked for again. patient: for a minute, as in a night's work.
    """
    for wait_s in _WAITS_S if patient else _FEW_WAITS_S:
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if _FOR_GOOD.search(str(error)):
                raise
            time.sleep(wait_s)
    return read()
