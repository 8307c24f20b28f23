"""The part of pyarrow's old ParquetDataset (gone since pyarrow 15) on which Petastorm stands, on today's pyarrow.

Folders of Parquet files with or without key=value folders inside, single files, and lists of files, on the local disk
(memory-mapped) and on whatever file system fsspec or pyarrow.fs opens.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from lakefit.errors import InputError
from lakefit.petastorm.file_systems import file_system, is_local

# How Hive and Spark name the folder of rows whose key is NULL.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_Filters = Sequence[Any]
_Keys = Sequence[tuple[str, str | None]]


class PartitionSet:
    """One level of key=value folders. keys: its values as text, sorted, None for NULL; dictionary: the same as Arrow.

    All values that read as integers make an int64 column, others strings, as in pyarrow's old ParquetDataset.
    """

    def __init__(self, name: str, keys: Collection[str | None]) -> None:
        self.name = name
        # Sorted: a piece refers to its key by number, in every process.
        self.keys = sorted(keys, key=lambda key: (key is not None, key or ""))
        try:
            self.dictionary = pa.array([None if key is None else int(key) for key in self.keys], pa.int64())
        except (ValueError, OverflowError):
            self.dictionary = pa.array(self.keys, pa.string())


class ParquetPartitions:
    """The levels of key=value folders of a dataset; false where it has none.

    filters: those of the dataset, an OR of ANDs, which come to each read of a piece in this way; none where empty.
    """

    def __init__(self, levels: Sequence[PartitionSet], filters: Sequence[Sequence[Any]]) -> None:
        self.levels = levels
        self.filters = filters
        self.partition_names = {level.name for level in levels}

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, place: int) -> PartitionSet:
        return self.levels[place]

    def may_have_rows(self, piece: "ParquetDatasetPiece") -> bool:
        """Return whether some rows of a piece may pass the filters, as far as its folders tell."""
        if not self.filters or not self.levels:
            return True
        here = pa.table(piece.folder_columns(1))
        for conjunction in self.filters:
            known = [condition for condition in conjunction if condition[0] in self.partition_names]
            if not known or len(here.filter(pq.filters_to_expression([known]))):
                return True
        return False


class ParquetDatasetPiece:
    """A Parquet file, or one row group of it.

    path: is opened by `open_file_func(path)` at each use, natively where that is the local file system's.
    partition_keys: a name and the number of a value for each level of the dataset's key=value folders.
    """

    def __init__(
        self,
        path: str,
        open_file_func: Callable[[str], Any],
        row_group: int | None = None,
        partition_keys: Sequence[tuple[str, "_Place"]] = (),
    ) -> None:
        self.path = path
        self.open_file_func = open_file_func
        self.row_group = row_group
        self.partition_keys = partition_keys

    def get_metadata(self) -> Any:
        """Return the file's footer, a pyarrow.parquet.FileMetaData."""
        with self._opened() as parquet:
            return parquet.metadata

    def folder_columns(self, rows: int) -> dict[str, Any]:
        """Return the columns that the folders give, each of `rows` equal values."""
        return {name: pa.repeat(place.value, rows) for name, place in self.partition_keys}

    def read(self, columns: Collection[str] | None = None, partitions: ParquetPartitions | None = None) -> Any:
        """Return a pyarrow.Table of the named columns (None: all), in the file's order, then those of the folders.

        Rows that do not pass the dataset's filters are left out.
        """
        # Truth is the presence of levels.
        partitions = partitions if partitions is not None else ParquetPartitions((), ())
        filtered_by = {condition[0] for conjunction in partitions.filters for condition in conjunction}
        with self._opened() as parquet:
            stored = parquet.schema_arrow.names
            unknown = filtered_by - {*stored, *partitions.partition_names}
            if unknown:
                raise InputError(
                    f"filters={list(partitions.filters)!r} name the column {min(unknown)!r}, which is neither in "
                    f"{self.path} (it has {', '.join(stored)}) nor in the names of its folders."
                )
            lacking = set(columns or ()) - {*stored, *partitions.partition_names}
            if lacking:
                raise InputError(
                    f"{self.path} has no column {min(lacking)!r}, which other files of its dataset have (it has "
                    f"{', '.join(stored)})."
                )
            # Petastorm passes a set, and a set's order is another in every process.
            wanted = [name for name in stored if columns is None or name in columns]
            read = [name for name in stored if name in wanted or name in filtered_by]
            # Petastorm decodes several pieces at a time in threads of its own.
            options = {"columns": read, "use_threads": False}
            if self.row_group is None:
                table = parquet.read(**options)
            else:
                table = parquet.read_row_group(self.row_group, **options)
        for name, column in self.folder_columns(len(table)).items():
            if name not in table.column_names:
                table = table.append_column(name, column)
        if partitions.filters:
            table = table.filter(pq.filters_to_expression(partitions.filters))
        return table.drop_columns([name for name in read if name not in wanted])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file; what goes wrong with it says which it is."""
        try:
            if is_local(self.open_file_func):
                with pq.ParquetFile(self.path, memory_map=True) as parquet:
                    yield parquet
            else:
                with self.open_file_func(self.path) as source, pq.ParquetFile(source) as parquet:
                    yield parquet
        except (OSError, pa.ArrowException) as error:
            group = f" row group {self.row_group}" if self.row_group is not None else ""
            raise type(error)(f"{self.path}{group}: {error}") from error


class ParquetDataset:
    """The Parquet files under `path_or_paths` as pieces, one a file, in the order of their names.

    Attributes as Petastorm reads them: `paths` (as given), `fs` (with open, exists, rm), `pieces`, `partitions` (false
    where there are none), `metadata` and `common_metadata` (the footers of `_metadata` and `_common_metadata`, None
    without them) with their paths. filters: as pyarrow.parquet.read_table takes them. `validate_schema` and
    `metadata_nthreads` are taken and not used: Petastorm asks for no check.

    Raises:
        FileNotFoundError: there is no Parquet file. InputError: folders are named in different ways.
    """

    def __init__(
        self,
        path_or_paths: str | Sequence[str],
        filesystem: Any = None,
        validate_schema: bool = False,
        metadata_nthreads: int = 1,
        filters: _Filters | None = None,
    ) -> None:
        self.fs = file_system(filesystem)
        self.paths = path_or_paths if isinstance(path_or_paths, str) else list(path_or_paths)
        self.metadata_path: str | None = None
        self.common_metadata_path: str | None = None
        self.metadata = self.common_metadata = None
        files: list[tuple[str, _Keys]]
        levels: list[PartitionSet] = []
        if isinstance(self.paths, str) and self.fs.isdir(self.paths):
            files, levels = self._files_of_folder(self.paths)
        elif isinstance(self.paths, str):
            if not self.fs.exists(self.paths):
                raise FileNotFoundError(f"{self.paths}: no such file or folder")
            files = [(self.paths, ())]
        else:
            # One may be named twice.
            files = [(path, ()) for path in self.paths]
        self.partitions = ParquetPartitions(levels, _of_the_types_of_folders(filters or (), levels))
        pieces = [
            ParquetDatasetPiece(path, self.fs.open, partition_keys=_numbered(keys, levels)) for path, keys in files
        ]
        if not pieces:
            raise FileNotFoundError(f"No Parquet file in {path_or_paths!r}")
        self.pieces = [piece for piece in pieces if self.partitions.may_have_rows(piece)]
        if not self.pieces:
            raise InputError(f"{path_or_paths!r}: filters={filters!r} leave none of its {len(pieces):,} Parquet files.")

    def _files_of_folder(self, folder: str) -> tuple[list[tuple[str, _Keys]], list[PartitionSet]]:
        """Return the files with the keys of their folders, and the levels of these.

        Paths begin with `folder` as it was given: Petastorm cuts it off again.
        """
        base = folder.rstrip("/")
        names = {name.strip("/") for name in self._names_below(base)}
        # Object stores list empty objects for folders, this one too.
        inside = sorted(names - {"", *(folder for name in names for folder in _folders_of(name))})
        for name in ("_metadata", "_common_metadata"):
            if name in inside:
                setattr(self, name.lstrip("_"), self._footer(f"{base}/{name}"))
                setattr(self, f"{name.lstrip('_')}_path", f"{base}/{name}")
        files = {}
        for name in inside:
            *folders, last = name.split("/")
            # Spark's and Petastorm's own marks (_SUCCESS, _temporary, .crc) are no data; _key=value is.
            hidden = any(
                part.startswith(".") or (part.startswith("_") and "=" not in part) for part in (*folders, last)
            )
            if not hidden and not last.endswith((".crc", "_$folder$")):
                files[name] = tuple(_key_and_value(part) for part in folders if "=" in part)
        kinds = {tuple(key for key, _ in keys) for keys in files.values()}
        if len(kinds) > 1:
            first, second, *_ = sorted(kinds)
            raise InputError(
                f"{base}: files lie below folders of different keys: {', '.join(first) or 'none'}, and "
                f"{', '.join(second) or 'none'}. Give each kind of folder by itself, or the files as a list."
            )
        levels = [
            PartitionSet(key, {keys[depth][1] for keys in files.values()})
            for depth, key in enumerate(next(iter(kinds), ()))
        ]
        return [(f"{base}/{name}", keys) for name, keys in files.items()], levels

    def _names_below(self, base: str) -> list[str]:
        """Return the paths of all files below a folder, relative to it."""
        if is_local(self.fs.open):
            return list(_local_files(base, ""))
        root = self.fs._strip_protocol(base).rstrip("/")
        # Object stores, and fsspec, keep lists of folders for a while; ours may be new.
        self.fs.invalidate_cache()
        return [path[len(root) :] for path in self.fs.find(root)]

    def _footer(self, path: str) -> Any:
        return ParquetDatasetPiece(path, self.fs.open).get_metadata()


def ParquetFile(source: Any) -> None:  # noqa: N802 (named as the class that it stands for)
    """Close what Petastorm's workers open for each row group and never read: pieces open their files themselves."""
    source.close()


