"""`deduplicate`, `reject`, `require`, `split`, `label`: what happens to a row before anything is learned."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from lakefit.config.clean import Column, Columns
from lakefit.config.duration import seconds
from lakefit.config.sections import Section


class Deduplicate(Section):
    """Rows with equal keys are reduced to one; the others are kept apart, each with the identity of the row that stays.

    NULL equals NULL in a key, NaN equals NaN, -0.0 equals 0.0.

    key: the columns; all of them where it is not given. keep: `first by COLUMN` (its smallest value), `last by COLUMN`
    (its largest) or `most_complete` (the fewest NULLs); ties, and all rows where it is not given, go by the hash of the
    row's content. null_key: rows whose whole key is NULL are rejected, or kept each for itself.
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
    """Rows for which a predicate is true are kept apart, with the reason.

    when: a Spark SQL predicate over the cleaned columns. because: the reason, as the ledger counts it. null: what a
    predicate that is NULL (some value in it is) means for the row; in a file write `"null"`, for YAML takes the bare
    word for no value (Lakefit reads both).
    """

    when: Annotated[str, Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]
    null: Literal["keep", "reject"] = "keep"


class Require(Section):
    """The opposite of `reject`: rows for which a predicate is not true are kept apart, with the reason.

    that: a Spark SQL predicate over the cleaned columns. because: the reason, as the ledger counts it. null: what a
    predicate that is NULL (some value in it is) means for the row; in a file write `"null"`, for YAML takes the bare
    word for no value (Lakefit reads both).
    """

    that: Annotated[str, Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]
    null: Literal["keep", "reject"] = "reject"


Share = Annotated[float, Field(gt=0, lt=1)]
SPLITS = ("train", "validation", "test")


class TimeSplit(Section):
    """Rows before one cut train, rows from another one on test, those between validate.

    column: of dates, times or numbers. validation: the cut from which on rows validate: an ISO date or time (UTC where
    it names no zone), or a number. test: the cut from which on rows test. gap: rows this long before a cut are in no
    split but rejected, so that what overlaps in time leaks nothing: "7 days" for dates and times, a number for numbers.
    """

    column: Column
    validation: str | int | float
    test: str | int | float
    gap: str | int | float = 0

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _dates_are_text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, date) else value

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

    Where `time` or `column` says it, `by` only checks that no group is in two splits. At most one of `stratify`,
    `time`, `column` and `folds` is given.

    by: rows with equal values go to one split, NULL being a value like others: all its rows are one group; without it,
    rows with an equal deduplication key go to one split. stratify: the shares hold inside each combination of these
    columns' values (expected shares: the hash decides). Of a stratum of few rows a split may get none: it is listed
    with its rows in the manifest, the run says so, and nothing else comes of it. time: by cuts in the values of a
    column. column: one whose values are train, validation or test. folds: so many equal parts; one tests, the next one
    validates, the others train. fold: the number of the part that tests, from 0 on. train: the share that trains; the
    three shares add up to 1, and are refused where `time`, `column` or `folds` decides. validation: the share that
    validates. test: the share that tests. seed: another number draws the groups anew.
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
        if shares and not self.by_shares:
            raise ValueError(f"{shares[0]} is a share, and {kinds[0]} says already which rows go where")
        if self.fold >= (self.folds or 1):
            raise ValueError("fold counts from 0 and must be below folds" if self.folds else "fold needs folds")
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self

    @property
    def by_shares(self) -> bool:
        """True where train, validation and test are shares of the rows, false where something else decides."""
        return self.time is None and self.column is None and self.folds is None


def _class_name(value: Any) -> Any:
    """Return an integer or a boolean as Spark writes it."""
    return str(value).lower() if isinstance(value, int) else value


ClassName = Annotated[
    str,
    BeforeValidator(_class_name),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]}),
]


def weights_of(label: str) -> str:
    """Return what the column of a label's weights is called in the prepared rows."""
    return "weight" if label == "label" else f"{label}_weight"


class Label(Section):
    """What is predicted; one mapping, or a list of them, each with a name of its own.

    name: of the label's column in the prepared rows and of the model's output. expression: a Spark SQL expression over
    the cleaned columns. type: binary (a boolean, or 0 and 1), classes (text, integers or booleans), multi_label (lists
    of text: any number of classes) or regression (numbers). classes: the values of the classes, in the order of the
    model's outputs; without it, those of the training split, sorted. normalize: of a regression's label; undone in
    predictions. weight: a Spark SQL expression, how much a row counts (0 or more). class_weights: a number a class (of
    binary: 0 and 1, or false and true), or `balanced`: rows / (classes x rows of the class), of the training split;
    with `weight`, both are multiplied.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] = "label"
    expression: Annotated[str, Field(min_length=1)]
    type: Literal["binary", "classes", "multi_label", "regression"] = "binary"
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)] | None = None
    normalize: Literal["standard", "none"] = "none"
    weight: Annotated[str, Field(min_length=1)] | None = None
    class_weights: Literal["balanced"] | dict[ClassName, Annotated[float, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> "Label":
        if self.classes is not None and self.type not in ("classes", "multi_label"):
            raise ValueError("classes belong to type: classes or multi_label")
        if self.normalize != "none" and self.type != "regression":
            raise ValueError("normalize belongs to type: regression")
        if self.class_weights is not None and self.type not in ("binary", "classes"):
            raise ValueError(f"class_weights are of rows of one class each, which type: {self.type} has not")
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
    def weights(self) -> str:
        """The name of the column of weights, where there is one."""
        return weights_of(self.name)

    @property
    def weighted(self) -> bool:
        """True where the prepared rows have a column `weight`."""
        return self.weight is not None or self.class_weights is not None
