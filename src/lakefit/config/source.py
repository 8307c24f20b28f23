"""`source`: the tables that are read, the one whose rows are followed, and the query over them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lakefit.config.file import nearest, substitute_environment
from lakefit.config.sections import Section
from lakefit.errors import CREDENTIALS_ADVICE, without_credentials


def _without_credentials(path: str) -> str:
    shown = without_credentials(path)
    if "://" in path and shown != path:
        raise ValueError(f"{shown}: {CREDENTIALS_ADVICE}")
    return path


PathText = Annotated[
    str, Field(min_length=1), AfterValidator(substitute_environment), AfterValidator(_without_credentials)
]
"""A path or an address. It stands in manifests and logs, so it holds no credentials."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


# Options of Spark's from_csv; `header`, `multiLine` and `encoding` are ours. `comment` would lose lines.
CSV_OPTIONS = (
    *("header", "sep", "delimiter", "quote", "escape", "charToEscapeQuoteEscaping", "nullValue", "emptyValue"),
    *("nanValue", "positiveInf", "negativeInf", "dateFormat", "timestampFormat", "timestampNTZFormat", "locale"),
    *("ignoreLeadingWhiteSpace", "ignoreTrailingWhiteSpace", "unescapedQuoteHandling", "maxCharsPerColumn"),
    *("encoding", "charset", "lineSep", "timeZone", "multiLine"),
)
# Of Spark's from_json, where a line is a record.
JSON_OPTIONS = (
    *("dateFormat", "timestampFormat", "timestampNTZFormat", "locale", "timeZone", "encoding", "charset", "lineSep"),
    *("allowNumericLeadingZeros", "allowNonNumericNumbers", "allowBackslashEscapingAnyCharacter"),
    *("allowUnquotedControlChars", "allowSingleQuotes", "allowUnquotedFieldNames", "primitivesAsString"),
)
_OPTIONS = {
    "csv": CSV_OPTIONS,
    "json": JSON_OPTIONS,
    "parquet": ("datetimeRebaseMode", "int96RebaseMode"),
    "orc": (),
    "images": (),
}
# Of any source: rows that they leave out stand in no ledger.
_LOSING = {
    "ignorecorruptfiles": "on_corrupt_file: exclude leaves damaged files out and says so",
    "ignoremissingfiles": "a file that goes while it is read ends the run",
    "pathglobfilter": "give path a glob",
    "modifiedbefore": "name the files in path",
    "modifiedafter": "name the files in path",
    "recursivefilelookup": "folders are read with all that is below them",
    "mergeschema": "schema_drift: allow reads files whose columns differ",
}
FILE_FORMATS = ("csv", "json", "parquet", "orc", "images")
"""The formats whose files are looked into before Spark starts; others are read as the session's Spark reads them."""


def _short_name(name: str) -> str:
    """Return the name of a format as Spark registers it, in lower case; the name of a class as it is."""
    if "." not in name:
        return name.lower()
    if name.startswith(("org.apache.spark.", "com.databricks.spark.")):
        known = next((short for short in (*FILE_FORMATS, "xml") if short in name.lower()), "its short name")
        raise ValueError(f"a class of Spark itself; write {known}, which is read with all checks")
    return name


