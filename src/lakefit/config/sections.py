"""What every section of a pipeline file shares: frozen, strict, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section. Types are strict: "20" is no number and 1 is no boolean."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)
