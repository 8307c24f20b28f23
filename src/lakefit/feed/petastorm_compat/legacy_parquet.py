"""The part of pyarrow's old ParquetDataset (gone since pyarrow 15) on which Petastorm stands.

Plain folders of Parquet files, single files and lists of files. Key=value folders and filters are refused, not
ignored: ignoring them would lose a column or keep rows that were to be dropped.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from lakefit.errors import LakefitError


class ParquetDatasetPiece:
    """A Parquet file, or one row group of it.

    `path` is opened by `open_file_func(path)` at each use; `partition_keys` is always empty.
    """

    def __init__(
        self,
        path: str,
        open_file_func: Callable[[str], Any],
        row_group: int | None = None,
        partition_keys: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.path = path
        self.open_file_func = open_file_func
        self.row_group = row_group
        self.partition_keys = partition_keys

    def get_metadata(self) -> Any:
        """The file's footer, a pyarrow.parquet.FileMetaData."""
        with self.open_file_func(self.path) as source:
            return pq.read_metadata(source)

    def read(self, columns: Collection[str] | None = None, partitions: None = None) -> Any:
        """A pyarrow.Table of the named columns, in the file's order (None: all). `partitions` is Petastorm's, None."""
        with self.open_file_func(self.path) as source, pq.ParquetFile(source) as parquet:
            # Petastorm passes a set; a set's order is another in every process.
            names = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
            if self.row_group is None:
                return parquet.read(columns=names)
            return parquet.read_row_group(self.row_group, columns=names)


class ParquetDataset:
    """The Parquet files under `path_or_paths` as pieces, one a file, in the order of their names.

    Attributes as Petastorm reads them: `paths` (as given), `fs` (with open, exists, rm), `pieces`, `partitions`
    (None), `metadata` and `common_metadata` (the footers of `_metadata` and `_common_metadata`, None without them)
    and `metadata_path`. `validate_schema` and `metadata_nthreads` are taken and not used: Petastorm asks for no check.
    """

    partitions: None = None

    def __init__(
        self,
        path_or_paths: str | Sequence[str],
        filesystem: Any = None,
        validate_schema: bool = False,
        metadata_nthreads: int = 1,
        filters: object = None,
    ) -> None:
        if filters is not None:
            raise LakefitError(
                f"Lakefit's compatibility layer does not apply Petastorm's filters= yet, so it refuses {filters!r} "
                "rather than read rows that were to be left out: use predicate=, or leave filters out."
            )
        self.fs = _file_system(filesystem)
        self.paths = path_or_paths if isinstance(path_or_paths, str) else list(path_or_paths)
        self.metadata_path: str | None = None
        self.metadata = self.common_metadata = None
        if isinstance(self.paths, str) and self.fs.isdir(self.paths):
            files = self._files_of_folder(self.paths)
        else:
            files = [self.paths] if isinstance(self.paths, str) else self.paths
        self.pieces = [ParquetDatasetPiece(path, self.fs.open) for path in files]
        if not self.pieces:
            raise FileNotFoundError(f"No Parquet file in {path_or_paths!r}")

    def _files_of_folder(self, folder: str) -> list[str]:
        """Paths that begin with `folder` as it was given: Petastorm cuts it off again."""
        base = folder.rstrip("/")
        entries = {
            entry["name"].rstrip("/").rsplit("/", 1)[1]: entry["type"] for entry in self.fs.ls(base, detail=True)
        }
        if "_metadata" in entries:
            self.metadata_path = f"{base}/_metadata"
            self.metadata = self._footer(self.metadata_path)
        if "_common_metadata" in entries:
            self.common_metadata = self._footer(f"{base}/_common_metadata")
        # Spark's and Petastorm's own marks (_SUCCESS, _temporary, .crc) are no data.
        data = sorted(name for name in entries if not name.startswith(("_", ".")) and not name.endswith(".crc"))
        folders = [name for name in data if entries[name] == "directory"]
        if folders:
            raise LakefitError(
                f"{base} holds folders ({', '.join(folders[:3])}, {len(folders)} in all) beside or instead of Parquet "
                "files. Lakefit's compatibility layer reads flat folders only, not key=value partitions: give the "
                "files as a list, or write the dataset without partitionBy."
            )
        return [f"{base}/{name}" for name in data]

    def _footer(self, path: str) -> Any:
        with self.fs.open(path) as source:
            return pq.read_metadata(source)


def _file_system(filesystem: Any) -> Any:
    """The file system with the methods that Petastorm calls, which fsspec has and pyarrow.fs has not."""
    if filesystem is None:
        return LocalFileSystem()
    return ArrowFSWrapper(filesystem) if isinstance(filesystem, pa.fs.FileSystem) else filesystem
