"""The ledger: rows in = kept + rejected + duplicates, for the whole and for each source file."""

from lakefit.config.sections import Section
from lakefit.errors import LakefitError


class FileLedger(Section):
    """The rows of one source file: those that came in are kept, duplicates or rejected.

    rows_in: counted while it was read. kept: in a split. duplicates: with the key of a row that is kept. rejected: for
    any reason.
    """

    rows_in: int
    kept: int
    duplicates: int
    rejected: int


class Ledger(Section):
    """Rows in = kept + rejected + duplicates; the first is counted apart from the others, while the files are read.

    rows_in: of the followed table. kept: rows by split. rejected: rows by reason. duplicates: rows with the key of a
    row that is kept. not_finite: NaN and infinite values that became NULL. unparsable: values that `parse` could not
    read, by column (both in kept, rejected and duplicate rows alike). files: by source file.
    """

    rows_in: int
    kept: dict[str, int]
    rejected: dict[str, int]
    duplicates: int
    not_finite: int
    unparsable: dict[str, int]
    files: dict[str, FileLedger]

    def check(self) -> None:
        """Raise LakefitError unless every row is accounted for, in total and for each file."""
        kept, rejected = sum(self.kept.values()), sum(self.rejected.values())
        _equal("all files", self.rows_in, kept, rejected, self.duplicates)
        for name, file in self.files.items():
            _equal(name, file.rows_in, file.kept, file.rejected, file.duplicates)
        by_file = sum(file.rows_in for file in self.files.values())
        if by_file != self.rows_in:
            raise LakefitError(f"The ledger does not add up: {self.rows_in:,} rows in, {by_file:,} over all files.")


def _equal(where: str, rows_in: int, kept: int, rejected: int, duplicates: int) -> None:
    if rows_in != kept + rejected + duplicates:
        raise LakefitError(
            f"The ledger of {where} does not add up: {rows_in:,} rows in, but {kept:,} kept + {rejected:,} rejected + "
            f"{duplicates:,} duplicates = {kept + rejected + duplicates:,}. Nothing was published; this is a fault of "
            "Lakefit or of the storage: please report it with the pipeline file."
        )
