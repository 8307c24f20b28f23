"""A study in pictures."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import optuna
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator
from optuna.visualization import matplotlib as drawing

from lakefit.config.tune import Tune
from lakefit.tune.names import short_names
from lakefit.tune.ranges import smoothed


def draw(study: optuna.Study, tune: Tune, folder: Path) -> list[str]:
    """Draw what was reached after how many trials, what each key has to do with it, and the trials themselves; return
    the names of the files. What can't be told of so few trials is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = optuna.create_study(direction=study.direction)
    given = [one for one in study.get_trials() if one.params]
    if not any(one.state == optuna.trial.TrialState.COMPLETE for one in given):
        return []
    shown.add_trials([_renamed(one, short_names(tune.search)) for one in given])
    drawings: dict[str, Callable[..., Any]] = {
        "history": drawing.plot_optimization_history,
        "importance": drawing.plot_param_importances,
        "parallel": drawing.plot_parallel_coordinate,
        "slices": drawing.plot_slice,
    }
    names = []
    size = (max(9.0, 3.5 * len(tune.search)), 6.0)
    # Optuna calls its drawings experimental.
    with warnings.catch_warnings(action="ignore"), matplotlib.rc_context({"figure.figsize": size}):
        for name, function in drawings.items():
            try:
                function(shown, target_name=tune.objective)
                for axes in plt.gcf().axes:
                    _mend(axes, name)
                plt.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
            except (RuntimeError, ValueError):
                # Importance needs trials that differ, and more than one.
                continue
            finally:
                plt.close("all")
            names.append(f"{name}.png")
    return names


def _mend(axes: Any, name: str) -> None:
    """Make an axis of Optuna's readable: ticks of whole trials and of short logarithmic ranges, steps, pale lines."""
    if axes.get_xlabel() == "Trial":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif axes.get_xscale() == "log":
        axes.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1.5, 0.5)))
        axes.tick_params(axis="x", which="both", labelrotation=45)
    if name == "history":
        for line in axes.lines:
            line.set_drawstyle("steps-post")
    if name == "parallel":
        axes.set_facecolor("0.6")
        axes.grid(visible=False)


def _renamed(trial: optuna.trial.FrozenTrial, names: Mapping[str, str]) -> optuna.trial.FrozenTrial:
    found = copy.copy(trial)
    found.params = {names.get(key, key): value for key, value in trial.params.items()}
    found.distributions = {names.get(key, key): value for key, value in trial.distributions.items()}
    return found


def draw_rates(rates: Sequence[float], losses: Sequence[float], suggestion: float | None, file: Path) -> None:
    """Draw the loss of each step by its learning rate, and the suggestion, into a PNG file."""
    figure, axes = plt.subplots(figsize=(9.0, 5.0))
    means = smoothed(losses)
    axes.plot(rates, losses, color="0.8", label="a step")
    axes.plot(rates, means, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:red", linestyle=":", label=f"suggested: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Loss by learning rate, one step each")
    if means:
        # What grows without end at last would leave no room for the rest.
        axes.set_ylim(min(losses) - 0.05 * abs(min(losses)), max(means[: max(1, len(means) // 2)]) * 1.3)
    axes.legend()
    figure.savefig(file, dpi=100, bbox_inches="tight", format="png")
    plt.close(figure)
