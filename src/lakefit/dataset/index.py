"""The index of Parquet files that Lakefit has not written: what the feed must know, from their footers alone."""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from lakefit.config.sections import Record
from lakefit.dataset.fingerprint import fingerprint
from lakefit.dataset.footer import column_of, parse_footer, read_footer
from lakefit.dataset.manifest import FORMAT_VERSION, MANIFEST, POSITION, Inside, is_index
from lakefit.dataset.object_path import AnyPath, again, any_path
from lakefit.dataset.store import Store, StoredFile
from lakefit.errors import InputError

ENDINGS = (".parquet", ".parq", ".pq")
SPLITS = ("train", "validation", "test")
ALL = "all"
"""The one split of files that don't lie in folders named like splits."""

_FOOTER_READERS = 16


class IndexedFile(Record):
    """A Parquet file.

    path: inside the folder. row_groups: the rows of each. bytes: its size. footer_sha256: of its footer, in which stand
    the places, sizes and bounds of all that it holds. first_position: the number of its first row in the split.
    """

    path: Inside
    row_groups: tuple[int, ...]
    bytes: int
    footer_sha256: str
    first_position: int

    @property
    def rows(self) -> int:
        return sum(self.row_groups)


class IndexedSplit(Record):
    """rows: how many. files: by name."""

    rows: int
    files: tuple[IndexedFile, ...]


class IndexedColumn(Record):
    """A column that the feed can read.

    name: of the column. type: as Arrow calls it. dtype: as the feed hands it out: numpy's name, or `str` or `bytes`.
    shape: of the values of a row where all rows have as many; null for lists of any length. nulls: how many, null
    where the footers don't say. row_bytes: what a row takes, on average where they differ.
    """

    name: str
    type: str
    dtype: str
    shape: tuple[int, ...] | None
    nulls: int | None
    row_bytes: float

    @property
    def variable(self) -> bool:
        """Whether rows differ in length."""
        return _varies(self.dtype, self.shape)


def _varies(dtype: str, shape: tuple[int, ...] | None) -> bool:
    return shape is None or dtype in ("str", "bytes")


class LeftOut(Record):
    """A column that the feed can't read: its name and the reason."""

    name: str
    reason: str


class Index(Record):
    """What stands in the manifest.json of a folder of Parquet files that `lakefit index` has looked at.

    format_version: as in other manifests. layout: `files`, which tells it from them. fingerprint: of columns and files.
    columns: that can be read, in the order of the files. left_out: those that can't. splits: train, validation and test
    where all files lie in folders of these names, else `all`.
    """

    format_version: int = Field(default=FORMAT_VERSION)
    layout: Literal["files"] = "files"
    fingerprint: str
    columns: tuple[IndexedColumn, ...]
    left_out: tuple[LeftOut, ...]
    splits: dict[str, IndexedSplit]


@dataclass(frozen=True, slots=True)
class Indexed:
    """current: whether the index was there already. warnings: what is probably not meant."""

    index: Index
    current: bool
    warnings: tuple[str, ...]


def index_folder(path: str | AnyPath) -> Indexed:
    """Write the index of a folder's Parquet files into its manifest.json, where it is not there already.

    Raises:
        InputError: no such folder, no Parquet file in it, one that can't be read, or that has other columns than the
            first; the folder is a table of Delta, Iceberg or Hudi, or a dataset that Lakefit has prepared; or it can't
            be written.
    """
    if not str(path):
        raise InputError("An empty path names no folder; the current one is `.`.")
    store = Store(path)
    there = store.files()
    files = [file for file in there if _is_parquet(file.name)]
    others = [file.name for file in there if not _is_parquet(file.name) and file.name != MANIFEST]
    _ensure_no_table(store)
    before = _present(store)
    if not files:
        raise InputError(f"{store}: there is no Parquet file ({', '.join(ENDINGS)}) in it{_listed(others, ', but ')}.")
    with ThreadPoolExecutor(_FOOTER_READERS) as threads:
        footers = list(threads.map(lambda file: _footer(store, file), files))
    first = footers[0][0].schema.to_arrow_schema()
    for file, (footer, _) in zip(files[1:], footers[1:], strict=True):
        _ensure_same(store, files[0].name, first, file.name, footer.schema.to_arrow_schema())
    columns, left_out = _columns(first, [footer for footer, _ in footers])
    if not columns:
        reasons = "; ".join(f"{column.name}: {column.reason}" for column in left_out)
        raise InputError(f"{store}: no column can be read. {reasons}.")
    left_out += tuple(
        LeftOut(name=name, reason="it stands in the names of folders alone: write it into the files")
        for name in dict.fromkeys(
            part.split("=")[0] for file in files for part in file.name.split("/")[:-1] if "=" in part
        )
        if name not in first.names
    )
    splits = _splits(files, footers)
    known = {
        "format": FORMAT_VERSION,
        "columns": [column.model_dump(mode="json") for column in columns],
        "splits": {name: split.model_dump(mode="json") for name, split in splits.items()},
    }
    index = Index(fingerprint=fingerprint(known), columns=columns, left_out=left_out, splits=splits)
    text = index.model_dump_json(indent=2) + "\n"
    if before != text:
        store.write(MANIFEST, text)
    warnings = [f"Files that are not named like Parquet are passed over{_listed(others, ': ')}"] if others else []
    stray = sorted({file.name.split("/")[0] for file in files} & set(SPLITS)) if list(splits) == [ALL] else []
    if stray:
        warnings.append(
            f"Folders named like splits ({', '.join(stray)}) lie beside other files, so all rows are one split, "
            f"{ALL!r}: {', '.join(SPLITS)} are splits where there is nothing else"
        )
    return Indexed(index, before == text, tuple(warnings))


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _listed(names: Sequence[str], before: str) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"{before}{', '.join(names[:5])}{more}" if names else ""


