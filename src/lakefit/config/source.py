"""`source`: the tables that are read, the one whose rows are followed, and the query over them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lakefit.config.file import nearest, substitute_environment
from lakefit.config.sections import Section

PathText = Annotated[str, Field(min_length=1), AfterValidator(substitute_environment)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


# Options of Spark's from_csv that keep a line a record; `header` is ours. multiLine and comment would not.
CSV_OPTIONS = (
    *("header", "sep", "delimiter", "quote", "escape", "charToEscapeQuoteEscaping", "nullValue", "emptyValue"),
    *("nanValue", "positiveInf", "negativeInf", "dateFormat", "timestampFormat", "timestampNTZFormat", "locale"),
    *("ignoreLeadingWhiteSpace", "ignoreTrailingWhiteSpace", "unescapedQuoteHandling", "maxCharsPerColumn"),
    *("encoding", "charset", "lineSep", "timeZone"),
)


class Table(Section):
    """One table.

    path: a file, a folder or a glob, or a list of them; relative to the working directory. `${NAME}` is replaced.
    format: csv or parquet. schema: column names and Spark SQL types, `"year INT, carrier STRING"`; needed for csv.
    options: Spark's options of the format.
    """

    path: PathText | tuple[PathText, ...]
    format: Literal["csv", "parquet"]
    options: dict[str, str | bool | int | float] = Field(default_factory=dict)
    columns: str | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _knows_its_options(self) -> "Table":
        names = {name.lower() for name in CSV_OPTIONS}
        for name in self.options if self.format == "csv" else ():
            if name.lower() not in names:
                raise ValueError(f"csv has no option {name!r} here{nearest(name, CSV_OPTIONS)}")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def header(self) -> bool:
        """True where the first line of each CSV file names its columns."""
        return self.format == "csv" and str(self.options.get("header", False)).lower() == "true"


class Source(Section):
    """The tables by name; `rows` names the one whose rows are counted and followed; `query` is Spark SQL over them."""

    tables: dict[Name, Table] = Field(min_length=1)
    rows: Name
    query: str | None = None
