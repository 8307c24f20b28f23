"""`tune`: which keys of `train` are searched, in which ranges, by how many trials."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from lakefit.config.sections import Section, with_tuples

_KEY = re.compile(r"train(\.\w+)+")
_RANGE = re.compile(r"(log|uniform|int|log_int)\(([^,()]+),([^,()]+)\)")
_LESS = re.compile(
    r"(loss|error|crossentropy|divergence|hinge|mse|mae|mape|msle|rmse|poisson|logcosh|false_positives|false_negatives)$"
)
_MORE = re.compile(
    r"(auc|accuracy|precision|recall|specificity|sensitivity|similarity|r2_score|f1_score|fbeta_score|iou"
    r"|true_positives|true_negatives)$"
)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, both of them included; of a logarithmic one each order of magnitude is as likely."""

    low: int | float
    high: int | float
    log: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Choices:
    """Any of several values, which JSON can write."""

    values: tuple[Any, ...]


def parsed(text: Any) -> Range | Choices:
    """Return the range of `log(1e-5, 1e-2)`, `uniform(0, 0.5)`, `int(1, 8)`, `log_int(16, 1024)`, or the values of a
    list. Raises ValueError."""
    if isinstance(text, list | tuple):
        if not text:
            raise ValueError("an empty list: expected the values to choose from")
        if len({json.dumps(value, sort_keys=True) for value in text}) < len(text):
            raise ValueError("a value stands in the list twice")
        return Choices(tuple(text))
    found = _RANGE.fullmatch(text.replace(" ", "")) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            "expected log(1e-5, 1e-2), uniform(0, 0.5), int(1, 8), log_int(16, 1024), or a list of values: [256, 1024]"
        )
    kind, whole = found[1], found[1].endswith("int")
    try:
        low, high = (int(number) if whole else float(number) for number in found.groups()[1:])
    except ValueError:
        raise ValueError(f"{kind}: expected two {'whole numbers' if whole else 'numbers'}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"an empty range: {found[2]} is not less than {found[3]}")
    if kind.startswith("log") and low <= 0:
        raise ValueError(f"{kind}: its numbers are above 0")
    return Range(low, high, kind.startswith("log"), whole)


def greater_is_better(name: str) -> bool:
    """Say whether more of a metric of Keras's is better, by its name in the logs."""
    return _MORE.search(name.lower()) is not None


def _is_searchable(value: str | tuple[Any, ...]) -> str | tuple[Any, ...]:
    parsed(value)
    return value


Searched = Annotated[str | tuple[Any, ...], AfterValidator(_is_searchable)]


class Tune(Section):
    """Trials of other values for keys of `train`, each a training of its own over the one prepared dataset.

    trials: how many. parallel: so many at once, where cores and memory allow it: each is a task of Spark's. sampler:
    what the next one tries, `tpe` by what the others came to, `random`. pruner: which are ended early: `median`, those
    that are worse than half of the others were after as many epochs; `hyperband`, all but the best third, after 1, 3,
    9, … epochs; `none`. objective: a name in the logs of training, such as val_auc; of a trial it is that of the last
    epoch, or of the one whose weights EarlyStopping has restored. mode: what is better, where the name does not tell.
    search: by key of `train`, with the places of a list as numbers (train.model.sequential.0.Dense.units): a list of
    values, `log(1e-5, 1e-2)`, `uniform(0, 0.5)`, `int(1, 8)` or `log_int(16, 1024)`. seed: of the sampler.
    """

    trials: Annotated[int, Field(ge=1)]
    parallel: Annotated[int, Field(ge=1)] = 1
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    objective: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"
    search: Annotated[dict[str, Searched], BeforeValidator(with_tuples), Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @field_validator("search")
    @classmethod
    def _is_of_training(cls, search: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in search:
            if _KEY.fullmatch(key) is None:
                raise ValueError(f"{key}: expected a key of train, such as train.compile.optimizer.Adam.learning_rate")
            above = next((other for other in search if key.startswith(f"{other}.")), None)
            if above is not None:
                raise ValueError(f"{key} is a part of {above}, which is searched as well: leave one of them out")
        return search

    @model_validator(mode="after")
    def _knows_what_is_better(self) -> "Tune":
        if self.mode == "auto" and not (_LESS.search(self.objective.lower()) or greater_is_better(self.objective)):
            raise ValueError(
                f"objective: is more of {self.objective} better, or less? Say mode: max or min; of val_loss, val_auc, "
                "val_accuracy and the like it is known"
            )
        return self

    @property
    def maximize(self) -> bool:
        return self.mode == "max" or (self.mode == "auto" and greater_is_better(self.objective))

    @property
    def ends(self) -> dict[str, tuple[Any, ...]]:
        """Return the values of each key that say whether it can be set: all of a list, both ends of a range."""
        return {
            key: among.values if isinstance(among, Choices) else (among.low, among.high)
            for key, among in self.ranges.items()
        }

    @property
    def ranges(self) -> dict[str, Range | Choices]:
        return {key: parsed(text) for key, text in self.search.items()}