def _ensure_no_table(store: Store) -> None:
    """Raise InputError for a folder of which the files alone don't say which rows it has."""
    for mark, kind in (("_delta_log", "Delta"), (".hoodie", "Hudi"), ("metadata/version-hint.text", "Iceberg")):
        if store.has(mark):
            raise InputError(
                f"{store}: is a table of {kind} ({mark}), in which rows are deleted and replaced by its log: its files "
                "alone would give rows that are gone. Name it as a source of a pipeline, or write its rows elsewhere."
            )


def _present(store: Store) -> str | None:
    """Return the index that is there, as text."""
    try:
        text = store.read(MANIFEST).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{store.place(MANIFEST)}: can't be read: {error}.") from None
    if not is_index(text):
        raise InputError(
            f"{store.place(MANIFEST)}: is no index: another file of this name would be replaced. A dataset that "
            "`lakefit prepare` has made needs none; name another folder, or remove the file."
        )
    return text


def read_index(folder: str | AnyPath) -> Index | None:
    """Return the index of a folder of Parquet files; None where there is none, as where a dataset was prepared.

    Raises:
        InputError: it is none that this version reads.
    """
    try:
        text = (any_path(folder) / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return parse_index(text, folder) if is_index(text) else None


def parse_index(text: str, folder: object) -> Index:
    """Return the index of a manifest.json. folder: where it is, for people. Raises InputError as read_index does."""
    try:
        return Index.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{folder}/{MANIFEST}: no index of this version of Lakefit (format {FORMAT_VERSION}): {at}: "
            f"{first['msg']}. Write it anew: lakefit index {folder}"
        ) from None


def _footer(store: Store, file: StoredFile) -> tuple[pq.FileMetaData, str]:
    """Return a file's footer and its SHA-256."""
    place = store.place(file.name)
    try:
        with again(lambda: store.open(file.name)) as opened:
            content = read_footer(opened, file.bytes)
        return parse_footer(content), hashlib.sha256(content).hexdigest()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{place}: no Parquet file that can be read: {error}".rstrip(".") + ".") from None


def _ensure_same(store: Store, one: str, schema: pa.Schema, other: str, others: pa.Schema) -> None:
    mine, theirs = ({field.name: field.type for field in side} for side in (schema, others))
    for name in dict.fromkeys([*mine, *theirs]):
        if name not in mine or name not in theirs or _fed_as(mine[name]) != _fed_as(theirs[name]):
            raise InputError(
                f"{store}: files of one folder have the same columns, and {other} has {name!r} as "
                f"{theirs.get(name, 'no column')}, {one} as {mine.get(name, 'no column')}. Move the files of another "
                "kind elsewhere, or write them again."
            )


def _fed_as(arrow: pa.DataType) -> object:
    """Return what counts of a type: text is text, whatever its offsets or dictionary."""
    try:
        return values_of(arrow)
    except TypeError:
        return str(arrow)


