"""A ledger that is off by a single row, in total or in a file, stops the run."""

import pytest

from lakefit.dataset.ledger import FileLedger, Ledger
from lakefit.errors import LakefitError

A = FileLedger(rows_in=6, kept=3, duplicates=2, rejected=1)
B = FileLedger(rows_in=4, kept=4, duplicates=0, rejected=0)
GOOD = Ledger(
    rows_in=10,
    kept={"train": 5, "test": 2},
    rejected={"old": 1},
    duplicates=2,
    not_finite=3,
    unparsable={},
    files={"a": A, "b": B},
)


def test_a_ledger_that_adds_up_passes() -> None:
    GOOD.check()
    Ledger(rows_in=0, kept={}, rejected={}, duplicates=0, not_finite=0, unparsable={}, files={}).check()


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("field", ["rows_in", "duplicates"])
def test_one_row_off_in_total_is_found(field: str, off: int) -> None:
    with pytest.raises(LakefitError, match="ledger of all files does not add up") as wrong:
        GOOD.model_copy(update={field: getattr(GOOD, field) + off}).check()
    assert wrong.value.exit_code == 3


@pytest.mark.parametrize("field", ["rows_in", "kept", "duplicates", "rejected"])
def test_one_row_off_in_a_file_is_found_and_the_file_named(field: str) -> None:
    wrong = B.model_copy(update={field: getattr(B, field) + 1})
    with pytest.raises(LakefitError, match="ledger of b does not add up"):
        GOOD.model_copy(update={"files": {"a": A, "b": wrong}}).check()


def test_a_file_that_is_missing_is_found() -> None:
    with pytest.raises(LakefitError, match="10 rows in, 6 over all files"):
        GOOD.model_copy(update={"files": {"a": A}}).check()
