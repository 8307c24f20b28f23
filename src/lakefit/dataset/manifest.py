"""The manifest of a dataset: all that training, evaluation and export need to know of it, and all it proves."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from lakefit.config.sections import Explained, Record
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.ledger import Ledger
from lakefit.dataset.object_path import AnyPath, any_path
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.errors import InputError

FORMAT_VERSION = 8
"""Raised with every change of the files' layout, order or values: it is a part of the dataset fingerprint."""
MANIFEST = "manifest.json"
POSITION = "_position"
"""The column of a split's files by which the feed proves what it delivered; no two rows of a dataset share one."""


def _inside(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "" in parts:
        raise ValueError(f"{path!r} is no path inside the dataset's folder")
    return path


Inside = Annotated[str, AfterValidator(_inside)]
"""The path of a file inside a dataset's folder: whoever writes a manifest does not choose what else is read."""


# A record takes four times as much memory, and a dataset may have 100,000 files.
@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True))
class DataFile(Explained):
    """A Parquet file.

    path: inside the dataset's folder. row_groups: the rows of each. bytes: its size. sha256: of its content.
    first_position: `_position` of its first row, from which those of the others count up; null for duplicates and
    rejects.
    """

    path: Inside
    row_groups: tuple[int, ...]
    bytes: int
    sha256: str
    first_position: int | None = None

    @property
    def rows(self) -> int:
        return sum(self.row_groups)


class SplitFiles(Record):
    """The rows of a split.

    rows: how many. classes: of each label by name, how many of each class (none for a regression). files: in the order
    of their rows.
    """

    rows: int
    classes: dict[str, dict[str, int]]
    files: tuple[DataFile, ...]


class Correction(Record):
    """A value that `correct` changed.

    column: where it stood. from: as it came. to: as it is now. rows: in how many rows (duplicate and rejected ones
    included).
    """

    column: str
    from_: str = Field(alias="from")
    to: str
    rows: int


class Outcome(Record):
    """What was found for a contract of `expect`, in the words of the summary.

    scope: the rows that it is about. expected: the contract. found: what was counted. holds: true in
    every published dataset.
    """

    scope: Literal["input", "result"]
    expected: str
    found: str
    holds: bool


class Stratum(Record):
    """The rows of one combination of the values of `split.stratify`.

    values: as text, null for NULL. rows: by split.
    """

    values: tuple[str | None, ...]
    rows: dict[str, int]


class InputRecord(Record):
    """A raw file that was read.

    table: its name in `source.tables`. name: of the file, below the table's path. bytes: its size. modified_ns: the
    time of its last change, in nanoseconds since 1970.
    """

    table: str
    name: str
    bytes: int
    modified_ns: int


class ExcludedRecord(Record):
    """A raw file that is damaged as a whole and was left out (`on_corrupt_file: exclude`).

    table: its name in `source.tables`. name: of the file, below the table's path. bytes: its size. reason: what is
    wrong with it.
    """

    table: str
    name: str
    bytes: int
    reason: str


class Manifest(Record):
    """What stands in manifest.json; immutable once it is there.

    format_version: raised with every change of layout, order or values. fingerprint: of the inputs and of all that
    shapes the dataset. name: of the pipeline. created: ISO time (UTC). versions: of the packages that wrote it. inputs:
    the raw files that were read, all tables. excluded: those that were left out. reader: who read the rows, Arrow or
    Spark, and why Spark; it changes nothing. pipeline: the pipeline file, resolved
    with every default. layout: of the splits' files: a column a feature, or `numeric` and `categorical`, each the bytes
    of a row's values. features: all that was learned, enough to repeat the transformation without the raw data. labels:
    what was learned of them. statistics: by cleaned column, of the training split. splits: by name. duplicates: the
    files of rows with the key of a row that is kept. rejects: the files of rejected rows. corrections: what `correct`
    changed. strata: rows by stratum and split. expectations: the contracts and what was found. ledger: where every row
    went.
    """

    format_version: int = Field(json_schema_extra={"const": FORMAT_VERSION})
    fingerprint: str
    name: str
    created: str
    versions: dict[str, str]
    inputs: tuple[InputRecord, ...]
    excluded: tuple[ExcludedRecord, ...]
    reader: str
    pipeline: dict[str, Any]
    layout: Literal["wide", "packed"]
    features: Features
    labels: tuple[LabelFeature, ...]
    statistics: dict[str, ColumnStatistics]
    splits: dict[str, SplitFiles]
    duplicates: tuple[DataFile, ...]
    rejects: tuple[DataFile, ...]
    corrections: tuple[Correction, ...]
    strata: tuple[Stratum, ...]
    expectations: tuple[Outcome, ...]
    ledger: Ledger


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of manifest.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema(by_alias=True)}


def read_manifest(dataset_dir: str | AnyPath) -> Manifest:
    """Return the manifest of a published dataset.

    Raises:
        InputError: there is none, or it is not one that this version reads.
    """
    path = any_path(dataset_dir) / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file: {dataset_dir} is not a finished dataset; run `lakefit prepare`."
        ) from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error}.") from error
    return parse_manifest(text, path)


def parse_manifest(text: str, path: object) -> Manifest:
    """Return the manifest of a dataset. path: of the file, for people. Raises InputError as read_manifest does."""
    if is_index(text):
        raise InputError(
            f"{path}: is the index of Parquet files that Lakefit has not prepared: `lakefit.open_dataset` reads them, "
            "and `lakefit prepare` makes a dataset of them."
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        where = f"{at}: " if at else ""
        raise InputError(
            f"{path}: not a manifest of this version of Lakefit (format {FORMAT_VERSION}): {where}{first['msg']}. "
            "Remove the dataset's folder and run `lakefit prepare` again."
        ) from None
    return manifest


def is_index(text: str) -> bool:
    """Say whether the text of a manifest.json is an index (dataset/index.py), of any version."""
    return '"layout":"files"' in "".join(text[:200].split())
