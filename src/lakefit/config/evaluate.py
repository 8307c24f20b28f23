"""`evaluate`: what the model is compared with, and what it must reach to be taken into use."""

import operator
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

from lakefit.config.rows import Label
from lakefit.config.sections import Section

METRICS = {
    "binary": ("auc", "log_loss", "accuracy"),
    "classes": ("accuracy", "balanced_accuracy", "log_loss"),
    "multi_label": ("auc", "log_loss", "f1", "exact_match"),
    "regression": ("rmse", "mae", "r2"),
}
"""What is measured, by the type of the label; the first is what a model is known by."""
LOWER_IS_BETTER = ("log_loss", "rmse", "mae")
VS_CURRENT = "vs_current"
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_BOUND = re.compile(r"\s*(>=|<=|>|<)\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*")


def within(value: float, bound: str) -> bool:
    """Return whether a value keeps a bound such as ">= 0.7"; NaN keeps none. Raises ValueError where it is no bound."""
    found = _BOUND.fullmatch(bound)
    if found is None:
        raise ValueError(f'expected a bound such as ">= 0.7" or "< 12", not {bound!r}')
    return _HOLDS[found[1]](value, float(found[2]))


def _checked(bound: str) -> str:
    within(0.0, bound)
    return bound


Bound = Annotated[str, Field(json_schema_extra={"pattern": f"^{_BOUND.pattern}$"}), AfterValidator(_checked)]


class Evaluate(Section):
    """How the model is compared with baselines, and the quality gate.

    baseline_rows: gradient boosting sees so many rows of the training split at most. require: bounds on metrics of the
    test split, by name; a model that does not keep them all is not taken into use, and the run ends with exit code 6.
    `vs_current` is how much better the model is than the one in use, in the first metric named here (else the label's
    first), on the rows that are in both test splits. See docs/unattended.md.
    """

    baseline_rows: Annotated[int, Field(ge=1)] = 500_000
    require: dict[str, Bound] = Field(default_factory=dict)


def metric_names(labels: tuple[Label, ...]) -> tuple[str, ...]:
    """Return the names of what is measured: of several labels, each with its label's name before it."""
    prefixes = [f"{label.name}_" if len(labels) > 1 else "" for label in labels]
    return tuple(
        f"{prefix}{name}" for prefix, label in zip(prefixes, labels, strict=True) for name in METRICS[label.type]
    )


def compared_metric(evaluate: Evaluate, labels: tuple[Label, ...]) -> str:
    """Return the metric that `vs_current` is about."""
    return next((name for name in evaluate.require if name != VS_CURRENT), metric_names(labels)[0])