def _local_files(base: str, folder: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the files below a folder, through links as well; a link to a folder above leads nowhere."""
    here = os.path.realpath(os.path.join(base, folder))
    if here in above:
        return
    with os.scandir(here) as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                yield from _local_files(base, name, above | {here})
            else:
                yield name


def _of_the_types_of_folders(filters: _Filters, levels: Sequence[PartitionSet]) -> list[list[Any]]:
    """Return filters whose values for the folders' columns are of these columns' types: "1" may stand for 1."""
    numbers = {level.name: pa.types.is_integer(level.dictionary.type) for level in levels}

    def cast(name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple, set, frozenset)):
            return [cast(name, item) for item in value]
        try:
            return int(value) if numbers[name] else str(value)
        except (TypeError, ValueError):
            return value

    return [
        [(name, sign, cast(name, value) if name in numbers else value) for name, sign, value in conjunction]
        for conjunction in _conjunctions(filters)
    ]


def _folders_of(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _key_and_value(folder: str) -> tuple[str, str | None]:
    key, _, value = folder.partition("=")
    return unquote(key), None if value == _HIVE_NULL else unquote(value)


class _Place(int):
    """The number of a key among the keys of its level, with its value: a folder may come while others list them."""

    value: Any


def _numbered(keys: _Keys, levels: Sequence[PartitionSet]) -> tuple[tuple[str, _Place], ...]:
    numbered = []
    for (key, value), level in zip(keys, levels, strict=True):
        place = _Place(level.keys.index(value))
        place.value = level.dictionary[place]
        numbered.append((key, place))
    return tuple(numbered)


def _conjunctions(filters: _Filters) -> list[list[Any]]:
    """Return filters as an OR of ANDs of (column, operator, value); a flat list is one AND."""
    listed = list(filters)
    return [listed] if listed and isinstance(listed[0], tuple) else [list(conjunction) for conjunction in listed]
