"""`deduplicate`, `reject`, `require`, `split`, `label`: what happens to a row before anything is learned."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from lakefit.config.clean import Column, Columns
from lakefit.config.duration import seconds
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
SPLITS = ("train", "validation", "test")


class TimeSplit(Section):
    """Rows before `validation` train, rows from `test` on test; the cuts are ISO dates or times (UTC), or numbers.

    gap: rows this long before a cut are in no split but rejected, so that what overlaps in time leaks nothing: "7 days"
    for dates and times, a number for numbers.
    """

    column: Column
    validation: str | int | float
    test: str | int | float
    gap: str | int | float = 0

    @model_validator(mode="after")
    def _is_in_order(self) -> "TimeSplit":
        if isinstance(self.validation, str) != isinstance(self.test, str):
            raise ValueError("validation and test: expected two times or two numbers")
        low, high = (self.number(name) for name in ("validation", "test"))
        if low >= high:
            raise ValueError("the cut of validation must lie before that of test")
        if self.number("gap") < 0:
            raise ValueError(f"gap: expected 0 or more, not {self.gap}")
        if self.number("gap") >= high - low:
            raise ValueError("the gap must be shorter than the validation split")
        return self

    @property
    def numeric(self) -> bool:
        """True where the cuts are numbers, false where they are times."""
        return not isinstance(self.validation, str)

    def number(self, name: Literal["validation", "test", "gap"]) -> float:
        """Return a cut or the gap as a number: of the column's own, or microseconds (since 1970 for a cut)."""
        value = getattr(self, name)
        if self.numeric:
            if isinstance(value, str):
                raise ValueError(f"{name}: expected a number as for the cuts, not {value!r}")
            return float(value)
        if name == "gap":
            if value == 0:
                return 0.0
            try:
                return seconds(str(value)) * 1e6
            except ValueError as error:
                raise ValueError(f"gap: {error}") from None
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{name}: expected an ISO date or time such as 2013-10-01, not {value!r}") from None
        time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        return float((time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


class Split(Section):
    """Which rows train, validate and test: by the hash of their group, so that a row keeps its split as data grows.

    by: rows with equal values go to one split, NULL being a value like others: all its rows are one group; without
    `by`, rows with an equal deduplication key go to one split. stratify: the shares hold inside each combination of
    these columns' values (expected shares: the hash decides). Of a stratum of few rows a split may get none: it is
    listed with its rows in the manifest, the run says so, and nothing else comes of it. time: by cuts.
    column: a column that says train, validation or test. folds: of so many equal parts, number `fold` is the test
    split, the next one the validation split. With time and column, `by` only checks that no group is in two splits.
    """

    by: Columns | None = None
    stratify: Columns | None = None
    time: TimeSplit | None = None
    column: Column | None = None
    folds: Annotated[int, Field(ge=3)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15
    seed: int = 0

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Split":
        kinds = [name for name in ("stratify", "time", "column", "folds") if getattr(self, name) is not None]
        if len(kinds) > 1:
            raise ValueError(f"expected one of {' and '.join(kinds)}")
        if self.stratify and self.by:
            raise ValueError("stratify and by exclude each other: a group may lie in several strata")
        shares = sorted(self.model_fields_set & set(SPLITS))
        if kinds and kinds[0] != "stratify" and shares:
            raise ValueError(f"{shares[0]} is a share, and {kinds[0]} says already which rows go where")
        if self.fold >= (self.folds or 1):
            raise ValueError("fold counts from 0 and must be below folds" if self.folds else "fold needs folds")
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


def _class_name(value: Any) -> Any:
    """Return an integer or a boolean as Spark writes it."""
    return str(value).lower() if isinstance(value, int) else value


ClassName = Annotated[
    str,
    BeforeValidator(_class_name),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]}),
]


class Label(Section):
    """What is predicted: a Spark SQL expression over the cleaned columns.

    type: binary (a boolean, or 0 and 1), classes (text, integers or booleans; in the order of `classes`, else of the
    values in the training split) or regression (numbers). normalize: of a regression's label; undone in predictions.
    weight: a Spark SQL expression, how much a row counts (0 or more). class_weights: a number a class (of binary: 0 and
    1, or false and true), or `balanced`: rows / (classes x rows of the class), of the training split. Both are
    multiplied into the column `weight`.
    """

    expression: Annotated[str, Field(min_length=1)]
    type: Literal["binary", "classes", "regression"] = "binary"
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)] | None = None
    normalize: Literal["standard", "none"] = "none"
    weight: Annotated[str, Field(min_length=1)] | None = None
    class_weights: Literal["balanced"] | dict[ClassName, Annotated[float, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> "Label":
        if self.classes is not None and self.type != "classes":
            raise ValueError("classes belong to type: classes")
        if self.normalize != "none" and self.type != "regression":
            raise ValueError("normalize belongs to type: regression")
        if self.class_weights is not None and self.type == "regression":
            raise ValueError("a regression has no classes to weigh")
        twice = sorted({name for name in self.classes or () if (self.classes or ()).count(name) > 1})
        if twice:
            raise ValueError(f"classes: {twice[0]!r} stands twice")
        return self

    @model_validator(mode="after")
    def _weighs_both(self) -> "Label":
        if self.type == "binary" and isinstance(self.class_weights, dict) and self.binary_weights is None:
            given = ", ".join(self.class_weights)
            raise ValueError(f"class_weights of a binary label are of 0 and 1 (or false and true), not of {given}")
        return self

    @property
    def binary_weights(self) -> tuple[float, float] | None:
        """The weights of 0 and 1, which may be written false and true; None where they are not given."""
        given = self.class_weights if isinstance(self.class_weights, dict) else {}
        names = {"false": "0", "true": "1"}
        weights = {names.get(name.lower(), name): weight for name, weight in given.items()}
        return (weights["0"], weights["1"]) if set(weights) == {"0", "1"} and len(given) == 2 else None

    @property
    def weighted(self) -> bool:
        """True where the prepared rows have a column `weight`."""
        return self.weight is not None or self.class_weights is not None
