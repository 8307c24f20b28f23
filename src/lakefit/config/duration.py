"""Lengths of time as people write them."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_LENGTH = re.compile(r"(\d+(?:\.\d+)?) (second|minute|hour|day|week)s?")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}


def seconds(text: str) -> float:
    """Return the seconds of "7 days" or "12 hours". Raises ValueError."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise ValueError(f'expected a length such as "7 days" or "12 hours", not {text!r}')
    return float(found[1]) * _SECONDS[found[2]]


def _checked(text: str) -> str:
    seconds(text)
    return text


Duration = Annotated[str, Field(json_schema_extra={"pattern": f"^{_LENGTH.pattern}$"}), AfterValidator(_checked)]
