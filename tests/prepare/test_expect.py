"""What is found for a contract is told in numbers that people read."""

from typing import Any, cast

import pytest

from lakefit.config import Expect
from lakefit.dataset.ledger import Ledger
from lakefit.errors import ContractError
from lakefit.prepare.expect import Evidence, check_expectations
from lakefit.prepare.staged import Staged


def evidence(rows: int, rejected: int) -> Evidence:
    """Return what a ledger of so many rows gives; no row is staged."""
    ledger = Ledger(
        rows_in=rows, kept={"train": rows - rejected}, rejected={"x": rejected}, duplicates=0, not_finite=0,
        unparsable={}, files={},
    )  # fmt: skip
    nothing = Staged(cast(Any, None), (), 0, 0)
    return Evidence({"input": nothing, "result": nothing}, ledger, {}, None)


@pytest.mark.parametrize(
    ("rows", "rejected", "found"),
    [
        (3_406_040, 0, ["3,406,040", "3,406,040", "0"]),
        (1_000_000_000, 250_000_000, ["1,000,000,000", "750,000,000", "0.25"]),
        (7, 7, ["7", "0", "1"]),
        (3, 1, ["3", "2", "0.333333"]),
    ],
)
def test_rows_are_told_in_full_and_shares_in_six_digits(rows: int, rejected: int, found: list[str]) -> None:
    expect = Expect(input=["rows >= 0"], result=["rows >= 0", "rejected_share <= 1"])
    assert [outcome.found for outcome in check_expectations(expect, evidence(rows, rejected))] == found


def test_a_broken_contract_is_told_with_the_whole_number() -> None:
    with pytest.raises(ContractError, match=r"BROKEN  input   rows >= 4000000  found 3,406,040"):
        check_expectations(Expect(input=["rows >= 4000000"]), evidence(3_406_040, 0))
