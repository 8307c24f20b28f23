"""The trials of a study as people read them."""

import math
from collections.abc import Sequence
from typing import Any

from lakefit.config.tune import Tune
from lakefit.tune.names import short_names
from lakefit.tune.study import Trial

_ORDER = {"complete": 0, "running": 1, "pruned": 2, "failed": 3}


def table(trials: Sequence[Trial], tune: Tune) -> list[tuple[str, ...]]:
    """Return the trials as rows below a head: the best first, then those that run, were pruned, and have failed."""
    sign = -1 if tune.maximize else 1

    def order(one: Trial) -> tuple[Any, ...]:
        value = sign * one.value if one.value is not None else math.inf
        return _ORDER[one.state], value if one.state == "complete" else 0, one.number

    rows = [("trial", tune.objective, "epochs", "s", *short_names(tune.search).values(), "")]
    for one in sorted(trials, key=order):
        value = "" if one.value is None else f"{one.value:.6g}"
        seconds = str(one.attributes.get("seconds", ""))
        shown = (_short(one.values.get(key, "")) for key in tune.search)
        note: str = "" if one.state == "complete" else one.state
        if one.state == "failed":
            note += f": {one.attributes.get('reason', '')}"
        if "same_as" in one.attributes:
            note += f" as trial {one.attributes['same_as']}"
        rows.append((str(one.number), value, str(one.epochs), seconds, *shown, note.strip()))
    return rows


def outcome(trial: Trial, tune: Tune) -> str:
    if "same_as" in trial.attributes:
        return f"has the values of trial {trial.attributes['same_as']}, and its result"
    if trial.state == "complete":
        return f"is done, with {tune.objective} {trial.value:.6g}"
    if trial.state == "pruned":
        return f"was pruned after {trial.epochs} epochs, with {tune.objective} {trial.value:.6g}"
    return f"has failed: {trial.attributes.get('reason')}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
