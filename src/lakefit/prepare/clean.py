"""`clean` and the predicates of `reject`, as Spark SQL expressions over one row."""

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, FloatType, StringType

from lakefit.config.rows import Clean, Label, Reject
from lakefit.config.sql import ROW, quoted

RULE = "_rule"
LABEL = "_label"
NOT_FINITE = "_not_finite"


def clean(frame: DataFrame, steps: Sequence[Clean]) -> DataFrame:
    """Return the cleaned columns, `_row`, and `_not_finite`: how many NaN and infinities of the row became NULL.

    After the user's steps, in every column: "", NaN and infinities are NULL, -0.0 is 0.0.
    """
    by_column: dict[str, list[Clean]] = {}
    for step in steps:
        by_column.setdefault(step.column.lower(), []).append(step)
    not_finite: Column = F.lit(0)
    cleaned: list[Column] = []
    for field in frame.schema.fields:
        if field.name == ROW:
            continue
        column = F.col(quoted(field.name))
        if isinstance(field.dataType, (DoubleType, FloatType)):
            finite = F.abs(column) < F.lit(float("inf"))  # Spark orders NaN above infinity.
            not_finite = not_finite + F.coalesce((~finite).cast("int"), F.lit(0))
        for step in by_column.get(field.name.lower(), ()):
            column = _apply(column, step)
        if isinstance(field.dataType, StringType):
            column = F.nullif(column, F.lit(""))
        elif isinstance(field.dataType, (DoubleType, FloatType)):
            # x + 0 turns -0.0 into 0.0 and leaves every other number as it is.
            column = F.when(F.abs(column) < F.lit(float("inf")), column + F.lit(0.0).cast(field.dataType))
        cleaned.append(column.alias(field.name))
    return frame.select(*cleaned, F.col(ROW), not_finite.alias(NOT_FINITE))


def judge(frame: DataFrame, rules: Sequence[Reject], label: Label | None) -> DataFrame:
    """Add `_rule`, the number of the first rule that rejects the row or NULL, and `_label` as a double."""
    rule: Column = F.lit(None).cast("int")
    for number, reject in reversed(list(enumerate(rules))):
        rule = F.when(F.expr(reject.when), F.lit(number)).otherwise(rule)
    value = F.expr(label.expression).cast("double") if label is not None else F.lit(None).cast("double")
    return frame.withColumns({RULE: rule, LABEL: value})


def _apply(column: Column, step: Clean) -> Column:
    for verb in step.text:
        if verb == "trim":
            # SQL's trim takes spaces only; people mean tabs and line ends too.
            column = F.regexp_replace(column, r"^\s+|\s+$", "")
        elif verb == "collapse":
            column = F.regexp_replace(column, r"\s+", " ")
        elif verb == "upper":
            column = F.upper(column)
        else:
            column = F.lower(column)
    if step.null_if:
        column = F.when(~column.isin(*step.null_if), column)
    return column
