"""`deduplicate`, `reject`, `require`, `split`, `label`: what happens to a row before anything is learned."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lakefit.config.clean import Columns
from lakefit.config.sections import Section


class Deduplicate(Section):
    """Rows with equal `key` (all columns where it is not given) are reduced to the one that `keep` names.

    NULL equals NULL in a key; ties go by the hash of the row's content. null_key: rows whose whole key is NULL are
    rejected, or kept each for itself.
    """

    key: Columns | None = None
    keep: Annotated[str, Field(pattern=r"^((first|last) by .+|most_complete)$")] | None = None
    null_key: Literal["reject", "keep"] = "reject"

    @property
    def order(self) -> tuple[str, bool] | None:
        """The column that decides and whether its largest value wins; None where no column does."""
        if self.keep is None or self.most_complete:
            return None
        which, _, column = self.keep.partition(" by ")
        return column, which == "last"

    @property
    def most_complete(self) -> bool:
        """True where the row with the fewest NULLs is kept."""
        return self.keep == "most_complete"


class Reject(Section):
    """Rows for which the Spark SQL predicate `when` is true are kept apart, `because` as the reason.

    null: what a predicate that is NULL (some value in it is) means for the row.
    """

    when: Annotated[str, Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]
    null: Literal["keep", "reject"] = "keep"


class Require(Section):
    """The opposite of `reject`: rows for which the Spark SQL predicate `that` is not true are kept apart."""

    that: Annotated[str, Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]
    null: Literal["keep", "reject"] = "reject"


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
