"""What does not look well is said in plain words, and what is hopeless ends the training."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from fitting import fit, section_of
from lakefit.dataset.manifest import read_manifest
from lakefit.errors import LakefitError
from lakefit.feed.split import SplitFeed
from lakefit.train.health import unhealthy
from lakefit.train.probe import Findings
from models import SIGMOID

WELL = Findings(gradient_norm=0.5, weight_norm=3.0, spread=0.2, dead=0.1)


def findings(**changes: Any) -> Findings:
    return Findings(**{"gradient_norm": 0.5, "weight_norm": 3.0, "spread": 0.2, "dead": 0.1, **changes})


@pytest.mark.parametrize(
    ("losses", "held_out", "found", "norms", "problem"),
    [
        ([0.7, 0.6], [0.7, 0.65], WELL, [0.6], None),
        ([0.7], [0.7], WELL, [], None),
        ([0.7, 0.6, 0.6], [0.7, 0.65, 0.65], WELL, [0.5, 0.5], "loss_stands"),
        ([0.7, 0.6], [0.7, 0.6], findings(spread=0.0), [0.5], "constant_predictions"),
        ([0.7, 0.6], [0.7, 0.6], findings(dead=0.6), [0.5], "dead_units"),
        ([0.7, 0.6], [0.7, 0.6], findings(dead=None), [0.5], None),
        ([0.7, 0.6], [0.7, 0.6], findings(gradient_norm=80.0), [0.5, 0.7, 0.4], "exploding_gradients"),
        ([0.7], [0.7], findings(gradient_norm=2e3), [], "exploding_gradients"),
        ([0.7, 0.6, 0.5, 0.4], [0.6, 0.61, 0.62, 0.63], WELL, [0.5], "overfitting"),
        ([0.7, 0.6, 0.5, 0.4], [0.6, 0.61, 0.60, 0.63], WELL, [0.5], None),
        ([0.7, 0.6, 0.5, 0.6], [0.6, 0.61, 0.62, 0.63], WELL, [0.5], None),
    ],
)
def test_what_does_not_look_well(
    losses: list[float], held_out: list[float], found: Findings, norms: list[float], problem: str | None
) -> None:
    assert list(unhealthy({"loss": losses, "val_loss": held_out}, found, norms)) == ([problem] if problem else [])


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_loss_that_is_not_a_number_ends_the_training_and_names_row_groups(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    sys.modules.pop("own_models", None)
    diverging = section_of(
        compile={"optimizer": {"SGD": {"learning_rate": 1e38}}, "steps_per_execution": at_once},
        callbacks=["own_models:Losses"],
        # So that a batch is of one row group or two.
        feed={"lanes": 1},
    )
    with pytest.raises(LakefitError) as error:
        fit(dataset, tmp_path, diverging)
    noted = sys.modules.pop("own_models").Losses.noted
    end = min(next(step for step, loss in noted if not math.isfinite(loss)), 11)
    first = (end - 1) // at_once * at_once
    batches = list(SplitFeed(dataset, read_manifest(dataset), "train", batch_size=32, lanes=1))[first:end]
    groups = sorted({position // 64 for batch in batches for position in batch["_position"].tolist()})
    assert len(groups) < 5, "the test means something"
    steps = f"step {end}" if at_once == 1 else f"steps {first + 1} to {end}"
    named = "; ".join(f"train/part-00000.parquet row group {group}" for group in groups)
    said = f"The loss is nan in epoch 1, {steps}, whose rows are from {named}: training has diverged. "
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"compile": {"optimizer": {"SGD": {"learning_rate": 0.0}}}}, "loss_stands"),
        (
            {"model": {"sequential": [{"Dense": {"units": 4, "activation": "relu", "bias_initializer": {
                "Constant": {"value": -100.0}}}}, SIGMOID]}},
            "dead_units",
        ),
    ],
)  # fmt: skip
def test_a_training_that_is_not_well_says_so_once(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], problem: str
) -> None:
    fit(dataset, tmp_path, section_of(**changes))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [event["problem"] for event in events if event["event"] == "health"]
    assert found.count(problem) == 1
