"""`features`: from a cleaned row to numbers. All that is learned is learned here, from the training split alone."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lakefit.config.clean import Columns
from lakefit.config.sections import Section


class Numeric(Section):
    """Numbers as float32. `fill` replaces nulls; `indicator` adds a 0/1 column that says where; then `normalize`."""

    columns: Columns
    fill: Literal["median", "mean"] | float = "median"
    indicator: bool = False
    normalize: Literal["standard", "min_max", "none"] = "standard"


class Categorical(Section):
    """Categories as int32: 0 missing, 1 unknown or rarer than `min_count`, then by falling count, then by value."""

    columns: Columns
    min_count: Annotated[int, Field(ge=1)] = 1


class Features(Section):
    """The model's inputs, in the order in which they are written."""

    numeric: Numeric | None = None
    categorical: Categorical | None = None

    @model_validator(mode="after")
    def _has_columns_once(self) -> "Features":
        seen: set[str] = set()
        for column in self.columns:
            if column in seen:
                raise ValueError(f"the column {column!r} is listed twice")
            seen.add(column)
        with_indicator = self.numeric.columns if self.numeric and self.numeric.indicator else ()
        for column in (f"{name}_missing" for name in with_indicator):
            if column in seen:
                raise ValueError(f"the column {column!r} has the name of an indicator; give it an alias in the query")
        if not seen:
            raise ValueError("expected numeric or categorical columns")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """All input columns, numeric first."""
        return (self.numeric.columns if self.numeric else ()) + (self.categorical.columns if self.categorical else ())