def _columns(
    schema: pa.Schema, footers: Sequence[pq.FileMetaData]
) -> tuple[tuple[IndexedColumn, ...], tuple[LeftOut, ...]]:
    rows = sum(footer.num_rows for footer in footers)
    stored, nulls = _stored(schema.names, footers)
    leaves = [footers[0].schema.column(leaf) for leaf in range(footers[0].num_columns)]
    int96 = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
    columns, left_out = [], []
    for field in schema:
        try:
            if field.name == POSITION:
                raise TypeError("it numbers the rows of a dataset of Lakefit; here they are numbered anew")
            if len(schema.get_all_field_indices(field.name)) > 1:
                raise TypeError("another column has the same name")
            dtype, shape = values_of(field.type)
        except TypeError as error:
            left_out.append(LeftOut(name=field.name, reason=str(error)))
            continue
        variable = _varies(dtype, shape)
        columns.append(
            IndexedColumn(
                name=field.name,
                # Of Spark's old timestamps (INT96), which are read in a unit in which all of them have a number.
                type="timestamp[us]" if field.name in int96 else str(field.type),
                dtype=dtype,
                shape=shape,
                # Of a list, the footer counts what it holds.
                nulls=nulls[field.name] if shape == () else None,
                row_bytes=stored[field.name] / max(rows, 1)
                if variable
                else np.dtype(dtype).itemsize * math.prod(shape or ()),
            )
        )
    return tuple(columns), tuple(left_out)


def _stored(names: Sequence[str], footers: Sequence[pq.FileMetaData]) -> tuple[dict[str, int], dict[str, int | None]]:
    """Return the bytes and the nulls of each column in all files."""
    stored = dict.fromkeys(names, 0)
    nulls: dict[str, int | None] = dict.fromkeys(names, 0)
    for footer in footers:
        of_leaf = [column_of(footer.schema.column(leaf).path, stored) for leaf in range(footer.num_columns)]
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            for leaf, name in enumerate(of_leaf):
                chunk = group.column(leaf)
                stored[name] += chunk.total_uncompressed_size
                before, statistics = nulls[name], chunk.statistics
                found = statistics.null_count if statistics is not None and statistics.has_null_count else None
                nulls[name] = None if before is None or found is None else before + found
    return stored, nulls


def values_of(arrow: pa.DataType) -> tuple[str, tuple[int, ...] | None]:
    """Return dtype and shape of a row's values in a column, as IndexedColumn has them.

    Raises:
        TypeError: the feed can't read such columns; the message says what to do.
    """
    types = pa.types
    if isinstance(arrow, pa.FixedShapeTensorType):
        # Of another order of axes it would have to be turned; nobody writes that.
        order = list(arrow.permutation or ())
        if order == sorted(order) and arrow.shape and math.prod(arrow.shape):
            return _number(arrow.value_type), tuple(arrow.shape)
    if types.is_dictionary(arrow):
        return values_of(arrow.value_type)
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return "str", ()
    if types.is_binary(arrow) or types.is_large_binary(arrow) or types.is_binary_view(arrow):
        return "bytes", ()
    if types.is_fixed_size_binary(arrow):
        return "uint8", (arrow.byte_width,)
    if types.is_date32(arrow) or types.is_time32(arrow):
        return "int32", ()
    if types.is_temporal(arrow) and not types.is_interval(arrow):
        return "int64", ()
    if _is_number(arrow):
        return _number(arrow), ()
    if types.is_fixed_size_list(arrow) and _is_number(arrow.value_type) and arrow.list_size:
        return _number(arrow.value_type), (arrow.list_size,)
    if (types.is_list(arrow) or types.is_large_list(arrow)) and _is_number(arrow.value_type):
        return _number(arrow.value_type), None
    raise TypeError(f"columns of {arrow} can't be fed: write it as numbers, text, bytes or lists of numbers")


def _is_number(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(arrow) or pa.types.is_integer(arrow) or pa.types.is_floating(arrow))


def _number(arrow: pa.DataType) -> str:
    """Return numpy's name of a type of numbers."""
    return str(arrow.to_pandas_dtype().__name__).rstrip("_")


def _splits(files: Sequence[StoredFile], footers: Sequence[tuple[pq.FileMetaData, str]]) -> dict[str, IndexedSplit]:
    named = all(file.name.split("/")[0] in SPLITS and "/" in file.name for file in files)
    splits: dict[str, list[IndexedFile]] = {}
    rows: dict[str, int] = {}
    for file, (footer, sha256) in zip(files, footers, strict=True):
        split = file.name.split("/")[0] if named else ALL
        groups = tuple(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        splits.setdefault(split, []).append(
            IndexedFile(
                path=file.name,
                row_groups=groups,
                bytes=file.bytes,
                footer_sha256=sha256,
                first_position=rows.get(split, 0),
            )
        )
        rows[split] = rows.get(split, 0) + sum(groups)
    order = [name for name in (*SPLITS, ALL) if name in splits]
    return {name: IndexedSplit(rows=rows[name], files=tuple(splits[name])) for name in order}
