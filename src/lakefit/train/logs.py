"""Keras's logs as numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def numbers(logs: Any) -> dict[str, float]:
    """Return losses and metrics as Python's floats; of one that is several numbers, each: `f1_score_0`, ..."""
    found: dict[str, float] = {}
    for name, value in logs.items() if isinstance(logs, Mapping) else ():
        array = np.asarray(value, np.float64).ravel()
        if array.size == 1:
            found[name] = float(array[0])
        else:
            found |= {f"{name}_{place}": float(one) for place, one in enumerate(array)}
    return found
