"""The learning rate that is suggested is the one at which the loss falls fastest before it is lost."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lakefit.tune.ranges import HIGHEST, LOWEST, STEPS, _rates, smoothed, suggested

RATES = [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]


@pytest.mark.parametrize("fastest", [1e-4, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_rate_of_the_steepest_fall_is_suggested(fastest: float, noise: float) -> None:
    generator = np.random.default_rng(5)
    falls = [1 / (1 + math.exp(3 * math.log10(rate / fastest))) for rate in RATES]
    lost = [max(0.0, 5 * math.log10(rate / 0.5)) for rate in RATES]
    losses = [one + other + generator.normal(0, noise) for one, other in zip(falls, lost, strict=True)]
    found = suggested(RATES, losses)
    assert found is not None
    assert abs(math.log10(found / fastest)) < 0.5


def test_of_a_loss_that_does_not_fall_none_is() -> None:
    assert suggested(RATES, [1.0 + step / STEPS for step in range(STEPS)]) is None
    assert suggested(RATES[:5], [1.0] * 5) is None


def test_the_mean_is_of_the_losses_about_each() -> None:
    assert smoothed([1.0] * 50) == [1.0] * 50
    line = [float(step) for step in range(50)]
    assert smoothed(line)[25] == 25.0


@pytest.mark.parametrize(("losses", "kept"), [([1.0, 0.5, math.nan, 0.4], 2), ([1.0, 0.5, math.inf], 2)])
def test_the_range_ends_where_the_loss_is_no_number(losses: list[float], kept: int) -> None:
    given = iter(losses)
    model: Any = SimpleNamespace(
        optimizer=SimpleNamespace(learning_rate=0.0),
        reset_metrics=lambda: None,
        train_on_batch=lambda *_, **__: {"loss": next(given)},
    )
    found = _rates(model, itertools.repeat((0, 0)))
    assert found["losses"] == losses[:kept]
    assert len(found["rates"]) == kept
