"""`clean`, `deduplicate`, `reject`, `split`, `label`: what happens to a row before anything is learned."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lakefit.config.sections import Section

Column = Annotated[str, Field(min_length=1)]
Columns = Annotated[tuple[Column, ...], Field(min_length=1)]


class Clean(Section):
    """One change of one column's values by the row alone. `null_if` is applied after `text`."""

    column: Column
    text: tuple[Literal["trim", "upper", "lower", "collapse"], ...] = ()
    null_if: tuple[str | int | float, ...] = ()

    @model_validator(mode="after")
    def _does_something(self) -> "Clean":
        if not self.text and not self.null_if:
            raise ValueError(
                "expected what to do with the column: text: [trim, upper, lower, collapse] or null_if: […]"
            )
        return self


class Deduplicate(Section):
    """Rows with equal `key` (all columns where it is not given) are reduced to the one that `keep` names."""

    key: Columns | None = None
    keep: Annotated[str, Field(pattern=r"^(first|last) by .+$")] | None = None

    @property
    def order(self) -> tuple[str, bool] | None:
        """The column that decides and whether its largest value wins; None where any of the rows will do."""
        if self.keep is None:
            return None
        which, _, column = self.keep.partition(" by ")
        return column, which == "last"


class Reject(Section):
    """Rows for which the SQL predicate `when` is true are kept apart, `because` as the reason; NULL is not true."""

    when: Annotated[str, Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]


Share = Annotated[float, Field(gt=0, lt=1)]


class Split(Section):
    """Rows with equal values of `by` go to one split; without `by`, rows with an equal deduplication key do."""

    by: Columns | None = None
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15
    seed: int = 0

    @model_validator(mode="after")
    def _shares_add_up(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


class Label(Section):
    """What is predicted: a Spark SQL expression over the cleaned columns, boolean or 0 and 1."""

    expression: Annotated[str, Field(min_length=1)]