class Table(Section):
    """One table: files at `path`, or a table of Spark's catalog, or another source by `options`.

    path: a file, a folder or a glob, or a list of them; relative to the working directory. `${NAME}` is replaced.
    table: the name in Spark's catalog, such as `sales.orders`, in place of path, format and schema. format: csv, json
    (a record a line), parquet, orc, images (a row a file, of any kind: `path` below the table's, `class`, the name of
    the folder it lies in, and `image`, its bytes), or any that the session's Spark has; of files it must be given.
    options: Spark's options of the format; `${NAME}` in them is replaced when the table is read and never written
    down. A quote inside quotes is doubled in CSV (RFC 4180) unless `escape` is given. schema: column names and Spark
    SQL types, `"year INT, carrier STRING"`; needed for csv and json. partitions: columns that folders below `path`
    give (`day=2020-01-01/`), as in `schema`. schema_drift: files whose columns differ, in names, types or order, are
    refused, or (allow) read with NULL where a column is missing and the widest of integer, float or decimal types;
    columns that no schema declares are left out. A declared type may be wider than the files', not narrower.
    on_corrupt_file: a file that is damaged as a whole ends the run, or is left out and written down. version: of a
    source that has no files; without one it is read again in every run.
    """

    path: PathText | Annotated[tuple[PathText, ...], Field(min_length=1)] | None = None
    table: Annotated[str, Field(pattern=r"^\w+(\.\w+){0,2}$")] | None = None
    format: Annotated[str, Field(min_length=1), AfterValidator(_short_name)] | None = None
    options: dict[str, str | bool | int | float] = Field(default_factory=dict)
    columns: str | None = Field(default=None, alias="schema")
    partitions: str | None = None
    schema_drift: Literal["refuse", "allow"] = "refuse"
    on_corrupt_file: Literal["fail", "exclude"] = "fail"
    version: str | None = None

    @model_validator(mode="after")
    def _is_one_source(self) -> "Table":
        if self.table is not None:
            given = [name for name in ("path", "format", "columns", "partitions") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a table of the catalog takes no {given[0].replace('columns', 'schema')}")
        elif self.format is None:
            raise ValueError("expected format (csv, json, parquet, orc, …) or table: a name in Spark's catalog")
        elif self.format == "images" and (self.columns is not None or self.partitions is not None):
            raise ValueError("images have the columns path, class and image: no schema, no partitions")
        elif self.path is None and self.format in FILE_FORMATS:
            raise ValueError("expected path: a file, a folder or a glob")
        if self.partitions is not None and self.path is None:
            raise ValueError("partitions are folders of a path")
        return self

    @model_validator(mode="after")
    def _knows_its_options(self) -> "Table":
        known = _OPTIONS.get(self.format or "")
        names = {name.lower() for name in known or ()}
        for name in self.options:
            if name.lower() in _LOSING:
                raise ValueError(f"the option {name!r} would leave out rows unseen; {_LOSING[name.lower()]}")
            if known is not None and name.lower() not in names:
                raise ValueError(f"{self.format} has no option {name!r} here{nearest(name, known)}")
        mode = self.option("mode", "FAILFAST")
        if mode.upper() in ("PERMISSIVE", "DROPMALFORMED"):
            raise ValueError(f"mode: {mode} would lose records that do not parse; leave it out (FAILFAST)")
        return self

    @model_validator(mode="after")
    def _cuts_text_in_one_way(self) -> "Table":
        if self.format not in ("csv", "json"):
            return self
        for name, value in (("quote", self.quote), ("escape", self.escape)):
            if len(value) > 1:
                raise ValueError(f"{name} is one character or empty; found {value!r}")
        end = self.option("lineSep", "")
        if end in ("\n", "\r", "\r\n"):
            raise ValueError("leave lineSep out: \\n, \\r\\n and \\r end lines by themselves, also mixed")
        if end and (self.header or self.multiline or not self.is_utf8):
            raise ValueError("lineSep is for UTF-8 files without header and multiLine; convert the files to lines")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        if self.path is None:
            return ()
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def header(self) -> bool:
        """True where the first line of each CSV file names its columns."""
        return self.format == "csv" and self.option("header", "false").lower() == "true"

    @property
    def encoding(self) -> str:
        """The encoding of text files."""
        return self.option("encoding", self.option("charset", "UTF-8"))

    @property
    def is_utf8(self) -> bool:
        """True where Spark can read the text as it is."""
        return self.encoding.upper().replace("-", "").replace("_", "") in ("UTF8", "USASCII", "ASCII")

    @property
    def multiline(self) -> bool:
        """True where quotes may hold line ends."""
        return self.format == "csv" and self.option("multiLine", "false").lower() == "true"

    @property
    def separator(self) -> str:
        """What stands between two values of a CSV record; a tab also where YAML leaves it as two characters."""
        return self.option("sep", self.option("delimiter", ",")).replace("\\t", "\t")

    @property
    def quote(self) -> str:
        return self.option("quote", '"')

    @property
    def escape(self) -> str:
        """What makes a quote inside quotes plain: by default the quote itself (RFC 4180)."""
        return self.option("escape", self.quote)

    @property
    def unversioned(self) -> bool:
        """True where nothing tells whether the source has changed."""
        return self.path is None and self.version is None

    def option(self, name: str, default: str) -> str:
        """Return an option as text, whatever the case of its name."""
        return next((str(value) for key, value in self.options.items() if key.lower() == name.lower()), default)


class Source(Section):
    """What is read.

    tables: by the names that the query uses. rows: the table whose rows are counted and followed. query: Spark SQL over
    the tables; each row of `rows` comes out exactly once, with its column `_row` (`t.*` has it). Without a query: the
    columns of `rows`.
    """

    tables: dict[Name, Table] = Field(min_length=1)
    rows: Name
    query: str | None = None
